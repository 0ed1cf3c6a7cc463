"""A router with keys over real sockets: who comes in, who does not, and who is put out."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from common.clock import monotonic_s
from common.log import get_logger
from common.sockets import Curve, router_socket
from router import door as door_module
from router.door import Connection, Door, _other_end, _shut
from router.events import KeyRevoked, PeerGone
from tests import intruders
from tests.keyring import Keyring, come_in_with
from tests.router.process import SOON_S, RouterProcess, router_process
from tests.service import wait_for

PUT_OUT_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    keys = Keyring(tmp_path_factory.mktemp("keys"))
    keys.new("lab", "client")
    keys.new("host-b", "daemon")
    keys.new("stolen", "client")
    keys.revoke("stolen")
    return keys


@pytest.fixture(scope="module")
def router(keys: Keyring, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    """One for all tests here, on every address."""
    with router_process(tmp_path_factory.mktemp("router"), **keys.router_settings) as router:
        for side in ("CLIENT", "WORKER"):
            name = f"GENSERVE_ROUTER_{side}_ENDPOINT"
            router.environment[name] = router.environment[name].replace("127.0.0.1", "0.0.0.0")
        yield router.start()
        assert router.stop() == 0
        assert "Traceback" not in router.errors


def refusals(router: RouterProcess) -> list[dict[str, Any]]:
    return [*router.events("peer.refused"), *router.events("worker.refused")]


def test_every_other_way_in_is_refused_and_logged(router: RouterProcess, keys: Keyring) -> None:
    recorded = intruders.recorded_connection(router.clients, keys.key("lab.key"))
    before = intruders.found(refusals(router))
    crowd = intruders.Intruders(router.clients, router.workers, keys, recorded)
    try:
        wanted = intruders.expected()
        assert len(intruders.WAYS) >= 12
        assert wanted.total() == len(intruders.WAYS)
        wait_for("refusal of each", lambda: wanted <= intruders.found(refusals(router)) - before, SOON_S)
        assert crowd.answered() == [b"ERROR"]  # to the daemon that claims another's name
    finally:
        crowd.close()
    told = {line["cause"]: line for line in router.events("peer.refused")}
    assert (told["revoked_key"]["peer_name"], told["revoked_key"]["side"]) == ("stolen", "client")
    assert told["revoked_key"]["address"] == "127.0.0.1"
    assert len(told["unknown_key"]["public_key"]) == 40
    status, _ = router.client(keys.key("lab.key")).ask(b"STATUS", b"STATUS", rid="1")
    assert status["workers"] == []
    assert status["stats"].get("submitted_total", 0) == 0
    assert status["stats"].get("protocol_errors_total", 0) == 0
    assert keys.key("lab.key").secret_key not in router.log_text


def test_a_job_goes_through_with_keys_alone(router: RouterProcess, keys: Keyring) -> None:
    daemon = router.daemon("here/cpu:0", keys.key("daemon.key"))
    daemon.register()
    client = router.client(keys.key("lab.key"))
    client.send(b"SUBMIT", rid="1", job={"prompt": "x", "seed": 5})
    order, _ = daemon.until(b"DISPATCH")
    daemon.started(order["token"])
    daemon.done(order["token"], b"a picture")
    result, payload = client.until(b"RESULT")
    assert payload == [b"a picture"]
    assert result["job"]["owner"] == "lab"
    gateway, admin = router.client(keys.key("gateway.key")), router.client(keys.key("client.key"))
    job = {"rid": "2", "job_id": result["job_id"]}
    assert gateway.ask(b"JOB", b"ERROR", **job)[0]["code"] == "not_found"
    assert gateway.ask(b"JOB", b"JOB", **job, owner="lab")[0]["job"]["state"] == "done"
    assert admin.ask(b"FETCH", b"RESULT", **job)[1] == [b"a picture"]
    assert client.ask(b"JOB", b"ERROR", **job, owner="here-gateway")[0]["code"] == "forbidden"
    known = {view["name"]: view for view in admin.ask(b"KEYS", b"KEYS", rid="3")[0]["keys"]}
    assert (known["here"]["role"], known["here"]["connections"]) == ("daemon", 1)
    daemon.socket.close()
    wait_for("end of its connection", lambda: _connections(admin, "here") == 0, SOON_S)
    assert router.events("worker.disconnected")[-1]["worker_id"] == "here/cpu:0"


def _connections(admin: Any, name: str) -> int:
    views = admin.ask(b"KEYS", b"KEYS", rid="4")[0]["keys"]
    return next(view["connections"] for view in views if view["name"] == name)


def test_a_revoked_key_is_out_at_once_and_its_jobs_go_elsewhere(router: RouterProcess, keys: Keyring) -> None:
    """A daemon in the middle of a job, a client, and one that has never said a word."""
    keys.new("lost-host", "daemon")
    keys.new("lost-tool", "client")
    client = router.client(keys.key("lab.key"))
    lost = router.daemon("lost-host/cpu:0", keys.key("lost-host.key"))
    lost.register()
    tool, silent = router.client(keys.key("lost-tool.key")), router.client(keys.key("lost-tool.key"))
    tool.ask(b"PING", b"PONG", rid="1")
    ends = [_end(dealer) for dealer in (lost, tool, silent)]
    client.send(b"SUBMIT", rid="1", job={"prompt": "x"})
    order, _ = lost.until(b"DISPATCH")
    lost.started(order["token"])
    client.until(b"PROGRESS")

    keys.revoke("lost-host")
    keys.revoke("lost-tool")
    for end in ends:
        assert end.poll(PUT_OUT_WITHIN_S * 1000), "its connection was not cut"
    for dealer in (lost, tool, silent):
        with suppress(zmq.Again):  # nobody takes it any more
            dealer.socket.send_multipart([b"GS1", b"PING", msgpack.packb({"rid": "2"})], zmq.DONTWAIT)
    after = router.daemon("here/cpu:0", keys.key("daemon.key"))
    after.register()
    again, _ = after.until(b"DISPATCH")
    assert again["token"] == {"job_id": order["token"]["job_id"], "dispatch": order["token"]["dispatch"] + 1}
    after.started(again["token"])
    after.done(again["token"], b"drawn elsewhere")
    assert client.until(b"RESULT")[1] == [b"drawn elsewhere"]
    wait_for("refusals", lambda: _refused(router, "lost-host", "worker") and _refused(router, "lost-tool", "client"))
    assert not any(dealer.socket.poll(0) for dealer in (tool, silent))
    assert {line["peer_name"] for line in router.events("key.revoked")} >= {"lost-host", "lost-tool"}
    after.send(b"BYE", epoch=after.epoch)


def _refused(router: RouterProcess, key: str, side: str) -> bool:
    return any((line.get("peer_name"), line["side"]) == (key, side) for line in router.events("peer.refused"))


def _end(dealer: Any) -> Any:
    """Readable once the dealer's connection has ended."""
    return dealer.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)


def test_a_replaced_key_is_out_and_its_successor_in(router: RouterProcess, keys: Keyring) -> None:
    keys.new("rotated", "client")
    old = _once_in(router, keys, "rotated.key")
    end = _end(old)
    keys.store.new("rotated", "client", keys.path("rotated.key"), again=True)
    assert end.poll(PUT_OUT_WITHIN_S * 1000)
    assert _once_in(router, keys, "rotated.key").ask(b"PING", b"PONG", rid="2")


def _once_in(router: RouterProcess, keys: Keyring, file: str) -> Any:
    client = router.client(keys.key(file))
    client.ask(b"PING", b"PONG", rid="1")
    return client


def _peers_read(router: RouterProcess) -> float:
    times = [datetime.fromisoformat(line["time"]).timestamp() for line in router.events("peers.read")]
    return max(times, default=0.0)


def test_a_damaged_peers_file_puts_nobody_out(router: RouterProcess, keys: Keyring) -> None:
    client = router.client(keys.key("lab.key"))
    client.ask(b"PING", b"PONG", rid="1")
    end, good = _end(client), keys.store.peers_file.read_text()
    try:
        keys.store.peers_file.write_text(good.replace("[[peer]]", "[[peer]", 1))
        told = wait_for("complaint", lambda: router.events("peers.unreadable"), SOON_S)[0]
        assert "is no TOML" in told["message"]
        client.ask(b"PING", b"PONG", rid="2")
        assert router.client(keys.key("lab.key")).ask(b"PING", b"PONG", rid="3")
        keys.store.peers_file.unlink()
        wait_for("complaint", lambda: len(router.events("peers.unreadable")) > 1, SOON_S)
        client.ask(b"PING", b"PONG", rid="4")
    finally:
        keys.store.peers_file.write_text(good)
    wait_for("the peers' reading", lambda: _peers_read(router) >= keys.store.peers_file.stat().st_mtime, SOON_S)
    assert not end.poll(0)


def test_a_routing_id_brings_nothing_of_whoever_had_it_before(router: RouterProcess, keys: Keyring) -> None:
    """A rightful client that takes another's routing id, once that one has left, is told nothing of its job."""
    daemon = router.daemon("here/cpu:0", keys.key("daemon.key"))
    daemon.register()
    first = _named(router, keys, "lab.key", b"the same")
    first.send(b"SUBMIT", rid="secret", job={"prompt": "x"})
    first.until(b"ACCEPTED")
    order, _ = daemon.until(b"DISPATCH")
    admin = router.client(keys.key("client.key"))
    before = _connections(admin, "lab")
    first.socket.close()  # while it is there, ROUTER hears nobody else of its name
    wait_for("end of its connection", lambda: _connections(admin, "lab") < before, SOON_S)
    second = _named(router, keys, "gateway.key", b"the same")
    second.ask(b"PING", b"PONG", rid="1")
    daemon.started(order["token"])
    daemon.done(order["token"], b"a secret")
    daemon.until(b"RESULT_ACK")
    second.send(b"PING", rid="2")
    assert second.receive()[0] == b"PONG"
    daemon.send(b"BYE", epoch=daemon.epoch)


def _named(router: RouterProcess, keys: Keyring, file: str, name: bytes) -> Any:
    dealer = router.client(keys.key(file))
    dealer.socket.disconnect(router.clients)
    dealer.socket.setsockopt(zmq.ROUTING_ID, name)
    dealer.socket.connect(router.clients)
    return dealer


@pytest.mark.parametrize("trouble", ["peers", "mode"])
def test_a_router_that_cannot_read_its_keys_does_not_start(tmp_path: Path, trouble: str) -> None:
    keys = Keyring(tmp_path)
    if trouble == "peers":
        keys.store.peers_file.unlink()
    else:
        keys.path("server.key").chmod(0o644)
    with router_process(tmp_path, **keys.router_settings) as router:
        assert router.start(wait=False).wait() == 78
        assert {"peers": "genserve keys init", "mode": "chmod 600"}[trouble] in router.errors


def test_another_domain_of_the_same_process_lets_nobody_in(tmp_path: Path) -> None:
    """A third endpoint that somebody adds and forgets in the doorkeeper's table is shut, not open."""
    keys = Keyring(tmp_path)
    context: zmq.Context[Any] = zmq.Context()
    door = Door(context, keys.key("server.key"), keys.store.peers_file, logger=get_logger(), now=0.0)
    try:
        listening = door.listen("client", "tcp://127.0.0.1:*")
        forgotten = router_socket(context, "tcp://127.0.0.1:*", Curve(keys.key("server.key"), "genserve/new"))
        ends, dealers = [], []  # kept: a socket must be closed before its context
        for socket_ in (listening, forgotten):
            dealers.append(dealer := context.socket(zmq.DEALER))
            come_in_with(dealer, keys.key("client.key"))
            ends.append(dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH))
            dealer.connect(socket_.getsockopt_string(zmq.LAST_ENDPOINT))
        poller = zmq.Poller()
        for each in door.sockets:
            poller.register(each, zmq.POLLIN)

        def judged() -> bool:
            door.serve(dict(poller.poll(10)), monotonic_s())
            return all(end.poll(0) for end in ends)

        wait_for("verdicts", judged, SOON_S)
        events = [int.from_bytes(end.recv_multipart()[0][:2], "little") for end in ends]
        assert events == [zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_HANDSHAKE_FAILED_AUTH]
        assert door.alive()
    finally:
        door.close()
        context.destroy(linger=0)


@contextmanager
def half_a_router(folder: Path, said: int) -> Iterator[tuple[Keyring, Door, Any, Any]]:
    """A door, its endpoint for clients with `said` messages of this host's admin in it, and that admin's socket."""
    keys = Keyring(folder)
    context: zmq.Context[Any] = zmq.Context()
    door = Door(context, keys.key("server.key"), keys.store.peers_file, logger=get_logger(), now=0.0)
    dealer = context.socket(zmq.DEALER)
    try:
        listening = door.listen("client", "tcp://127.0.0.1:*")
        come_in_with(dealer, keys.key("client.key"))
        dealer.connect(listening.getsockopt_string(zmq.LAST_ENDPOINT))
        for _ in range(said):
            dealer.send(b"GS1")
        poller = zmq.Poller()
        for each in (*door.sockets, listening):
            poller.register(each, zmq.POLLIN)

        def heard() -> bool:
            ready = dict(poller.poll(10))
            door.serve(ready, 0.0)
            return listening in ready

        wait_for("messages", heard, SOON_S)
        yield keys, door, listening, dealer
    finally:
        dealer.close(linger=0)
        door.close()
        context.destroy(linger=0)


def _whose(door: Door, listening: Any, now: float = 0.0) -> tuple[bytes, str]:
    """(routing id, name) of the next message; '' of one that is not taken."""
    peer, frame = listening.recv(), listening.recv(copy=False)
    who = door.whose("client", peer, frame, now)
    return peer, who.name if who else ""


def test_what_a_revoked_key_has_sent_before_is_not_taken_afterwards(tmp_path: Path) -> None:
    """It lies in the router's queue already when the key is revoked."""
    with half_a_router(tmp_path, 2) as (keys, door, listening, _):
        assert _whose(door, listening)[1] == "here-admin"
        keys.revoke("here-admin")
        door.serve({}, 10.0)
        assert [event.name for event in door.changes(0.0, {}) if isinstance(event, KeyRevoked)] == ["here-admin"]
        assert _whose(door, listening, 10.0)[1] == ""


def test_who_left_before_its_first_word_was_read_is_gone_all_the_same(tmp_path: Path) -> None:
    """Its end is known before its words; nothing of it is kept."""
    with half_a_router(tmp_path, 2) as (_, door, listening, dealer):
        dealer.close(linger=0)
        monitor = door.sockets[-1]
        assert monitor.poll(SOON_S * 1000)
        door.serve({monitor: zmq.POLLIN}, 0.0)
        peers = [_whose(door, listening) for _ in range(2)]
        assert {name for _, name in peers} == {"here-admin"}
        assert door.parted("client")
        assert door.changes(0.0, {"client": True}) == []  # something of it may still have to be read
        gone = door.changes(0.0, {"client": False})
        assert {(event.side, event.peer) for event in gone if isinstance(event, PeerGone)} == {("client", peers[0][0])}
        assert door._spoken["client"] == door._open["client"] == {}


def test_a_descriptor_that_is_another_connections_by_now_is_that_ones(tmp_path: Path) -> None:
    """Its former connection's last words are read after the next one has come."""
    with half_a_router(tmp_path, 1) as (_, door, listening, _dealer):
        (descriptor,) = door._open["client"]
        peer, frame = listening.recv(), listening.recv(copy=False)
        door._open["client"][descriptor] = Connection(("127.0.0.1", 1))
        for each in (b"former", peer):
            assert door.whose("client", each, frame, 0.0) is not None
        assert set(door._spoken["client"]) == {peer}
        assert [event.peer for event in door.changes(0.0, {}) if isinstance(event, PeerGone)] == [b"former"]


def test_a_bug_in_judging_lets_nobody_in_is_logged_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keyring(tmp_path)
    context: zmq.Context[Any] = zmq.Context()
    logged: list[str] = []
    logger: Any = get_logger()
    door = Door(context, keys.key("server.key"), keys.store.peers_file, logger=logger, now=0.0)
    monkeypatch.setattr(door, "_logger", type("L", (), {"exception": lambda _, event: logged.append(event)})())
    asker = context.socket(zmq.DEALER)
    try:
        asker.connect("inproc://zeromq.zap.01")
        question = [b"", b"1.0", b"7", b"genserve/client", b"127.0.0.1", b"", b"CURVE", bytes(32)]
        monkeypatch.setattr(door_module, "judge", lambda *_: 1 // 0)
        asker.send_multipart(question)
        door.serve({door.sockets[0]: zmq.POLLIN}, 0.0)
        assert asker.recv_multipart()[3] == b"500"
        assert (logged, door.alive()) == (["door.bug"], False)
        monkeypatch.undo()
        asker.send_multipart(question)
        door.serve({door.sockets[0]: zmq.POLLIN}, 0.0)
        assert asker.recv_multipart()[3] == b"400"
        assert door.alive()
    finally:
        asker.close(linger=0)
        door.close()
        context.destroy(linger=0)
    assert not door.alive()


def test_a_shut_descriptor_is_the_one_that_was_meant() -> None:
    """A descriptor that is another connection by now is left alone."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, address = listener.accept()
        with far:
            assert _other_end(far.fileno()) == address
            _shut(far.fileno(), ("127.0.0.1", address[1] + 1))
            far.sendall(b"still here")
            assert near.recv(100) == b"still here"
            _shut(far.fileno(), address)
            assert near.recv(100) == b""
        assert _other_end(far.fileno() if far.fileno() >= 0 else 10_000) is None
        _shut(10_000, address)
