"""What a flood costs another client: its single job's wait, while one client wants 500 pictures at once.

    python -m bench.fairness [--rounds 5] [--jobs 500]

Starts `genserve up` with two no-op engines of a fixed step time. In each round one raw ZeroMQ client submits all
its jobs at once and repeats what is refused when it is told to; once it has been refused, so that the queue is
full, another client submits one job. Waits are from the first SUBMIT of a job to its start.
"""

import argparse
import contextlib
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

import msgpack
import zmq

from bench.service_cost import service

STEP_S = 0.02
STEPS = 5
SPEC = {"prompt": "x", "width": 64, "height": 64, "steps": STEPS, "seed": 1}
WITHIN_S = 300.0


@dataclass
class Asked:
    """One job and what became of it; seconds of the monotonic clock."""

    submitted: float
    started: float = 0.0
    accepted_at: float = 0.0  # by the router's clock, as what follows
    started_at: float = 0.0
    worker_id: str = ""


@dataclass
class Asker:
    """One client over raw ZeroMQ."""

    port: int
    label: str
    jobs: dict[str, Asked] = field(default_factory=dict)  # by rid
    refused: int = 0
    ended: int = 0
    _again: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"tcp://127.0.0.1:{self.port}")

    def ask(self, jobs: int) -> None:
        """Submit so many at once."""
        for number in range(jobs):
            self.jobs[str(number)] = Asked(time.monotonic())
            self._submit(str(number))

    def _submit(self, rid: str) -> None:
        header = {"rid": rid, "job": {**SPEC, "client": self.label}}
        self._socket.send_multipart([b"GS1", b"SUBMIT", msgpack.packb(header)])

    def read(self) -> None:
        """Take what has come, and repeat what is due."""
        now = time.monotonic()
        due, self._again = [r for at, r in self._again if at <= now], [(at, r) for at, r in self._again if at > now]
        for rid in due:
            self._submit(rid)
        while self._socket.poll(1):
            _, name, raw, *_ = self._socket.recv_multipart()
            self._hear(name, msgpack.unpackb(raw))

    def _hear(self, name: bytes, header: dict[str, object]) -> None:
        rid, job = str(header["rid"]), self.jobs[str(header["rid"])]
        if name == b"REJECTED" and header["code"] == "queue_full":
            self.refused += 1
            self._again.append((time.monotonic() + float(str(header["retry_after_s"])), rid))
        elif name == b"PROGRESS" and header["state"] == "running":
            job.started = job.started or time.monotonic()
        elif name == b"RESULT":
            self.ended += 1
            view = header["job"]
            assert isinstance(view, dict)
            job.worker_id = str(view["worker_id"])
            job.accepted_at, job.started_at = float(view["created_at"]), float(view["started_at"])
            job.started = job.started or time.monotonic()
        elif name not in (b"ACCEPTED", b"PROGRESS"):
            raise SystemExit(f"{name!r}: {header}")

    def close(self) -> None:
        """Nothing more is asked."""
        self._socket.close()


def one_round(port: int, jobs: int) -> tuple[Asker, Asker]:
    """A flood, and one job of another client once the flood has been refused."""
    flood, other = Asker(port, "flood"), Asker(port, "other")
    flood.ask(jobs)
    end = time.monotonic() + WITHIN_S
    while flood.ended < jobs or other.ended < 1:
        flood.read()
        if flood.refused and not other.jobs:
            other.ask(1)
        other.read()
        if time.monotonic() > end:
            raise SystemExit(f"not done within {WITHIN_S} s: {flood.ended} of {jobs} and {other.ended} of 1")
    return flood, other


def further_starts(flood: Asker, single: Asked) -> int:
    """The most jobs of the flood that one GPU began while the other client's job waited."""
    between = (job for job in flood.jobs.values() if single.accepted_at < job.started_at < single.started_at)
    return max(Counter(job.worker_id for job in between).values(), default=0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=500, help="of the flood")
    args = parser.parse_args()
    print(
        f"two no-op GPUs, {STEPS} steps of {STEP_S * 1000:.0f} ms a job; a flood of {args.jobs} jobs; waits in seconds"
    )
    print(
        f"{'round':>5} {'flood p50':>10} {'flood max':>10} {'refusals':>9} "
        f"{'single job':>11} {'refused':>8} {'before it':>10}"
    )
    with service(gpus="cpu,cpu", GENSERVE_GPU_DAEMON_NOOP_STEP_S=str(STEP_S)) as port:
        for number in range(args.rounds):
            flood, other = one_round(port + 1, args.jobs)
            with contextlib.closing(flood), contextlib.closing(other):
                waits = [job.started - job.submitted for job in flood.jobs.values()]
                single = other.jobs["0"]
                print(
                    f"{number:5} {statistics.median(waits):10.2f} {max(waits):10.2f} {flood.refused:9} "
                    f"{single.started - single.submitted:11.3f} {other.refused:8} {further_starts(flood, single):10}"
                )
    print("refused: how often the single job was; before it: the most jobs of the flood that one GPU began meanwhile")


if __name__ == "__main__":
    main()
