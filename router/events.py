"""What can happen to a router: the whole input of its pure rooms.

Pure: plain values. Each event carries the wall time at which it was seen; whatever is random (ids, seeds)
was drawn before and comes inside.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from common.messages import Message, Requeue, Submit, Token
from common.roles import LOCAL, Identity, Side
from router.records import Record

Peer: TypeAlias = bytes  # the routing id that a ROUTER socket gives to a connection
NOBODY: Peer = b""  # a connection that has ended


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened. `wall`: seconds since 1970."""

    wall: float


class Said(Event, frozen=True, kw_only=True):
    """A peer said something. `who`: whose key its connection was made with."""

    peer: Peer
    who: Identity = LOCAL


class Replayed(Event, frozen=True, kw_only=True):
    """The journal of the router that ran before, oldest record first. Sent once, before all else."""

    records: Sequence[Record]


class Submitted(Said, frozen=True, kw_only=True):
    """A client asks for a picture. Should the job be new, `job_id` is its id and `seed` its seed.

    `payload`: the frames of what it starts from, passed through untouched.
    """

    message: Submit | Requeue
    job_id: str
    seed: int
    payload: Sequence[Any] = ()


class ClientSaid(Said, frozen=True, kw_only=True):
    """Any other message of a client."""

    message: Message


class WorkerSaid(Said, frozen=True, kw_only=True):
    """A message of a GPU daemon; `payload` is a picture's or a preview's frames, passed through untouched."""

    message: Message
    payload: Sequence[Any] = ()


class Unreadable(Said, frozen=True, kw_only=True):
    """Frames that are no message. `rid` is '' where it could not be read; `answered`: an ERROR never is."""

    side: Side
    rid: str
    reason: str
    answered: bool = True


class SendFailed(Event, frozen=True, kw_only=True):
    """The message called `name` could not be sent: `gone`, the peer is no more; else its queue is full."""

    side: Side
    peer: Peer
    name: bytes
    gone: bool


class PeerGone(Event, frozen=True, kw_only=True):
    """This connection has ended, and nothing that it said is still to be read. Told of connections with a key."""

    side: Side
    peer: Peer


class KeyRevoked(Event, frozen=True, kw_only=True):
    """The key of this name lets nobody in any more; its connections are being cut."""

    name: str


class ResultStored(Event, frozen=True, kw_only=True):
    """The journal holds this picture for good or, with a `refusal`, will not take it.

    `deferred`: there is no room for it just now; its daemon keeps it and will send it again.
    """

    token: Token
    refusal: str = ""
    deferred: bool = False


class InputsStored(Event, frozen=True, kw_only=True):
    """The inputs of a job that is not yet accepted are kept for good; or not: a `refusal`, or no room (`deferred`)."""

    job_id: str
    refusal: str = ""
    deferred: bool = False


class InputsLost(Event, frozen=True, kw_only=True):
    """A DISPATCH could not be sent: what its job starts from is no longer as it was kept."""

    peer: Peer
    token: Token
    message: str


class StorageChanged(Event, frozen=True, kw_only=True):
    """There is no room for new jobs any more (`full`), or there is again; or there is none, for another reason."""

    full: bool
    detail: str = ""


class Tick(Event, frozen=True, kw_only=True):
    """Time went by."""


class DrainAsked(Event, frozen=True, kw_only=True):
    """The operator wants the router to stop.

    `patient`: its GPU daemons and clients are stopping as well, so what runs should end and be told first.
    """

    patient: bool = False
