"""Where each waiting job will probably be drawn, and when it will have ended.

Pure. The plan decides nothing: it is made anew from the queue, the hands and the speeds whenever somebody asks,
by giving each job in turn to the GPU that would end it first, as the scheduler will. Speeds that were not
learned are guessed; how far an outlook may be trusted is told with it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from common.settings import RouterSettings
from router.fleet import Fleet, Worker
from router.jobs import Job, JobState
from router.queue import JobQueue
from router.scheduler import Scheduler
from router.speeds import Trust, shape

PLANNED_JOBS_MAX = 2000  # beyond these, a job's position is known but no GPU and no time


@dataclass(frozen=True, slots=True)
class Place:
    """One waiting job's outlook. `worker_id` is '' where no GPU's own queue has room."""

    worker_id: str
    eta_s: float | None  # to its end; None where no speed is known


@dataclass(slots=True)
class Plan:
    """All outlooks at one moment."""

    made_now: float
    changes: int  # of the queue, when it was made
    places: dict[str, Place] = field(default_factory=dict)
    queue_sizes: dict[str, int] = field(default_factory=dict)  # worker_id -> jobs waiting for it
    overflow: int = 0  # jobs that no GPU's own queue has room for
    trust: Trust = Trust.GUESSED  # how well is known what the outlook of the `last` one rests on


@dataclass(slots=True)
class _Line:
    worker: Worker
    queued: int
    free_in_s: float | None
    trust: Trust
    times: dict[object, tuple[float | None, Trust]] = field(default_factory=dict)  # by shape


class Planner:
    """Makes plans."""

    def __init__(
        self, fleet: Fleet, queue: JobQueue, scheduler: Scheduler, jobs: Mapping[str, Job], settings: RouterSettings
    ) -> None:
        self._fleet = fleet
        self._queue = queue
        self._scheduler = scheduler
        self._jobs = jobs
        self._gpu_queue_size = settings.gpu_queue_size

    def plan(self, delayed: Iterable[Job], now: float, last: Job | None = None) -> Plan:
        """The outlook of every job in the queue, and of the `delayed` ones.

        The waiting job `last` has one in any case: where it stands beyond those planned, it ends no sooner.
        """
        plan = Plan(now, self._queue.changes)
        lines = {worker.worker_id: self._line(worker, now) for worker in self._fleet.workers.values()}
        models = self._queue.models()
        by_model = {model: self._lines_of(model, lines) for model in models}
        for job in delayed:
            plan.places[job.job_id] = self._when_due(job, self._lines_of(job.order.model, lines), now)
        waiting = 0
        for job_id in islice(self._queue.ordered(models), PLANNED_JOBS_MAX):
            job = self._jobs[job_id]
            place = plan.places[job_id] = self._place(job, by_model[job.order.model])
            waiting += bool(place.worker_id)
        plan.overflow = len(self._queue) - waiting
        plan.queue_sizes = {worker_id: line.queued for worker_id, line in lines.items()}
        if last is not None:
            rivals = by_model[last.order.model]
            if last.job_id not in plan.places:
                plan.places[last.job_id] = self._place(last, rivals)
            plan.trust = min((min(one.trust, self._time(one, last)[1]) for one in rivals), default=Trust.GUESSED)
        return plan

    def _lines_of(self, model: str, lines: Mapping[str, _Line]) -> list[_Line]:
        return [lines[worker.worker_id] for worker in self._fleet.serving(model) if worker.will_serve]

    def _line(self, worker: Worker, now: float) -> _Line:
        held = [self._jobs[job_id] for job_id in worker.hand]
        left_s = self._scheduler.ends_in_s(held[-1], worker, now) if held else 0.0
        rest_s = max(0.0, worker.rests_until_now - now)
        return _Line(
            worker=worker,
            queued=sum(job.state is JobState.DISPATCHED for job in held),
            free_in_s=None if left_s is None else left_s + rest_s,
            trust=min((worker.service.speeds.trust(job.order) for job in held), default=Trust.COMPARED),
        )

    def _place(self, job: Job, lines: list[_Line]) -> Place:
        key, best, soonest = shape(job.order), None, (True, float("inf"), 0)
        roomy = [line for line in lines if line.queued < self._gpu_queue_size]
        for line in roomy or lines:
            job_s, _ = line.times.get(key) or self._time(line, job)
            free_in_s = line.free_in_s
            if free_in_s is None:
                rank = (True, job_s or 0.0, line.queued)
            else:
                rank = (False, free_in_s + (job_s or 0.0), line.queued)
            if best is None or rank < soonest:
                best, soonest = line, rank
        if best is None:
            return Place("", None)
        job_s, trust = best.times[key]
        best.free_in_s = None if best.free_in_s is None or job_s is None else best.free_in_s + job_s
        best.trust = min(best.trust, trust)
        if not roomy:
            return Place("", best.free_in_s)
        best.queued += 1
        return Place(best.worker.worker_id, best.free_in_s)

    def _when_due(self, job: Job, lines: list[_Line], now: float) -> Place:
        """A job that waits out a pause comes first in its line afterwards."""
        wait_s = max(0.0, job.not_before_now - now)
        ends = [
            max(wait_s, line.free_in_s) + job_s
            for line in lines
            if line.free_in_s is not None and (job_s := self._time(line, job)[0]) is not None
        ]
        return Place("", min(ends, default=None))

    def _time(self, line: _Line, job: Job) -> tuple[float | None, Trust]:
        """How long the job takes there, and how well that is known."""
        key = shape(job.order)
        if key not in line.times:
            speed = self._fleet.outlook(line.worker, job.order)
            job_s = None if speed is None else speed.job_s(job.order)
            line.times[key] = (job_s, line.worker.service.speeds.trust(job.order))
        return line.times[key]
