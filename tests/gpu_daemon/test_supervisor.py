"""The supervisor with real processes; its time is an argument."""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from common.errors import SettingsError
from gpu_daemon.supervisor import QUIT_S, RESTART_MAX_S, STEADY_S, Supervisor

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]
ENDS = [sys.executable, "-c", "raise SystemExit(3)"]
WITH_HELPER = (
    "import subprocess, sys, time\n"
    "helper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "open(sys.argv[1], 'w').write(str(helper.pid))\ntime.sleep(60)"
)
HELPED = [sys.executable, "-c", WITH_HELPER]


@pytest.fixture
def supervise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Sequence[str]], Supervisor]]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = []

    def make(command: Sequence[str]) -> Supervisor:
        made.append(Supervisor(lambda path: [*command, path], os.environ, start_timeout_s=100.0))
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.close(wait=False)
    assert list(tmp_path.glob("genserve-*")) == [], "a folder was left behind"


def begin(supervisor: Supervisor, now: float) -> int:
    assert supervisor.start_due(now)
    return supervisor.start(supervisor.new_path(), now)


def end(supervisor: Supervisor, now: float) -> str:
    """Wait for the end through the descriptor that the loop waits on."""
    assert select.select([supervisor.pidfd], [], [], 10.0)[0]
    return supervisor.reap(now)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_each_start_has_a_new_private_path(supervise: Callable[[Sequence[str]], Supervisor]) -> None:
    supervisor = supervise(ENDS)
    paths = []
    for number in range(3):
        path = Path(supervisor.new_path())
        assert path.parent.stat().st_mode & 0o777 == 0o700
        paths.append(path)
        supervisor.start(str(path), 1000.0 * number)
        assert end(supervisor, 1000.0 * number) == "ended with status 3"
        assert not path.parent.exists()
    assert len(set(paths)) == 3


def test_the_path_goes_once_the_two_have_met(supervise: Callable[[Sequence[str]], Supervisor]) -> None:
    supervisor = supervise(SLEEPS)
    folder = Path(supervisor.new_path()).parent
    assert folder.exists()
    supervisor.connected()
    assert not folder.exists()


def test_the_first_restart_is_at_once_and_the_waits_grow_to_a_bound(
    supervise: Callable[[Sequence[str]], Supervisor],
) -> None:
    supervisor = supervise(ENDS)
    waits, now = [], 0.0
    for _ in range(8):
        begin(supervisor, now)
        end(supervisor, now)
        wait_s = next(s for s in (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0) if supervisor.start_due(now + s))
        assert wait_s == 0.0 or not supervisor.start_due(now + wait_s - 0.1)
        waits.append(wait_s)
        now += wait_s
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, RESTART_MAX_S, RESTART_MAX_S]


def test_a_steady_engine_is_restarted_at_once(supervise: Callable[[Sequence[str]], Supervisor]) -> None:
    supervisor, now = supervise(SLEEPS), 0.0
    for _ in range(3):
        begin(supervisor, now)
        supervisor.ready(now)
        now += STEADY_S
        supervisor.kill()
        assert end(supervisor, now) == "was killed by SIGKILL"
        assert supervisor.start_due(now)


def test_an_engine_that_does_not_get_ready_is_overdue(supervise: Callable[[Sequence[str]], Supervisor]) -> None:
    supervisor = supervise(SLEEPS)
    begin(supervisor, 0.0)
    assert supervisor.overdue(99.0) == ""
    assert "engine_start_timeout_s = 100 s" in supervisor.overdue(100.0)
    supervisor.ready(100.0)
    assert supervisor.overdue(10_000.0) == ""
    supervisor.quitting(200.0)
    assert supervisor.overdue(200.0 + QUIT_S)
    supervisor.kill()
    assert supervisor.overdue(300.0) == "", "killed once"


def test_helpers_end_with_their_engine(supervise: Callable[[Sequence[str]], Supervisor], tmp_path: Path) -> None:
    supervisor = supervise(HELPED)
    path = supervisor.new_path()
    pid = supervisor.start(path, 0.0)
    while not (Path(path).exists() and Path(path).read_text("ascii")):
        assert not select.select([supervisor.pidfd], [], [], 0.01)[0]
    helper = int(Path(path).read_text("ascii"))
    os.kill(pid, signal.SIGKILL)
    end(supervisor, 0.0)
    while not gone(helper):
        select.select([], [], [], 0.01)


def test_a_path_too_long_for_a_socket_is_refused(
    supervise: Callable[[Sequence[str]], Supervisor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(SettingsError, match="set TMPDIR to a shorter one"):
        supervise(SLEEPS).new_path()
    assert list(deep.iterdir()) == []
