"""The gateway as a process: its start, its signals, its end."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from common.clock import monotonic_s
from common.messages import CancelJob
from common.process import EXIT_CONFIG, EXIT_OK
from common.settings import GatewaySettings, Loaded, LogSettings
from gateway.app import Server
from gateway.listener import listen
from tests.gateway.conftest import until
from tests.gateway.fake_router import FakeRouter
from tests.gateway.test_gateway_http import BROKEN_CHUNK
from tests.rawclient import RawClient

_PROGRAM = """
import os, sys
from common.settings import GatewaySettings, load_settings
from gateway.app import run
sys.exit(run(load_settings(GatewaySettings, env=os.environ)))
"""


class Process:
    """A gateway and the lines it has written."""

    descriptors: tuple[int, ...] = ()

    def command(self) -> list[str]:
        """How it is started."""
        return [sys.executable, "-c", _PROGRAM]

    def __init__(self, endpoint: str, env: dict[str, str] | None = None, **settings: Any) -> None:
        given = {f"GENSERVE_GATEWAY_{key.upper()}": str(value) for key, value in settings.items()}
        given = {"GENSERVE_GATEWAY_PORT": "0", "GENSERVE_GATEWAY_ROUTER_ENDPOINT": endpoint, **given, **(env or {})}
        self.popen = subprocess.Popen(
            self.command(),
            env=given,
            pass_fds=self.descriptors,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def event(self, name: str) -> dict[str, Any]:
        """The next line with this event."""
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            entry: dict[str, Any] = json.loads(line)
            if entry["event"] == name:
                return entry
        raise AssertionError(f"ended before {name}: {self.popen.stderr.read() if self.popen.stderr else ''}")

    def ended(self) -> tuple[int, str]:
        """Its exit status and what it wrote on stderr."""
        _, errors = self.popen.communicate(timeout=20)
        return self.popen.returncode, errors


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """Add the processes that a test starts; they are gone when it ends."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.popen.kill()
        process.popen.communicate()


def _generate_status(url: str) -> int:
    """The status of an answer to POST /generate, 0 where none comes."""
    request = urllib.request.Request(
        f"{url}/generate", data=b'{"prompt": "a fox"}', headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def _ask(url: str, answers: list[int]) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(_generate_status(url)))
    thread.start()
    return thread


def _until(condition: Any) -> None:
    deadline = monotonic_s() + 20
    while not condition():
        assert monotonic_s() < deadline
        threading.Event().wait(0.005)


def test_it_finishes_what_is_open_and_takes_no_more(started: list[Process], router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    process = Process(router.endpoint)
    started.append(process)
    url = process.event("gateway.listening")["url"]
    assert "genserve gateway" in " ".join(psutil.Process(process.popen.pid).cmdline())
    answers: list[int] = []
    thread = _ask(url, answers)
    _until(lambda: router.jobs)
    process.popen.send_signal(signal.SIGTERM)
    process.event("gateway.draining")
    host, port = url.removeprefix("http://").split(":")

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) != 0

    _until(refused)
    for job_id in list(router.jobs):
        router.finish(job_id)
    thread.join(20)
    assert answers == [200]
    assert process.ended() == (EXIT_OK, "")


@pytest.mark.parametrize("way", ["drain_s is over", "a second signal"])
def test_what_does_not_finish_is_cut_and_its_job_goes_on(started: list[Process], router: FakeRouter, way: str) -> None:
    router.draws = lambda _spec: False
    process = Process(router.endpoint, drain_s=0.1 if way == "drain_s is over" else 600)
    started.append(process)
    answers: list[int] = []
    thread = _ask(process.event("gateway.listening")["url"], answers)
    _until(lambda: router.jobs)
    process.popen.send_signal(signal.SIGINT)
    process.event("gateway.draining")
    if way == "a second signal":
        process.popen.send_signal(signal.SIGINT)
    assert process.ended() == (EXIT_OK, "")
    thread.join(20)
    assert answers == [0]
    with RawClient(router.endpoint) as client:
        assert client.ask(b"PING", rid="1")[0] == b"PONG"
    assert (router.states(), router.count(CancelJob)) == (["running"], 0)


@pytest.mark.parametrize("drain_s", [0, 60])
def test_idle_it_stops_at_once(started: list[Process], router: FakeRouter, drain_s: float) -> None:
    process = Process(router.endpoint, drain_s=drain_s)
    started.append(process)
    url = process.event("gateway.listening")["url"]
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as idle:
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in idle.recv(4096)
        process.popen.send_signal(signal.SIGTERM)
        began = monotonic_s()
        assert process.ended() == (EXIT_OK, "")
        assert monotonic_s() - began < 10


def test_half_requests_and_open_connections_do_not_hold_it(started: list[Process], router: FakeRouter) -> None:
    """Ten jobs end, and what has no job does not outlive them: idle, half a head, half a body, a refused rest."""
    router.draws = lambda _spec: False
    process = Process(router.endpoint, drain_s=600)
    started.append(process)
    url = process.event("gateway.listening")["url"]
    host, port = url.removeprefix("http://").split(":")
    post = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    halves = [b"", b"POST /gen", post % b"/generate", post % b"/v1/images/generations", post % b"/nope"]
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection((host, int(port)), timeout=20)) for _ in halves]
        for each, half in zip(sockets, halves, strict=True):
            each.sendall(half)
        assert b" 404 " in sockets[-1].recv(4096)
        answers: list[int] = []
        threads = [_ask(url, answers) for _ in range(10)]
        _until(lambda: len(router.jobs) == 10)
        process.popen.send_signal(signal.SIGTERM)
        process.event("gateway.draining")
        for each in sockets[2:4]:
            answer = each.recv(4096)
            assert b" 503 " in answer.split(b"\r\n")[0]
            assert b"Connection: close" in answer
            assert b'"code":"unavailable"' in answer
        for job_id in list(router.jobs):
            router.finish(job_id)
        for thread in threads:
            thread.join(20)
        began = monotonic_s()
        assert process.ended() == (EXIT_OK, "")
        assert monotonic_s() - began < 10
        assert answers == [200] * 10


async def test_stopping_does_not_wait_for_a_router_that_is_gone(
    router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.link.WATCH_INTERVAL_S", 0.05)
    router.draws = lambda _spec: False
    settings = GatewaySettings(port=0, router_endpoint=router.endpoint, router_timeout_s=0.5, drain_s=600)
    with listen("127.0.0.1", 0) as listener:
        server = Server(Loaded(settings, LogSettings(), {}), listener)
        await server.start()
        asking = asyncio.ensure_future(asyncio.to_thread(_generate_status, server.url))
        await until(lambda: router.jobs, "a job")
        router.stop()
        await asyncio.wait_for(server.stop(), 10)
        assert await asking == 503


def test_a_broken_body_leaves_no_traceback_in_the_log(started: list[Process], router: FakeRouter) -> None:
    process = Process(router.endpoint)
    started.append(process)
    host, port = process.event("gateway.listening")["url"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(BROKEN_CHUNK)
        assert b" 400 " in client.recv(4096)
    process.popen.send_signal(signal.SIGTERM)
    log, _ = process.popen.communicate(timeout=20)
    assert "gateway.stopped" in log
    assert "Traceback" not in log


def test_a_port_in_use_is_for_a_person_to_mend(started: list[Process], router: FakeRouter) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        process = Process(router.endpoint, port=port)
        started.append(process)
        status, errors = process.ended()
    assert status == EXIT_CONFIG
    assert f"127.0.0.1:{port} is in use" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "example.org"])  # that is the test
def test_only_loopback_is_listened_on(started: list[Process], router: FakeRouter, host: str) -> None:
    process = Process(router.endpoint, host=host)
    started.append(process)
    status, errors = process.ended()
    assert status == EXIT_CONFIG
    assert "`genserve keys add-http NAME` makes a key" in errors
    assert "--no-auth" in errors
    assert "Traceback" not in errors


def test_ipv6_loopback(started: list[Process], router: FakeRouter) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 loopback here")
    process = Process(router.endpoint, host="::1")
    started.append(process)
    url = process.event("gateway.listening")["url"]
    assert url.startswith("http://[::1]:")
    with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
        assert answer.status == 200
