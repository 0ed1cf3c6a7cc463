"""What the journal holds: enough to take up every accepted job where a former router left it.

Pure. Records of one job stand in the order in which they happened; a later one corrects an earlier one.
Times are wall seconds since 1970, for they outlive the process.
"""

from typing import TypeAlias

from msgspec import Struct

from common.messages import ErrorInfo, JobMoment, JobOrder, Note, Picture, Timings
from common.models import ModelCard
from common.text import clip

DETAIL_BYTES_MAX = 300  # of one moment of a job's history, all of which one JOB brings


class Record(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """One line of the journal."""


class JobRecord(Record, frozen=True, kw_only=True):
    """One line of one job's history."""

    job_id: str


class JobAccepted(JobRecord, frozen=True, kw_only=True, omit_defaults=True):
    """From here on the job ends exactly once."""

    owner: str
    order: JobOrder
    notes: tuple[Note, ...]
    sequence: int  # one client's jobs of one priority start in this order
    created_at: float
    deadline_at: float
    traceparent: str = ""
    inputs_of: str = ""  # the id under which the pictures are kept that it starts from; '': it starts from none
    weight: float = 0.0


class JobDispatched(JobRecord, frozen=True, kw_only=True):
    """Given to a GPU: the token (job_id, dispatch) is current from here on."""

    dispatch: int
    worker_id: str
    device: str
    at: float


class JobStarted(JobRecord, frozen=True, kw_only=True):
    """Its engine has begun it."""

    started_at: float


class JobRequeued(JobRecord, frozen=True, kw_only=True):
    """Back in the queue, after these counts of misfortunes."""

    settled: int  # the last dispatch whose end was taken; its token is no longer current
    attempts: int
    failures: int
    returns: int
    engine_deaths: int
    memory_failures: int
    barred: tuple[str, ...]
    lost: bool
    not_before_at: float
    reason: str
    at: float


class JobDone(JobRecord, frozen=True, kw_only=True):
    """Its picture is stored. Nothing follows but its being forgotten."""

    picture: Picture
    parts: tuple[int, ...]
    timings: Timings
    notes: tuple[Note, ...]
    ended_at: float


class JobFailed(JobRecord, frozen=True, kw_only=True):
    """It ended without a picture."""

    error: ErrorInfo
    settled: int
    ended_at: float


class JobCancelled(JobRecord, frozen=True, kw_only=True):
    """Its owner ended it."""

    ended_at: float


class JobRevived(JobRecord, frozen=True, kw_only=True):
    """It had ended as poison, and is drawn anew as another job; it stays as it ended, but is no dead letter."""

    as_job_id: str
    at: float


class JobForgotten(JobRecord, frozen=True, kw_only=True):
    """Nothing is kept of it any more."""


class ModelKnown(Record, frozen=True, kw_only=True):
    """A daemon serves this model; the newest card counts."""

    card: ModelCard
    model_path: str


class ModelForgotten(Record, frozen=True, kw_only=True):
    """There were too many, and nobody serves this one."""

    name: str


class KeyTaken(Record, frozen=True, kw_only=True):
    """A client's name for a job; `digest` is of the job it asked for."""

    owner: str
    key: str
    job_id: str
    digest: bytes
    taken_at: float


class KeyForgotten(Record, frozen=True, kw_only=True):
    """The name is free again."""

    owner: str
    key: str


AnyRecord: TypeAlias = (
    JobAccepted
    | JobDispatched
    | JobStarted
    | JobRequeued
    | JobDone
    | JobFailed
    | JobCancelled
    | JobRevived
    | JobForgotten
    | ModelKnown
    | ModelForgotten
    | KeyTaken
    | KeyForgotten
)


def moment(record: JobRecord) -> JobMoment | None:
    """The line that a record adds to its job's history, if any."""
    match record:
        case JobAccepted():
            return JobMoment(at=record.created_at, event="accepted")
        case JobDispatched():
            return JobMoment(at=record.at, event="dispatched", detail=f"#{record.dispatch} to {record.worker_id}")
        case JobStarted():
            return JobMoment(at=record.started_at, event="started")
        case JobRequeued():
            return JobMoment(at=record.at, event="requeued", detail=clip(record.reason, DETAIL_BYTES_MAX))
        case JobDone():
            return JobMoment(at=record.ended_at, event="done")
        case JobFailed():
            why = clip(f"{record.error.code}: {record.error.message}", DETAIL_BYTES_MAX)
            return JobMoment(at=record.ended_at, event="failed", detail=why)
        case JobCancelled():
            return JobMoment(at=record.ended_at, event="cancelled")
        case JobRevived():
            return JobMoment(at=record.at, event="requeued_as", detail=record.as_job_id)
    return None
