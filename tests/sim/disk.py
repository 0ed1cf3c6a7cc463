"""A disk that is played: committed rows and durable pictures outlive a crash, all else may not.

Rows are the bytes of the real records. A batch is committed whole or not at all. A picture is written beside
its place, renamed, and its folder synced: until then a crash may lose it, or leave it without its row.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from common.messages import Picture, Token
from router.journal import Journal, Storage, Stored
from router.records import (
    AnyRecord,
    JobDone,
    JobForgotten,
    JobRecord,
    KeyForgotten,
    KeyTaken,
    ModelForgotten,
    ModelKnown,
    Record,
)
from tests.sim.network import Clock
from tests.sim.promises import Promises
from tests.sim.trace import Trace

WRITE_S = (0.0002, 0.02)  # a picture beside its place
SYNC_S = (0.0002, 0.01)  # its folder
encode_row = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(AnyRecord)


class Host(Protocol):
    """The process that writes."""

    def point(self, name: str) -> None:
        """It may end here, by an exception."""

    def later(self, seconds: float, name: str, call: Callable[[], None]) -> None:
        """Call in a while, if it still lives; it may end there too."""

    def wake(self) -> None:
        """There is something to read."""


class Disk:
    """What outlives the router."""

    def __init__(self, clock: Clock, trace: Trace, promises: Promises) -> None:
        self.clock, self.trace, self.promises = clock, trace, promises
        self.full = False
        self.models: dict[str, bytes] = {}
        self.jobs: dict[str, list[bytes]] = {}
        self.keys: dict[tuple[str, str], bytes] = {}
        self.pictures: dict[str, bytes] = {}
        self.renamed: dict[str, bytes] = {}  # their folder is not yet synced

    def open(self, host: Host) -> Journal:
        """After a start; what a crash left half done is decided now, and swept."""
        for job_id, data in self.renamed.items():
            if self.clock.chance(0.5):
                self.pictures[job_id] = data
        self.renamed = {}
        done = {record.job_id for record in self.records() if isinstance(record, JobDone)}
        assert done <= self.pictures.keys(), f"a done job's picture is lost: {sorted(done - self.pictures.keys())}"
        for job_id in [job_id for job_id in self.pictures if job_id not in done]:
            del self.pictures[job_id]
        return PlayedJournal(self, host)

    def died(self) -> None:
        """The process that had it open is gone."""

    def close(self) -> None:
        """The run is over."""

    def records(self) -> list[Record]:
        """Everything committed: models, jobs in the order of their acceptance, keys."""
        rows = [*self.models.values(), *(row for rows in self.jobs.values() for row in rows), *self.keys.values()]
        return [_decoder.decode(row) for row in rows]

    def commit(self, rows: list[bytes]) -> None:
        """All of them."""
        self.promises.commits += 1
        for row in rows:
            record: Record = _decoder.decode(row)
            self.trace.note("record", type(record).__name__, row)
            self.promises.committed(record)
            match record:
                case JobForgotten():
                    del self.jobs[record.job_id]
                case JobRecord():
                    self.jobs.setdefault(record.job_id, []).append(row)
                case ModelKnown():
                    self.models[record.card.name] = row
                case ModelForgotten():
                    del self.models[record.name]
                case KeyTaken():
                    self.keys[record.owner, record.key] = row
                case KeyForgotten():
                    del self.keys[record.owner, record.key]


class PlayedJournal:
    """See journal.Journal."""

    durable = True

    def __init__(self, disk: Disk, host: Host) -> None:
        self._disk, self._host = disk, host
        self._batch: list[bytes] = []
        self._drops: list[str] = []
        self._stored: list[Stored] = []

    def replay(self) -> Sequence[Record]:
        return self._disk.records()

    def append(self, record: Record) -> None:
        self._batch.append(encode_row(record))

    def commit(self) -> None:
        host, disk = self._host, self._disk
        host.point("before commit")
        if self._batch:
            batch, self._batch = self._batch, []
            host.point("in commit, lost")
            disk.commit(batch)
            host.point("in commit, kept")
        for job_id in self._drops:
            host.point("before drop")
            disk.pictures.pop(job_id, None)
            disk.renamed.pop(job_id, None)
        self._drops.clear()
        host.point("after commit")

    def store(self, token: Token, picture: Picture, payload: Sequence[Any]) -> None:
        data = b"".join(frame.bytes for frame in payload)
        if hashlib.sha256(data).hexdigest() != picture.sha256:
            self._tell(Stored(token, "the picture's bytes do not match its sha256"))
        elif self._disk.full:
            self._tell(Stored(token, deferred=True))
        else:
            seconds = self._disk.clock.between(WRITE_S)
            self._host.later(seconds, "before rename", lambda: self._rename(token, data))

    def _rename(self, token: Token, data: bytes) -> None:
        if self._disk.full:
            self._tell(Stored(token, deferred=True))
            return
        self._disk.renamed[token.job_id] = data
        seconds = self._disk.clock.between(SYNC_S)
        self._host.later(seconds, "after rename", lambda: self._sync(token, data))

    def _sync(self, token: Token, data: bytes) -> None:
        self._disk.renamed.pop(token.job_id, None)
        self._disk.pictures[token.job_id] = data
        self._tell(Stored(token))

    def _tell(self, stored: Stored) -> None:
        self._stored.append(stored)
        self._host.wake()

    def stored(self) -> list[Stored]:
        found, self._stored = self._stored, []
        return found

    def storage(self) -> Storage:
        return Storage(full=self._disk.full, detail="the disk is full" if self._disk.full else "")

    def fileno(self) -> int:
        raise AssertionError("a played journal is not polled: it wakes its host")

    def fetch(self, job_id: str) -> Sequence[Any] | None:
        data = self._disk.pictures.get(job_id)
        return None if data is None else [data]

    def drop(self, job_id: str) -> None:
        """Once that is committed."""
        self._drops.append(job_id)

    def close(self) -> None:
        pass
