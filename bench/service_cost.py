"""What the service costs: the time that gateway, router and daemon control add to a job.

    python -m bench.service_cost [--rounds 6] [--requests 300]

Starts `genserve up` with one no-op engine, and beside it a bare aiohttp handler and a bare ZeroMQ echo that
answer with as many bytes. One request at a time, in rounds whose order alternates, over kept-alive
connections; so the figures compare within one run on one machine.
"""

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
import zmq

JOB = {"prompt": "x", "width": 64, "height": 64, "steps": 1, "seed": 1}
BODY = json.dumps({"prompt": "x", "size": "64x64", "num_inference_steps": 1, "seed": 1}).encode()
READY_WITHIN_S = 60.0


@dataclass
class Series:
    """One thing that is timed, and its times in seconds."""

    name: str
    once: Callable[[], bytes]  # does it once; the answer
    engine_s: Callable[[bytes], float] = lambda _: 0.0  # what of it the engine took itself, by the answer
    added_s: list[float] = field(default_factory=list)

    def run(self, requests: int) -> None:
        """Time `requests` calls."""
        for _ in range(requests):
            begin = time.perf_counter()
            answer = self.once()
            took_s = time.perf_counter() - begin
            self.added_s.append(took_s - self.engine_s(answer))

    def percentile_us(self, percent: int) -> float:
        """In microseconds."""
        return statistics.quantiles(self.added_s, n=100)[percent - 1] * 1e6


def free_port() -> int:
    """The first of three neighbouring ports that nobody listens on."""
    for base in range(30_000, 60_000, 7):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + 3):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return base
    raise SystemExit("no free ports")


def bare_aiohttp(port: int, answer_bytes: int) -> None:
    """Reads the JSON body and answers as many bytes as the gateway does. Runs until killed."""
    import uvloop  # noqa: PLC0415  # only this process needs them
    from aiohttp import web  # noqa: PLC0415

    answer = b"x" * answer_bytes

    async def handle(request: web.Request) -> web.Response:
        json.loads(await request.read())
        return web.Response(body=answer, content_type="application/json")

    app = web.Application()
    app.router.add_post("/", handle)
    web.run_app(app, host="127.0.0.1", port=port, loop=uvloop.new_event_loop(), print=None, handle_signals=False)


def bare_zmq(port: int, answer_bytes: int) -> None:
    """A ROUTER that answers each message with as many bytes as a RESULT has. Runs until killed."""
    echo: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    echo.bind(f"tcp://127.0.0.1:{port}")
    answer = b"x" * answer_bytes
    while True:
        route, *_ = echo.recv_multipart()
        echo.send_multipart([route, answer])


@contextlib.contextmanager
def service(gpus: str = "cpu", **more: str) -> Iterator[int]:
    """A ready `genserve up` with no-op engines; yields its HTTP port. `more`: environment variables."""
    port = free_port()
    command = [
        str(Path(sys.executable).parent / "genserve"),
        "up",
        "--engine",
        "noop",
        "--gpus",
        gpus,
        "--port",
        str(port),
    ]
    env = {**os.environ, "GENSERVE_LOG_LEVEL": "warning", "GENSERVE_LOG_FORMAT": "json", **more}
    with tempfile.TemporaryDirectory() as folder:
        env["GENSERVE_ROUTER_STATE_DIR"] = str(Path(folder) / "state")
        process = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            wait_ready(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def wait_ready(port: int) -> None:
    """Until /health/ready answers 200."""
    end = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(0.05)
    raise SystemExit("genserve up did not become ready")


def wait_listening(port: int) -> None:
    """Until somebody accepts connections there."""
    end = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}")


def post(port: int, path: str) -> Callable[[], bytes]:
    """A call that posts BODY on one kept-alive connection; its answer is the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def once() -> bytes:
        connection.request("POST", path, BODY, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != http.client.OK:
            raise SystemExit(f"{path} answered {answer.status}: {data[:500]!r}")
        return data

    return once


def submit(port: int) -> Callable[[], bytes]:
    """A call that submits JOB over raw ZeroMQ and waits for its RESULT; its answer is header and payload."""
    dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    frames = [b"GS1", b"SUBMIT", msgpack.packb({"rid": "1", "job": JOB})]

    def once() -> bytes:
        dealer.send_multipart(frames)
        while True:
            _, name, *rest = dealer.recv_multipart()
            if name == b"RESULT":
                return b"".join(rest)
            if name not in (b"ACCEPTED", b"PROGRESS"):
                raise SystemExit(f"{name!r}: {msgpack.unpackb(rest[0])}")

    return once


def echo(port: int) -> Callable[[], bytes]:
    """A call that makes one bare ZeroMQ round trip."""
    dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    frames = [b"GS1", b"SUBMIT", msgpack.packb({"rid": "1", "job": JOB})]

    def once() -> bytes:
        dealer.send_multipart(frames)
        return b"".join(dealer.recv_multipart())

    return once


def http_engine_s(answer: bytes) -> float:
    """Seconds inside the engine, as the gateway's answer says."""
    return float(json.loads(answer)["data"][0]["genserve"]["timings"]["total_s"])


def raw_engine_s(answer: bytes) -> float:
    """Seconds inside the engine, as the RESULT header at the answer's beginning says."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(answer)
    return float(unpacker.unpack()["job"]["timings"]["total_s"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=300, help="of each kind in a round")
    args = parser.parse_args()
    with service() as port, contextlib.ExitStack() as stack:
        over_http, over_raw = post(port, "/v1/images/generations"), submit(port + 1)
        sizes = len(over_http()), len(over_raw())
        base = free_port()
        for target, at, size in ((bare_aiohttp, base, sizes[0]), (bare_zmq, base + 1, sizes[1])):
            peer = multiprocessing.get_context("spawn").Process(target=target, args=(at, size), daemon=True)
            peer.start()
            stack.callback(peer.kill)
        wait_listening(base)
        series = [
            Series("bare aiohttp handler", post(base, "/")),
            Series("job over HTTP, less the engine's own time", over_http, http_engine_s),
            Series("bare ZeroMQ round trip", echo(base + 1)),
            Series("job over raw ZeroMQ, less the engine's own time", over_raw, raw_engine_s),
        ]
        for one in series:
            one.run(50)
            one.added_s.clear()
        for turn in range(args.rounds):
            for one in series if turn % 2 == 0 else reversed(series):
                one.run(args.requests)
        report(series, *sizes)


def report(series: list[Series], http_bytes: int, raw_bytes: int) -> None:
    """Print the table."""
    print(f"{len(series[0].added_s)} requests of each kind, one at a time; answers of {http_bytes} / {raw_bytes} bytes")
    print(f"{'':50} {'p50 µs':>8} {'p99 µs':>8}")
    for one in series:
        print(f"{one.name:50} {one.percentile_us(50):8.0f} {one.percentile_us(99):8.0f}")
    bare_http, over_http, bare_raw, over_raw = (one.percentile_us(50) for one in series)
    print(f"HTTP: {over_http / bare_http:.1f} x a bare handler; raw: {over_raw / bare_raw:.1f} x a bare round trip")


if __name__ == "__main__":
    main()
