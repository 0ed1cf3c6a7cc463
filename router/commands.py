"""What the router's pure rooms ask of its loop: the whole of their output.

Pure: plain values. The loop first carries out what concerns the journal, commits it once, and then sends.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from common.messages import InputPicture, Message, Picture, Token
from router.jobs import Job
from router.records import Record


class Command(Struct, frozen=True):
    """Something to do."""


class ToClient(Command, frozen=True):
    """Send `message` to a client; its payload is the stored picture of the job `picture_of`, or `payload`, if any."""

    peer: bytes
    message: Message
    picture_of: str = ""
    payload: Sequence[Any] = ()


class ToWorker(Command, frozen=True):
    """Send `message` to a GPU daemon; its payload are the inputs that are kept as those of `inputs_of`, if any.

    The loop reads them at once into `payload`: a later command of the same batch may drop them.
    """

    peer: bytes
    message: Message
    inputs_of: str = ""
    payload: Sequence[Any] = ()


class Append(Command, frozen=True):
    """Write this down before anything of the same batch is sent."""

    record: Record


class StoreResult(Command, frozen=True):
    """Check and keep a picture; ResultStored answers."""

    token: Token
    picture: Picture
    payload: Sequence[Any]


class StoreInputs(Command, frozen=True):
    """Check and keep the pictures that a job will start from, under its id; InputsStored answers."""

    job_id: str
    inputs: Sequence[InputPicture]
    payload: Sequence[Any]


class DropInputs(Command, frozen=True):
    """Forget the inputs that are kept under this id, if there are any."""

    job_id: str


class DropResult(Command, frozen=True):
    """Forget the picture of this job."""

    job_id: str


class Log(Command, frozen=True):
    """Write a line."""

    level: str  # debug | info | warning | error
    event: str
    fields: Mapping[str, Any]


class Trace(Command, frozen=True):
    """Tell whoever collects traces of this job, which has ended: nothing changes in it any more."""

    job: Job


class Stop(Command, frozen=True):
    """End the process: drained, or out of time."""
