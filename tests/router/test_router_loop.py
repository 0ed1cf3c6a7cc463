"""The real loop over real sockets, spoken to by hand-made DEALERs."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from common.log import get_logger
from common.messages import CancelJob, Ping
from common.settings import RouterSettings
from common.sockets import router_socket
from router.broker import Broker
from router.commands import Command
from router.events import ClientSaid, DrainAsked, Event, InputsStored, SendFailed
from router.loop import Loop
from router.memory_journal import MemoryJournal
from tests.common.bad_frames import CLIENT_FRAMES, WORKER_FRAMES
from tests.router import journals as j
from tests.router.process import SOON_S, Daemon, Dealer, router_process


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


@pytest.fixture
def router() -> Iterator[Running]:
    running = Running()
    yield running
    running.close()


def _worker(router: Running) -> Daemon:
    worker = Daemon(router.context, router.workers)
    router.dealers.append(worker)
    worker.register()
    return worker


@pytest.mark.parametrize("sizes", [[10], [512 * 1024] * 5 + [17]])
def test_a_job_from_submit_to_result_and_fetch(router: Running, sizes: list[int]) -> None:
    worker = _worker(router)
    client = router.dealer(router.clients)
    client.send(b"SUBMIT", rid="1", job={"prompt": "x", "seed": 5})
    accepted, _ = client.until(b"ACCEPTED")
    order, _ = worker.until(b"DISPATCH")
    assert (order["job"]["prompt"], order["job"]["seed"]) == ("x", 5)
    assert 3590 < order["remaining_s"] < 3600.001
    worker.started(order["token"])
    progress, _ = client.until(b"PROGRESS")
    assert progress["state"] == "running"
    parts = [os.urandom(size) for size in sizes]
    worker.done(order["token"], *parts)
    result, payload = client.until(b"RESULT")
    assert payload == parts
    assert result["job_id"] == accepted["job_id"]
    assert worker.until(b"RESULT_ACK")[0]["token"] == order["token"]
    client.send(b"FETCH", rid="2", job_id=accepted["job_id"])
    assert client.until(b"RESULT")[1] == parts


def test_frames_that_are_no_message_are_answered_and_move_nothing(router: Running) -> None:
    worker = _worker(router)
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
    worker = _worker(router)
    client = router.dealer(router.clients)
    client.send(b"SUBMIT", rid="1", job={"prompt": "x"})
    order, _ = worker.until(b"DISPATCH")
    picture = {"format": "png", "width": 1, "height": 1, "drawn_width": 1, "drawn_height": 1, "bytes": 3}
    worker.send(
        b"DONE", b"abc", epoch=worker.epoch, token=order["token"], picture={**picture, "sha256": "0" * 64}, parts=[3],
        timings={},
    )  # fmt: skip
    fenced, _ = worker.until(b"FENCED")
    assert fenced["token"] == order["token"]
    again, _ = worker.until(b"DISPATCH")
    assert again["token"]["dispatch"] == 2
    worker.done(again["token"], b"abc")
    client.until(b"RESULT")


def test_a_job_that_is_cancelled_in_the_batch_that_sends_it_takes_nothing_with_it(
    router: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end drops what its DISPATCH, decided before and sent after, still carries."""
    handle = router.broker.handle

    def stored_and_cancelled(event: Event, now: float) -> list[Command]:
        commands = handle(event, now)
        if isinstance(event, InputsStored):
            cancel = CancelJob(rid="c", job_id=event.job_id)
            commands += handle(ClientSaid(wall=event.wall, peer=b"nobody", message=cancel), now)
        return commands

    worker, client = _worker(router), router.dealer(router.clients)
    monkeypatch.setattr(router.broker, "handle", stored_and_cancelled)
    image = j.png()
    facts = msgspec.to_builtins(j.inputs(image))
    client.send(b"SUBMIT", image, rid="1", job={"prompt": "x", "inputs": facts}, parts=[len(image)])
    client.until(b"CANCELLED")
    order, payload = worker.until(b"DISPATCH")
    assert payload == [image]
    assert worker.until(b"CANCEL")[0]["token"] == order["token"]
    client.ask(b"PING", b"PONG", rid="p")


def test_a_client_that_vanishes_is_noticed_and_its_job_goes_on(router: Running) -> None:
    worker = _worker(router)
    client = router.dealer(router.clients)
    client.send(b"SUBMIT", rid="1", job={"prompt": "x"})
    accepted, _ = client.until(b"ACCEPTED")
    order, _ = worker.until(b"DISPATCH")
    client.socket.close(linger=0)
    worker.started(order["token"])
    worker.done(order["token"], b"abc")
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
    worker = _worker(router)
    lazy = router.dealer(router.clients, receive_max=1)
    lazy.send(b"SUBMIT", rid="1", job={"prompt": "x"})
    order, _ = worker.until(b"DISPATCH")
    end = time.monotonic() + SOON_S
    while not failed:
        for _ in range(500):
            lazy.send(b"STATUS", rid="1")
        assert time.monotonic() < end
    worker.done(order["token"], b"abc")
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


def test_a_wish_to_stop_is_dated_when_it_is_handled(router: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wall and monotonic time of one event are of one moment: what is persisted is reckoned from both."""
    seen: list[float] = []
    handle = router.broker.handle

    def watched(event: Any, now: float) -> Any:
        if isinstance(event, DrainAsked):
            seen.append(event.wall)
        return handle(event, now)

    monkeypatch.setattr(router.broker, "handle", watched)
    began = time.time()
    router.loop._drain_asked = DrainAsked(wall=1.0)  # long ago: the router was stopped for a while
    router.thread.join(SOON_S)
    assert [wall >= began - 1.0 for wall in seen] == [True]


def test_many_clients_and_jobs_at_once(router: Running) -> None:
    worker = _worker(router)
    clients = [router.dealer(router.clients) for _ in range(20)]
    for n, client in enumerate(clients):
        client.send(b"SUBMIT", rid=str(n), job={"prompt": str(n)})
    acknowledged = 0
    while acknowledged < len(clients):
        name, header, _ = worker.receive()
        if name == b"DISPATCH":
            worker.done(header["token"], header["job"]["prompt"].encode())
        elif name == b"RESULT_ACK":
            acknowledged += 1
            worker.grant()
    for n, client in enumerate(clients):
        result, payload = client.until(b"RESULT")
        assert (result["rid"], payload) == (str(n), [str(n).encode()])


# --- the process -------------------------------------------------------------------------------


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("journal", ["sqlite", "memory"])
def test_the_process_starts_and_stops(tmp_path: Path, journal: str, sig: signal.Signals) -> None:
    with router_process(tmp_path, GENSERVE_ROUTER_JOURNAL=journal) as router:
        assert router.start().wait_event("router.listening")["clients"] == router.clients
        assert (router.stop(sig), router.errors) == (0, "")
        assert router.events("router.stopped")


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with router_process(tmp_path, GENSERVE_ROUTER_JOURNAL="memory", GENSERVE_ROUTER_DRAIN_S="600") as router:
        router.start().daemon().register()
        client = router.client()
        client.ask(b"SUBMIT", b"ACCEPTED", rid="1", job={"prompt": "x"})
        assert router.process is not None
        router.process.send_signal(signal.SIGINT)
        router.wait_event("router.draining")
        refusal, _ = client.ask(b"SUBMIT", b"REJECTED", rid="2", job={"prompt": "x"})
        assert refusal["code"] == "unavailable"
        assert (router.stop(signal.SIGINT), router.errors) == (0, "")


def test_an_address_in_use_is_explained_without_a_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with router_process(tmp_path, GENSERVE_ROUTER_WORKER_ENDPOINT=endpoint) as router:
            assert router.start(wait=False).wait() == 78
            assert "in use by another process" in router.errors
            assert "Traceback" not in router.errors


def test_an_address_that_others_could_reach_is_refused(tmp_path: Path) -> None:
    with router_process(tmp_path, GENSERVE_ROUTER_CLIENT_ENDPOINT="tcp://0.0.0.0:12499") as router:
        assert router.start(wait=False).wait() == 78
        assert "genserve keys init" in router.errors
