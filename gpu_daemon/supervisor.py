"""Starts, watches, kills and restarts the engine process. It knows processes and time, not what they say.

Each start gets a private folder (0700) with a new path for the two to meet at, made after the process
before is reaped: a path that a stopped predecessor still holds would keep its successor out.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from common.errors import SettingsError

RESTART_FIRST_S = 1.0  # after the second end in a row; doubles. The first restart waits for nothing
RESTART_MAX_S = 30.0
STEADY_S = 10.0  # an engine that was ready for so long has no failures in a row behind it
FAILURES_COUNTED_MAX = 16  # by then the wait has reached its bound
QUIT_S = 5.0  # an engine that was asked to end may take so long
IPC_PATH_BYTES_MAX = 100  # sockaddr_un holds 108


class Supervisor:
    """One engine process at a time. Times are monotonic seconds.

    `command(path)` is the argument list of an engine that connects to `path`. The caller listens there
    between `new_path` and `start`.
    """

    def __init__(
        self, command: Callable[[str], Sequence[str]], env: Mapping[str, str], *, start_timeout_s: float
    ) -> None:
        self._command = command
        self._env = dict(env)
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._pidfd = -1
        self._failures = 0  # ends in a row, none of them after a steady time
        self._start_at = float("-inf")  # when the next start is due
        self._ready_at: float | None = None
        self._kill_at = float("inf")
        self._kill_reason = ""

    @property
    def pidfd(self) -> int:
        """A descriptor that becomes readable when the engine ends; -1 while there is none."""
        return self._pidfd

    def start_due(self, now: float) -> bool:
        """Is it time to start one?"""
        return self._process is None and now >= self._start_at

    def new_path(self) -> str:
        """Where the next engine connects to. Raises SettingsError where the path would be too long."""
        self.connected()
        self._folder = Path(tempfile.mkdtemp(prefix="genserve-"))
        path = str(self._folder / "engine")
        if len(os.fsencode(path)) > IPC_PATH_BYTES_MAX:
            self.connected()
            raise SettingsError(
                f"{path} is too long a path for a socket (at most {IPC_PATH_BYTES_MAX} bytes): "
                "set TMPDIR to a shorter one"
            )
        return path

    def start(self, path: str, now: float) -> int:
        """Start the engine; its process id."""
        assert self._process is None
        # A session of its own: the terminal's Ctrl-C is the daemon's to handle, and its helpers form a group.
        self._process = subprocess.Popen(  # noqa: S603  # our own command line
            list(self._command(path)), env=self._env, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._pidfd = os.pidfd_open(self._process.pid)
        self._ready_at = None
        self._kill_at = now + self._start_timeout_s
        self._kill_reason = f"it was not ready within engine_start_timeout_s = {self._start_timeout_s:g} s"
        return self._process.pid

    def connected(self) -> None:
        """The two have met: the path is needed no longer, and nothing may be left behind."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def ready(self, now: float) -> None:
        """The engine takes jobs."""
        self._ready_at, self._kill_at = now, float("inf")

    def quitting(self, now: float) -> None:
        """The engine was asked to end."""
        self._kill_at, self._kill_reason = now + QUIT_S, f"it did not end within {QUIT_S:g} s"

    def overdue(self, now: float) -> str:
        """Why the engine has to be killed now; '' where it need not."""
        return self._kill_reason if self._process is not None and now >= self._kill_at else ""

    def kill(self) -> None:
        """End the engine and its helpers at once. It is still to be reaped."""
        if self._process is not None:
            self._kill_at = float("inf")
            _kill_group(self._process.pid)

    def reap(self, now: float) -> str:
        """How the engine ended, once: 'was killed by SIGKILL'; '' while it runs or where there is none."""
        if self._process is None:
            return ""
        status = self._process.poll()
        if status is None:
            return ""
        _kill_group(self._process.pid)  # helpers that outlived it
        os.close(self._pidfd)
        self._process, self._pidfd, self._kill_at = None, -1, float("inf")
        self.connected()
        if self._ready_at is not None and now - self._ready_at >= STEADY_S:
            self._failures = 0
        wait_s = min(RESTART_FIRST_S * 2 ** (self._failures - 1), RESTART_MAX_S) if self._failures else 0.0
        self._start_at = now + wait_s
        self._failures = min(self._failures + 1, FAILURES_COUNTED_MAX)
        return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

    def close(self, *, wait: bool) -> None:
        """Leave no process and no folder behind; with `wait`, an engine that was asked to end may do so first."""
        if self._process is not None:
            if wait:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(QUIT_S)
            _kill_group(self._process.pid)
            self._process.wait()
            os.close(self._pidfd)
            self._process, self._pidfd = None, -1
        self.connected()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):  # all of it is gone already
        os.killpg(pid, signal.SIGKILL)
