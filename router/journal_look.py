"""What lies in a state folder, looked at without touching it: for a diagnosis beside a router, or without one.

The journal is copied aside and the copy is read by the production reader, which may repair and migrate what it
opens. The folder's lock is never taken.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import GenServeError
from router.journal_rows import JOBS, Rows
from router.journal_schema import VERSION, give_up, open_database
from router.pictures import find_fault
from router.records import JobAccepted, JobCancelled, JobDone, JobFailed
from router.sqlite_journal import NAME, inputs_kept, pictures_kept
from router.state_folder import cannot

MIB = 1024 * 1024
FILES = (NAME, f"{NAME}-wal")


@dataclass(frozen=True)
class Seen:
    """A whole journal: its version, its jobs, those of them that have not ended, its pictures."""

    version: int
    jobs: int
    waiting: int
    pictures: int


def journal_mb(folder: Path) -> int:
    """MiB of the journal; 0 where there is none. Raises OSError."""
    return sum((folder / name).stat().st_size for name in FILES if (folder / name).exists()) // MIB + 1


def look_at_journal(folder: Path) -> Seen:
    """Read the journal of a router that does not run. Raises GenServeError journal_failed as its start would."""
    with _copy(folder) as copy:
        try:
            with closing(open_database(copy)) as database:
                rows = Rows(database, copy)
                records = rows.read()
        except GenServeError as error:
            text = error.message.replace(str(copy.parent), str(folder))
            raise GenServeError(error.code, text) from None
        kept = pictures_kept(records)
        job_id, fault = find_fault(folder / "pictures", kept, inputs_kept(records))
        if job_id:
            mend = give_up(folder / NAME, JOBS, rows.place_of(job_id))
            text = f"the picture of job {job_id} is not as it was kept: {fault}. To start without that job: {mend}"
            raise GenServeError("journal_failed", text)
    jobs = sum(isinstance(record, JobAccepted) for record in records)
    ended = {record.job_id for record in records if isinstance(record, JobDone | JobFailed | JobCancelled)}
    return Seen(VERSION, jobs, jobs - len(ended), len(kept))


@contextmanager
def _copy(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="genserve-look-") as aside:
        try:
            for name in FILES:
                if (folder / name).exists():
                    shutil.copyfile(folder / name, Path(aside, name))
        except OSError as error:
            raise cannot(f"{folder / NAME} cannot be read", error) from None
        yield Path(aside, NAME)
