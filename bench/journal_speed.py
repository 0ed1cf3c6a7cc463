"""What the journal costs: jobs accepted a second with it and without it.

    python -m bench.journal_speed [--rounds 6] [--jobs 5000] [--clients 16] [--window 16]

Each round starts a router that keeps its queue in SQLite (each commit synced to the disk) and one that keeps
it in memory, in alternating order, and sends both the same SUBMITs over raw ZeroMQ: `clients` connections in
processes of their own, each with `window` jobs asked for and not yet answered. So the figures compare within
one run on one machine. Then a commit of the journal alone, by the number of jobs in it.
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import msgpack
import structlog
import zmq
from msgspec.structs import replace

from bench.service_cost import free_port, wait_listening
from common.messages import JobOrder
from router.records import JobAccepted
from router.sqlite_journal import SqliteJournal

PROCESSES = 2  # that the clients are spread over
QUEUE_JOBS_MAX = 1_000_000
JOB = {"prompt": "a red circle on a white ground " * 20, "width": 1024, "height": 1024, "seed": 1}
CARD = {"name": "m", "width": 1024, "height": 1024, "steps": 28}
BATCHES = (1, 4, 16, 64, 256)
COMMITS = 300


@contextlib.contextmanager
def router(journal: str, folder: Path) -> Iterator[int]:
    """A router that knows a model and whose queue has no end; yields its client port."""
    port = free_port()
    env = {
        **os.environ,
        "GENSERVE_LOG_LEVEL": "error",
        "GENSERVE_ROUTER_CLIENT_ENDPOINT": f"tcp://127.0.0.1:{port}",
        "GENSERVE_ROUTER_WORKER_ENDPOINT": f"tcp://127.0.0.1:{port + 1}",
        "GENSERVE_ROUTER_STATE_DIR": str(folder),
        "GENSERVE_ROUTER_JOURNAL": journal,
        "GENSERVE_ROUTER_GLOBAL_QUEUE_SIZE": str(QUEUE_JOBS_MAX),
        "GENSERVE_ROUTER_DRAIN_S": "0",
    }
    process = subprocess.Popen([sys.executable, "-m", "genserve", "router"], env=env, stdin=subprocess.DEVNULL)
    try:
        wait_listening(port)
        introduce_model(port + 1)
        yield port
    finally:
        process.terminate()
        process.wait()


def introduce_model(port: int) -> None:
    """Register as a daemon that takes no job."""
    dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    device = {"device": "cpu", "kind": "cpu"}
    register = {"worker_id": "w", "boot_id": "b", "nonce": "n", "host": "h", "device": device, "models": [CARD]}
    dealer.send_multipart([b"GS1", b"REGISTER", msgpack.packb(register)])
    dealer.recv_multipart()
    dealer.close(linger=0)


def clients(port: int, count: int, window: int, pipe: Connection) -> None:
    """Told how many jobs, have them accepted and say so; until told 0."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    dealers = [context.socket(zmq.DEALER) for _ in range(count)]
    poller = zmq.Poller()
    for dealer in dealers:
        dealer.connect(f"tcp://127.0.0.1:{port}")
        poller.register(dealer, zmq.POLLIN)
    frames = [b"GS1", b"SUBMIT", msgpack.packb({"rid": "1", "job": JOB})]
    pipe.send("ready")
    while jobs := pipe.recv():
        unasked = jobs
        for dealer in dealers * window:
            dealer.send_multipart(frames)
            unasked -= 1
        while jobs:
            for dealer, _ in poller.poll():
                _, name, header = dealer.recv_multipart()
                if name == b"PROGRESS":  # its place in the queue
                    continue
                if name != b"ACCEPTED":
                    raise SystemExit(f"{name!r}: {msgpack.unpackb(header)}")
                jobs -= 1
                if unasked > 0:
                    dealer.send_multipart(frames)
                    unasked -= 1
        pipe.send("done")


class Load:
    """The clients of one router."""

    def __init__(self, port: int, count: int, window: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipes = []
        self._processes = []
        for _ in range(PROCESSES):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=clients, args=(port, count // PROCESSES, window, theirs), daemon=True)
            process.start()
            ours.recv()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(0)
            process.join()

    def run(self, jobs: int) -> float:
        """Jobs accepted a second."""
        begin = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(jobs // PROCESSES)
        for pipe in self._pipes:
            pipe.recv()
        return jobs / (time.perf_counter() - begin)


def commit_us(folder: Path) -> dict[int, float]:
    """Median microseconds of a commit, by the number of jobs in it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    journal = SqliteJournal(folder, disk_free_min_mb=0, reserve_mb=1, logger=structlog.get_logger())
    facts: dict[str, Any] = {k: JOB[k] for k in ("prompt", "width", "height", "seed")}
    order = JobOrder(
        **facts, negative_prompt="", model="m", drawn_width=1024, drawn_height=1024, steps=28, guidance_scale=3.5,
        true_cfg_scale=1.0, priority=0, client="", save=False,
    )  # fmt: skip
    record = JobAccepted(job_id="", owner="local", order=order, notes=(), sequence=1, created_at=0.5, deadline_at=0.5)
    found = {}
    for batch in BATCHES:
        times = []
        for _ in range(COMMITS):
            ids = [uuid.uuid4().hex for _ in range(batch)]
            begin = time.perf_counter()
            for job_id in ids:
                journal.append(replace(record, job_id=job_id))
            journal.commit()
            times.append(time.perf_counter() - begin)
            journal.storage()
        found[batch] = statistics.median(times) * 1e6
    journal.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=5000, help="in a round, with each journal")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--window", type=int, default=16, help="jobs of a client asked for and not yet answered")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; default: a temporary folder")
    args = parser.parse_args()
    found: dict[str, list[float]] = {"sqlite": [], "memory": []}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for turn in range(args.rounds):
            for journal in list(found) if turn % 2 == 0 else reversed(found):
                with (
                    router(journal, Path(folder) / f"{journal}-{turn}") as port,
                    Load(port, args.clients, args.window) as load,
                ):
                    load.run(args.jobs // 5)
                    found[journal].append(load.run(args.jobs))
        ratios = [with_ / without for with_, without in zip(found["sqlite"], found["memory"], strict=True)]
        print(f"{args.rounds} rounds of {args.jobs} jobs, {args.clients} clients with {args.window} open jobs each")
        print(f"{'journal':10} {'jobs/s':>8} {'least':>8} {'most':>8}")
        for journal, rates in found.items():
            print(f"{journal:10} {statistics.median(rates):8.0f} {min(rates):8.0f} {max(rates):8.0f}")
        print(f"with SQLite {statistics.median(ratios):.2f} of the rate without (median of the rounds)")
        print(
            "\na commit, by jobs in it: "
            + ", ".join(f"{n}: {us:.0f} µs" for n, us in commit_us(Path(folder) / "commits").items())
        )


if __name__ == "__main__":
    main()
