"""The gateway under systemd: the socket that is held for it, what it tells, and how one follows another."""

import asyncio
import signal
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from common.clock import monotonic_s
from common.health import Watchdog
from common.messages import Ping
from common.process import EXIT_CONFIG, EXIT_OK
from gateway.link import TICKS_MISSED_MAX, WATCH_INTERVAL_S, RouterLink
from tests.common.systemd_socket import NotifySocket
from tests.gateway.fake_router import FakeRouter
from tests.gateway.test_gateway_process import _PROGRAM, Process, _ask, _generate_status, _until

_HAND_OVER = (  # as systemd does: the socket is descriptor 3 of the process that LISTEN_PID names
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
    "os.execv(sys.executable, [sys.executable, '-c', sys.argv[2]])"
)


class Activated(Process):
    """A gateway that is handed a listening socket."""

    def __init__(
        self, listener: socket.socket, endpoint: str, env: dict[str, str] | None = None, **settings: object
    ) -> None:
        self._listener = listener
        self.descriptors = (listener.fileno(),)
        super().__init__(endpoint, {"LISTEN_FDS": "1", **(env or {})}, **settings)

    def command(self) -> list[str]:
        return [sys.executable, "-c", _HAND_OVER, str(self._listener.fileno()), _PROGRAM]


@pytest.fixture
def started() -> Iterator[list[Process]]:
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.popen.kill()
        process.popen.communicate()


@pytest.fixture
def held() -> Iterator[socket.socket]:
    """What genserve-gateway.socket holds."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener


def test_one_gateway_drains_while_the_next_one_serves(
    started: list[Process], router: FakeRouter, held: socket.socket
) -> None:
    router.draws = lambda _spec: False
    url = f"http://127.0.0.1:{held.getsockname()[1]}"
    old = Activated(held, router.endpoint, drain_s=600)
    started.append(old)
    assert old.event("gateway.listening")["url"] == url
    slow: list[int] = []
    waiting = _ask(url, slow)
    _until(lambda: router.jobs)
    with socket.create_connection(("127.0.0.1", held.getsockname()[1]), timeout=20) as quick:
        quick.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")  # so the old one has it
        assert b" 200 OK" in quick.recv(4096)
        old.popen.terminate()
        old.event("gateway.draining")
        quick.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")  # it had connected before
        answer = quick.recv(4096)
        assert b" 200 OK" in answer
        assert b"Connection: close" in answer
    between = _ask(url, slow)  # nobody accepts; the socket is listened on
    new = Activated(held, router.endpoint)
    started.append(new)
    assert new.event("gateway.listening")["url"] == url
    _until(lambda: len(router.jobs) == 2)
    with urllib.request.urlopen(f"{url}/health/live", timeout=20) as live:
        assert live.status == 200
    assert old.popen.poll() is None
    for job_id in list(router.jobs):
        router.finish(job_id)
    waiting.join(20)
    between.join(20)
    assert slow == [200, 200]
    assert old.ended() == (EXIT_OK, "")
    new.popen.terminate()
    assert new.ended() == (EXIT_OK, "")


def test_nobody_is_lost_while_one_gateway_follows_another(
    started: list[Process], router: FakeRouter, held: socket.socket
) -> None:
    """Clients that connect anew for each request, without a pause, over three upgrades."""
    url = f"http://127.0.0.1:{held.getsockname()[1]}"
    gateway = Activated(held, router.endpoint)
    started.append(gateway)
    gateway.event("gateway.listening")
    answers: list[int] = []
    over = threading.Event()

    def insist() -> None:
        while not over.is_set():
            _ask(url, answers).join(30)

    clients = [threading.Thread(target=insist) for _ in range(3)]
    for client in clients:
        client.start()
    for _ in range(3):
        served = len(answers)
        _until(lambda served=served: len(answers) > served + 20)
        gateway.popen.terminate()
        assert gateway.ended() == (EXIT_OK, "")
        gateway = Activated(held, router.endpoint)
        started.append(gateway)
        gateway.event("gateway.listening")
    over.set()
    for client in clients:
        client.join(30)
    assert set(answers) == {200}


def test_systemd_hears_how_the_gateway_stands(
    started: list[Process], router: FakeRouter, held: socket.socket, tmp_path: Path
) -> None:
    with NotifySocket(tmp_path, 1.5) as listener:
        run = tmp_path / "run"
        run.mkdir()
        process = Activated(held, router.endpoint, {**listener.env, "RUNTIME_DIRECTORY": str(run)}, port=1)
        started.append(process)
        ignored = process.event("gateway.address_ignored")["message"]
        assert "gateway.port = 1 has no effect" in ignored
        assert "sudo genserve upgrade" in ignored
        url = process.event("gateway.listening")["url"]
        assert listener.wait("STATUS", "listening on").startswith(f"listening on {url}, 0 requests open")
        listener.wait("STATUS", f"listening on {url}, 0 requests open")
        listener.wait("READY", "1")
        fed = len(listener.values("WATCHDOG"))
        _until(lambda: len(listener.values("WATCHDOG")) > fed)
        router.draws = lambda _spec: False
        answers: list[int] = []
        asking = _ask(url, answers)
        listener.wait("STATUS", "1 request open")
        process.popen.terminate()
        assert listener.wait("STATUS", "draining") == "draining: 1 request is still open"
        router.finish(next(iter(router.jobs)))
        asking.join(20)
        assert process.ended() == (EXIT_OK, "")
        assert answers == [200]
        assert listener.values("STOPPING") == ["1"]
        assert list(run.iterdir()) == []


def test_a_reload_starts_the_next_gateway_and_then_drains(
    started: list[Process], router: FakeRouter, held: socket.socket, tmp_path: Path
) -> None:
    router.draws = lambda _spec: False
    with NotifySocket(tmp_path, 30.0) as listener:
        old = Activated(held, router.endpoint, listener.env, drain_s=600)
        started.append(old)
        url = old.event("gateway.listening")["url"]
        listener.wait("READY", "1")
        slow: list[int] = []
        waiting = _ask(url, slow)
        _until(lambda: router.jobs)
        old.popen.send_signal(signal.SIGHUP)
        pid = int(listener.wait("MAINPID"))
        try:
            old.event("gateway.draining")
            assert pid != old.popen.pid
            assert psutil.Process(pid).ppid() != old.popen.pid
            assert [f for f in listener.heard if "RELOADING" in f or "MAINPID" in f] == [
                {"RELOADING": "1", "STATUS": "starting the next gateway"},
                {"MAINPID": str(pid), "READY": "1"},
            ]
            with urllib.request.urlopen(f"{url}/health/live", timeout=20) as live:
                assert live.status == 200
            assert old.popen.poll() is None
            router.finish(next(iter(router.jobs)))
            waiting.join(20)
            assert slow == [200]
            assert old.popen.wait(20) == EXIT_OK
            psutil.Process(pid).terminate()
            listener.wait("STOPPING")
            _until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        finally:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()


def test_a_next_gateway_that_cannot_start_changes_nothing(
    started: list[Process], router: FakeRouter, held: socket.socket, tmp_path: Path
) -> None:
    settings = tmp_path / "genserve.toml"
    settings.write_text("[gateway]\ndrain_s = 5.0\n")
    with NotifySocket(tmp_path) as listener:
        gateway = Activated(held, router.endpoint, {"GENSERVE_CONFIG": str(settings), **listener.env})
        started.append(gateway)
        url = gateway.event("gateway.listening")["url"]
        listener.wait("READY", "1")
        settings.write_text("[gateway]\ndrian_s = 5.0\n")
        gateway.popen.send_signal(signal.SIGHUP)
        assert "ended before it listened" in gateway.event("gateway.handover_failed")["cause"]
        listener.wait("STATUS", "could not start")
        listener.wait("STATUS", "listening on")
        assert listener.values("READY") == ["1", "1"]
        assert _generate_status(url) == 200
        gateway.popen.terminate()
        status, errors = gateway.ended()
    assert status == EXIT_OK
    assert "drian_s" in errors  # what the next one said


@pytest.mark.parametrize("what", ["two", "a datagram socket", "for all to reach"])
def test_what_it_cannot_listen_on_is_for_a_person_to_mend(
    started: list[Process], router: FakeRouter, what: str
) -> None:
    kind = socket.SOCK_DGRAM if what == "a datagram socket" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as given:
        given.bind(("0.0.0.0" if what == "for all to reach" else "127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            given.listen()
        env = {"LISTEN_FDS": "2"} if what == "two" else {}
        process = Activated(given, router.endpoint, env)
        started.append(process)
        status, errors = process.ended()
    assert status == EXIT_CONFIG
    assert "genserve-gateway.socket" in errors
    assert "Traceback" not in errors


async def test_a_link_that_is_not_served_feeds_no_watchdog(router: FakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    link = RouterLink(router.endpoint, answer_timeout_s=5.0)
    link.open()
    try:
        watchdog = Watchdog(30.0)
        watchdog.watch(link.checks())
        await link.ask(Ping(rid="1"))
        now = monotonic_s()
        assert (link.connected, watchdog.complaint(now), watchdog.complaint(now)) == (True, "", "")
        later = now + TICKS_MISSED_MAX * WATCH_INTERVAL_S + 1
        assert watchdog.complaint(later) == "link: nothing was repeated to the router for 21 s"
        asyncio.get_running_loop().remove_reader(link._line._descriptor)
        monkeypatch.setattr(link._line, "_on_ready", lambda: None)
        asking = asyncio.ensure_future(link.ask(Ping(rid="2")))
        complaint = ""
        while not complaint and monotonic_s() < now + 5:
            await asyncio.sleep(0.01)
            complaint = watchdog.complaint(monotonic_s())
        assert complaint == "line: what the router says is not read"
        asking.cancel()
    finally:
        await link.close()
    assert not link.connected
