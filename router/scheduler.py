"""Which job next, on which GPU.

Pure, and without the wire. Jobs wait in the order of (-priority, sequence). An idle GPU comes first: not the
one where the job just failed, then a clearly faster one, then the one with the smallest share. Only where no
GPU is idle, one that is about to be free gets the next job early, so that it does not stand still between two.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping

from router.fleet import Fleet, Worker
from router.jobs import Job, JobState

SPEED_TIE_RATIO = 1.25  # estimates closer than this, or than SPEED_TIE_S, say nothing
SPEED_TIE_S = 0.1


class JobQueue:
    """The jobs that may start at any moment, one line a model."""

    def __init__(self) -> None:
        self._lines: dict[str, list[tuple[int, int, str]]] = {}
        self._size = 0
        self.changes = 0  # rises with every change

    def __len__(self) -> int:
        return self._size

    def __contains__(self, job: Job) -> bool:
        line = self._lines.get(job.order.model, [])
        at = bisect_left(line, _entry(job))
        return at < len(line) and line[at][2] == job.job_id

    def add(self, job: Job) -> None:
        """Wait."""
        insort(self._lines.setdefault(job.order.model, []), _entry(job))
        self._size += 1
        self.changes += 1

    def remove(self, job: Job) -> None:
        """Wait no longer. Raises ValueError where it did not wait."""
        line = self._lines.get(job.order.model, [])
        at = bisect_left(line, _entry(job))
        if at == len(line) or line[at][2] != job.job_id:
            raise ValueError(f"job {job.job_id} is not in the queue")
        del line[at]
        if not line:
            del self._lines[job.order.model]
        self._size -= 1
        self.changes += 1

    def position(self, job: Job) -> int:
        """1: the next of its model to start; 0: not in the queue."""
        line = self._lines.get(job.order.model, [])
        at = bisect_left(line, _entry(job))
        return at + 1 if at < len(line) and line[at][2] == job.job_id else 0

    def ordered(self, models: Iterable[str]) -> Iterator[str]:
        """The ids of the jobs for these models, in the order in which they should start."""
        lines = [self._lines[model] for model in models if model in self._lines]
        return (job_id for _, _, job_id in (lines[0] if len(lines) == 1 else heapq.merge(*lines)))

    def models(self) -> list[str]:
        """Those with jobs waiting."""
        return list(self._lines)


class Scheduler:
    """Picks; changes nothing."""

    def __init__(self, fleet: Fleet, queue: JobQueue, jobs: Mapping[str, Job], prefetch_s: float) -> None:
        self._fleet = fleet
        self._queue = queue
        self._jobs = jobs
        self._prefetch_s = prefetch_s

    def pick(self, candidates: Iterable[Worker], now: float) -> tuple[Job, Worker] | None:
        """The next job that one of `candidates` should be sent now, and which of them; None: nothing to do."""
        waits = [(self.free_in_s(worker, now), worker) for worker in candidates if worker.takes_new]
        able = [(wait, worker) for wait, worker in waits if wait is not None]
        if not able or not len(self._queue):
            return None
        models = able[0][1].models if len(able) == 1 else {m for _, worker in able for m in worker.models}
        for job_id in self._queue.ordered(models):
            job = self._jobs[job_id]
            fitting = [(wait, worker) for wait, worker in able if self._fits(job, worker)]
            if fitting:
                return job, self._best(job, fitting)
        return None

    def free_in_s(self, worker: Worker, now: float) -> float | None:
        """0 for an idle GPU, the seconds left for one about to be free, None for one that takes nothing yet."""
        if worker.rests_until_now > now:
            return None
        if not worker.hand:
            return 0.0
        if len(worker.hand) > 1 or worker.on_probation:
            return None
        job = self._jobs[next(iter(worker.hand))]
        left_s = self.remaining_s(job, worker, now)
        if left_s is None:
            on_last_step = job.state is JobState.RUNNING and job.step >= job.order.steps - 1
            return self._prefetch_s if on_last_step else None
        return left_s if left_s <= self._prefetch_s else None

    @staticmethod
    def remaining_s(job: Job, worker: Worker, now: float) -> float | None:
        """How long a job in this worker's hand will still keep its GPU; None where no speed is known."""
        if job.state is JobState.RUNNING:
            return worker.service.speeds.remaining_s(job.order, job.step, now - job.step_now)
        return worker.service.speeds.job_s(job.order)

    def _fits(self, job: Job, worker: Worker) -> bool:
        if job.order.model not in worker.models:
            return False
        if worker.worker_id not in job.barred:
            return True
        others = (w for w in self._fleet.serving(job.order.model) if w.will_serve)
        return all(other.worker_id in job.barred for other in others)

    @staticmethod
    def _best(job: Job, fitting: list[tuple[float, Worker]]) -> Worker:
        if len(fitting) == 1:
            return fitting[0][1]
        idle = [worker for _, worker in fitting if not worker.hand]
        if not idle:
            return min(fitting, key=lambda pair: (pair[0], pair[1].service.share))[1]
        able = [worker for worker in idle if worker.worker_id != job.avoid] or idle
        times = [worker.service.speeds.compared_s(job.order) for worker in able]
        known = [time for time in times if time is not None]
        if known:
            bound = max(min(known) * SPEED_TIE_RATIO, min(known) + SPEED_TIE_S)
            able = [worker for worker, time in zip(able, times, strict=True) if time is None or time <= bound]
        return min(able, key=lambda worker: worker.service.share)


def _entry(job: Job) -> tuple[int, int, str]:
    return (*job.order_key, job.job_id)
