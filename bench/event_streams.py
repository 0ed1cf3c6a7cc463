"""What open streams of events cost the gateway: memory each, and what they do to other requests.

    python -m bench.event_streams [--streams 1000]

Starts `genserve up` with one no-op engine that a long job keeps busy, opens the streams of a job that waits behind it,
and reads the gateway's memory before and after. Beside it, in the same run, as many idle connections of a bare aiohttp
handler that answers with a stream and says nothing. GET /health is timed without and with the streams.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
import urllib.request
from contextlib import ExitStack

import psutil
from aiohttp import ClientSession, TCPConnector, web

from bench.service_cost import free_port, service, wait_listening

WAITING = {"prompt": "x", "num_inference_steps": 1}
BUSY = {"prompt": "x", "num_inference_steps": 100}
ASKED = 300
SETTLE_S = 2.0


def bare(port: int) -> None:
    """A handler that begins a stream and says nothing. Runs until killed."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": open\n\n")
        await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_get("/", handle)
    web.run_app(app, host="127.0.0.1", port=port, print=None, backlog=1024)


async def cost_kib(process: psutil.Process, url: str, streams: int) -> float:
    """KiB of the process for each of `streams` open responses of `url`."""
    async with ClientSession(connector=TCPConnector(limit=0)) as client:
        first = await client.get(url)  # what one alone makes is there already
        await first.content.readline()
        before = process.memory_info().rss
        opened = [await client.get(url) for _ in range(streams)]
        for answer in opened:
            await answer.content.readline()
        await asyncio.sleep(SETTLE_S)
        grown: int = process.memory_info().rss - before
        return grown / streams / 1024


def asked_ms(url: str) -> float:
    """Median milliseconds of a GET."""
    taken = []
    for _ in range(ASKED):
        began = time.perf_counter()
        with urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def accepted(url: str, body: dict[str, object]) -> str:
    """The path of a new job."""
    request = urllib.request.Request(f"{url}/v1/jobs", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        path: str = json.load(answer)["links"]["self"]
        return path


async def measure(streams: int) -> None:
    """Measure and print."""
    with service(GENSERVE_GPU_DAEMON_NOOP_STEP_S="1") as port, ExitStack() as stack:
        url = f"http://127.0.0.1:{port}"
        gateway = next(p for p in psutil.process_iter(["cmdline"]) if is_gateway(p, port))
        quiet_ms = asked_ms(f"{url}/health")
        accepted(url, BUSY)
        waits = accepted(url, WAITING)
        kib = await cost_kib(gateway, f"{url}{waits}/events", streams)
        opened = asyncio.create_task(hold(f"{url}{waits}/events", streams))
        await asyncio.sleep(SETTLE_S)
        held_ms = await asyncio.to_thread(asked_ms, f"{url}/health")
        opened.cancel()
        base = free_port()
        peer = multiprocessing.get_context("spawn").Process(target=bare, args=(base,), daemon=True)
        peer.start()
        stack.callback(peer.kill)
        wait_listening(base)
        assert peer.pid is not None
        bare_kib = await cost_kib(psutil.Process(peer.pid), f"http://127.0.0.1:{base}/", streams)
    print(f"{streams} streams of one job: {kib:.1f} KiB each, {kib * streams / 1024:.1f} MiB in all")
    print(f"as many of a bare aiohttp handler: {bare_kib:.1f} KiB each; GenServe's are {kib / bare_kib:.1f} x that")
    print(f"GET /health: {quiet_ms:.2f} ms without them, {held_ms:.2f} ms with them (median of {ASKED})")


async def hold(url: str, streams: int) -> None:
    """Keep them open until cancelled."""
    async with ClientSession(connector=TCPConnector(limit=0)) as client:
        opened = [await client.get(url) for _ in range(streams)]
        await asyncio.Event().wait()
        assert opened


def is_gateway(process: psutil.Process, port: int) -> bool:
    """Is it the gateway that listens on this port?"""
    try:
        return any(c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in process.net_connections())
    except psutil.Error:
        return False


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    asyncio.run(measure(parser.parse_args().streams))


if __name__ == "__main__":
    main()
