"""`genserve status --watch` on a real terminal, in front of a real service; and its rates."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from common.clock import monotonic_s
from common.messages import Message, StatusQuery, StatusReply
from genserve.rates import OVER_S, Meter, steps_between
from tests.genserve.fake_router import FakeRouter
from tests.genserve.test_cli_status import reply, worker
from tests.service import GENSERVE, Service

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
WITHIN_S = 20.0


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, *command: str, columns: int = 100, rows: int = 40) -> None:
        self.text = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            # as a whole: readline, which pytest loads, sets LINES and COLUMNS behind Python's back
            env = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
            os.execve(command[0], command, {**env, "TERM": "xterm"})
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def until(self, what: str, shows: Callable[[str], Any]) -> str:
        """What has been written since the last call, as soon as it `shows` that."""
        deadline = monotonic_s() + WITHIN_S
        while not shows(self.text):
            assert self._read(deadline - monotonic_s()), f"no {what}: {self.text[-2000:]!r}"
        seen, self.text = self.text, ""
        return seen

    def end(self) -> tuple[int, str]:
        """The exit status, and the last words."""
        deadline = monotonic_s() + WITHIN_S
        while self._read(deadline - monotonic_s()):
            pass
        assert monotonic_s() < deadline, f"no end: {self.text[-2000:]!r}"
        _, status = os.waitpid(self.pid, 0)
        os.close(self._fd)
        self.pid = 0
        return os.waitstatus_to_exitcode(status), self.text

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _read(self, within_s: float) -> bool:
        if not select.select([self._fd], [], [], max(0.0, within_s))[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the command has ended
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)


@pytest.fixture
def watching() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def watch(endpoint: str, **size: int) -> Terminal:
        opened.append(Terminal(GENSERVE, "status", "--watch", "0.1", "--router", endpoint, **size))
        return opened[-1]

    yield watch
    for terminal in opened:
        terminal.kill()


def test_a_running_service_on_a_terminal(noop_pair: Service, watching: Callable[..., Terminal]) -> None:
    terminal = watching(noop_pair.client_endpoint)
    first = terminal.until("GPUs with their state", lambda text: "cpu:1" in text and "steps/s" in text)
    assert first.count(ENTER) == 1
    status, *_ = noop_pair.post("/v1/jobs", {"prompt": "x", "num_inference_steps": 60})
    assert status == 202
    terminal.until("bar that moves", lambda text: len(set(re.findall(r"(\d+)/60", text))) >= 3)
    terminal.until("rate", lambda text: re.search(r"[1-9][\d.]* steps/s", text))
    terminal.resize(80, 12)
    # each frame begins with the name; what has no room is left out
    terminal.until(
        "screen of 12 lines", lambda text: any("Models" not in part for part in text.split("GenServe")[1:-1])
    )
    terminal.press("\x03")
    code, last = terminal.end()
    assert (code, last.count(LEAVE)) == (0, 1)
    assert "Traceback" not in last


def test_a_router_that_stands_still(noop_pair: Service, watching: Callable[..., Terminal]) -> None:
    terminal = watching(noop_pair.client_endpoint)
    terminal.until("first answer", lambda text: "steps/s" in text)
    [router] = noop_pair.processes("genserve router")
    router.suspend()
    try:
        away = terminal.until("word of it", lambda text: re.search(r"router not answering since [1-9]\d* s", text))
    finally:
        router.resume()
    assert "cpu:1" in away  # what was last known stays
    terminal.until("next answer", lambda text: "pictures/min" in text.rpartition("not answering")[2])
    os.kill(terminal.pid, signal.SIGTERM)
    code, last = terminal.end()
    assert (code, last.count(LEAVE)) == (0, 1)


def test_a_router_that_is_started_again(start: Callable[..., FakeRouter], watching: Callable[..., Terminal]) -> None:
    up = {"s": 500.0}

    def script(router: FakeRouter, message: Message) -> None:
        assert isinstance(message, StatusQuery)
        stats = msgspec.structs.replace(reply().stats, uptime_s=up["s"])
        router.say(msgspec.structs.replace(reply(worker(0)), rid=message.rid, stats=stats))

    first = start(script)
    terminal = watching(first.endpoint)
    terminal.until("first answer", lambda text: "8 m 20 s" in text and "steps/s" in text)
    first.close()
    terminal.until("word of it", lambda text: re.search(r"router not answering since [2-9] s", text))
    up["s"] = 3.0
    start(script, first.endpoint)
    terminal.until("the new router", lambda text: "up 3.0 s" in text and "measuring" in text)
    terminal.press("\x03")
    assert terminal.end()[0] == 0


def test_a_pipe_gets_a_block_each_time(noop_pair: Service) -> None:
    command = [GENSERVE, "status", "--watch", "0.1", "--router", noop_pair.client_endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = ""
        while seen.count("Jobs") < 3:
            seen += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        seen += process.stdout.read()
        assert process.wait(WITHIN_S) == 0
    assert "\x1b" not in seen
    assert len(re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", seen, re.MULTILINE)) >= 3


# --- rates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "steps"),
    [
        ({"step": 3}, {"step": 9}, 6),
        ({"step": 9}, {"step": 3}, 0),  # it was begun anew
        ({"busy": False, "job_id": "", "steps": 0, "step": 0}, {"step": 2}, 2),
        ({"step": 20, "done_total": 5}, {"job_id": "b", "step": 4, "done_total": 6}, 8 + 4),
        ({"step": 20, "done_total": 5}, {"job_id": "b", "step": 4, "done_total": 8}, 8 + 2 * 28 + 4),
        ({"step": 20, "done_total": 5}, {"busy": False, "job_id": "", "steps": 0, "done_total": 6}, 8),
        ({"step": 20}, {"busy": False, "job_id": "", "steps": 0}, 0),  # it was cancelled
    ],
)
def test_steps_between_two_looks(before: dict[str, Any], after: dict[str, Any], steps: int) -> None:
    assert steps_between(worker(0, **before), worker(0, **after)) == steps


def looked(meter: Meter, now: float, *, done: int, step: int, up: float | None = None) -> Any:
    stats = msgspec.structs.replace(reply().stats, done_total=done, uptime_s=1000 + now if up is None else up)
    view: StatusReply = msgspec.structs.replace(reply(worker(0, step=step)), stats=stats)
    return meter.look(view, now)


def test_rates_are_those_of_the_last_while() -> None:
    meter = Meter()
    assert looked(meter, 0.0, done=100, step=0) is None
    rates = looked(meter, 10.0, done=105, step=20)
    assert (rates.pictures_per_min, rates.steps_per_s, rates.over_s) == (30.0, 2.0, 10.0)
    for second in range(11, 100):
        rates = looked(meter, float(second), done=105, step=20)
    assert (rates.pictures_per_min, rates.steps_per_s, rates.over_s) == (0.0, 0.0, OVER_S)


def test_a_router_that_began_anew_is_measured_anew() -> None:
    meter = Meter()
    looked(meter, 0.0, done=100, step=0)
    looked(meter, 10.0, done=105, step=20)
    assert looked(meter, 20.0, done=0, step=0, up=2.0) is None
    assert looked(meter, 30.0, done=1, step=10, up=12.0).pictures_per_min == 6.0
