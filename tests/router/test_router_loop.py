"""The real loop over real sockets, spoken to by hand-made DEALERs."""

import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import zmq

from common.log import get_logger
from common.messages import Ping
from common.settings import RouterSettings
from common.sockets import router_socket
from router.broker import Broker
from router.events import ClientSaid, SendFailed
from router.loop import Loop
from router.memory_journal import MemoryJournal
from tests.common.bad_frames import CLIENT_FRAMES, WORKER_FRAMES

SOON_S = 10.0
CARD = {"name": "m", "width": 64, "height": 64, "side_min": 16, "steps": 4}


class Running:
    """A loop in a thread of this process."""

    def __init__(self, **settings: Any) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.dealers: list[Dealer] = []
        clients = router_socket(self.context, "tcp://127.0.0.1:*")
        workers = router_socket(self.context, "tcp://127.0.0.1:*")
        self.clients, self.workers = (s.getsockopt_string(zmq.LAST_ENDPOINT) for s in (clients, workers))
        self.broker = Broker(RouterSettings(**settings))
        self.journal = MemoryJournal()
        self.loop = Loop(self.broker, self.journal, clients, workers, logger=get_logger(), level="error")
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def dealer(self, endpoint: str, receive_max: int = 1000) -> "Dealer":
        self.dealers.append(
            Dealer(self.context, endpoint, receive_max)
        )  # kept: a socket must be closed before its context
        return self.dealers[-1]

    def close(self) -> None:
        self.loop.stop()
        self.thread.join(SOON_S)
        assert not self.thread.is_alive()
        self.broker.check_invariants()
        self.journal.close()
        self.context.destroy(linger=0)


class Dealer:
    """Says anything; hears (NAME, header, payload)."""

    def __init__(self, context: Any, endpoint: str, receive_max: int = 1000) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.RCVHWM, receive_max)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(SOON_S * 1000))
        self.socket.connect(endpoint)

    def send(self, name: bytes, *payload: bytes, **header: Any) -> None:
        self.socket.send_multipart([b"GS1", name, msgpack.packb(header), *payload])

    def receive(self) -> tuple[bytes, dict[str, Any], list[bytes]]:
        _, name, header, *payload = self.socket.recv_multipart()
        return name, msgpack.unpackb(header), payload

    def until(self, wanted: bytes) -> tuple[dict[str, Any], list[bytes]]:
        while True:
            name, header, payload = self.receive()
            if name == wanted:
                return header, payload


@pytest.fixture
def router() -> Iterator[Running]:
    running = Running()
    yield running
    running.close()


def _worker(router: Running) -> tuple[Dealer, int]:
    worker = router.dealer(router.workers)
    worker.send(
        b"REGISTER", worker_id="w", boot_id="b", nonce="n", host="h", device={"device": "cpu", "kind": "cpu"},
        models=[CARD],
    )  # fmt: skip
    welcome, _ = worker.until(b"WELCOME")
    epoch = welcome["epoch"]
    worker.send(b"HEARTBEAT", epoch=epoch, state="ready")
    worker.send(b"CREDIT", epoch=epoch, granted_total=2)
    return worker, epoch


def _done(worker: Dealer, epoch: int, token: Any, parts: list[bytes]) -> None:
    data = b"".join(parts)
    picture = {"format": "png", "width": 64, "height": 64, "drawn_width": 64, "drawn_height": 64, "bytes": len(data)}
    picture["sha256"] = hashlib.sha256(data).hexdigest()
    worker.send(b"DONE", *parts, epoch=epoch, token=token, picture=picture, parts=[len(p) for p in parts], timings={})


@pytest.mark.parametrize("sizes", [[10], [512 * 1024] * 5 + [17]])
def test_a_job_from_submit_to_result_and_fetch(router: Running, sizes: list[int]) -> None:
    worker, epoch = _worker(router)
    client = router.dealer(router.clients)
    client.send(b"SUBMIT", rid="1", job={"prompt": "x", "seed": 5})
    accepted, _ = client.until(b"ACCEPTED")
    order, _ = worker.until(b"DISPATCH")
    assert (order["job"]["prompt"], order["job"]["seed"]) == ("x", 5)
    assert 3590 < order["remaining_s"] < 3600.001
    worker.send(b"STARTED", epoch=epoch, token=order["token"])
    progress, _ = client.until(b"PROGRESS")
    assert progress["state"] == "running"
    parts = [os.urandom(size) for size in sizes]
    _done(worker, epoch, order["token"], parts)
    result, payload = client.until(b"RESULT")
    assert payload == parts
    assert result["job_id"] == accepted["job_id"]
    assert worker.until(b"RESULT_ACK")[0]["token"] == order["token"]
    client.send(b"FETCH", rid="2", job_id=accepted["job_id"])
    assert client.until(b"RESULT")[1] == parts


def test_frames_that_are_no_message_are_answered_and_move_nothing(router: Running) -> None:
    worker, _ = _worker(router)
    client = router.dealer(router.clients)
    for dealer, bad in ((client, CLIENT_FRAMES), (worker, WORKER_FRAMES)):
        for frames in bad:
            dealer.socket.send_multipart(frames)
            name, header, _ = dealer.receive()
            assert (name, header["code"]) == (b"ERROR", "protocol_error"), frames
    client.send(b"STATUS", rid="s")
    status, _ = client.until(b"STATUS")
    assert status["stats"]["protocol_errors_total"] == len(CLIENT_FRAMES) + len(WORKER_FRAMES)
    assert [(w["worker_id"], w["state"], w["credit"]) for w in status["workers"]] == [("w", "ready", 2)]


def test_the_rid_comes_back_where_it_could_be_read(router: Running) -> None:
    client = router.dealer(router.clients)
    client.send(b"WATCH", rid="mine", job_id="nonsense")
    name, header, _ = client.receive()
    assert (name, header["rid"]) == (b"ERROR", "mine")


def test_a_picture_that_is_not_what_was_announced_is_fenced_and_drawn_again(router: Running) -> None:
    worker, epoch = _worker(router)
    client = router.dealer(router.clients)
    client.send(b"SUBMIT", rid="1", job={"prompt": "x"})
    order, _ = worker.until(b"DISPATCH")
    picture = {"format": "png", "width": 1, "height": 1, "drawn_width": 1, "drawn_height": 1, "bytes": 3}
    worker.send(
        b"DONE", b"abc", epoch=epoch, token=order["token"], picture={**picture, "sha256": "0" * 64}, parts=[3],
        timings={},
    )  # fmt: skip
    fenced, _ = worker.until(b"FENCED")
    assert fenced["token"] == order["token"]
    again, _ = worker.until(b"DISPATCH")
    assert again["token"]["dispatch"] == 2
    _done(worker, epoch, again["token"], [b"abc"])
    client.until(b"RESULT")


def test_a_client_that_vanishes_is_noticed_and_its_job_goes_on(router: Running) -> None:
    worker, epoch = _worker(router)
    client = router.dealer(router.clients)
    client.send(b"SUBMIT", rid="1", job={"prompt": "x"})
    accepted, _ = client.until(b"ACCEPTED")
    order, _ = worker.until(b"DISPATCH")
    client.socket.close(linger=0)
    worker.send(b"STARTED", epoch=epoch, token=order["token"])
    _done(worker, epoch, order["token"], [b"abc"])
    worker.until(b"RESULT_ACK")
    other = router.dealer(router.clients)
    other.send(b"WATCH", rid="2", job_id=accepted["job_id"])
    assert other.until(b"RESULT")[1] == [b"abc"]


def test_a_client_that_does_not_read_is_owed_its_end(router: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue fills up; the router goes on, and the end is there when somebody asks again."""
    failed: list[SendFailed] = []
    handle = router.broker.handle

    def listening(event: Any, now: float) -> Any:
        failed.extend([event] if isinstance(event, SendFailed) else [])
        return handle(event, now)

    monkeypatch.setattr(router.broker, "handle", listening)
    worker, epoch = _worker(router)
    lazy = router.dealer(router.clients, receive_max=1)
    lazy.send(b"SUBMIT", rid="1", job={"prompt": "x"})
    order, _ = worker.until(b"DISPATCH")
    end = time.monotonic() + SOON_S
    while not failed:
        for _ in range(500):
            lazy.send(b"STATUS", rid="1")
        assert time.monotonic() < end
    _done(worker, epoch, order["token"], [b"abc"])
    worker.until(b"RESULT_ACK")
    assert not any(f.gone for f in failed)
    other = router.dealer(router.clients)
    other.send(b"FETCH", rid="2", job_id=order["token"]["job_id"])
    assert other.until(b"RESULT")[1] == [b"abc"]


def test_the_loop_survives_a_bug_and_its_client_is_told(router: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = router.broker.handle

    def broken(event: Any, now: float) -> Any:
        if isinstance(event, ClientSaid) and isinstance(event.message, Ping) and event.message.rid == "bug":
            raise RuntimeError("a bug")
        return handle(event, now)

    monkeypatch.setattr(router.broker, "handle", broken)
    client = router.dealer(router.clients)
    client.send(b"PING", rid="bug")
    error, _ = client.until(b"ERROR")
    assert (error["rid"], error["code"]) == ("bug", "internal")
    client.send(b"PING", rid="fine")
    assert client.until(b"PONG")[0]["rid"] == "fine"


def test_many_clients_and_jobs_at_once(router: Running) -> None:
    worker, epoch = _worker(router)
    clients = [router.dealer(router.clients) for _ in range(20)]
    for n, client in enumerate(clients):
        client.send(b"SUBMIT", rid=str(n), job={"prompt": str(n)})
    acknowledged = 0
    while acknowledged < len(clients):
        name, header, _ = worker.receive()
        if name == b"DISPATCH":
            _done(worker, epoch, header["token"], [header["job"]["prompt"].encode()])
        elif name == b"RESULT_ACK":
            acknowledged += 1
            worker.send(b"CREDIT", epoch=epoch, granted_total=2 + acknowledged)
    for n, client in enumerate(clients):
        result, payload = client.until(b"RESULT")
        assert (result["rid"], payload) == (str(n), [str(n).encode()])


# --- the process -------------------------------------------------------------------------------

_CODE = (
    "import os, sys; from common.settings import RouterSettings, load_settings; from router.app import run;"
    "sys.exit(run(load_settings(RouterSettings, env=os.environ)))"
)


def _process(**environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CODE], env={**os.environ, "GENSERVE_LOG_FORMAT": "json", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _endpoints() -> dict[str, str]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [h.getsockname()[1] for h in held]
    for h in held:
        h.close()
    return {
        "GENSERVE_ROUTER_CLIENT_ENDPOINT": f"tcp://127.0.0.1:{ports[0]}",
        "GENSERVE_ROUTER_WORKER_ENDPOINT": f"tcp://127.0.0.1:{ports[1]}",
    }


def _line(process: subprocess.Popen[str], event: str) -> str:
    assert process.stdout is not None
    while select.select([process.stdout], [], [], SOON_S)[0]:
        line = process.stdout.readline()
        if f'"{event}"' in line or not line:
            return line
    raise AssertionError(f"no {event}")


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_the_process_starts_and_stops(sig: signal.Signals) -> None:
    process = _process(**_endpoints())
    assert "tcp://127.0.0.1" in _line(process, "router.listening")
    process.send_signal(sig)
    out, err = process.communicate(timeout=SOON_S)
    assert (process.returncode, err) == (0, "")
    assert "router.stopped" in out


def test_a_second_signal_stops_at_once() -> None:
    endpoints = _endpoints()
    process = _process(**endpoints, GENSERVE_ROUTER_DRAIN_S="600")
    _line(process, "router.listening")
    context = zmq.Context()
    worker = Dealer(context, endpoints["GENSERVE_ROUTER_WORKER_ENDPOINT"])
    worker.send(
        b"REGISTER", worker_id="w", boot_id="b", nonce="n", host="h", device={"device": "cpu", "kind": "cpu"},
        models=[CARD],
    )  # fmt: skip
    worker.until(b"WELCOME")
    client = Dealer(context, endpoints["GENSERVE_ROUTER_CLIENT_ENDPOINT"])
    client.send(b"SUBMIT", rid="1", job={"prompt": "x"})
    client.until(b"ACCEPTED")
    process.send_signal(signal.SIGINT)
    _line(process, "router.draining")
    client.send(b"SUBMIT", rid="2", job={"prompt": "x"})
    assert client.until(b"REJECTED")[0]["code"] == "unavailable"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SOON_S)
    assert (process.returncode, err) == (0, "")
    context.destroy(linger=0)


def test_an_address_in_use_is_explained_without_a_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoints = _endpoints()
        endpoints["GENSERVE_ROUTER_WORKER_ENDPOINT"] = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        process = _process(**endpoints)
        _, err = process.communicate(timeout=SOON_S)
    assert process.returncode == 78
    assert "in use by another process" in err
    assert "Traceback" not in err


def test_an_address_that_others_could_reach_is_refused() -> None:
    process = _process(**{**_endpoints(), "GENSERVE_ROUTER_CLIENT_ENDPOINT": "tcp://0.0.0.0:12499"})
    _, err = process.communicate(timeout=SOON_S)
    assert process.returncode == 78
    assert "SSH tunnel" in err
