"""One ended job as spans of a trace: when it waited, was sent, was drawn and was stored, each time it was tried.

Pure: from the job's own history, so that whoever asked for it, by whichever door, sees the same. Times are the router's
wall clock. Where the engine's stages lie within its drawing is by its own durations, from its start on: when the router
heard of it, or earlier where word of it came late.
"""

from msgspec import Struct
from msgspec.structs import replace

from common.messages import JobMoment, Timings
from router.jobs import Job, JobState

STAGES = ("encode", "denoise", "decode", "save")
DRAW = "draw"
_ENDS = frozenset((JobState.DONE.value, JobState.FAILED.value, JobState.CANCELLED.value))


class Span(Struct, frozen=True, kw_only=True):
    """One span. `parent`: its index among those of its trace; None: the trace's own parent. Wall seconds."""

    name: str
    parent: int | None
    began_at: float
    ended_at: float
    attributes: dict[str, str | int | float] = {}
    steps_at: tuple[tuple[int, float], ...] = ()  # (step, when it was heard of)
    error: str = ""  # why it came to nothing


class JobTrace(Struct, frozen=True, kw_only=True):
    """The spans of one job; a parent stands before its children."""

    job_id: str
    traceparent: str  # as the client gave it; '': the trace begins here
    spans: tuple[Span, ...]


def trace_of(job: Job) -> JobTrace:
    """An ended job's."""
    order, error = job.order, f"{job.error.code}: {job.error.message}" if job.error else ""
    root = Span(
        name="job",
        parent=None,
        began_at=job.created_at,
        ended_at=max(job.created_at, job.ended_at),
        attributes={
            "genserve.job.id": job.job_id,
            "genserve.job.end": job.state.value,
            "genserve.job.attempts": job.starts,
            "genserve.model": order.model,
            "genserve.size": f"{order.width}x{order.height}",
            "genserve.steps": order.steps,
        },
        error=error,
    )
    return JobTrace(job_id=job.job_id, traceparent=job.traceparent, spans=(root, *_phases(job)))


def _phases(job: Job) -> list[Span]:
    """What the job went through, one phase after the other; its last drawing with the stages inside."""
    found: list[Span] = []
    name, began_at, worker_id = "queue", job.created_at, ""
    for moment in job.moments:
        following = {"dispatched": "dispatch", "started": DRAW, "requeued": "queue"}.get(moment.event)
        if moment.event == "done" and name == DRAW and job.timings is not None:
            began_at = _began_at(found, began_at, moment.at, job.timings)
            found += _drawn(job, began_at, moment.at, len(found) + 1, worker_id)
        elif moment.event != "accepted":
            found.append(_phase(name, began_at, moment, worker_id))
        if moment.event == "dispatched":
            worker_id = moment.detail.partition(" to ")[2]
        if following is not None:
            name, began_at = following, moment.at
        elif moment.event in _ENDS:
            break
    return found


def _began_at(found: list[Span], started_at: float, stored_at: float, timings: Timings) -> float:
    """When the engine began: as was heard, or before that where its own seconds would not fit in otherwise."""
    if not found or found[-1].name != "dispatch":
        return started_at
    began_at = max(found[-1].began_at, min(started_at, stored_at - timings.total_s))
    found[-1] = replace(found[-1], ended_at=began_at)
    return began_at


def _phase(name: str, began_at: float, ends: JobMoment, worker_id: str) -> Span:
    lost = ends.event in ("requeued", "failed", "cancelled")
    return Span(
        name=name,
        parent=0,
        began_at=began_at,
        ended_at=max(began_at, ends.at),
        attributes={"genserve.worker": worker_id} if worker_id and name != "queue" else {},
        error=(ends.detail or ends.event) if lost else "",
    )


def _drawn(job: Job, began_at: float, stored_at: float, index: int, worker_id: str) -> list[Span]:
    """The drawing that yielded the picture, its stages, and the way of the picture to the router's disk."""
    timings = job.timings or Timings()
    ended_at = max(began_at, min(began_at + timings.total_s, stored_at))
    worker: dict[str, str | int | float] = {"genserve.worker": worker_id}
    found = [Span(name=DRAW, parent=0, began_at=began_at, ended_at=ended_at, attributes=worker)]
    at = began_at
    for stage in STAGES:
        took_s = getattr(timings, f"{stage}_s") + (
            timings.preview_s if stage == "denoise" else 0.0
        )  # between its steps
        until = min(at + took_s, ended_at)
        steps = tuple(job.steps_at) if stage == "denoise" else ()
        found.append(Span(name=stage, parent=index, began_at=at, ended_at=until, steps_at=steps))
        at = until
    found.append(Span(name="store", parent=0, began_at=ended_at, ended_at=max(ended_at, stored_at)))
    return found
