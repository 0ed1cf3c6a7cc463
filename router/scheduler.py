"""Which job next, on which GPU.

Pure, and without the wire. Jobs come in the order of the queue. An idle GPU comes first: not the one where the
job just failed, then a clearly faster one, then the one with the smallest share. Only where no GPU is idle, one
that is about to be free gets the next job early, so that it does not stand still between two. A GPU leaves a
job that a faster one would end sooner, with all that is ahead of it there: that one keeps its place, and the
slower GPU takes the next job that is better off with it. Only GPUs that have drawn some are held against others.
"""

from collections.abc import Iterable, Mapping

from router.fleet import Fleet, Worker
from router.jobs import Job, JobState
from router.queue import JobQueue

SPEED_TIE_RATIO = 1.25  # estimates closer than this, or than SPEED_TIE_S, say nothing
SPEED_TIE_S = 0.1
PREFETCH_MIN_S = 0.05  # a job is sent no earlier than in the second half of the one before it, or so long before
LEFT_JOBS_MAX = 256  # a GPU that leaves so many to faster ones would add less than 1/256 to them: it stands by

Waiting = tuple[float, Worker]  # seconds until it is free, the GPU


class Scheduler:
    """Picks; changes nothing."""

    def __init__(self, fleet: Fleet, queue: JobQueue, jobs: Mapping[str, Job], prefetch_s: float) -> None:
        self._fleet = fleet
        self._queue = queue
        self._jobs = jobs
        self._prefetch_s = prefetch_s

    def pick(self, candidates: Iterable[Worker], now: float) -> tuple[Job, Worker] | None:
        """The next job that one of `candidates` should be sent now, and which of them; None: nothing to do.

        `candidates` must hold every idle GPU that could take a job.
        """
        if not len(self._queue):
            return None
        waits = [(self.free_in_s(worker, now), worker) for worker in candidates if worker.takes_new]
        able = [(wait, worker) for wait, worker in waits if wait is not None]
        if not able:
            return None
        models = able[0][1].models if len(able) == 1 else {m for _, worker in able for m in worker.models}
        busy_s: dict[str, float] = {}  # how long GPUs are taken by what they hold and by what was left to them
        left = 0
        for job_id in self._queue.ordered(models):
            job = self._jobs[job_id]
            fitting = [(wait, worker) for wait, worker in able if self.fits(job, worker, now)]
            if not fitting:
                continue
            sooner = [self._sooner_elsewhere(job, one, fitting, busy_s, now) for one in fitting]
            staying = [one for one, rival in zip(fitting, sooner, strict=True) if rival is None]
            if staying:
                return job, self._best(job, staying)
            end_s, rival_id = min(rival for rival in sooner if rival is not None)
            busy_s[rival_id] = end_s
            left += 1
            if left == LEFT_JOBS_MAX:
                return None
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
        left_s = remaining_s(job, worker, now)
        if left_s is None:
            on_last_step = job.state is JobState.RUNNING and job.step >= job.order.drawn_steps - 1
            return self._prefetch_s if on_last_step else None
        half_s = (worker.service.speeds.job_s(job.order) or 0.0) / 2
        return left_s if left_s <= min(self._prefetch_s, max(half_s, PREFETCH_MIN_S)) else None

    # --- deadlines -----------------------------------------------------------------------------

    def latest_start_now(self, job: Job) -> float | None:
        """From when on no GPU would end it before its deadline any more; None where some speed is not known."""
        serving = [worker for worker in self._fleet.serving(job.order.model) if worker.will_serve]
        times = [worker.service.speeds.compared_s(job.order) for worker in serving]
        known = [time for time in times if time is not None]
        return job.deadline_now - min(known) if known and len(known) == len(times) else None

    # --- one GPU and one job -------------------------------------------------------------------

    def fits(self, job: Job, worker: Worker, now: float) -> bool:
        """May it be drawn there, and would it end in time?"""
        if job.order.model not in worker.models:
            return False
        job_s = worker.service.speeds.compared_s(job.order)
        if job_s is not None and now + job_s > job.deadline_now > now:
            return False
        if worker.worker_id not in job.barred:
            return True
        others = (w for w in self._fleet.serving(job.order.model) if w.will_serve)
        return all(other.worker_id in job.barred for other in others)

    def ends_in_s(self, job: Job, worker: Worker, now: float) -> float | None:
        """Seconds until a job in this worker's hand ends, behind what it holds before; if need be guessed."""
        total_s = 0.0
        for job_id in worker.hand:
            held = self._jobs[job_id]
            speed = self._fleet.outlook(worker, held.order)
            if speed is None:
                return None
            running = held.state is JobState.RUNNING
            since_s = now - held.step_now
            left_s = speed.remaining_s(held.order, held.step, since_s) if running else speed.job_s(held.order)
            total_s += left_s or 0.0
            if held is job:
                break
        return total_s

    # --- one GPU and the others ----------------------------------------------------------------

    def _sooner_elsewhere(
        self, job: Job, one: Waiting, fitting: list[Waiting], busy_s: dict[str, float], now: float
    ) -> tuple[float, str] | None:
        """(seconds to the end, worker_id) on the busy GPU that would end the job soonest, if sooner than `one`."""
        wait_s, worker = one
        job_s = worker.service.speeds.likely_s(job.order)
        if job_s is None:
            return None
        soonest, rival_id = wait_s + job_s - SPEED_TIE_S, ""
        for rival in self._fleet.serving(job.order.model):
            rival_s = rival.service.speeds.likely_s(job.order)
            if rival is worker or rival_s is None or rival_s >= soonest:
                continue
            if rival.worker_id == job.avoid or rival.worker_id in job.barred or rival.on_probation:
                continue
            if not rival.hand and any(other is rival for _, other in fitting):
                continue  # idle as well: whichever is best will be chosen
            if rival.worker_id not in busy_s:
                busy_s[rival.worker_id] = self._busy_s(rival, now)
            if busy_s[rival.worker_id] + rival_s < soonest:
                soonest, rival_id = busy_s[rival.worker_id] + rival_s, rival.worker_id
        return (soonest, rival_id) if rival_id else None

    def _busy_s(self, worker: Worker, now: float) -> float:
        """How long its hand keeps this GPU, as learned; for ever where it cannot be relied upon."""
        if worker.state != "ready" or worker.suspect or worker.peer is None:
            return float("inf")
        total_s = max(0.0, worker.rests_until_now - now)
        for at, job_id in enumerate(worker.hand):
            job = self._jobs[job_id]
            time, speed = remaining_s(job, worker, now), worker.service.speeds.learned(job.order)
            if time is None or speed is None or (not at and speed.late(job.order, job.step, now - job.step_now)):
                return float("inf")
            total_s += time
        return total_s

    @staticmethod
    def _best(job: Job, fitting: list[Waiting]) -> Worker:
        if len(fitting) == 1:
            return fitting[0][1]
        idle = [worker for _, worker in fitting if not worker.hand]
        if not idle:
            return min(fitting, key=lambda pair: (pair[0], pair[1].service.share))[1]
        able = [worker for worker in idle if worker.worker_id != job.avoid] or idle
        times = [worker.service.speeds.likely_s(job.order) for worker in able]
        known = [time for time in times if time is not None]
        if known:
            bound = max(min(known) * SPEED_TIE_RATIO, min(known) + SPEED_TIE_S)
            able = [worker for worker, time in zip(able, times, strict=True) if time is None or time <= bound]
        return min(able, key=lambda worker: worker.service.share)


def remaining_s(job: Job, worker: Worker, now: float) -> float | None:
    """How long a job in this worker's hand will still keep its GPU, as learned; None where unknown."""
    if job.state is JobState.RUNNING:
        return worker.service.speeds.remaining_s(job.order, job.step, now - job.step_now)
    return worker.service.speeds.job_s(job.order)
