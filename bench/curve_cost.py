"""What keys cost: the same router with CURVE and without, asked the same by raw clients.

    python -m bench.curve_cost [--rounds 4] [--pings 40000] [--peers 1000] [--fetches 200]

Each round starts a router without keys and one with them, in alternating order, and takes of each: round trips of a
PING with 64 under way, pictures of 1.5 MB fetched one after another, and how long it takes until many peers that
connect at once are all answered. Beside the seconds stands the router's own processor time, which other work on the
machine disturbs less.
"""

import argparse
import contextlib
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import psutil
import zmq

from bench.service_cost import free_port, wait_listening
from common.keys import KeyFile, read_key
from genserve.keys import Store

WINDOW = 64  # PINGs under way
PARTS = [os.urandom(512 * 1024)] * 3
CARD = {"name": "m", "width": 64, "height": 64, "steps": 4}


@dataclass
class Router:
    """One router process and what comes in to it."""

    port: int
    process: psutil.Process
    client: KeyFile | None
    daemon: KeyFile | None
    context: zmq.Context[Any]

    def dealer(self, key: KeyFile | None, port: int) -> Any:
        """A socket that is about to connect."""
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        if key is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, key.router_public_key.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public_key.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret_key.encode())
        socket.connect(f"tcp://127.0.0.1:{port}")
        return socket

    def timed(self, call: Callable[[], None], count: int) -> tuple[float, float]:
        """(seconds, the router's processor µs for each of `count`)."""
        cpu, began = self._cpu_s(), time.perf_counter()
        call()
        return time.perf_counter() - began, (self._cpu_s() - cpu) / count * 1e6

    def _cpu_s(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextlib.contextmanager
def router(*, keys: bool) -> Iterator[Router]:
    """A router whose queue is in memory."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        env = {
            **os.environ,
            "GENSERVE_LOG_LEVEL": "error",
            "GENSERVE_ROUTER_CLIENT_ENDPOINT": f"tcp://127.0.0.1:{port}",
            "GENSERVE_ROUTER_WORKER_ENDPOINT": f"tcp://127.0.0.1:{port + 1}",
            "GENSERVE_ROUTER_JOURNAL": "memory",
            "GENSERVE_ROUTER_DRAIN_S": "0",
        }
        client = daemon = None
        if keys:
            store = Store(Path(folder, "keys"), Path(folder, "peers.toml"))
            store.init("here")
            client, daemon = (read_key(store.keys_folder / name) for name in ("client.key", "daemon.key"))
            env["GENSERVE_ROUTER_SERVER_KEY_FILE"] = str(store.keys_folder / "server.key")
            env["GENSERVE_ROUTER_PEERS_FILE"] = str(store.peers_file)
        process = subprocess.Popen([sys.executable, "-m", "genserve", "router"], env=env, stdin=subprocess.DEVNULL)
        context: zmq.Context[Any] = zmq.Context()
        context.setsockopt(zmq.MAX_SOCKETS, 4096)
        try:
            wait_listening(port)
            yield Router(port, psutil.Process(process.pid), client, daemon, context)
        finally:
            context.destroy(linger=0)
            process.terminate()
            process.wait()


def say(socket: Any, name: bytes, *payload: bytes, **header: Any) -> None:
    """One message."""
    socket.send_multipart([b"GS1", name, msgpack.packb(header), *payload], copy=False)


def until(socket: Any, wanted: bytes) -> dict[str, Any]:
    """The header of the next message of this name."""
    while True:
        _, name, header, *_ = socket.recv_multipart()
        if name == wanted:
            found: dict[str, Any] = msgpack.unpackb(header)
            return found


def ping(router_: Router, count: int) -> tuple[float, float]:
    """Round trips, WINDOW under way."""
    socket = router_.dealer(router_.client, router_.port)
    say(socket, b"PING", rid="0")
    until(socket, b"PONG")

    def trips() -> None:
        for number in range(count + WINDOW):
            if number < count:
                say(socket, b"PING", rid="1")
            if number >= WINDOW:
                socket.recv_multipart()

    return router_.timed(trips, count)


def fetch(router_: Router, count: int) -> tuple[float, float]:
    """A picture of 1.5 MB, drawn once by a daemon played here, fetched again and again."""
    daemon, client = router_.dealer(router_.daemon, router_.port + 1), router_.dealer(router_.client, router_.port)
    say(
        daemon, b"REGISTER", worker_id="here/cpu", boot_id="b", nonce="1", host="h",
        device={"device": "cpu", "kind": "cpu"}, models=[CARD],
    )  # fmt: skip
    epoch = until(daemon, b"WELCOME")["epoch"]
    say(daemon, b"HEARTBEAT", epoch=epoch, state="ready")
    say(daemon, b"CREDIT", epoch=epoch, granted_total=1)
    say(client, b"SUBMIT", rid="1", job={"prompt": "x"})
    job_id, token = until(client, b"ACCEPTED")["job_id"], until(daemon, b"DISPATCH")["token"]
    data = b"".join(PARTS)
    picture = {"format": "png", "width": 64, "height": 64, "drawn_width": 64, "drawn_height": 64}
    picture |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    sizes = [len(part) for part in PARTS]
    say(daemon, b"DONE", *PARTS, epoch=epoch, token=token, picture=picture, parts=sizes, timings={})
    until(client, b"RESULT")

    def fetches() -> None:
        for _ in range(count):
            say(client, b"FETCH", rid="2", job_id=job_id)
            until(client, b"RESULT")

    return router_.timed(fetches, count)


def connect(router_: Router, count: int) -> tuple[float, float]:
    """Peers that all connect at once, until each has its PONG."""

    def peers() -> None:
        sockets = [router_.dealer(router_.client, router_.port) for _ in range(count)]
        for socket in sockets:
            say(socket, b"PING", rid="1")
        for socket in sockets:
            socket.recv_multipart()
        for socket in sockets:
            socket.close()

    return router_.timed(peers, count)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--pings", type=int, default=40_000)
    parser.add_argument("--peers", type=int, default=1000)
    parser.add_argument("--fetches", type=int, default=200)
    asked = parser.parse_args()
    found: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for number in range(asked.rounds):
        for keys in (False, True) if number % 2 else (True, False):
            with router(keys=keys) as running:
                for what, call, count in (
                    ("round trip of a PING", ping, asked.pings),
                    ("picture of 1.5 MB fetched", fetch, asked.fetches),
                    (f"{asked.peers} peers connect at once", connect, asked.peers),
                ):
                    found.setdefault((what, keys), []).append(call(running, count))
    print("| | without keys | with keys | router's µs without | with |\n|---|---|---|---|---|")
    counts = {"round trip of a PING": asked.pings, "picture of 1.5 MB fetched": asked.fetches}
    for what in dict.fromkeys(name for name, _ in found):
        plain, curve = (found[what, keys] for keys in (False, True))
        seconds = [statistics.median(took for took, _ in times) for times in (plain, curve)]
        cpu_us = [statistics.median(used for _, used in times) for times in (plain, curve)]
        shown = [f"{counts[what] / took:.0f} /s" if what in counts else f"{took:.1f} s" for took in seconds]
        print(f"| {what} | {' | '.join(shown)} | {cpu_us[0]:.1f} | {cpu_us[1]:.1f} |")


if __name__ == "__main__":
    main()
