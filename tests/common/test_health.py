"""What systemd is told of a process, when its watchdog is fed and when not, and how a restart is held back."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from common import restarts
from common.health import Pulse, Standing, Watchdog
from common.notify import LOOK_INTERVAL_S, Systemd
from common.restarts import COUNTED_MAX, MAX_S, STEADY_S, Restarts, wait_s
from tests.common.systemd_socket import NotifySocket

Speaker = Callable[[Mapping[str, str]], Systemd]

# --- pure --------------------------------------------------------------------------------------


def test_a_watchdog_is_fed_at_a_third_of_its_time_and_not_while_a_check_complains() -> None:
    watchdog, wrong = Watchdog(30.0), {"journal": "", "authentication": ""}
    watchdog.watch({"journal": lambda _now: wrong["journal"]})
    watchdog.watch({"authentication": lambda _now: wrong["authentication"]})
    assert [watchdog.look(now) for now in (0.0, 1.0, 9.9, 10.0, 19.9, 20.0)] == ["", None, None, "", None, ""]
    wrong["authentication"] = "its thread has ended"
    assert watchdog.look(25.0) is None
    assert [watchdog.look(now) for now in (30.0, 30.1, 90.0)] == ["authentication: its thread has ended"] * 3
    wrong["authentication"] = ""
    assert [watchdog.look(90.1), watchdog.look(90.2)] == ["", None]


def test_a_loop_that_does_not_get_its_work_done_feeds_nobody() -> None:
    watchdog, ticks = Watchdog(30.0), Pulse("no tick has been handled", 10.0, now=100.0)
    watchdog.watch({"loop": ticks})
    fed = []
    for now in range(100, 160):  # the loop turns on, but from 120 on every tick comes to grief
        if now < 120:
            ticks.beat(float(now))
        if watchdog.look(float(now)) == "":
            fed.append(now)
    assert fed == [100, 110, 120]
    assert watchdog.look(160.0) == "loop: no tick has been handled for 41 s"


def test_where_systemd_does_not_watch_nothing_is_ever_due() -> None:
    watchdog = Watchdog(0.0)
    watchdog.watch({"loop": lambda _now: "dead"})
    assert [watchdog.look(now) for now in (0.0, 1e9)] == [None, None]


def test_restarts_in_a_row_wait_longer_up_to_a_bound() -> None:
    assert [wait_s(failures) for failures in range(9)] == [0, 0, 1, 2, 4, 8, 16, MAX_S, MAX_S]
    assert wait_s(COUNTED_MAX) == MAX_S


# --- told --------------------------------------------------------------------------------------


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path, 30.0, pid=os.getpid()) as made:
        yield made


@pytest.fixture
def speaker() -> Iterator[Callable[[Mapping[str, str]], Systemd]]:
    made: list[Systemd] = []

    def make(env: Mapping[str, str]) -> Systemd:
        made.append(Systemd(env))
        return made[-1]

    yield make
    for systemd in made:
        systemd.close()


def test_what_is_new_is_told_once(listener: NotifySocket, speaker: Speaker) -> None:
    systemd, stands = speaker(listener.env), [Standing("loading, 1 s", usable=False, needs_s=60.0)]
    tend = lambda now: systemd.tend(now, lambda: stands[0])  # noqa: E731  # four words said often
    extension = {"EXTEND_TIMEOUT_USEC": "60000000"}
    tend(0.0)
    assert listener.read() == [{"WATCHDOG": "1", "STATUS": "loading, 1 s", **extension}]
    tend(0.5 * LOOK_INTERVAL_S)
    assert listener.read() == []
    tend(LOOK_INTERVAL_S)
    assert listener.read() == [extension]  # it is still at work: that is said again and again
    stands[0] = Standing("cuda:0 cannot be used\nat all", usable=False)
    tend(2.0)
    tend(3.0)
    assert listener.read() == [{"STATUS": "cuda:0 cannot be used at all"}]
    stands[0] = Standing("ready, nothing to draw")
    for now in (4.0, 5.0, 10.0):
        tend(now)
    assert listener.read() == [{"READY": "1", "STATUS": "ready, nothing to draw"}, {"WATCHDOG": "1"}]
    stands[0] = Standing("loading, 2 s", usable=False, needs_s=60.0)  # anew: systemd has nothing to extend
    tend(11.0)
    stands[0] = Standing("draining: 1 job still runs", stopping=True, needs_s=0.5)
    tend(12.0)
    tend(13.0)
    assert listener.read() == [
        {"STATUS": "loading, 2 s"},
        {"STOPPING": "1", "STATUS": "draining: 1 job still runs", "EXTEND_TIMEOUT_USEC": "500000"},
    ]


def test_who_is_stuck_says_why_and_is_not_fed(listener: NotifySocket, speaker: Speaker) -> None:
    systemd, wrong = speaker(listener.env), ["no commit for 11 s"]
    systemd.watch({"journal": lambda _now: wrong[0]})
    with capture_logs() as logs:
        for now in (0.0, 0.1, 1.0):
            systemd.tend(now, lambda: Standing("2 GPUs ready"))
            wrong[0] = f"no commit for {12 + now:.0f} s"
    assert [line["event"] for line in logs] == ["watchdog.withheld"]
    assert listener.values("STATUS") == ["stuck: journal: no commit for 11 s", "stuck: journal: no commit for 12 s"]
    assert listener.values("WATCHDOG") == []
    wrong[0] = ""
    systemd.tend(2.0, lambda: Standing("2 GPUs ready"))
    assert listener.read() == [{"WATCHDOG": "1", "STATUS": "2 GPUs ready"}]


def test_an_end_is_told_once(listener: NotifySocket, speaker: Speaker) -> None:
    speaker(listener.env).end()
    drained = speaker(listener.env)
    drained.tend(0.0, lambda: Standing("draining", stopping=True))
    drained.end()
    assert not drained.tell(STATUS="too late")
    assert listener.values("STOPPING") == ["1", "1"]


def test_nobody_listens(tmp_path: Path, speaker: Speaker) -> None:
    def never() -> Standing:
        raise AssertionError("asked for nothing")

    quiet = speaker({})
    quiet.tend(0.0, never)
    assert not quiet.tell(READY=1)


def test_one_who_does_not_listen_is_logged_once_and_told_everything_later(tmp_path: Path, speaker: Speaker) -> None:
    systemd = speaker({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    with capture_logs() as logs:
        for now in (0.0, 1.0, 2.0):
            systemd.tend(now, lambda: Standing("ready"))
    assert [(line["event"], line["unsaid"]) for line in logs] == [("systemd.deaf", ["READY", "STATUS"])]
    with NotifySocket(tmp_path) as listener:
        systemd.tend(3.0, lambda: Standing("ready"))
        assert listener.read() == [{"READY": "1", "STATUS": "ready"}]


def test_a_fault_in_telling_ends_nothing(listener: NotifySocket, speaker: Speaker) -> None:
    def broken() -> Standing:
        raise RuntimeError("a bug")

    systemd = speaker(listener.env)
    with capture_logs() as logs:
        systemd.tend(0.0, broken)
        systemd.tend(1.0, broken)
    assert [line["event"] for line in logs] == ["status.fault"]
    assert listener.read() == [{"WATCHDOG": "1"}]


def test_the_watchdog_of_another_process_is_not_ours(tmp_path: Path, speaker: Speaker) -> None:
    with NotifySocket(tmp_path, 30.0, pid=os.getpid() + 1) as listener:
        systemd = speaker(listener.env)
        systemd.tend(0.0, lambda: Standing("ready"))
        assert listener.values("WATCHDOG") == []


def test_an_abstract_address(tmp_path: Path, speaker: Speaker) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0genserve-test-{os.getpid()}")
        assert speaker({"NOTIFY_SOCKET": f"@genserve-test-{os.getpid()}"}).tell(READY=1)
        assert heard.recv(100) == b"READY=1"


# --- restarts ----------------------------------------------------------------------------------


def test_the_service_waits_before_its_third_start_in_a_row(
    tmp_path: Path, listener: NotifySocket, monkeypatch: pytest.MonkeyPatch, speaker: Speaker
) -> None:
    waited: list[float] = []
    clock = [1000.0]
    monkeypatch.setattr(restarts.time, "sleep", waited.append)
    monkeypatch.setattr(restarts, "monotonic_s", lambda: clock[0])
    folder = tmp_path / "run"
    folder.mkdir()
    env, systemd = {"RUNTIME_DIRECTORY": str(folder)}, speaker(listener.env)

    def start(after_s: float) -> Any:
        waited.clear()
        clock[0] += after_s
        Restarts(env).hold_back(systemd)
        return list(waited)

    assert [start(1.0) for _ in range(5)] == [[], [], [1.0], [2.0], [4.0]]
    assert listener.values("STATUS")[-1].startswith("ended 4 times in a row; it starts again in 4 s")
    assert start(STEADY_S + 1) == []  # it had lived long
    assert start(1.0) == [1.0]
    Restarts(env).ended_well()
    assert [start(1.0), start(1.0)] == [[], []]
    (folder / "starts").write_text("")  # cut off while it was written
    assert [start(1.0), start(1.0)] == [[], [1.0]]
    folder.joinpath("starts").unlink()
    folder.rmdir()
    with capture_logs() as logs:
        assert start(1.0) == []
    assert [line["event"] for line in logs] == ["process.starts_uncounted"]


def test_without_systemd_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaker: Speaker) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        Restarts({}).hold_back(speaker({}))
    Restarts({}).ended_well()
    assert list(tmp_path.iterdir()) == []
