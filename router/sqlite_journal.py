"""The journal on disk: records in SQLite, pictures as files, in a folder that one router has to itself.

It takes up only what is whole: an uncommitted tail is dropped, anything else that is not as it was written
refuses to start. A commit that lacks room is given the reserve and tried once more; one that fails otherwise,
or a picture that the disk will not take, is the end of the process. One connection, used by the loop's thread.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import apsw
import zmq
from structlog.typing import FilteringBoundLogger

from common import clock
from common.errors import GenServeError
from common.messages import InputPicture, Picture, Token
from router.disk import NO_ROOM, Disk
from router.journal import JournalError, Storage, Stored
from router.journal_rows import JOBS, Rows
from router.journal_schema import VERSION, give_up, open_database
from router.pictures import Kept, PictureDamaged, Pictures, kept_inputs, kept_picture
from router.records import JobAccepted, JobCancelled, JobDispatched, JobDone, JobFailed, JobRevived, Record
from router.state_folder import Lock, cannot, make_folder

F = TypeVar("F", bound=Sequence[zmq.Frame] | None)
NAME = "journal.db"
CHECKPOINT_PAGES = 1000  # of the write-ahead log, after which they go into the database at the next tick
CHECKPOINT_RETRY_S = 1.0  # after there was no room for it


class SqliteJournal:
    """See journal.Journal. Raises GenServeError journal_failed where it cannot be taken up."""

    durable = True

    def __init__(self, folder: Path, *, disk_free_min_mb: int, reserve_mb: int, logger: FilteringBoundLogger) -> None:
        began = clock.monotonic_s()
        make_folder(folder)
        self._logger = logger
        self._lock = Lock(folder)
        try:
            self._open(folder, disk_free_min_mb, reserve_mb)
        except BaseException:
            self._lock.release()
            raise
        logger.info(
            "journal.opened",
            path=str(folder / NAME),
            version=VERSION,
            records=len(self._found or ()),
            pictures=len(self._pictures),
            swept=self._swept,
            elapsed_s=round(clock.monotonic_s() - began, 3),
        )

    def _open(self, folder: Path, disk_free_min_mb: int, reserve_mb: int) -> None:
        path = folder / NAME
        self._database = open_database(path)
        try:
            self._rows = Rows(self._database, path)
            self._found: list[Record] | None = self._rows.read()
            self._wal_pages = 0
            self._checkpoint_now = 0.0  # not before (monotonic)
            self._database.set_wal_hook(self._wal_grew)
            try:
                self._disk = Disk(folder, free_min_mb=disk_free_min_mb, reserve_mb=reserve_mb)
                self._pictures = Pictures(folder / "pictures", pictures_kept(self._found), inputs_kept(self._found))
            except OSError as error:
                raise cannot(f"the state folder {folder} does not serve", error) from None
            try:
                self._check_pictures(folder, path)
                self._swept = self._pictures.sweep()
            except BaseException:
                self._pictures.close()
                raise
        except BaseException:
            self._database.close()
            raise

    def _check_pictures(self, folder: Path, path: Path) -> None:
        job_id, fault = self._pictures.fault()
        if job_id:
            raise GenServeError(
                "journal_failed",
                f"the picture of job {job_id} is not as it was kept: {fault}. Put it back from a copy of {folder}; or, "
                f"to start without that job: {give_up(path, JOBS, self._rows.place_of(job_id))}",
            )

    # --- records -------------------------------------------------------------------------------

    def replay(self) -> Sequence[Record]:
        """Models, jobs in the order of their acceptance, keys."""
        found, self._found = self._found, None
        return self._rows.read() if found is None else found

    def append(self, record: Record) -> None:
        """Add to the batch."""
        self._found = None
        self._rows.append(record)

    def commit(self) -> None:
        """Keep the batch; then the pictures that it has dropped can go."""
        try:
            try:
                self._rows.commit()
            except apsw.Error as error:
                if not self._lacked_room(error) or not self._disk.release():
                    raise
                self._logger.warning("journal.reserve_used", cause=str(error))
                self._rows.commit()
        except (apsw.Error, OSError) as error:
            raise JournalError(f"the journal could not be written: {_cause(error)}") from error
        self._pictures.remove_dropped()

    def _lacked_room(self, error: apsw.Error) -> bool:
        if isinstance(error, apsw.FullError):
            return True
        return _code(error) == apsw.SQLITE_IOERR_WRITE and self._database.system_errno in NO_ROOM

    # --- pictures ------------------------------------------------------------------------------

    def store(self, token: Token, picture: Picture, payload: Sequence[zmq.Frame]) -> None:
        """Check and write, in a thread."""
        self._pictures.store(token, picture, payload)

    def stored(self) -> list[Stored]:
        """What has been written, or will not be."""
        try:
            found = self._pictures.stored()
        except OSError as error:
            raise JournalError(f"a picture could not be written: {error}") from error
        for written in found:
            if written.stored.deferred:
                self._disk.no_room(written.size)
        return [written.stored for written in found]

    def fileno(self) -> int:
        """Readable while a thread has written something."""
        return self._pictures.fileno()

    def fetch(self, job_id: str) -> Sequence[zmq.Frame] | None:
        """The frames as they came, from the file; never bytes that are not those that were stored."""
        return self._read(job_id, self._pictures.fetch, "the picture of")

    def fetch_inputs(self, job_id: str) -> Sequence[zmq.Frame]:
        """The same of what a job starts from."""
        return self._read(job_id, self._pictures.fetch_inputs, "what is kept of the inputs of")

    def _read(self, job_id: str, fetch: Callable[[str], F], what: str) -> F:
        try:
            return fetch(job_id)
        except PictureDamaged as error:
            self._logger.error("picture.damaged", job_id=job_id, path=str(error.path), cause=error.how)  # noqa: TRY400  # it says all
            file = Path(*error.path.parts[-3:])
            raise GenServeError(
                "journal_failed",
                f"{what} job {job_id} is damaged on the router's disk: {file} {error.how}. Put that file back "
                "from a copy of the router's state folder; or ask anew, with a new key: then it is drawn again",
            ) from None
        except OSError as error:
            self._logger.error("picture.unreadable", job_id=job_id, cause=str(error))  # noqa: TRY400  # the cause says it
            text = f"{what} job {job_id} could not be read from the router's disk: {error.strerror or error}"
            raise GenServeError("internal", text) from None

    def drop(self, job_id: str) -> None:
        """Forget it, with the batch that forgets its job."""
        self._pictures.drop(job_id)

    def store_inputs(self, job_id: str, inputs: Sequence[InputPicture], payload: Sequence[zmq.Frame]) -> None:
        """Check and write, in a thread."""
        self._pictures.store_inputs(job_id, inputs, payload)

    def drop_inputs(self, job_id: str) -> None:
        """Forget them, with the batch in which their job ends."""
        self._pictures.drop_inputs(job_id)

    # --- room and time -------------------------------------------------------------------------

    def storage(self) -> Storage:
        """Once a tick: look at the disk, and move a long write-ahead log into the database."""
        now = clock.monotonic_s()
        try:
            if self._wal_pages >= CHECKPOINT_PAGES and now >= self._checkpoint_now:
                self._checkpoint(now)
            return self._disk.look(now)
        except (apsw.Error, OSError) as error:
            raise JournalError(f"the router's disk does not work: {_cause(error)}") from error

    def close(self) -> None:
        """Nothing is asked any more. What is in the write-ahead log stays there where there is no room for it."""
        self._pictures.close()
        self._database.set_wal_hook(None)
        try:
            self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            self._logger.warning("journal.not_checkpointed", cause=_cause(error))
        self._database.close()
        self._lock.release()

    def _checkpoint(self, now: float) -> None:
        try:
            self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._wal_pages = 0
        except apsw.Error as error:
            if not self._lacked_room(error):
                raise
            self._checkpoint_now = now + CHECKPOINT_RETRY_S

    def _wal_grew(self, _database: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK


def _code(error: Exception) -> int:
    """SQLite's extended result code; -1 where it is no error of SQLite's."""
    code: int = getattr(error, "extendedresult", -1)
    return code


def _cause(error: Exception) -> str:
    code = _code(error)
    name = apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(code)
    return f"{error} ({name})" if name else str(error)


def pictures_kept(records: Sequence[Record]) -> dict[str, Kept]:
    """The pictures of all jobs that are done, by the dispatch that was current when they were."""
    dispatches: dict[str, int] = {}
    kept: dict[str, Kept] = {}
    for record in records:
        if isinstance(record, JobDispatched):
            dispatches[record.job_id] = record.dispatch
        elif isinstance(record, JobDone):
            dispatch = dispatches.get(record.job_id, 0)
            kept[record.job_id] = kept_picture(record.job_id, dispatch, record.picture, record.parts)
    return kept


def inputs_kept(records: Sequence[Record]) -> dict[str, Kept]:
    """What the jobs start from that have not ended, and dead letters that were not revived."""
    accepted = {record.job_id: record for record in records if isinstance(record, JobAccepted) and record.inputs_of}
    for record in records:
        poison = isinstance(record, JobFailed) and record.error.code == "poison"
        if isinstance(record, JobDone | JobCancelled | JobRevived | JobFailed) and not poison:
            accepted.pop(record.job_id, None)
    return {record.inputs_of: kept_inputs(job_id, record.order.inputs) for job_id, record in accepted.items()}
