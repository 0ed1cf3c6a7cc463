"""Records as rows of the journal's table: written in batches, read back in order, each held to its checksum.

Every record of a job that is known stands in a row of its own; of a model or key its newest one. What is
forgotten is deleted, so that the file holds what replay needs and nothing else.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import apsw
import msgspec

from common.errors import GenServeError
from router.journal_schema import give_up
from router.records import (
    AnyRecord,
    JobAccepted,
    JobForgotten,
    JobRecord,
    KeyForgotten,
    KeyTaken,
    ModelForgotten,
    ModelKnown,
    Record,
)

SUM_BYTES = 16
MODELS, JOBS, KEYS = range(3)  # shelves, in the order of replay

_PUT = "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM record WHERE shelf = ? AND place = ?"
_READ = "SELECT * FROM record ORDER BY shelf, place, n"

_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(AnyRecord)

Subject: TypeAlias = tuple[str, ...]  # a job by its id, a model by its name with its shelf, a key by owner and key
Row: TypeAlias = tuple[int, int, int, str, str, bytes, bytes]


@dataclass(slots=True)
class _Place:
    number: int
    records: int = 0


class Rows:
    """The table of one open database. apsw.Error comes out as it is."""

    def __init__(self, database: apsw.Connection, path: Path) -> None:
        self._database = database
        self._path = path
        self._batch: list[tuple[str, tuple[Any, ...]]] = []
        self._places: dict[tuple[int, Subject], _Place] = {}
        self._last_place = 0

    def read(self) -> list[Record]:
        """Everything committed: models, jobs in the order of their acceptance, keys.

        Raises GenServeError journal_failed for a row that is not as it was written.
        """
        self._places.clear()
        with closing(self._database.execute(_READ)) as rows:
            return [self._take(row) for row in rows]

    def append(self, record: Record) -> None:
        """Add to the batch."""
        match record:
            case JobForgotten():
                self._forget(JOBS, (record.job_id,))
            case JobRecord():
                self._put(JOBS, (record.job_id,), record, record.job_id)
            case ModelKnown():
                self._put(MODELS, (record.card.name,), record)
            case ModelForgotten():
                self._forget(MODELS, (record.name,))
            case KeyTaken():
                self._put(KEYS, (record.owner, record.key), record)
            case KeyForgotten():
                self._forget(KEYS, (record.owner, record.key))
            case _:
                raise TypeError(f"unknown record {record!r}")

    def place_of(self, job_id: str) -> int:
        """Where the rows of a known job stand."""
        return self._places[JOBS, (job_id,)].number

    def commit(self) -> None:
        """Write the batch, for good. Where that fails nothing of it is written, and it can be tried again."""
        if not self._batch:
            return
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        try:
            for statement, group in groupby(self._batch, itemgetter(0)):
                self._database.executemany(statement, [values for _, values in group])
            execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                execute("ROLLBACK")
            raise
        self._batch.clear()

    # --- writing -------------------------------------------------------------------------------

    def _put(self, shelf: int, subject: Subject, record: Record, job_id: str = "") -> None:
        place = self._places.get((shelf, subject))
        if place is None:
            self._last_place += 1
            place = self._places[shelf, subject] = _Place(self._last_place)
        n = place.records if shelf == JOBS else 0
        place.records = n + 1
        facts = (shelf, place.number, n, type(record).__name__, job_id, _encode(record))
        self._batch.append((_PUT, (*facts, _sum(facts))))

    def _forget(self, shelf: int, subject: Subject) -> None:
        self._batch.append((_DELETE, (shelf, self._places.pop((shelf, subject)).number)))

    # --- reading -------------------------------------------------------------------------------

    def _take(self, row: Row) -> Record:
        shelf, place, n, kind, job_id, body, sum_ = row
        if _sum(row[:-1]) != sum_:
            raise self._fault(row, "its checksum does not match")
        try:
            record = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._fault(row, f"it is no record that this GenServe knows: {error}") from None
        subject = _subject(shelf, record)
        if subject is None or kind != type(record).__name__ or job_id != (subject[0] if shelf == JOBS else ""):
            raise self._fault(row, "it does not say what its body says")
        known = self._places.setdefault((shelf, subject), _Place(place))
        if (known.number, known.records) != (place, n) or (
            shelf == JOBS and isinstance(record, JobAccepted) != (n == 0)
        ):
            raise self._fault(row, "it does not follow the row before it")
        known.records += 1
        self._last_place = max(self._last_place, place)
        return record

    def _fault(self, row: Row, what: str) -> GenServeError:
        shelf, place, n, kind, job_id, *_ = row
        name = f"row (shelf {shelf}, place {place}, n {n}), {kind}{f' of job {job_id}' if job_id else ''}"
        return GenServeError(
            "journal_failed",
            f"the journal {self._path} is damaged: {name}: {what}. Put a copy of the whole folder {self._path.parent} "
            f"in its place; or, to start without what this row is about: {give_up(self._path, shelf, place)}",
        )


def _subject(shelf: int, record: Record) -> Subject | None:
    match record:
        case JobRecord() if shelf == JOBS:
            return (record.job_id,)
        case ModelKnown() if shelf == MODELS:
            return (record.card.name,)
        case KeyTaken() if shelf == KEYS:
            return (record.owner, record.key)
    return None


def _sum(facts: tuple[Any, ...]) -> bytes:
    return blake2b(_encode(facts), digest_size=SUM_BYTES).digest()
