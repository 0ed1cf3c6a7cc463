"""Where each waiting job will probably be drawn, and when it will have ended.

Pure. The plan decides nothing: it is made anew from the queue, the hands and the learned speeds whenever
somebody asks, by giving each job in turn to the GPU that would be free first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from common.settings import RouterSettings
from router.fleet import Fleet, Worker
from router.jobs import Job, JobState
from router.scheduler import JobQueue, Scheduler

PLANNED_JOBS_MAX = 2000  # beyond these, a job's position is known but no GPU and no time


@dataclass(frozen=True, slots=True)
class Place:
    """One waiting job's outlook. `worker_id` is '' where no GPU's own queue has room."""

    worker_id: str
    position: int  # 1: the next of its model to start
    eta_s: float | None  # to its end; None where no speed is known


@dataclass(slots=True)
class Plan:
    """All outlooks at one moment."""

    made_now: float
    changes: int  # of the queue, when it was made
    places: dict[str, Place] = field(default_factory=dict)
    queue_sizes: dict[str, int] = field(default_factory=dict)  # worker_id -> jobs waiting for it
    overflow: int = 0  # jobs that no GPU's own queue has room for


@dataclass(slots=True)
class _Line:
    worker: Worker
    queued: int
    free_in_s: float | None


def make_plan(fleet: Fleet, queue: JobQueue, jobs: Mapping[str, Job], settings: RouterSettings, now: float) -> Plan:
    """The outlook of every job in `queue`."""
    plan = Plan(now, queue.changes)
    lines = {worker.worker_id: _line(worker, jobs, now) for worker in fleet.workers.values()}
    by_model = {model: [lines[w.worker_id] for w in fleet.serving(model) if w.will_serve] for model in queue.models()}
    positions = dict.fromkeys(by_model, 0)
    for job_id in islice(queue.ordered(by_model), PLANNED_JOBS_MAX):
        job = jobs[job_id]
        positions[job.order.model] += 1
        plan.places[job_id] = _place(job, by_model[job.order.model], positions[job.order.model], settings)
    plan.overflow = sum(not place.worker_id for place in plan.places.values()) + len(queue) - len(plan.places)
    plan.queue_sizes = {worker_id: line.queued for worker_id, line in lines.items()}
    return plan


def _line(worker: Worker, jobs: Mapping[str, Job], now: float) -> _Line:
    held = [jobs[job_id] for job_id in worker.hand]
    times = [Scheduler.remaining_s(job, worker, now) for job in held]
    known = [time for time in times if time is not None]
    return _Line(
        worker=worker,
        queued=sum(job.state is JobState.DISPATCHED for job in held),
        free_in_s=sum(known) if len(known) == len(times) else None,
    )


def _place(job: Job, lines: list[_Line], position: int, settings: RouterSettings) -> Place:
    roomy = [line for line in lines if line.queued < settings.gpu_queue_size]
    line = min(roomy or lines, key=_soonest, default=None)
    if line is None:
        return Place("", position, None)
    job_s = line.worker.service.speeds.job_s(job.order)
    line.free_in_s = None if line.free_in_s is None or job_s is None else line.free_in_s + job_s
    if not roomy:
        return Place("", position, line.free_in_s)
    line.queued += 1
    return Place(line.worker.worker_id, position, line.free_in_s)


def _soonest(line: _Line) -> tuple[bool, float, int]:
    return (line.free_in_s is None, line.free_in_s or 0.0, line.queued)
