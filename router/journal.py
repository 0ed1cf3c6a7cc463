"""What keeps the router's word: records of what it promised, and the pictures until they are fetched.

A batch of records is appended and committed once; only then is anything said that depends on it. Pictures, those
drawn and those that jobs start from, are checked and kept beside the loop's thread; that each is kept becomes an
event. How and where is the business of a backend: sqlite_journal keeps it on disk, memory_journal in memory.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import zmq

from common.codec import divide
from common.errors import GenServeError
from common.messages import InputPicture, Picture, Token
from common.picture_files import look
from router.records import Record

INPUTS = 0  # the dispatch number, which no dispatch has, of what a job starts from

Contents: TypeAlias = Picture | Sequence[InputPicture]


class JournalError(OSError):
    """What was promised can no longer be written down: the router ends, and nothing of the batch is sent."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One `store` has ended; with a `refusal` nothing is kept. `deferred`: there was no room for it.

    The token of one `store_inputs` has INPUTS for its dispatch.
    """

    token: Token
    refusal: str = ""
    deferred: bool = False


@dataclass(frozen=True, slots=True)
class Storage:
    """Is there room for new jobs? `detail` says how much, for people."""

    full: bool
    detail: str = ""


class Journal(Protocol):
    """A backend. Its methods are called by the loop's thread only.

    `durable`: what it keeps outlives the process.
    """

    durable: bool

    def replay(self) -> Sequence[Record]:
        """Everything committed, so ordered that each job's records stand as they happened."""

    def append(self, record: Record) -> None:
        """Add to the batch."""

    def commit(self) -> None:
        """The batch is kept for good when this returns. Raises JournalError where it cannot be."""

    def store(self, token: Token, picture: Picture, payload: Sequence[zmq.Frame]) -> None:
        """Check that `payload` is `picture` and keep it as its job's; `stored` tells when that has happened."""

    def stored(self) -> list[Stored]:
        """What has been stored or refused since the last call. Raises JournalError where the disk fails."""

    def storage(self) -> Storage:
        """Asked once a tick: is there room for new jobs?"""

    def fileno(self) -> int:
        """A descriptor that polls readable while `stored` has something to tell."""

    def fetch(self, job_id: str) -> Sequence[zmq.Frame] | None:
        """The picture of a job, as it was stored; None where there is none.

        Raises GenServeError, made for the client, where there is one that cannot be given as it was stored.
        """

    def drop(self, job_id: str) -> None:
        """Forget this job's picture, if there is one."""

    def store_inputs(self, job_id: str, inputs: Sequence[InputPicture], payload: Sequence[zmq.Frame]) -> None:
        """Check that `payload` is `inputs` and keep them under this id; `stored` tells when that has happened."""

    def fetch_inputs(self, job_id: str) -> Sequence[Any]:
        """The inputs kept under this id, in frames as `common.codec.input_parts` cuts them.

        Raises GenServeError, made for the client, where they cannot be given as they were stored.
        """

    def drop_inputs(self, job_id: str) -> None:
        """Forget the inputs kept under this id, if there are any."""

    def close(self) -> None:
        """Nothing is asked any more."""


def inputs_token(job_id: str) -> Token:
    """What stands for the inputs kept under this id, among the tokens of pictures."""
    return Token(job_id=job_id, dispatch=INPUTS)


def fault_of(contents: Contents, payload: Sequence[zmq.Frame]) -> str:
    """What is wrong with the bytes of a picture, or of inputs; '' for nothing."""
    if isinstance(contents, Picture):
        return picture_fault(contents, payload)
    files = divide(payload, [each.bytes for each in contents])  # that they fit was seen before
    faults = (
        f"inputs[{index}]: {fault}" for index, it in enumerate(contents) if (fault := _input_fault(it, files[index]))
    )
    return next(faults, "")


def _input_fault(told: InputPicture, payload: Sequence[zmq.Frame]) -> str:
    data = b"".join(part.buffer for part in payload)
    if hashlib.sha256(data).hexdigest() != told.sha256:
        return "its bytes do not match its sha256"
    try:
        facts = look(data)
    except GenServeError as error:
        return error.message
    found = (facts.format, facts.width, facts.height)
    if found != (told.format, told.width, told.height):
        shown = "a {} of {}x{} pixels"
        return f"it is {shown.format(*found)}, not {shown.format(told.format, told.width, told.height)}"
    return ""


def picture_fault(picture: Picture, payload: Sequence[zmq.Frame]) -> str:
    """What is wrong with the bytes of a picture; '' for nothing."""
    size = sum(len(part) for part in payload)
    if size != picture.bytes or size == 0:
        return f"the picture has {size} bytes where {picture.bytes} were announced"
    digest = hashlib.sha256()
    for part in payload:
        digest.update(part.buffer)
    return "" if digest.hexdigest() == picture.sha256 else "the picture's bytes do not match its sha256"
