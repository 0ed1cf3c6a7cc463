"""What HTTP costs under load: jobs a second through the gateway, against a bare aiohttp handler in the same run.

    python -m bench.gateway_cost [--connections 1 64] [--rounds 7] [--seconds 2] [--journal memory]

Starts `genserve up` with one no-op engine, and beside it a bare aiohttp handler and a bare ZeroMQ echo that answer with
as many bytes; `gateway alone` is GET /health/live, which asks no router. Each is asked over so many kept-alive
connections at once (over ZeroMQ: so many jobs at once on one), each of which asks again as soon as it is answered.
Rounds alternate their order; told is the median round. The client, one uvloop process, the same for all, shares the
cores: the figures are of this machine, their ratios of the software.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import re
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

import msgpack
import uvloop
import zmq
import zmq.asyncio

from bench.service_cost import BODY, JOB, bare_aiohttp, bare_zmq, free_port, post, service, submit, wait_listening

WARM_UP_S = 0.5
QUEUE = {"GENSERVE_ROUTER_GLOBAL_QUEUE_SIZE": "1000"}  # nobody is refused: what is measured is the way through
LENGTH = re.compile(rb"(?i)content-length: (\d+)")

Ask = Callable[[], Awaitable[None]]
Opened = Callable[[int], contextlib.AbstractAsyncContextManager[list[Ask]]]


@dataclass
class Kind:
    """One thing that is asked, and how often a second it answered, by connections and round."""

    name: str
    open: Opened
    rates: dict[int, list[float]] = field(default_factory=dict)

    def median(self, connections: int) -> float:
        """Answers a second."""
        return statistics.median(self.rates[connections])


def over_http(port: int, path: str, method: str = "POST") -> Opened:
    """So many connections of their own; a call asks once over one of them."""
    body = BODY if method == "POST" else b""
    heads = (
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    request = "\r\n".join((*heads, "", "")).encode() + body

    @contextlib.asynccontextmanager
    async def opened(connections: int) -> AsyncGenerator[list[Ask]]:
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(connections)]

        def asking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Ask:
            async def ask() -> None:
                writer.write(request)
                answer = await reader.readuntil(b"\r\n\r\n")
                found = LENGTH.search(answer)
                body = await reader.readexactly(int(found[1]) if found else 0)
                if b" 200 " not in answer[:20]:
                    raise SystemExit(f"{path}: {answer!r} {body[:300]!r}")

            return ask

        try:
            yield [asking(*stream) for stream in streams]
        finally:
            for _, writer in streams:
                writer.close()

    return opened


def over_zmq(port: int) -> Opened:
    """One DEALER; a call submits one job, or asks the echo, and waits for its end."""

    @contextlib.asynccontextmanager
    async def opened(connections: int) -> AsyncGenerator[list[Ask]]:
        context = zmq.asyncio.Context()
        dealer = context.socket(zmq.DEALER)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        waiting: dict[str, asyncio.Future[None]] = {}

        async def receive() -> None:
            while True:
                frames = await dealer.recv_multipart()
                if len(frames) == 1:  # the echo, which says nothing of whom it answers: the oldest
                    waiting.pop(next(iter(waiting))).set_result(None)
                elif frames[1] == b"RESULT":
                    waiting.pop(msgpack.unpackb(frames[2])["rid"]).set_result(None)
                elif frames[1] not in (b"ACCEPTED", b"PROGRESS"):
                    raise SystemExit(f"{frames[1]!r}: {msgpack.unpackb(frames[2])}")

        numbers = iter(range(10**9))

        async def ask() -> None:
            rid = str(next(numbers))
            waiting[rid] = asyncio.get_running_loop().create_future()
            await dealer.send_multipart([b"GS1", b"SUBMIT", msgpack.packb({"rid": rid, "job": JOB})])
            await waiting[rid]

        receiving = asyncio.ensure_future(receive())
        try:
            yield [ask] * connections
        finally:
            receiving.cancel()
            context.destroy(linger=0)

    return opened


async def rate(kind: Kind, connections: int, seconds: float) -> float:
    """Answers a second, over that time, after a moment that is not counted."""
    counting, answers = False, 0

    async def again(ask: Ask) -> None:
        nonlocal answers
        while True:
            await ask()
            answers += counting

    async with kind.open(connections) as asks:
        tasks = [asyncio.ensure_future(again(ask)) for ask in asks]
        await asyncio.sleep(WARM_UP_S)
        counting, began = True, time.perf_counter()
        await asyncio.sleep(seconds)
        counting, took_s = False, time.perf_counter() - began
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError):
                raise SystemExit(f"{kind.name}: {outcome!r}")
    return answers / took_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round")
    parser.add_argument(
        "--journal", choices=("sqlite", "memory"), default="sqlite", help="memory: less the disk's part"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with service(**QUEUE, GENSERVE_ROUTER_JOURNAL=args.journal) as port, contextlib.ExitStack() as stack:
        sizes = len(post(port, "/v1/images/generations")()), len(submit(port + 1)())
        base = free_port()
        for target, at, size in ((bare_aiohttp, base, sizes[0]), (bare_zmq, base + 1, sizes[1])):
            peer = multiprocessing.get_context("spawn").Process(target=target, args=(at, size), daemon=True)
            peer.start()
            stack.callback(peer.kill)
        wait_listening(base)
        kinds = [
            Kind("bare aiohttp handler", over_http(base, "/")),
            Kind("gateway alone", over_http(port, "/health/live", "GET")),
            Kind("job over HTTP", over_http(port, "/v1/images/generations")),
            Kind("bare ZeroMQ echo", over_zmq(base + 1)),
            Kind("job over raw ZeroMQ", over_zmq(port + 1)),
        ]
        for turn in range(args.rounds):
            for connections in args.connections:
                for kind in kinds if turn % 2 == 0 else reversed(kinds):
                    found = uvloop.run(rate(kind, connections, args.seconds))
                    kind.rates.setdefault(connections, []).append(found)
    if args.json:
        print(json.dumps({kind.name: kind.rates for kind in kinds}))
    report(kinds, args.connections, *sizes)


def report(kinds: list[Kind], connections: list[int], http_bytes: int, raw_bytes: int) -> None:
    """Print the table."""
    bare, alone, http, echo, raw = kinds
    rounds = len(bare.rates[connections[0]])
    print(f"answers a second, median of {rounds} rounds; answers of {http_bytes} / {raw_bytes} bytes")
    print(f"{'':24}" + "".join(f"{f'{n} at once':>14}" for n in connections))
    for kind in kinds:
        print(f"{kind.name:24}" + "".join(f"{kind.median(n):14.0f}" for n in connections))
    for name, one, other in (
        ("gateway alone of bare", alone, bare),
        ("HTTP of bare", http, bare),
        ("raw of bare", raw, echo),
        ("HTTP of raw", http, raw),
    ):
        print(f"{name:24}" + "".join(f"{one.median(n) / other.median(n):14.3f}" for n in connections))


if __name__ == "__main__":
    main()
