"""What keeps the router's word: records of what it promised, and the pictures until they are fetched.

A batch of records is appended and committed once; only then is anything said that depends on it. Pictures
are checked and kept beside the loop's thread; that each is kept becomes an event. How and where is the
business of a backend: sqlite_journal keeps it on disk, memory_journal in memory.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import zmq

from common.messages import Picture, Token
from router.records import Record


class JournalError(OSError):
    """What was promised can no longer be written down: the router ends, and nothing of the batch is sent."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One `store` has ended; with a `refusal` nothing is kept. `deferred`: there was no room for it."""

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

    def close(self) -> None:
        """Nothing is asked any more."""


def picture_fault(picture: Picture, payload: Sequence[zmq.Frame]) -> str:
    """What is wrong with the bytes of a picture; '' for nothing."""
    size = sum(len(part) for part in payload)
    if size != picture.bytes or size == 0:
        return f"the picture has {size} bytes where {picture.bytes} were announced"
    digest = hashlib.sha256()
    for part in payload:
        digest.update(part.buffer)
    return "" if digest.hexdigest() == picture.sha256 else "the picture's bytes do not match its sha256"
