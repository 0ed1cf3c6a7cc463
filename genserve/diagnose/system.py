"""The machine below all of it: its clock, how many files may be open, threads, and the folder for sockets."""

import ctypes
import os
import resource
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from common.clock import wall_s
from genserve.diagnose.finding import Note, check, fail, ok, quoted, warn
from genserve.diagnose.host import Host, NotChecked
from genserve.diagnose.mend import setting
from gpu_daemon.supervisor import IPC_PATH_BYTES_MAX

FILES_BESIDE = 64  # that a gateway or router opens beside its connections
IPC_NAME = "genserve-xxxxxxxx/engine"
UNSYNCHRONISED = 0x0040  # STA_UNSYNC of adjtimex(2)
TIMEX_BYTES = 512  # struct timex is smaller; `status` is its sixth field


@check("system.clock", "The clock: not behind the files of this installation, and kept right by the network")
def clock(host: Host) -> Iterator[Note]:
    """Deadlines and times to live are kept across restarts as wall time."""
    made = max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))
    now = wall_s()
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    mend = "sudo timedatectl set-ntp true"
    if not host.systemd_runs.exists():
        mend = "sudo apt install chrony && sudo chronyd   # an NTP client; of a container: on its host"
    if now < made - 1:
        behind = datetime.fromtimestamp(made, UTC).strftime("%Y-%m-%d")
        yield fail(f"{shown} is before GenServe was installed ({behind})", mend)
    elif _unsynchronised():
        yield warn(f"{shown}; nothing keeps it right", mend)
    else:
        yield ok(shown)


def _unsynchronised() -> bool:
    state = (ctypes.c_long * (TIMEX_BYTES // ctypes.sizeof(ctypes.c_long)))()  # modes = 0: only asked
    answer = ctypes.CDLL(None).adjtimex(state)
    status = ctypes.c_int.from_buffer(state, 5 * ctypes.sizeof(ctypes.c_long)).value
    return answer >= 0 and bool(status & UNSYNCHRONISED)


@check("system.files", "How many files and connections a process may have open, against gateway.connections_max")
def files(host: Host) -> Iterator[Note]:
    """A process that runs out of them spins or refuses. Router and gateway take as many as they may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = host.gateway.connections_max + FILES_BESIDE
    if hard != resource.RLIM_INFINITY and hard < wanted:
        yield fail(
            f"{hard} at once at most, and the gateway may need {wanted}: "
            f"gateway.connections_max = {host.gateway.connections_max}",
            "sudo sh -c 'echo \"* hard nofile 65536\" >> /etc/security/limits.conf'   # then log in again",
        )
    else:
        yield ok(f"{'as many as it likes' if hard == resource.RLIM_INFINITY else hard} at once at most")


@check("system.threads", "Threads of arithmetic on the CPU, against its cores")
def threads(host: Host) -> Iterator[Note]:
    """Engines that share cores wait for each other at every step."""
    cores = len(os.sched_getaffinity(0))
    engines = sum(device.kind == "cpu" for device in host.devices)
    if not engines:
        raise NotChecked("no engine draws on the CPU")
    wanted = engines * host.daemon.cpu_threads
    words = f"{engines} engine{'s' if engines > 1 else ''} of {host.daemon.cpu_threads} threads on {cores} cores"
    if wanted > cores:
        fewer = max(1, cores // engines)
        mend = setting(host, "gpu_daemon.cpu_threads", fewer)
        if fewer == host.daemon.cpu_threads:
            mend = setting(host, "up.gpus", ",".join(["cpu"] * max(1, cores // fewer)))
        yield warn(f"{words}: they slow each other down", mend)
    else:
        yield ok(words)


@check(
    "system.sockets",
    "The folder for temporary files, where an engine and its daemon meet: writable, its path short enough",
)
def sockets(host: Host) -> Iterator[Note]:
    """A Unix socket's path has at most 108 bytes."""
    folder = Path(host.env.get("TMPDIR") or tempfile.gettempdir())
    length = len(os.fsencode(folder / IPC_NAME))
    mend = f"export TMPDIR={quoted('/tmp')}"  # noqa: S108  # shown to a person
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield fail(f"{folder} is no folder that can be written", mend)
    elif length > IPC_PATH_BYTES_MAX:
        yield fail(
            f"{folder} is too long a path for a socket in it: {length} bytes, at most {IPC_PATH_BYTES_MAX}", mend
        )
    else:
        yield ok(str(folder))


CHECKS = (clock, files, threads, sockets)
