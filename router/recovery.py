"""Taking up where a former router left off: its records become jobs again.

Pure. What waited waits on; what a GPU had in hand is believed to go on there until that GPU registers, or
has not done so within `dead_after_s`; what had ended can be fetched until its time is over. The order of the queue
comes again from priorities, clients and arrivals, with what had been sent before first; who had had how much of
the GPUs, and how fast these are, is learned anew.
"""

from collections.abc import Callable, Sequence
from typing import Any

from router.jobs import Job, JobState, found_again
from router.keys import Key
from router.places import Places
from router.records import (
    JobAccepted,
    JobCancelled,
    JobDispatched,
    JobDone,
    JobFailed,
    JobForgotten,
    JobRecord,
    JobRequeued,
    JobRevived,
    JobStarted,
    KeyForgotten,
    KeyTaken,
    ModelForgotten,
    ModelKnown,
    Record,
    moment,
)
from router.state import RouterState


def replay(state: RouterState, records: Sequence[Record]) -> None:
    """Fill an empty `state`. Raises KeyError for a record of a job that was never accepted."""
    jobs: dict[str, Job] = {}
    places = Places(state)
    for record in records:
        _APPLY[type(record)](state, jobs, record)
        if isinstance(record, JobRecord) and (told := moment(record)) is not None:
            jobs[record.job_id].remember(told)
    for job in jobs.values():
        if job.inputs_of:
            state.inputs.keep(job.order)
    for job in sorted(jobs.values(), key=lambda j: j.ended_at):
        if job.ended:
            state.jobs[job.job_id] = job
            state.file(job)
            state.result_bytes += job.picture.bytes if job.picture is not None else 0
    for job in sorted((j for j in jobs.values() if not j.ended), key=lambda j: j.sequence):
        places.enter(job)
        if job.state is JobState.QUEUED:
            places.wait(job, max(0.0, job.not_before_now - state.now))
        else:
            state.orphans[job.job_id] = state.now + state.settings.dead_after_s
    state.sequence = max((job.sequence for job in jobs.values()), default=0)
    if records:
        state.log("info", "journal.replayed", records=len(records), live=len(state.live), ended=len(state.ended))


def _accepted(state: RouterState, jobs: dict[str, Job], record: JobAccepted) -> None:
    jobs[record.job_id] = Job(
        job_id=record.job_id,
        owner=record.owner,
        order=record.order,
        notes=record.notes,
        sequence=record.sequence,
        created_at=record.created_at,
        created_now=_monotonic(state, record.created_at),
        deadline_at=record.deadline_at,
        deadline_now=_monotonic(state, record.deadline_at),
        traceparent=record.traceparent,
        inputs_of=record.inputs_of,
        weight=record.weight,
    )


def _dispatched(state: RouterState, jobs: dict[str, Job], record: JobDispatched) -> None:
    job = jobs[record.job_id]
    job.state, job.step, job.step_now = JobState.DISPATCHED, 0, state.now
    if record.dispatch == job.dispatch:  # adopted
        found_again(job)
    job.lost = job.lost_running = False
    job.dispatch, job.worker_id, job.device = record.dispatch, record.worker_id, record.device


def _started(_state: RouterState, jobs: dict[str, Job], record: JobStarted) -> None:
    job = jobs[record.job_id]
    job.state, job.started_at, job.returns = JobState.RUNNING, record.started_at, 0
    job.starts += 1


def _requeued(state: RouterState, jobs: dict[str, Job], record: JobRequeued) -> None:
    job = jobs[record.job_id]
    job.lost, job.lost_running = record.lost, record.lost and job.state is JobState.RUNNING
    if record.failures > job.failures:  # else it was given back, through no fault of that GPU
        job.avoid = job.worker_id
    job.state, job.settled, job.step = JobState.QUEUED, record.settled, 0
    job.attempts, job.failures, job.returns = record.attempts, record.failures, record.returns
    job.engine_deaths, job.memory_failures = record.engine_deaths, record.memory_failures
    job.barred = frozenset(record.barred)
    job.not_before_now = _monotonic(state, record.not_before_at)


def _done(state: RouterState, jobs: dict[str, Job], record: JobDone) -> None:
    job = jobs[record.job_id]
    job.state, job.settled = JobState.DONE, job.dispatch
    job.picture, job.parts, job.timings, job.notes = record.picture, record.parts, record.timings, record.notes
    job.step = job.order.drawn_steps
    _ended(state, job, record.ended_at)


def _failed(state: RouterState, jobs: dict[str, Job], record: JobFailed) -> None:
    job = jobs[record.job_id]
    job.state, job.error, job.settled = JobState.FAILED, record.error, record.settled
    _ended(state, job, record.ended_at)


def _cancelled(state: RouterState, jobs: dict[str, Job], record: JobCancelled) -> None:
    job = jobs[record.job_id]
    job.state = JobState.CANCELLED
    _ended(state, job, record.ended_at)


def _revived(_state: RouterState, jobs: dict[str, Job], record: JobRevived) -> None:
    job = jobs[record.job_id]
    job.revived_as, job.inputs_of = record.as_job_id, ""


def _forgotten(_state: RouterState, jobs: dict[str, Job], record: JobForgotten) -> None:
    del jobs[record.job_id]


def _model_known(state: RouterState, _jobs: dict[str, Job], record: ModelKnown) -> None:
    state.cards[record.card.name] = record.card
    state.model_paths[record.card.name] = record.model_path


def _model_forgotten(state: RouterState, _jobs: dict[str, Job], record: ModelForgotten) -> None:
    del state.cards[record.name], state.model_paths[record.name]


def _key_taken(state: RouterState, _jobs: dict[str, Job], record: KeyTaken) -> None:
    state.keys.take(record.owner, record.key, Key(record.job_id, record.digest, record.taken_at))


def _key_forgotten(state: RouterState, _jobs: dict[str, Job], record: KeyForgotten) -> None:
    state.keys.drop(record.owner, record.key)


def _ended(state: RouterState, job: Job, ended_at: float) -> None:
    job.ended_at, job.ended_now = ended_at, _monotonic(state, ended_at)
    if job.error is None or job.error.code != "poison":
        job.inputs_of = ""


def _monotonic(state: RouterState, wall: float) -> float:
    return state.now + wall - state.wall


_APPLY: dict[type[Record], Callable[[RouterState, dict[str, Job], Any], None]] = {
    JobAccepted: _accepted,
    JobDispatched: _dispatched,
    JobStarted: _started,
    JobRequeued: _requeued,
    JobDone: _done,
    JobFailed: _failed,
    JobCancelled: _cancelled,
    JobRevived: _revived,
    JobForgotten: _forgotten,
    ModelKnown: _model_known,
    ModelForgotten: _model_forgotten,
    KeyTaken: _key_taken,
    KeyForgotten: _key_forgotten,
}
