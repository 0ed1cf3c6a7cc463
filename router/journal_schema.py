"""The journal's SQLite file: opened by one connection, checked, and brought up to the present version.

A fresh file gets the present schema. An older version is copied aside first and then migrated, all steps in
one transaction; a newer one is refused. A new field of a record that has a default needs no new version.

WAL with synchronous=FULL: what is committed survives the loss of power. No checkpoint happens but those that
are asked for, nor one at closing: so a file that is refused stays as it was found.
"""

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import apsw

from common.errors import GenServeError
from router.state_folder import FILE_MODE, cannot, sync_folder
from router.wal_check import WalFile

VERSION = 1
PAGE_CACHE_KIB = 16 * 1024
WAL_KEPT_BYTES = 16 * 1024 * 1024  # of a WAL file that had to grow beyond
BACKUP_PAGES = 1024  # copied at once

# shelf: 0 models, 1 jobs, 2 keys. place: of one model, job or key, in the order in which they came.
# n: 0, 1, 2, … of the records of one job; 0 for models and keys. body: the record in msgpack.
# sum: blake2b of all the others, see journal_rows.py.
SCHEMA = """
CREATE TABLE record (
    shelf INTEGER NOT NULL,
    place INTEGER NOT NULL,
    n INTEGER NOT NULL,
    kind TEXT NOT NULL,
    job_id TEXT NOT NULL,
    body BLOB NOT NULL,
    sum BLOB NOT NULL,
    PRIMARY KEY (shelf, place, n)
) STRICT, WITHOUT ROWID
"""

Migration = Callable[[apsw.Connection], None]
MIGRATIONS: Mapping[int, Migration] = {}  # by the version that each starts from, to the next one


def open_database(
    path: Path, *, version: int = VERSION, migrations: Mapping[int, Migration] = MIGRATIONS
) -> apsw.Connection:
    """The journal at `path`, made where there is none. Raises GenServeError journal_failed."""
    try:
        wal = WalFile(path.with_name(f"{path.name}-wal"))
        _make_file(path)
        database = apsw.Connection(os.fspath(path))
    except (OSError, apsw.Error) as error:
        raise cannot(f"{path} cannot be opened", error) from None
    try:
        _set_up(database)
        _check(database, path, wal)
        _bring_up_to(version, migrations, database, path)
    except apsw.Error as error:
        database.close()
        if isinstance(error, apsw.NotADBError | apsw.CorruptError):
            raise damaged(path, str(error)) from None
        raise cannot(f"{path} cannot be used", error) from None
    except BaseException:
        database.close()
        raise
    return database


def damaged(path: Path, what: str) -> GenServeError:
    """For a file that cannot be trusted as a whole."""
    return GenServeError(
        "journal_failed",
        f"the journal {path} is damaged: {what}. Put a copy of the whole folder {path.parent} in its place; or, to "
        "start without the jobs it holds, move the folder away",
    )


def give_up(path: Path, shelf: int, place: int) -> str:
    """The command that takes one model, job or key out of a journal whose router does not run."""
    statement = f"DELETE FROM record WHERE shelf = {shelf} AND place = {place}"  # noqa: S608  # whole numbers of ours
    return shlex.join([sys.executable, "-m", "apsw", os.fspath(path), statement])


def _make_file(path: Path) -> None:
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        sync_folder(path.parent)


def _set_up(database: apsw.Connection) -> None:
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    database.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    database.wal_autocheckpoint(0)
    for name, value in (
        ("locking_mode", "EXCLUSIVE"),  # before the first reading, so that WAL needs no shared memory
        ("journal_mode", "WAL"),
        ("synchronous", "FULL"),
        ("fullfsync", 1),
        ("cache_size", -PAGE_CACHE_KIB),
        ("journal_size_limit", WAL_KEPT_BYTES),
    ):
        database.pragma(name, value)


def _check(database: apsw.Connection, path: Path, wal: WalFile) -> None:
    found = database.pragma("quick_check", 1)
    if found != "ok":
        raise damaged(path, str(found))
    frames, _ = database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    if fault := wal.fault(frames):
        raise damaged(path, fault)


def _bring_up_to(version: int, migrations: Mapping[int, Migration], database: apsw.Connection, path: Path) -> None:
    found = database.pragma("user_version")
    tables = database.execute("SELECT count(*) FROM sqlite_schema").get
    if found == 0 and tables == 0:
        with database:
            database.execute(SCHEMA)
            database.pragma("user_version", version)
        return
    if found == 0 or not database.table_exists("main", "record"):
        raise GenServeError(
            "journal_failed",
            f"{path} is a database, but no journal of GenServe; name another folder with router.state_dir",
        )
    if found > version:
        raise GenServeError(
            "journal_failed",
            f"the journal {path} is of version {found}, written by a newer GenServe; this one reads up to {version}. "
            "Start that newer GenServe, or name another folder with router.state_dir",
        )
    if found < version:
        _back_up(database, path.with_name(f"{path.name}.before-v{version}"))
        with database:
            for step in range(found, version):
                migrations[step](database)
            database.pragma("user_version", version)


def _back_up(database: apsw.Connection, target: Path) -> None:
    """A copy of the whole database, complete or not there at all."""
    unfinished = target.with_name(f"{target.name}.tmp")
    try:
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        copy = apsw.Connection(os.fspath(unfinished))
        with copy.backup("main", database, "main") as backup:
            while not backup.done:
                backup.step(BACKUP_PAGES)
        copy.close()
        unfinished.rename(target)
        sync_folder(target.parent)
    except (OSError, apsw.Error) as error:
        unfinished.unlink(missing_ok=True)
        raise cannot(f"the journal cannot be copied to {target} before it is migrated", error) from None
