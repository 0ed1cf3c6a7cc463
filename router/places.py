"""Where a job is: in the queue, in a GPU's hand, with a GPU that is not heard, or nowhere.

Pure. Each job that has not ended is in exactly one place (see invariants.py); what moves it is decided in
lifecycle.py.
"""

from router.fleet import Worker
from router.jobs import NEEDS_A_GPU, Job, JobEvent, advance
from router.state import RouterState


class Places:
    """Takes jobs in and out, and counts them."""

    def __init__(self, state: RouterState) -> None:
        self._state = state

    def enter(self, job: Job) -> None:
        """Count a job that is not ended among those known. It belongs in the queue next."""
        state = self._state
        state.jobs[job.job_id] = state.live[job.job_id] = job
        state.census[job.state] += 1
        state.room.count(job, 1)
        state.deadlines.look(job, state.now)

    def wait(self, job: Job, wait_s: float) -> None:
        """Queue, now or in `wait_s` seconds."""
        state = self._state
        job.not_before_now = state.now + wait_s
        state.deadlines.look(job, state.now)
        if wait_s > 0:
            state.delayed[job.job_id] = job
        else:
            state.queue.add(job)
            state.touch_all()

    def leave_queue(self, job: Job, *, drawn: bool) -> None:
        """It waits no longer. `drawn`: for a GPU has it, and its client is charged for that."""
        if self._state.delayed.pop(job.job_id, None) is None:
            (self._state.queue.take if drawn else self._state.queue.remove)(job)

    def leave_hand(self, job: Job) -> Worker | None:
        """From whichever GPU has it; None where none is heard that has."""
        self._state.orphans.pop(job.job_id, None)
        worker = self._state.fleet.workers.get(job.worker_id)
        if worker is None or worker.hand.pop(job.job_id, None) is None:
            return None
        self._state.touch(worker)
        return worker

    def advance(self, job: Job, event: JobEvent, detail: str = "") -> None:
        """Along the table of states."""
        state, before = self._state, job.state
        advance(job, event, state.now, detail)
        state.census[before] -= 1
        state.census[job.state] += 1
        needed = (job.state in NEEDS_A_GPU) - (before in NEEDS_A_GPU)
        if needed:
            state.room.count(job, needed)
