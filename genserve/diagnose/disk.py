"""The router's state folder and its journal, the room on their disk, and where pictures are saved."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from common.errors import GenServeError
from genserve.diagnose.finding import Note, check, fail, mib, ok, quoted, warn
from genserve.diagnose.host import Host, NotChecked
from genserve.diagnose.mend import setting
from genserve.diagnose.requirements import newer
from router.journal_look import MIB, journal_mb, look_at_journal
from router.sqlite_journal import NAME
from router.state_folder import lock_holder

JOURNAL_MB_MAX = 512  # copied aside to be read; larger ones are left alone
LOOK_WITHIN_S = 60.0
INODES_MIN = 1000
FORGETFUL = frozenset(("tmpfs", "ramfs"))
DISTANT = frozenset(("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p"))
MOUNTS = Path("/proc/self/mounts")


@check(
    "disk.state",
    "The router's state folder: which one it is, whose, on which file system, and whether it can be written",
)
def state(host: Host) -> Iterator[Note]:
    """Where there is none, whether it can be made."""
    _need_journal(host)
    folder = host.state_dir
    nearest = _nearest(folder)
    if not nearest.is_dir():
        yield fail(f"{nearest} is no folder", setting(host, "router.state_dir", f"{nearest}-state"))
        return
    if not os.access(nearest, os.W_OK | os.X_OK) or os.statvfs(nearest).f_flag & os.ST_RDONLY:
        if folder == nearest and folder.stat().st_uid != os.geteuid():
            raise NotChecked(f"{folder} is another user's: only root may look: sudo genserve diagnose --only disk")
        yield fail(f"{nearest} cannot be written", setting(host, "router.state_dir", "~/genserve-state"))
    if folder.exists() and folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warn(f"others may look into {folder}, where pictures and prompts lie", f"chmod 700 {quoted(folder)}")
    kind = _file_system(nearest)
    if kind in FORGETFUL:
        yield warn(
            f"{folder} lies in memory ({kind}): a restart of the machine forgets every job",
            setting(host, "router.state_dir", "/var/lib/genserve"),
        )
    if kind in DISTANT:
        yield warn(
            f"{folder} lies on a network file system ({kind}), whose locks and syncs may not hold",
            setting(host, "router.state_dir", "/var/lib/genserve"),
        )
    yield ok(f"{folder} ({kind or 'unknown file system'})" + ("" if folder.exists() else ", not made yet"))


@check("disk.room", "Room on that disk, against what the router keeps free")
def room(host: Host) -> Iterator[Note]:
    """Below it, new jobs are refused."""
    _need_journal(host)
    nearest = _nearest(host.state_dir)
    facts = os.statvfs(nearest)
    free_mb, wanted = facts.f_bavail * facts.f_frsize // MIB, host.router.disk_free_min_mb
    room_mb = wanted + host.router.journal_reserve_mb
    words = f"{mib(free_mb * MIB)} free"
    who = f"du -xh -d1 {quoted(nearest)} | sort -h | tail"
    if free_mb < room_mb:
        yield fail(
            f"{words}, and the router wants {mib(room_mb * MIB)}: it refuses new jobs (router.disk_free_min_mb)", who
        )
    elif free_mb < room_mb + host.router.results_mb_max:
        yield warn(
            f"{words}: less than the pictures that may be kept (router.results_mb_max = {host.router.results_mb_max})",
            who,
        )
    if facts.f_files and facts.f_favail < INODES_MIN:
        yield fail(f"only {facts.f_favail} more files can be made there", f"df -i {quoted(nearest)}")
    yield ok(words)


@check(
    "disk.journal",
    "The journal: read from a copy, held to its checksums; its pictures there; whose router has it",
    bound_s=LOOK_WITHIN_S,
)
def journal(host: Host) -> Iterator[Note]:
    """By the router's own reader. What a router has open now is left alone."""
    _need_journal(host)
    folder = host.state_dir
    try:
        if not (folder / NAME).exists():
            raise NotChecked(f"there is none yet in {folder}")
        holder = lock_holder(folder)
        size_mb = journal_mb(folder)
    except OSError as error:
        raise NotChecked(
            f"{folder} cannot be looked into ({error.strerror}): sudo genserve diagnose --only disk"
        ) from None
    if holder is not None:
        yield ok(f"in use by a router{f' (pid {holder})' if holder else ''}, {size_mb} MiB")
        return
    if size_mb > JOURNAL_MB_MAX:
        raise NotChecked(f"it has {size_mb} MiB, too many to read it beside; the router checks it at its start")
    try:
        seen = look_at_journal(folder)
    except GenServeError as error:
        yield fail(error.message, _mend_journal(error.message, folder))
        return
    yield ok(
        f"whole: {seen.jobs} jobs, {seen.waiting} of them not ended, {seen.pictures} pictures; version {seen.version}"
    )


def _mend_journal(message: str, folder: Path) -> str:
    """Give up one job where its row or picture is at fault; else put the whole folder aside."""
    for words in ("without what this row is about: ", "without that job: "):
        if words in message:
            return message.partition(words)[2]
    if "newer GenServe" in message:
        return newer()
    return f"mv {quoted(folder)} {quoted(f'{folder}.damaged')}   # the jobs in it are given up; better: put a copy back"


@check("disk.output", "The folder of saved pictures, where gpu_daemon.save_images is on")
def output(host: Host) -> Iterator[Note]:
    """Jobs may ask for a copy of their own as well."""
    if not host.daemon.save_images:
        raise NotChecked("gpu_daemon.save_images is off")
    folder = Path(host.daemon.output_dir).expanduser().absolute()
    nearest = _nearest(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        yield fail(f"pictures cannot be saved in {folder}", setting(host, "gpu_daemon.output_dir", "~/pictures"))
    else:
        yield ok(f"{folder}")


def _need_journal(host: Host) -> None:
    if host.router.journal == "memory":
        raise NotChecked("router.journal = 'memory' keeps nothing")
    if host.router_elsewhere:
        raise NotChecked(f"this machine serves the router at {host.router_elsewhere}")


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _file_system(folder: Path) -> str:
    """The kind of file system that holds it; '' where the kernel does not tell."""
    best, kind = Path(), ""
    for line in MOUNTS.read_text("utf-8", "replace").splitlines():
        words = line.split()
        point = Path(words[1].replace("\\040", " "))
        if folder.resolve().is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, words[2]
    return kind


CHECKS = (state, room, journal, output)
