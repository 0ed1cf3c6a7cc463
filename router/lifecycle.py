"""What follows when a job moves: its place, the journal, the log, and those who watch it.

Pure. Every transition of a job goes through here, so that nobody can move one and forget the rest. Why it
moves is decided elsewhere: by clients, by workers, by time.
"""

from collections.abc import Sequence
from typing import Any

from common.errors import ERRORS, Fault
from common.messages import CancelToken, Dispatch, Done, ErrorInfo, Note
from router.commands import DropInputs, DropResult, StoreResult, Trace
from router.fleet import Worker
from router.inputs import parts_of
from router.jobs import IN_HAND, Job, JobEvent, JobState, found_again
from router.places import Places
from router.records import (
    JobAccepted,
    JobCancelled,
    JobDispatched,
    JobDone,
    JobFailed,
    JobForgotten,
    JobRequeued,
    JobRevived,
    JobStarted,
)
from router.retry import GiveUp, Retry, after_failure, after_return
from router.state import RouterState
from router.teller import Preview, Teller
from router.terms import settle
from router.views import failure_view

DONE_NOTES_MAX = 8  # of one picture, each of NOTE_CHARS_MAX: a RESULT's header has its limit
NOTE_CHARS_MAX = 500
REASON_CHARS_MAX = 300
MESSAGE_CHARS_MAX = 4000  # what ErrorInfo takes: a daemon's own may be that long, and something is added to it


class Lifecycle:
    """Moves jobs."""

    def __init__(self, state: RouterState, teller: Teller) -> None:
        self._state = state
        self._teller = teller
        self._places = Places(state)

    # --- forward -------------------------------------------------------------------------------

    def accept(self, job: Job) -> None:
        """A new job: written down and queued."""
        state = self._state
        self._places.enter(job)
        state.queue.add(job)
        state.inputs.keep(job.order)
        state.totals.submitted += 1
        record = JobAccepted(
            job_id=job.job_id,
            owner=job.owner,
            order=job.order,
            notes=job.notes,
            sequence=job.sequence,
            created_at=job.created_at,
            deadline_at=job.deadline_at,
            traceparent=job.traceparent,
            inputs_of=job.inputs_of,
            weight=job.weight,
        )
        self._state.write_down(job, record)
        order, trace = job.order, {"trace_id": job.traceparent.split("-")[1]} if job.traceparent else {}
        state.log("info", "job.accepted", job_id=job.job_id, model=order.model, client=order.client, **trace)
        state.log("debug", "job.prompt", job_id=job.job_id, prompt=job.order.prompt, seed=job.order.seed)
        state.touch_all()

    def dispatch(self, job: Job, worker: Worker) -> None:
        """Send a queued job to a GPU with credit."""
        state = self._state
        queue_size, idle = state.queue.position(job), not worker.hand
        state.queue.take(job)
        state.fleet.use_credit(worker)
        job.dispatch += 1
        job.lost = job.lost_running = False
        self._give(job, worker)
        self._places.advance(job, JobEvent.DISPATCH, worker.worker_id)
        message = Dispatch(
            epoch=worker.epoch,
            token=job.token,
            job=job.order,
            remaining_s=max(0.0, job.deadline_now - state.now),
            traceparent=job.traceparent,
            parts=parts_of(job.order),
        )
        state.to_worker(worker, message, job.inputs_of)
        state.log(
            "debug",
            "instance.chosen",
            job_id=job.job_id,
            worker_id=worker.worker_id,
            device=worker.device.device,
            position=queue_size,
            waiting=len(state.queue),
            idle=idle,
        )

    def adopt(self, job: Job, worker: Worker, *, running: bool) -> None:
        """A registering daemon holds this job's current token: it goes on there."""
        state = self._state
        state.orphans.pop(job.job_id, None)
        if job.state is JobState.QUEUED:
            self._places.leave_queue(job, drawn=True)
            found_again(job)
            self._give(job, worker)
            self._places.advance(job, JobEvent.ADOPT, worker.worker_id)
        elif job.state in IN_HAND:
            worker.hand[job.job_id] = job.dispatch
        if running and job.state is JobState.DISPATCHED:
            self.start(job)

    def _give(self, job: Job, worker: Worker) -> None:
        job.worker_id, job.device = worker.worker_id, worker.device.device
        job.step, job.step_now = 0, self._state.now
        worker.hand[job.job_id] = job.dispatch
        record = JobDispatched(
            job_id=job.job_id, dispatch=job.dispatch, worker_id=job.worker_id, device=job.device, at=self._state.wall
        )
        self._state.write_down(job, record)

    def start(self, job: Job) -> None:
        """Its engine has begun."""
        state = self._state
        job.starts += 1
        job.returns = 0
        job.started_at, job.step, job.step_now = state.wall, 0, state.now
        job.steps_at.clear()
        if job.starts == 1:
            state.measures.started(state.now - job.created_now)
        self._places.advance(job, JobEvent.START, job.worker_id)
        self._state.write_down(job, JobStarted(job_id=job.job_id, started_at=job.started_at))
        state.log("debug", "job.running", job_id=job.job_id, worker_id=job.worker_id, device=job.device)
        self._teller.progress(job, always=True)

    def store(self, job: Job, message: Done, payload: Sequence[Any]) -> None:
        """It is drawn: have the picture checked and kept."""
        state = self._state
        notes = [Note(code=n.code, message=n.message[:NOTE_CHARS_MAX]) for n in message.notes[:DONE_NOTES_MAX]]
        job.picture, job.parts, job.timings = message.picture, message.parts, message.timings
        job.drawn_notes = tuple(notes)
        self._places.leave_hand(job)
        self._places.advance(job, JobEvent.STORE, job.worker_id)
        state.out.append(StoreResult(job.token, message.picture, payload))

    def not_stored(self, job: Job) -> None:
        """There is no room for its picture now. Its daemon should have it still, and must register to say so."""
        job.undraw()
        self._places.advance(job, JobEvent.NOT_STORED, "no room")
        self._state.orphans[job.job_id] = self._state.now + self._state.settings.dead_after_s

    def stored(self, job: Job) -> None:
        """The picture is kept: the job is done."""
        state, order = self._state, job.order
        job.settled = job.dispatch
        job.notes = (*(n for n in job.notes if n not in job.drawn_notes), *job.drawn_notes)
        self._places.advance(job, JobEvent.STORED)
        assert job.picture is not None
        assert job.timings is not None
        self._end(job)
        state.result_bytes += job.picture.bytes
        state.totals.done += 1
        state.measures.done(state.now - job.created_now, job.timings, order.drawn_steps)
        state.fleet.drew(job.worker_id, job.timings.total_s)
        record = JobDone(
            job_id=job.job_id,
            picture=job.picture,
            parts=job.parts,
            timings=job.timings,
            notes=job.notes,
            ended_at=job.ended_at,
        )
        self._state.write_down(job, record)
        self._log_end("info", "job.finished", job, width=order.width, height=order.height, steps=order.drawn_steps)
        self._teller.end(job)

    def progress(self, job: Job, step: int, preview: Preview) -> None:
        """A step is done."""
        job.step, job.step_now = step, self._state.now
        if self._state.traced:
            job.mark(step, self._state.wall)
        self._teller.progress(job, always=step >= job.order.drawn_steps, preview=preview)

    # --- back ----------------------------------------------------------------------------------

    def give_back(self, job: Job, reason: str) -> None:
        """Its daemon gives it back, through no fault of the job."""
        job.settled = job.dispatch
        job.returns += 1
        self._requeue(job, after_return(job), f"returned: {reason}")

    def lose(self, job: Job, reason: str) -> None:
        """Its GPU is gone or knows nothing of it. The token stays current: the GPU may yet come back with it."""
        job.lost, job.lost_running = True, job.state is JobState.RUNNING
        self._misfortune(job, "worker_lost", reason)

    def failed_there(self, job: Job, code: str, message: str) -> None:
        """Its daemon says that it failed, or its picture cannot be kept."""
        job.settled = job.dispatch
        job.engine_deaths += code == "engine_died"
        job.memory_failures += code == "out_of_memory"
        self._misfortune(job, code, message)

    def _misfortune(self, job: Job, code: str, message: str) -> None:
        job.attempts += job.state is not JobState.DISPATCHED
        job.failures += 1
        verdict = after_failure(job, code, message, self._state.settings)
        if isinstance(verdict, GiveUp):
            self.fail(job, verdict.code, verdict.message)
            return
        job.avoid = job.worker_id
        if verdict.bar:
            job.barred |= {job.worker_id}
        self._state.totals.retried += 1
        self._requeue(job, verdict, f"{code}: {message}")

    def _requeue(self, job: Job, retry: Retry, reason: str) -> None:
        state = self._state
        self._places.leave_hand(job)
        job.undraw()
        job.step = 0
        self._places.advance(job, JobEvent.REQUEUE, reason)
        self._places.wait(job, retry.wait_s)
        record = JobRequeued(
            job_id=job.job_id,
            settled=job.settled,
            attempts=job.attempts,
            failures=job.failures,
            returns=job.returns,
            engine_deaths=job.engine_deaths,
            memory_failures=job.memory_failures,
            barred=tuple(sorted(job.barred)),
            lost=job.lost,
            not_before_at=state.wall + retry.wait_s,
            reason=reason[:REASON_CHARS_MAX],
            at=state.wall,
        )
        self._state.write_down(job, record)
        state.log(
            "warning",
            "job.requeued",
            job_id=job.job_id,
            reason=reason,
            worker_id=job.worker_id,
            device=job.device,
            attempts=job.attempts,
            wait_s=round(retry.wait_s, 3),
        )
        self._teller.progress(job, always=True)

    # --- the other ends ------------------------------------------------------------------------

    def fail(self, job: Job, code: str, message: str) -> None:
        """It ends without a picture."""
        kind = ERRORS[code]
        job.error = ErrorInfo(
            code=code,
            message=message[:MESSAGE_CHARS_MAX],
            fault=kind.fault.value,
            retryable=kind.retryable,
            next_step=kind.next_step,
        )
        self._withdraw(job)
        self._places.advance(job, JobEvent.FAIL, f"{code}: {message}")
        self._end(job)
        self._state.totals.failed += 1
        self._state.measures.failed[code] += 1
        if kind.fault is not Fault.CLIENT:  # of which an operator can mend nothing
            self._state.failures.appendleft((job.owner, failure_view(job, job.error)))
        record = JobFailed(job_id=job.job_id, error=job.error, settled=job.settled, ended_at=job.ended_at)
        self._state.write_down(job, record)
        level = "info" if kind.fault is Fault.CLIENT else "error"
        self._log_end(level, "job.failed", job, code=code, message=message)
        self._teller.end(job)

    def cancel(self, job: Job) -> None:
        """Its owner wants it no more."""
        self._withdraw(job)
        self._places.advance(job, JobEvent.CANCEL)
        self._end(job)
        self._state.totals.cancelled += 1
        self._state.write_down(job, JobCancelled(job_id=job.job_id, ended_at=job.ended_at))
        self._log_end("info", "job.cancelled", job)
        self._teller.end(job)

    def revive(self, dead: Job, anew: Job) -> None:
        """A dead letter is drawn anew as another job: it stays as it ended, like any other that has failed."""
        state = self._state
        del state.dead[dead.job_id]
        dead.revived_as, dead.inputs_of = anew.job_id, ""
        state.inputs.let_go(dead.order)  # they are the other's now
        state.file(dead)
        state.write_down(dead, JobRevived(job_id=dead.job_id, as_job_id=anew.job_id, at=state.wall))
        state.log("info", "job.revived", job_id=anew.job_id, former=dead.job_id)

    def forget(self, job: Job) -> None:
        """Keep nothing of an ended job."""
        state = self._state
        self._drop_inputs(job)
        del state.jobs[job.job_id]
        del (state.dead if job.job_id in state.dead else state.ended)[job.job_id]
        if job.state is JobState.DONE:
            assert job.picture is not None
            state.result_bytes -= job.picture.bytes
            state.out.append(DropResult(job.job_id))
        state.append(JobForgotten(job_id=job.job_id))

    def _withdraw(self, job: Job) -> None:
        """Take it from wherever it waits or runs; its daemon is told to stop."""
        state = self._state
        if job.state is JobState.QUEUED:
            self._places.leave_queue(job, drawn=False)
        elif job.state in IN_HAND:
            worker = self._places.leave_hand(job)
            if worker is not None and job.settled != job.dispatch:
                state.to_worker(worker, CancelToken(token=job.token))

    def _end(self, job: Job) -> None:
        state = self._state
        job.ended_at, job.ended_now = state.wall, state.now
        if job.state is not JobState.DONE:
            job.undraw()
        if job.error is None or job.error.code != "poison":
            self._drop_inputs(job)
        del state.live[job.job_id]
        unused = 0.0 if job.state is JobState.DONE else 1 - job.step / job.order.drawn_steps
        state.queue.settle(job, unused)
        settle(state, job, unused)
        state.file(job)

    def _drop_inputs(self, job: Job) -> None:
        if job.inputs_of:
            self._state.inputs.let_go(job.order)
            self._state.out.append(DropInputs(job.inputs_of))
            job.inputs_of = ""

    def _log_end(self, level: str, event: str, job: Job, **fields: Any) -> None:
        elapsed_s = round(self._state.now - job.created_now, 3)
        self._state.log(
            level, event, job_id=job.job_id, worker_id=job.worker_id, device=job.device, elapsed_s=elapsed_s, **fields
        )
        if self._state.traced:
            self._state.out.append(Trace(job))
