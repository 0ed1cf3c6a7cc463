"""How long unequal GPUs take over unequal jobs, beside a scheduler that knows all durations beforehand.

    python -m bench.makespan [--seeds 100]

The real router decides, by the speeds that it learns; GPUs are played (bench/played_fleet.py). Beside it,
earliest-finish list scheduling: each job in order to the GPU that would end it first, durations known. `warm`:
the fleet has drawn each size before; `cold`: it has drawn nothing yet.
"""

import argparse
import random
import statistics
from dataclasses import dataclass

from bench.played_fleet import PlayedFleet, order_s
from common.messages import Accepted, JobSpec
from router.jobs import JobState

SIDES = (512, 768, 1024)
STEPS = (4, 8, 12, 20)
FASTEST_S, SLOWEST_RATIO = 0.2, 4.0  # seconds a step and megapixel; the slowest GPU of any run takes so much longer
JOBS_PER_GPU = (20, 30)
GPUS = (2, 6)
PREPARING_JOBS_MAX = 2000


@dataclass(frozen=True)
class Task:
    """What is to be drawn, on what."""

    speeds: list[float]
    jobs: list[JobSpec]


@dataclass(frozen=True)
class Outcome:
    """Seconds from the first submission to the last end."""

    warm_s: float
    cold_s: float
    known_s: float  # of earliest-finish scheduling that knows the durations

    @property
    def warm_ratio(self) -> float:
        """1: as good as knowing everything."""
        return self.warm_s / self.known_s

    @property
    def cold_ratio(self) -> float:
        """The same, by a fleet that has drawn nothing before."""
        return self.cold_s / self.known_s


def make_task(seed: int) -> Task:
    """Some GPUs, up to four times as fast as others, and some twenty to thirty jobs for each."""
    chance = random.Random(seed)
    speeds = [FASTEST_S * chance.uniform(1.0, SLOWEST_RATIO) for _ in range(chance.randint(*GPUS))]
    jobs = []
    for _ in range(len(speeds) * chance.randint(*JOBS_PER_GPU)):
        side = chance.choice(SIDES)
        jobs.append(JobSpec(prompt="x", width=side, height=side, steps=chance.choice(STEPS)))
    return Task(speeds, jobs)


def known_makespan_s(task: Task) -> float:
    """Each job in order to the GPU that would end it first."""
    free = [0.0] * len(task.speeds)
    for job in task.jobs:
        ends = [at + order_s(speed, job) for at, speed in zip(free, task.speeds, strict=True)]
        best = min(range(len(ends)), key=ends.__getitem__)
        free[best] = ends[best]
    return max(free)


def played_makespan_s(task: Task, *, warm: bool, check: bool = False) -> float:
    """By the real router."""
    fleet = PlayedFleet(task.speeds, check=check, global_queue_size=10_000, job_deadline_s=1e6)
    if warm:
        prepare(fleet)
    begin, before = fleet.now, len(fleet.drawn)
    for job in task.jobs:
        assert isinstance(fleet.submit(job), Accepted)
    fleet.run(lambda: len(fleet.drawn) == before + len(task.jobs))
    return fleet.now - begin


def prepare(fleet: PlayedFleet) -> None:
    """Draw until every GPU has shown how fast it is at every size, then let all of them come to rest."""
    for _ in range(PREPARING_JOBS_MAX):
        side = fleet.random.choice(SIDES)
        assert isinstance(fleet.submit(JobSpec(prompt="x", width=side, height=side, steps=STEPS[0])), Accepted)
        fleet.run(lambda: any(not gpu.hand for gpu in fleet.gpus.values()))
        if _known(fleet):
            fleet.run(lambda: not fleet.broker.state.live)
            return
    raise AssertionError("some GPU never drew some size")


def _known(fleet: PlayedFleet) -> bool:
    done = [job for job in fleet.broker.state.jobs.values() if job.state is JobState.DONE]
    orders = {job.order.width: job.order for job in done}
    workers = fleet.broker.state.fleet.workers.values()
    return len(orders) == len(SIDES) and all(
        worker.service.speeds.compared_s(order) is not None for worker in workers for order in orders.values()
    )


def measure(seed: int) -> Outcome:
    """One task, all three ways."""
    task = make_task(seed)
    return Outcome(played_makespan_s(task, warm=True), played_makespan_s(task, warm=False), known_makespan_s(task))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    args = parser.parse_args()
    print(f"{'seed':>4} {'GPUs':>4} {'ratio':>6} {'jobs':>5} {'known s':>8} {'warm s':>8} {'':>6} {'cold s':>8}")
    outcomes = []
    for seed in range(args.seeds):
        task, outcome = make_task(seed), measure(seed)
        outcomes.append(outcome)
        spread = max(task.speeds) / min(task.speeds)
        print(
            f"{seed:4} {len(task.speeds):4} {spread:6.2f} {len(task.jobs):5} {outcome.known_s:8.1f} "
            f"{outcome.warm_s:8.1f} {outcome.warm_ratio:6.3f} {outcome.cold_s:8.1f} {outcome.cold_ratio:6.3f}"
        )
    for name, ratios in (
        ("warm", [outcome.warm_ratio for outcome in outcomes]),
        ("cold", [outcome.cold_ratio for outcome in outcomes]),
    ):
        print(f"{name}: median {statistics.median(ratios):.3f}, worst {max(ratios):.3f} times the known makespan")


if __name__ == "__main__":
    main()
