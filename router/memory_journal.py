"""The journal in memory: it outlives a broker, but not the process.

Bounded by what the broker forgets (`result_ttl_s`, `results_mb_max`, `ended_jobs_max`, `key_ttl_s`): records
and pictures of forgotten jobs are dropped.
"""

import hashlib
import socket
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

import zmq

from common.messages import Picture, Token
from router.journal import Storage, Stored
from router.records import JobForgotten, JobRecord, KeyForgotten, KeyTaken, ModelForgotten, ModelKnown, Record

CHECK_AT_ONCE_BYTES_MAX = 32 * 1024  # a smaller picture is checked faster than a thread is woken

_Work = tuple[Token, Picture, Sequence[zmq.Frame]]


class MemoryJournal:
    """See journal.Journal."""

    durable = False

    def __init__(self) -> None:
        self._batch: list[Record] = []
        self._jobs: dict[str, list[JobRecord]] = {}
        self._models: dict[str, ModelKnown] = {}
        self._keys: dict[tuple[str, str], KeyTaken] = {}
        self._pictures: dict[str, Sequence[zmq.Frame]] = {}
        self._at_once: list[Stored] = []
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._checked: SimpleQueue[tuple[Stored, Sequence[zmq.Frame]]] = SimpleQueue()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._owed_bytes = 0  # by the thread: one for each picture, written after it is checked
        self._thread = Thread(target=self._check_all, name="results", daemon=True)
        self._thread.start()

    # --- records -------------------------------------------------------------------------------

    def replay(self) -> Sequence[Record]:
        """Models, jobs in the order of their acceptance, keys."""
        jobs = [record for records in self._jobs.values() for record in records]
        return [*self._models.values(), *jobs, *self._keys.values()]

    def append(self, record: Record) -> None:
        """Add to the batch."""
        self._batch.append(record)

    def commit(self) -> None:
        """Keep the batch."""
        for record in self._batch:
            match record:
                case JobForgotten():
                    del self._jobs[record.job_id]
                case JobRecord():
                    self._jobs.setdefault(record.job_id, []).append(record)
                case ModelKnown():
                    self._models[record.card.name] = record
                case ModelForgotten():
                    del self._models[record.name]
                case KeyTaken():
                    self._keys[record.owner, record.key] = record
                case KeyForgotten():
                    del self._keys[record.owner, record.key]
                case _:
                    raise TypeError(f"unknown record {record!r}")
        self._batch.clear()

    # --- pictures ------------------------------------------------------------------------------

    def store(self, token: Token, picture: Picture, payload: Sequence[zmq.Frame]) -> None:
        """Check, at once or in the thread, and keep."""
        if sum(len(part) for part in payload) > CHECK_AT_ONCE_BYTES_MAX:
            self._owed_bytes += 1
            self._work.put((token, picture, payload))
        else:
            self._at_once.append(self._keep(Stored(token, _fault(picture, payload)), payload))

    def stored(self) -> list[Stored]:
        """What has been checked."""
        found, self._at_once = self._at_once, []
        if self._owed_bytes:
            with suppress(BlockingIOError):
                self._owed_bytes -= len(self._wake_out.recv(4096))
            while not self._checked.empty():
                found.append(self._keep(*self._checked.get()))
        return found

    def storage(self) -> Storage:
        """Memory has its own bounds."""
        return Storage(full=False)

    def fileno(self) -> int:
        """Readable while the thread has checked something."""
        return self._wake_out.fileno()

    def fetch(self, job_id: str) -> Sequence[zmq.Frame] | None:
        """The frames as they came."""
        return self._pictures.get(job_id)

    def drop(self, job_id: str) -> None:
        """Forget."""
        self._pictures.pop(job_id, None)

    def close(self) -> None:
        """End the thread."""
        self._work.put(None)
        self._thread.join()
        self._wake_in.close()
        self._wake_out.close()

    def _keep(self, stored: Stored, payload: Sequence[zmq.Frame]) -> Stored:
        if not stored.refusal:
            self._pictures[stored.token.job_id] = payload
        return stored

    def _check_all(self) -> None:
        while (work := self._work.get()) is not None:
            token, picture, payload = work
            self._checked.put((Stored(token, _fault(picture, payload)), payload))
            self._wake_in.send(b"\x00")


def _fault(picture: Picture, payload: Sequence[zmq.Frame]) -> str:
    """What is wrong with the bytes of a picture; '' for nothing."""
    size = sum(len(part) for part in payload)
    if size != picture.bytes or size == 0:
        return f"the picture has {size} bytes where {picture.bytes} were announced"
    digest = hashlib.sha256()
    for part in payload:
        digest.update(part.buffer)
    return "" if digest.hexdigest() == picture.sha256 else "the picture's bytes do not match its sha256"
