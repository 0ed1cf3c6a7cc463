"""A disk that is played: committed rows and durable pictures outlive a crash, all else may not.

Rows are the bytes of the real records. A batch is committed whole or not at all. A picture is written beside
its place, renamed, and its folder synced: until then a crash may lose it, or leave it without its row.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from common.codec import cut, input_parts
from common.messages import InputPicture, Picture, Token
from router.journal import Journal, Storage, Stored, fault_of, inputs_token
from router.records import (
    AnyRecord,
    JobAccepted,
    JobCancelled,
    JobDone,
    JobFailed,
    JobForgotten,
    JobRecord,
    JobRevived,
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
        self.pictures: dict[str, bytes] = {}  # by their job; what a job starts from, by its id and ".0"
        self.sizes: dict[str, tuple[int, ...]] = {}  # of the files that a job starts from
        self.renamed: dict[str, bytes] = {}  # their folder is not yet synced

    def open(self, host: Host) -> Journal:
        """After a start; what a crash left half done is decided now, and swept."""
        for job_id, data in self.renamed.items():
            if self.clock.chance(0.5):
                self.pictures[job_id] = data
        self.renamed = {}
        records = self.records()
        wanted = {record.job_id for record in records if isinstance(record, JobDone)}
        assert wanted <= self.pictures.keys(), f"a done job's picture is lost: {wanted - self.pictures.keys()}"
        sources = {f"{source}.0" for source in wanted_inputs(records)}
        assert sources <= self.pictures.keys(), f"what a job starts from is lost: {sources - self.pictures.keys()}"
        for name in [name for name in self.pictures if name not in wanted | sources]:
            del self.pictures[name]
        return PlayedJournal(self, host)

    def inputs(self) -> set[str]:
        """The ids under which something is kept that a job starts from."""
        return {name.removesuffix(".0") for name in self.pictures if name.endswith(".0")}

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
            if isinstance(record, JobAccepted) and record.inputs_of:
                assert record.inputs_of in self.inputs(), f"accepted before its inputs are kept: {record}"
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


def wanted_inputs(records: Sequence[Record]) -> set[str]:
    """The ids under which what is still needed is kept: by jobs that have not ended, and by dead letters."""
    sources: dict[str, str] = {}
    for record in records:
        if isinstance(record, JobAccepted) and record.inputs_of:
            sources[record.job_id] = record.inputs_of
        ended = isinstance(record, JobDone | JobCancelled | JobRevived)
        if ended or (isinstance(record, JobFailed) and record.error.code != "poison"):
            sources.pop(record.job_id, None)
    return set(sources.values())


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
        fault = "" if hashlib.sha256(data).hexdigest() == picture.sha256 else "the bytes do not match the sha256"
        self._store(token, token.job_id, data, fault)

    def store_inputs(self, job_id: str, inputs: Sequence[InputPicture], payload: Sequence[Any]) -> None:
        self._disk.sizes[job_id] = tuple(each.bytes for each in inputs)
        data = b"".join(frame.bytes for frame in payload)
        self._store(inputs_token(job_id), f"{job_id}.0", data, fault_of(inputs, payload))

    def _store(self, token: Token, name: str, data: bytes, fault: str) -> None:
        if fault:
            self._tell(Stored(token, fault))
        elif self._disk.full:
            self._tell(Stored(token, deferred=True))
        else:
            seconds = self._disk.clock.between(WRITE_S)
            self._host.later(seconds, "before rename", lambda: self._rename(token, name, data))

    def _rename(self, token: Token, name: str, data: bytes) -> None:
        if self._disk.full:
            self._tell(Stored(token, deferred=True))
            return
        self._disk.renamed[name] = data
        seconds = self._disk.clock.between(SYNC_S)
        self._host.later(seconds, "after rename", lambda: self._sync(token, name, data))

    def _sync(self, token: Token, name: str, data: bytes) -> None:
        self._disk.renamed.pop(name, None)
        self._disk.pictures[name] = data
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

    def fetch_inputs(self, job_id: str) -> Sequence[Any]:
        return cut(memoryview(self._disk.pictures[f"{job_id}.0"]), input_parts(self._disk.sizes[job_id]))

    def drop_inputs(self, job_id: str) -> None:
        self._drops.append(f"{job_id}.0")

    def close(self) -> None:
        pass
