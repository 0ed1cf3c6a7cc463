"""The journal in memory: it outlives a broker, but not the process.

Bounded by what the broker forgets (`result_ttl_s`, `results_mb_max`, `ended_jobs_max`, `key_ttl_s`): records
and pictures of forgotten jobs are dropped.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import zmq

from common.codec import cut, input_parts
from common.messages import InputPicture, Picture, Token
from router.beside import Beside
from router.journal import INPUTS, Contents, Storage, Stored, fault_of, inputs_token
from router.records import JobForgotten, JobRecord, KeyForgotten, KeyTaken, ModelForgotten, ModelKnown, Record

CHECK_AT_ONCE_BYTES_MAX = 32 * 1024  # a smaller picture is checked faster than a thread is woken


class MemoryJournal:
    """See journal.Journal."""

    durable = False

    def __init__(self) -> None:
        self._batch: list[Record] = []
        self._jobs: dict[str, list[JobRecord]] = {}
        self._models: dict[str, ModelKnown] = {}
        self._keys: dict[tuple[str, str], KeyTaken] = {}
        self._pictures: dict[str, Sequence[zmq.Frame]] = {}
        self._inputs: dict[str, Sequence[memoryview]] = {}
        self._at_once: list[Stored] = []
        self._beside: Beside[tuple[Stored, Sequence[Any]]] = Beside(threads=1, name="results")

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
        self._store(token, picture, payload)

    def store_inputs(self, job_id: str, inputs: Sequence[InputPicture], payload: Sequence[zmq.Frame]) -> None:
        """The same."""
        self._store(inputs_token(job_id), inputs, payload)

    def _store(self, token: Token, contents: Contents, payload: Sequence[zmq.Frame]) -> None:
        if sum(len(part) for part in payload) > CHECK_AT_ONCE_BYTES_MAX:
            self._beside.put(partial(_check, token, contents, payload))
        else:
            self._at_once.append(self._keep(*_check(token, contents, payload)))

    def stored(self) -> list[Stored]:
        """What has been checked."""
        found, self._at_once = self._at_once, []
        return [*found, *(self._keep(*checked) for checked in self._beside.done())]

    def storage(self) -> Storage:
        """Memory has its own bounds."""
        return Storage(full=False)

    def fileno(self) -> int:
        """Readable while the thread has checked something."""
        return self._beside.fileno()

    def fetch(self, job_id: str) -> Sequence[zmq.Frame] | None:
        """The frames as they came."""
        return self._pictures.get(job_id)

    def drop(self, job_id: str) -> None:
        """Forget."""
        self._pictures.pop(job_id, None)

    def fetch_inputs(self, job_id: str) -> Sequence[memoryview]:
        """In the frames that DISPATCH has."""
        return self._inputs[job_id]

    def drop_inputs(self, job_id: str) -> None:
        """Forget."""
        self._inputs.pop(job_id, None)

    def close(self) -> None:
        """End the thread."""
        self._beside.close()

    def _keep(self, stored: Stored, payload: Sequence[Any]) -> Stored:
        token = stored.token
        if not stored.refusal and token.dispatch == INPUTS:
            self._inputs[token.job_id] = payload
        elif not stored.refusal:
            self._pictures[token.job_id] = payload
        return stored


def _check(token: Token, contents: Contents, payload: Sequence[zmq.Frame]) -> tuple[Stored, Sequence[Any]]:
    fault = fault_of(contents, payload)
    if fault or isinstance(contents, Picture):
        return Stored(token, fault), payload
    data = memoryview(b"".join(part.buffer for part in payload))
    return Stored(token), cut(data, input_parts(each.bytes for each in contents))
