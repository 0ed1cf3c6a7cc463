"""Is there room on the router's disk? Asked often, so cheaply; and a reserve for when there is none.

Full is: less free than the bound; or a write that failed for want of room (a quota says nothing beforehand)
and would fail again; or no reserve. Free again is a little more than the bound, so that it does not flicker.
It knows nothing of what is written.
"""

import errno
import os
from pathlib import Path

from router.journal import Storage
from router.state_folder import FILE_MODE

MIB = 1024 * 1024
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
RESUME_SHARE = 1.1  # of the bound must be free before new jobs are taken again
TRY_INTERVAL_S = 1.0  # between two attempts to write what could not be written, or to make the reserve
RESERVE_NAME = "reserve"
TRIAL_NAME = "trial"


class Disk:
    """The file system that holds `folder`."""

    def __init__(self, folder: Path, *, free_min_mb: int, reserve_mb: int) -> None:
        self._folder = folder
        self._free_min_bytes = free_min_mb * MIB
        self._reserve_bytes = reserve_mb * MIB
        self._full = False
        self._lacking_bytes = 0  # what could not be written; 0: everything could
        self._try_now = 0.0  # when to try next (monotonic)
        (folder / TRIAL_NAME).unlink(missing_ok=True)
        self._reserved = self._reserve()

    def look(self, now: float) -> Storage:
        """As it is at `now`, monotonic. Raises OSError where the disk does not work."""
        facts = os.statvfs(self._folder)
        free = facts.f_bavail * facts.f_frsize
        resume = int(self._free_min_bytes * RESUME_SHARE)
        if (self._lacking_bytes or not self._reserved) and free >= resume and now >= self._try_now:
            self._try_now = now + TRY_INTERVAL_S
            self._try_again(free - resume)
        short = free < (resume if self._full else self._free_min_bytes)
        self._full = short or bool(self._lacking_bytes) or not self._reserved
        return Storage(self._full, self._detail(free, short=short))

    def no_room(self, wanted_bytes: int) -> None:
        """A write of so many bytes has just failed for want of room."""
        self._lacking_bytes = max(self._lacking_bytes, wanted_bytes, 1)

    def release(self) -> bool:
        """Give the reserve up to what must be written now; was there one?"""
        had, self._reserved = self._reserved, False
        (self._folder / RESERVE_NAME).unlink(missing_ok=True)
        return had

    def _try_again(self, spare_bytes: int) -> None:
        if not self._reserved:
            self._reserved = spare_bytes >= self._reserve_bytes and self._reserve()
        if self._reserved and self._lacking_bytes:
            trial = self._folder / TRIAL_NAME
            if _allocate(trial, self._lacking_bytes):
                self._lacking_bytes = 0
            trial.unlink(missing_ok=True)

    def _reserve(self) -> bool:
        path = self._folder / RESERVE_NAME
        if path.exists() and path.stat().st_blocks * 512 >= self._reserve_bytes:
            return True  # a former router's
        if _allocate(path, self._reserve_bytes):
            return True
        path.unlink(missing_ok=True)
        return False

    def _detail(self, free: int, *, short: bool) -> str:
        text = f"{free // MIB} MiB are free on the router's disk"
        if short or not self._full:
            return f"{text}, {self._free_min_bytes // MIB} MiB must be (router.disk_free_min_mb)"
        if self._lacking_bytes:
            return f"{text}, but {self._lacking_bytes} bytes could not be written there"
        return f"{text}, but the {self._reserve_bytes // MIB} MiB of router.journal_reserve_mb could not be set aside"


def _allocate(path: Path, size: int) -> bool:
    """Make a file that has its blocks; False where there is no room for it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return False
    finally:
        os.close(descriptor)
    return True
