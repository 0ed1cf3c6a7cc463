"""The folder of the router's state: which one it is, who may read it, and that one router has it to itself.

It knows nothing of what lies in it. Raises GenServeError journal_failed, with what to do, where the folder
cannot be had.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from common.errors import GenServeError

FOLDER_MODE = 0o700
FILE_MODE = 0o600
LOCK_NAME = "lock"
LOCKS = Path("/proc/locks")


def state_folder(setting: str, client_port: int, env: Mapping[str, str]) -> Path:
    """`setting`, else the folder that systemd names, else one of this user's own for this port."""
    if setting:
        return Path(setting).expanduser().absolute()
    if given := env.get("STATE_DIRECTORY", ""):
        return Path(given.split(":")[0])
    base = env.get("XDG_STATE_HOME", "")
    if not Path(base).is_absolute():  # as the XDG specification has it, '' included
        base = str(Path("~/.local/state").expanduser())
    return Path(base) / "genserve" / str(client_port)


def make_folder(folder: Path) -> None:
    """Make it with its parents, for its owner alone; one that is there keeps its mode."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise cannot(f"the state folder {folder} cannot be made", error) from None


def sync_folder(folder: Path) -> None:
    """Names made or removed in it are there, or gone, for good. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot(what: str, error: BaseException) -> GenServeError:
    """The error for a folder that does not serve, and what to do."""
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return GenServeError(
        "journal_failed", f"{what}: {reason}. Mend that, or name a folder of your own: router.state_dir"
    )


def lock_holder(folder: Path) -> int | None:
    """The process that holds the lock of this folder; 0 where it is not to be seen, None where nobody does.

    Only looks: taking the lock, even for a moment, could keep out a router that is just starting. Raises OSError.
    """
    try:
        found = (folder / LOCK_NAME).stat()
    except FileNotFoundError:
        return None
    name = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in LOCKS.read_text("ascii").splitlines():  # e.g. 3: FLOCK  ADVISORY  WRITE 1311 00:2a:418 0 EOF
        words = line.split()
        if name in words and "FLOCK" in words:
            return max(0, int(words[words.index(name) - 1]))
    return None


class Lock:
    """Held while the folder is this router's; the kernel lets go of it when the process ends, however that is."""

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_NAME
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise cannot(f"{path} cannot be opened", error) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            if not isinstance(error, BlockingIOError):
                raise cannot(f"{path} cannot be locked", error) from None
            raise GenServeError(
                "journal_failed",
                f"another router uses the state folder {folder}: stop that one, or give this one a folder of its own "
                "(router.state_dir)",
            ) from None

    def release(self) -> None:
        """Let another one have it."""
        os.close(self._descriptor)
