"""Pictures as files: pictures/ab/ab….7 is the picture of job ab…, drawn by its dispatch number 7.

What a job starts from is one file, ab….0, in which its inputs stand one after the other. Written by a few threads to a
temporary file beside its final name, synced, renamed, the folder synced: then it is there for good, and never changes:
what is read again is held to its SHA-256. It knows nothing of records; what must be there, and what may go, it is told.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import zmq

from common.codec import cut, input_parts
from common.messages import InputPicture, Picture, Token
from router.beside import Beside
from router.disk import NO_ROOM
from router.journal import INPUTS, Contents, Stored, fault_of
from router.state_folder import FILE_MODE, FOLDER_MODE, make_folder, sync_folder

THREADS = 4
UNFINISHED = ".tmp"
_NAME = re.compile(r"[0-9a-f]{32}\.\d+(\.tmp)?")


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that is kept: which job names it, by which dispatch it was drawn, and the frames to give it in.

    `contents`: the lengths and digests of what stands in it, one after the other.
    """

    job_id: str
    dispatch: int
    parts: tuple[int, ...]
    contents: tuple[tuple[int, str], ...]


def kept_picture(job_id: str, dispatch: int, picture: Picture, parts: tuple[int, ...]) -> Kept:
    """A picture, to be given in the frames that it came in."""
    return Kept(job_id, dispatch, parts, ((picture.bytes, picture.sha256),))


def kept_inputs(job_id: str, inputs: Sequence[InputPicture]) -> Kept:
    """What a job starts from, to be given in the frames that a DISPATCH has."""
    contents = tuple((each.bytes, each.sha256) for each in inputs)
    return Kept(job_id, INPUTS, input_parts(size for size, _ in contents), contents)


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
    """The folder of all pictures, and which of them are `kept`, by job; of `inputs` by the id they are kept under.

    OSError comes out as it is.
    """

    def __init__(self, folder: Path, kept: Mapping[str, Kept], inputs: Mapping[str, Kept]) -> None:
        make_folder(folder)
        self._folder = folder
        self._kept = dict(kept)
        self._inputs = dict(inputs)
        self._writing: dict[Token, Kept] = {}  # what they will be once they are written
        self._dropped: list[Path] = []
        self._beside: Beside[Written | None] = Beside(threads=THREADS, name="pictures")

    # --- at the start --------------------------------------------------------------------------

    def fault(self) -> tuple[str, str]:
        """See find_fault."""
        return find_fault(self._folder, self._kept, self._inputs)

    def sweep(self) -> int:
        """Remove what was left unfinished, and pictures that are not kept; how many."""
        all_kept = chain(self._kept.items(), self._inputs.items())
        wanted = {f"{job_id}.{kept.dispatch}" for job_id, kept in all_kept}
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
        parts = tuple(len(part) for part in payload)
        self._store(kept_picture(token.job_id, token.dispatch, picture, parts), picture, payload)

    def store_inputs(self, job_id: str, inputs: Sequence[InputPicture], payload: Sequence[zmq.Frame]) -> None:
        """The same with what a job starts from."""
        self._store(kept_inputs(job_id, inputs), inputs, payload)

    def _store(self, kept: Kept, contents: Contents, payload: Sequence[zmq.Frame]) -> None:
        token = Token(job_id=kept.job_id, dispatch=kept.dispatch)
        self._writing[token] = kept
        self._beside.put(partial(_write, self._path(token.job_id, token.dispatch), token, contents, payload))

    def stored(self) -> list[Written]:
        """What has been written or refused since the last call."""
        found = [written for written in self._beside.done() if written is not None]
        for written in found:
            token = written.stored.token
            kept = self._writing.pop(token)
            if not written.stored.refusal and not written.stored.deferred:
                (self._inputs if token.dispatch == INPUTS else self._kept)[token.job_id] = kept
        return found

    def fileno(self) -> int:
        """Readable while `stored` has something to tell."""
        return self._beside.fileno()

    def fetch(self, job_id: str) -> list[zmq.Frame] | None:
        """The frames as they came; None where no picture is kept. Raises PictureDamaged."""
        kept = self._kept.get(job_id)
        return None if kept is None else self._read(job_id, kept)

    def fetch_inputs(self, job_id: str) -> list[zmq.Frame]:
        """What is kept under this id. Raises PictureDamaged."""
        return self._read(job_id, self._inputs[job_id])

    def _read(self, job_id: str, kept: Kept) -> list[zmq.Frame]:
        path = self._path(job_id, kept.dispatch)
        try:
            data = memoryview(path.read_bytes())
        except FileNotFoundError:
            raise PictureDamaged(path, _wrong_size(None, kept)) from None
        if how := _wrong_size(len(data), kept):
            raise PictureDamaged(path, how)
        for part, (_, sha256) in zip(cut(data, (size for size, _ in kept.contents)), kept.contents, strict=True):
            if hashlib.sha256(part).hexdigest() != sha256:
                raise PictureDamaged(path, "has other bytes than were written: its SHA-256 differs")
        return [zmq.Frame(part, copy=False) for part in cut(data, kept.parts)]

    def drop(self, job_id: str) -> None:
        """Keep it no longer; its file goes with the next `remove_dropped`."""
        if self._kept.get(job_id) is not None:
            self._dropped.append(self._path(job_id, self._kept.pop(job_id).dispatch))

    def drop_inputs(self, job_id: str) -> None:
        """The same with inputs."""
        if self._inputs.pop(job_id, None) is not None:
            self._dropped.append(self._path(job_id, INPUTS))

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


def find_fault(folder: Path, pictures: Mapping[str, Kept], inputs: Mapping[str, Kept]) -> tuple[str, str]:
    """A job of which a file in `folder` is missing or of another length, and how so; ('', '') where there is none."""
    found = {entry.name: entry.stat(follow_symlinks=False).st_size for entry in _files(folder)}
    for name, kept in chain(pictures.items(), inputs.items()):
        path = _place(folder, name, kept.dispatch)
        if how := _wrong_size(found.get(path.name), kept):
            return kept.job_id, f"{path} {how}"
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


def _write(path: Path, token: Token, contents: Contents, payload: Sequence[zmq.Frame]) -> Written:
    """In a thread. For want of room nothing is left of it; any other OSError is the end, see journal.JournalError."""
    size = sum(len(part) for part in payload)
    if refusal := fault_of(contents, payload):
        return Written(Stored(token, refusal), size)
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
        return Written(Stored(token, f"no room for {size} bytes", deferred=True), size)
    return Written(Stored(token), size)


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
