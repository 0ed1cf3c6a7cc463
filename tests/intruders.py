"""Ways to come in without the right key: each tries once, says what it would say, and waits for an answer.

Against a router with keys whose peers are those of a Keyring, with a client 'lab', a daemon 'host-b' and a revoked
client 'stolen'. What the router's log must tell of each stands beside it.
"""

import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgpack
import zmq

from common.keys import KeyFile, new_key
from tests.keyring import Keyring, come_in_with

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31)
HELLO_BYTES = 200
WITHIN_S = 10.0
Way = Callable[["Intruders"], None]


class Intruders:
    """All of them at once, from the network where the constructing thread is."""

    def __init__(self, clients: str, workers: str, keys: Keyring, recorded: bytes) -> None:
        """`recorded`: what a rightful client has sent on one whole connection."""
        self.clients, self.workers, self.keys, self.recorded = clients, workers, keys, recorded
        self.context: zmq.Context[Any] = zmq.Context()
        self.sockets: list[Any] = []
        self.streams: list[socket.socket] = []
        for way, _ in WAYS.values():
            way(self)

    def dealer(self, endpoint: str, key: KeyFile | None = None, **options: Any) -> None:
        dealer = self.context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RECONNECT_IVL, -1)  # each tries once
        for name, value in options.items():
            dealer.setsockopt(getattr(zmq, name), value)
        if key is not None:
            come_in_with(dealer, key)
        dealer.connect(endpoint)
        ask = (b"SUBMIT", {"rid": "1", "job": {"prompt": "x"}}) if endpoint == self.clients else (b"REGISTER", REGISTER)
        with suppress(zmq.Again):  # it may have been refused already
            dealer.send_multipart([b"GS1", ask[0], msgpack.packb(ask[1])], zmq.DONTWAIT)
        self.sockets.append(dealer)

    def stream(self, endpoint: str, data: bytes) -> None:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        stream = socket.create_connection((host, int(port)))
        stream.sendall(data)
        self.streams.append(stream)

    def forged(self, name: str, file: str) -> KeyFile:
        """A key of the right name and router, but of other bytes."""
        return new_key(name, self.keys.key(file).role, self.keys.key(file).router_public_key)

    def answered(self) -> list[bytes]:
        """The names of messages that any of them was sent."""
        return [dealer.recv_multipart()[1] for dealer in self.sockets if dealer.poll(0)]

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        self.context.destroy(linger=0)


REGISTER: dict[str, Any] = {
    "worker_id": "host-b/cpu:0", "boot_id": "b", "nonce": "1", "host": "h",
    "device": {"device": "cpu:0", "kind": "cpu"}, "models": [{"name": "m"}],
}  # fmt: skip
SAME = {"left": "no_key", "wrong_server_key": "garbled"}  # which of both depends on who sees it first
WAYS: dict[str, tuple[Way, str]] = {
    "no CURVE, as a client": (lambda i: i.dealer(i.clients), "no_key"),
    "no CURVE, as a daemon": (lambda i: i.dealer(i.workers), "no_key"),
    "a password": (lambda i: i.dealer(i.clients, PLAIN_USERNAME=b"lab", PLAIN_PASSWORD=b"x"), "no_key"),
    "another router's key": (
        lambda i: i.dealer(i.clients, new_key("lab", "client", new_key("server", "server").public_key)),
        "garbled",
    ),
    "a key of one's own making": (lambda i: i.dealer(i.clients, i.forged("intruder", "lab.key")), "unknown_key"),
    "the right name, other bytes": (lambda i: i.dealer(i.workers, i.forged("host-b", "host-b.key")), "unknown_key"),
    "the router's own key": (
        lambda i: i.dealer(i.clients, _with_router(i.keys.key("server.key"))),
        "unknown_key",
    ),
    "a revoked key": (lambda i: i.dealer(i.clients, i.keys.key("stolen.key")), "revoked_key"),
    "a client as a daemon": (lambda i: i.dealer(i.workers, i.keys.key("lab.key")), "wrong_endpoint"),
    "a gateway as a daemon": (lambda i: i.dealer(i.workers, i.keys.key("gateway.key")), "wrong_endpoint"),
    "a daemon as a client": (lambda i: i.dealer(i.clients, i.keys.key("host-b.key")), "wrong_endpoint"),
    "a daemon as another daemon": (lambda i: i.dealer(i.workers, i.keys.key("daemon.key")), "worker.refused"),
    "a recorded connection again": (lambda i: i.stream(i.clients, i.recorded), "garbled"),
    "a garbled handshake": (
        lambda i: i.stream(i.clients, i.recorded[:70] + bytes(byte ^ 1 for byte in i.recorded[70:300])),
        "garbled",
    ),
    "a handshake's beginning, and then noise": (
        lambda i: i.stream(i.workers, GREETING + b"\x04" + bytes([HELLO_BYTES]) + b"\x05HELLO" + bytes(194)),
        "garbled",
    ),
    "noise": (lambda i: i.stream(i.clients, bytes(range(256)) * 4), "garbled"),
    "HTTP": (lambda i: i.stream(i.workers, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 9), "garbled"),
    "ZMTP of before there were keys": (lambda i: i.stream(i.clients, b"\x01\x00" + b"\x04\x00GS1" * 9), "garbled"),
    "silence": (lambda i: i.stream(i.workers, b""), "silent"),
}


def _with_router(key: KeyFile) -> KeyFile:
    return KeyFile(
        name="lab",
        role="client",
        public_key=key.public_key,
        secret_key=key.secret_key,
        router_public_key=key.public_key,
    )


def expected() -> Counter[str]:
    """How often each cause must stand in the router's log."""
    return Counter(cause for _, cause in WAYS.values())


def found(refusals: Sequence[dict[str, Any]]) -> Counter[str]:
    """How often it stands in these lines, peer.refused and worker.refused."""
    causes: Counter[str] = Counter()
    for line in refusals:
        cause = line.get("cause", line["event"])
        causes[SAME.get(cause, cause)] += line.get("times", 1)
    return causes


def recorded_connection(endpoint: str, key: KeyFile) -> bytes:
    """What a rightful client sends to `endpoint` on one connection, taken down by somebody on the way."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    heard = bytearray()
    end = time.monotonic() + WITHIN_S
    context: zmq.Context[Any] = zmq.Context()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection((host, int(port))) as router:
        client = context.socket(zmq.DEALER)
        client.setsockopt(zmq.RECONNECT_IVL, -1)
        come_in_with(client, key)
        client.connect(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        client.send_multipart([b"GS1", b"PING", msgpack.packb({"rid": "recorded"})])
        near, _ = listener.accept()
        with near:
            poller = zmq.Poller()
            for each in (near, router, client):
                poller.register(each, zmq.POLLIN)
            while not client.poll(0):
                assert time.monotonic() < end, "the rightful client was not answered"
                for ready, _ in poller.poll(100):
                    if ready == near.fileno():
                        data = near.recv(65536)
                        heard += data
                        router.sendall(data)
                    elif ready == router.fileno():
                        near.sendall(router.recv(65536))
            assert client.recv_multipart()[1] == b"PONG"
    context.destroy(linger=0)
    return bytes(heard)
