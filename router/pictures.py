"""Pictures as files: pictures/ab/ab….7 is the picture of job ab…, drawn by its dispatch number 7.

Written by a few threads to a temporary file beside its final name, synced, renamed, the folder synced: then
it is there for good, and never changes: what is read again is held to its SHA-256. It knows nothing of records;
which pictures must be there, and which may go, it is told.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import zmq

from common.messages import Picture, Token
from router.beside import Beside
from router.disk import NO_ROOM
from router.journal import Stored, picture_fault
from router.state_folder import FILE_MODE, FOLDER_MODE, make_folder, sync_folder

THREADS = 4
UNFINISHED = ".tmp"
_NAME = re.compile(r"[0-9a-f]{32}\.\d+(\.tmp)?")


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture that is kept: by which dispatch it was drawn, the sizes of the frames that it came in, its digest."""

    dispatch: int
    parts: tuple[int, ...]
    sha256: str


class PictureDamaged(Exception):  # noqa: N818  # says what it is
    """A kept picture whose file is not as it was written: `how` says what is wrong with the one at `path`."""

    def __init__(self, path: Path, how: str) -> None:
        super().__init__(f"{path} {how}")
        self.path = path
        self.how = how


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one `store`, of a picture of so many bytes."""

    stored: Stored
    size: int


class Pictures:
    """The folder of all pictures, and which of them are `kept`, by job. OSError comes out as it is."""

    def __init__(self, folder: Path, kept: Mapping[str, Kept]) -> None:
        make_folder(folder)
        self._folder = folder
        self._kept = dict(kept)
        self._writing: dict[Token, Kept] = {}  # what they will be once they are written
        self._dropped: list[Path] = []
        self._beside: Beside[Written | None] = Beside(threads=THREADS, name="pictures")

    # --- at the start --------------------------------------------------------------------------

    def fault(self) -> tuple[str, str]:
        """See find_fault."""
        return find_fault(self._folder, self._kept)

    def sweep(self) -> int:
        """Remove what was left unfinished, and pictures that are not kept; how many."""
        wanted = {f"{job_id}.{kept.dispatch}" for job_id, kept in self._kept.items()}
        unwanted = [
            entry.path for entry in _files(self._folder) if entry.name not in wanted and _NAME.fullmatch(entry.name)
        ]
        for path in unwanted:
            Path(path).unlink()
        return len(unwanted)

    def __len__(self) -> int:
        return len(self._kept)

    # --- later ---------------------------------------------------------------------------------

    def store(self, token: Token, picture: Picture, payload: Sequence[zmq.Frame]) -> None:
        """Have it checked and written."""
        self._writing[token] = Kept(token.dispatch, tuple(len(part) for part in payload), picture.sha256)
        path = self._path(token.job_id, token.dispatch)
        self._beside.put(partial(_write, path, token, picture, payload))

    def stored(self) -> list[Written]:
        """What has been written or refused since the last call."""
        found = [written for written in self._beside.done() if written is not None]
        for written in found:
            token = written.stored.token
            kept = self._writing.pop(token)
            if not written.stored.refusal and not written.stored.deferred:
                self._kept[token.job_id] = kept
        return found

    def fileno(self) -> int:
        """Readable while `stored` has something to tell."""
        return self._beside.fileno()

    def fetch(self, job_id: str) -> list[zmq.Frame] | None:
        """The frames as they came; None where no picture is kept. Raises PictureDamaged."""
        kept = self._kept.get(job_id)
        if kept is None:
            return None
        path = self._path(job_id, kept.dispatch)
        try:
            data = memoryview(path.read_bytes())
        except FileNotFoundError:
            raise PictureDamaged(path, _wrong_size(None, kept)) from None
        if how := _wrong_size(len(data), kept):
            raise PictureDamaged(path, how)
        if hashlib.sha256(data).hexdigest() != kept.sha256:
            raise PictureDamaged(path, "has other bytes than were written: its SHA-256 differs")
        frames, at = [], 0
        for size in kept.parts:
            frames.append(zmq.Frame(data[at : at + size], copy=False))
            at += size
        return frames

    def drop(self, job_id: str) -> None:
        """Keep it no longer; its file goes with the next `remove_dropped`."""
        kept = self._kept.pop(job_id, None)
        if kept is not None:
            self._dropped.append(self._path(job_id, kept.dispatch))

    def remove_dropped(self) -> None:
        """Have the files of dropped pictures removed: once no record names them any more."""
        for path in self._dropped:
            self._beside.put(partial(_remove, path))
        self._dropped.clear()

    def close(self) -> None:
        """Write what has been asked for, then end the threads."""
        self._beside.close()

    def _path(self, job_id: str, dispatch: int) -> Path:
        return _place(self._folder, job_id, dispatch)


def find_fault(folder: Path, kept: Mapping[str, Kept]) -> tuple[str, str]:
    """A job whose picture is missing in `folder` or of another length, and how so; ('', '') where there is none."""
    found = {entry.name: entry.stat(follow_symlinks=False).st_size for entry in _files(folder)}
    for job_id, picture in kept.items():
        path = _place(folder, job_id, picture.dispatch)
        if how := _wrong_size(found.get(path.name), picture):
            return job_id, f"{path} {how}"
    return "", ""


def _place(folder: Path, job_id: str, dispatch: int) -> Path:
    return folder / job_id[:2] / f"{job_id}.{dispatch}"


def _files(folder: Path) -> Iterator["os.DirEntry[str]"]:
    for shard in os.scandir(folder) if folder.exists() else ():
        if shard.is_dir(follow_symlinks=False):
            yield from os.scandir(shard)


def _wrong_size(there: int | None, kept: Kept) -> str:
    """What is wrong with a file of so many bytes, None being no file; '' for nothing."""
    size = sum(kept.parts)
    if there == size:
        return ""
    return "is missing" if there is None else f"has {there} bytes where {size} were written"


def _write(path: Path, token: Token, picture: Picture, payload: Sequence[zmq.Frame]) -> Written:
    """In a thread. For want of room nothing is left of it; any other OSError is the end, see journal.JournalError."""
    if refusal := picture_fault(picture, payload):
        return Written(Stored(token, refusal), picture.bytes)
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        _make_shard(path.parent)
        _write_all(unfinished, payload)
        unfinished.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        if error.errno not in NO_ROOM:
            raise
        return Written(Stored(token, f"no room for {picture.bytes} bytes", deferred=True), picture.bytes)
    return Written(Stored(token), picture.bytes)


def _write_all(path: Path, payload: Sequence[zmq.Frame]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    try:
        for part in payload:
            left = memoryview(part.buffer)
            while left:
                left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_shard(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        sync_folder(folder.parent)


def _remove(path: Path) -> None:
    """In a thread. A file that a person has removed before is gone as well."""
    path.unlink(missing_ok=True)
