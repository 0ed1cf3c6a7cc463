"""The production journal, router.sqlite_journal, on a disk that loses at a crash what was not synced.

SQLite writes through a VFS that remembers how to undo each write until it is synced; a crash undoes them all,
or those that a disk may have left out. Pictures are real files whose folder may not have been synced. What
the journal tells after a start is held against the rows of the played disk: a batch is there as a whole or not
at all, and nothing else has changed.
"""

import errno
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from common.messages import InputPicture, Picture, Token
from router import pictures as pictures_module
from router.journal import Storage, Stored
from router.records import Record
from router.sqlite_journal import SqliteJournal
from tests.sim.disk import WRITE_S, Disk, Host, encode_row

MEMORY = Path("/dev/shm")  # a file system in memory, where there is one
_real_write_all, _real_sync_folder = pictures_module._write_all, pictures_module.sync_folder


@dataclass(frozen=True, slots=True)
class Write:
    """One write, or cut, of a file, and how it was before."""

    offset: int
    count: int
    before: bytes  # what stood there
    size: int  # the file's


class LosingVfs(apsw.VFS):
    """Files whose writes are lost at a crash, unless they were synced."""

    def __init__(self, name: str, seed: int, point: Callable[[str], None]) -> None:
        super().__init__(name, "unix-none", makedefault=True)
        self.random, self.point = random.Random(seed), point
        self.dead = False
        self.unsynced: dict[str, list[Write]] = {}  # by path, oldest first

    def xOpen(self, name: Any, flags: list[int]) -> "LosingFile":  # noqa: N802  # SQLite's name
        return LosingFile(self, name, flags)

    def xRandomness(self, count: int) -> bytes:  # noqa: N802  # SQLite's name
        return self.random.randbytes(count)

    def crash(self) -> None:
        """Undo what was not synced: everything, or the end of it, or some of it."""
        self.dead = True
        for path, writes in self.unsynced.items():
            how = self.random.choice(["all", "end", "some"])
            first = self.random.randint(0, len(writes)) if how == "end" else 0
            for at in range(len(writes) - 1, first - 1, -1):
                later = writes[at + 1 :] if how == "some" else ()
                if any(_overlap(writes[at], other) for other in later):
                    continue  # a disk may leave out a write, not put it before an earlier one
                if how != "some" or self.random.random() < 0.5:
                    _undo(Path(path), writes[at])
        self.unsynced.clear()


def _overlap(one: Write, other: Write) -> bool:
    return one.offset < other.offset + other.count and other.offset < one.offset + one.count


def _undo(path: Path, write: Write) -> None:
    with path.open("r+b") as file:
        file.seek(write.offset)
        file.write(write.before)
        if write.offset + write.count > write.size:  # it had made the file longer
            file.truncate(write.size)


class LosingFile(apsw.VFSFile):
    """One file of it."""

    def __init__(self, vfs: LosingVfs, name: Any, flags: list[int]) -> None:
        super().__init__("unix-none", name, flags)
        self._vfs = vfs
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else name

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802  # SQLite's name
        if self._vfs.dead:
            return
        self._vfs.point("in a write")
        self._remember(offset, len(data))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802  # SQLite's name
        if not self._vfs.dead:
            self._remember(size, max(0, self.xFileSize() - size))
            super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802  # SQLite's name
        if self._vfs.dead:
            return
        self._vfs.point("in commit, lost")
        self._vfs.unsynced.pop(self._path, None)
        self._vfs.point("in commit, kept")

    def _remember(self, offset: int, count: int) -> None:
        size = self.xFileSize()
        there = max(0, min(count, size - offset))
        before = super().xRead(there, offset) if there else b""
        self._vfs.unsynced.setdefault(self._path, []).append(Write(offset, count, before, size))


class PlayedBeside:
    """See router.beside: the threads that write pictures, played."""

    def __init__(self, host: Host, disk: Disk) -> None:
        self._host, self._disk = host, disk
        self._waiting: list[Callable[[], Any]] = []
        self._done: list[Any] = []

    def put(self, work: Callable[[], Any]) -> None:
        self._waiting.append(work)
        self._host.later(self._disk.clock.between(WRITE_S), "", lambda: self._do(work))

    def _do(self, work: Callable[[], Any]) -> None:
        if work in self._waiting:
            self._waiting.remove(work)
            self._done.append(work())
            self._host.wake()

    def done(self) -> list[Any]:
        found, self._done = self._done, []
        return found

    def fileno(self) -> int:
        raise AssertionError("a played journal is not polled: it wakes its host")

    def close(self) -> None:
        for work in list(self._waiting):
            self._do(work)


class PlayedRoom:
    """See router.disk: full when the seed says so."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def look(self, _now: float) -> Storage:
        return Storage(full=self._disk.full, detail="the disk is full" if self._disk.full else "")

    def no_room(self, _wanted_bytes: int) -> None:
        """Known already."""


class QuietLogger:
    """The journal's log is not what is looked at."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_fields: None


class SqliteDisk(Disk):
    """A folder with a journal; the rows of the played disk say what must be in it."""

    def __init__(self, *args: Any, seed: int) -> None:
        super().__init__(*args)
        self._seed = seed
        self._folder = Path(tempfile.mkdtemp(prefix="genserve-sim-", dir=MEMORY if MEMORY.is_dir() else None))
        self._host: Host | None = None
        self._vfs: LosingVfs | None = None
        self._journal: SqliteJournal | None = None
        self._renamed: set[Path] = set()  # in a folder that is not yet synced
        self._opened = 0
        self.in_doubt: list[bytes] = []  # a batch whose commit a crash has interrupted

    def open(self, host: Host) -> "WatchedSqlite":
        self._host = host
        self._opened += 1
        self._vfs = LosingVfs(f"sim{self._seed}.{self._opened}", self._seed + self._opened, host.point)
        pictures_module.Beside = lambda **_: PlayedBeside(host, self)  # type: ignore[assignment,misc]  # put back by close
        pictures_module._write_all, pictures_module.sync_folder = self._write_all, self._sync_folder
        logger: Any = QuietLogger()
        self._journal = SqliteJournal(self._folder, disk_free_min_mb=0, reserve_mb=1, logger=logger)
        room: Any = PlayedRoom(self)
        self._journal._disk = room
        self._hold_to_rows()
        return WatchedSqlite(self, self._journal, host)

    def _hold_to_rows(self) -> None:
        assert self._journal is not None
        found = list(self._journal.replay())
        batch, self.in_doubt = self.in_doubt, []
        if batch and found != super().records():
            self.commit(batch)  # it had got through
        assert found == super().records(), f"the journal holds something else: {found} where {super().records()} was"

    def records(self) -> list[Record]:
        assert self._journal is not None
        return self._journal._rows.read()

    def died(self) -> None:
        if self._vfs is None:
            return
        self._vfs.crash()
        if self._journal is not None:
            self._journal._database.close()
            self._journal._lock.release()
        for path in sorted(self._renamed):
            if self.clock.chance(0.5):
                path.unlink(missing_ok=True)
        self.stopped()

    def stopped(self) -> None:
        """Its process has ended."""
        self._renamed.clear()
        self._journal = None
        if self._vfs is not None:
            apsw.set_default_vfs("unix")
            self._vfs.unregister()
            self._vfs = None

    def close(self) -> None:
        """The run is over: nothing stays behind."""
        self.died()
        from router.beside import Beside  # noqa: PLC0415  # what stood there

        pictures_module.Beside = Beside  # type: ignore[misc]  # put back
        pictures_module._write_all, pictures_module.sync_folder = _real_write_all, _real_sync_folder
        shutil.rmtree(self._folder)

    def inputs(self) -> set[str]:
        files = (path for path in (self._folder / "pictures").rglob("*.0") if path not in self._renamed)
        return {path.name.removesuffix(".0") for path in files}

    # --- pictures ------------------------------------------------------------------------------

    def _write_all(self, path: Path, payload: Sequence[Any]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _real_write_all(path, payload)
        assert self._host is not None
        self._host.point("before rename")
        self._renamed.add(path.with_name(path.name.removesuffix(pictures_module.UNFINISHED)))

    def _sync_folder(self, folder: Path) -> None:
        assert self._host is not None
        if any(path.parent == folder for path in self._renamed):
            self._host.point("after rename")
        self._renamed = {path for path in self._renamed if path.parent != folder}


class WatchedSqlite:
    """The journal itself; each batch that it has committed is told to the played disk."""

    durable = True

    def __init__(self, disk: SqliteDisk, journal: SqliteJournal, host: Host) -> None:
        self._disk, self._journal, self._host = disk, journal, host
        self._batch: list[bytes] = []

    def append(self, record: Record) -> None:
        self._batch.append(encode_row(record))
        self._journal.append(record)

    def commit(self) -> None:
        self._host.point("before commit")
        self._disk.in_doubt = self._batch
        self._journal.commit()
        batch, self._batch, self._disk.in_doubt = self._batch, [], []
        if batch:
            self._disk.commit(batch)
        self._host.point("after commit")

    def replay(self) -> Sequence[Record]:
        return self._journal.replay()

    def store(self, token: Token, picture: Picture, payload: Sequence[Any]) -> None:
        self._journal.store(token, picture, payload)

    def stored(self) -> list[Stored]:
        return self._journal.stored()

    def storage(self) -> Storage:
        return self._journal.storage()

    def fileno(self) -> int:
        return self._journal.fileno()

    def fetch(self, job_id: str) -> Sequence[Any] | None:
        return self._journal.fetch(job_id)

    def drop(self, job_id: str) -> None:
        self._journal.drop(job_id)

    def store_inputs(self, job_id: str, inputs: Sequence[InputPicture], payload: Sequence[Any]) -> None:
        self._journal.store_inputs(job_id, inputs, payload)

    def fetch_inputs(self, job_id: str) -> Sequence[Any]:
        return self._journal.fetch_inputs(job_id)

    def drop_inputs(self, job_id: str) -> None:
        self._journal.drop_inputs(job_id)

    def close(self) -> None:
        self._journal.close()
        self._disk.stopped()
