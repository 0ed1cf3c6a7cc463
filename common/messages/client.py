"""What clients and the router say to each other. Pure; the grammar stands in common/messages."""

from typing import Annotated

from msgspec import Meta

from common.messages.parts import (
    Count,
    ErrorInfo,
    JobId,
    JobSpec,
    Label,
    Message,
    Parts,
    Picture,
    Rid,
    ShownState,
    Terms,
    TraceParent,
)
from common.messages.views import (
    JOBS_PER_PAGE,
    FailureView,
    JobMoment,
    JobView,
    KeyView,
    ModelView,
    RouterLimits,
    RouterMeasures,
    RouterStats,
    WorkerView,
)

# --- client -> router --------------------------------------------------------------------------


class ClientMessage(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sent by a client: strict."""

    rid: Rid


class OwnedMessage(ClientMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """About somebody's jobs. `owner`: whose; '' is the sender's own, '*' in a question anybody's.

    Only a gateway may name another.
    """

    owner: Label = ""


class Submit(OwnedMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for one picture, and watch it. The same `key` and job again is the same job.

    `digest`: the client's own of what it was asked; where given, it is compared instead of the job.
    The files of the job's `inputs` are the payload. `traceparent`: the span that this is part of; it makes no other
    job. `terms`: how much the owner may have; only a gateway may say that.
    """

    NAME = b"SUBMIT"
    job: JobSpec
    key: Label = ""
    digest: Label = ""
    traceparent: TraceParent = ""
    parts: Parts = ()
    terms: Terms | None = None


class CancelJob(OwnedMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """End a job now; whatever it would still yield is dropped."""

    NAME = b"CANCEL"
    job_id: JobId


class Watch(OwnedMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Follow a job from this connection; to be repeated every 5 s, lapses after 15 s."""

    NAME = b"WATCH"
    job_id: JobId


class JobQuery(OwnedMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask how a job stands."""

    NAME = b"JOB"
    job_id: JobId


class Fetch(OwnedMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for an ended job's picture again."""

    NAME = b"FETCH"
    job_id: JobId


class DeadLettersQuery(OwnedMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the jobs that were given up as poison, oldest first; they come in pages."""

    NAME = b"DEAD_LETTERS"
    letters_from: Count = 0


class JobsQuery(OwnedMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for jobs, newest first: those in one of `states` (empty: in any), from before the `before`-th accepted."""

    NAME = b"JOBS"
    states: Annotated[tuple[ShownState, ...], Meta(max_length=5)] = ()
    before: Count = 0
    limit: Annotated[int, Meta(ge=1, le=JOBS_PER_PAGE)] = JOBS_PER_PAGE


class Requeue(OwnedMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for a poison job's picture once more: a new job with the same order.

    The old one leaves the list, and else stays as it ended.
    """

    NAME = b"REQUEUE"
    job_id: JobId


class StatusQuery(OwnedMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask how the service stands; workers come in pages. Jobs are named to those who may see them."""

    NAME = b"STATUS"
    workers_from: Count = 0


class KeysQuery(ClientMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask who is connected by which key; they come in pages. For an admin's key, or where there are no keys."""

    NAME = b"KEYS"
    keys_from: Count = 0


class Ping(ClientMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Is somebody there?"""

    NAME = b"PING"


# --- router -> client --------------------------------------------------------------------------


class Accepted(Message, frozen=True, kw_only=True):
    """The job is written down; from here on it ends exactly once."""

    NAME = b"ACCEPTED"
    rid: str
    job_id: str
    job: JobView
    repeated: bool = False  # the key was known: this is the job of then


class Rejected(Message, frozen=True, kw_only=True):
    """The job was not taken; nothing is kept of it."""

    NAME = b"REJECTED"
    rid: str
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


class JobProgress(Message, frozen=True, kw_only=True):
    """A watched job moved. May be lost; at most four a second, those with a preview apart.

    `preview`: what the payload is, if there is one: the picture as it is so far, the job's `preview_index`-th from 0.
    """

    NAME = b"PROGRESS"
    rid: str
    job_id: str
    state: str
    step: int
    steps: int
    position: int = 0
    eta_s: float | None = None
    preview: Picture | None = None
    preview_index: int = 0
    parts: Parts = ()


class Result(Message, frozen=True, kw_only=True):
    """The picture; its bytes are the payload, cut as `parts` says."""

    NAME = b"RESULT"
    rid: str
    job_id: str
    job: JobView
    picture: Picture
    parts: Parts


class Failed(Message, frozen=True, kw_only=True):
    """The job ended without a picture."""

    NAME = b"FAILED"
    rid: str
    job_id: str
    job: JobView
    error: ErrorInfo


class Cancelled(Message, frozen=True, kw_only=True):
    """The job was cancelled by its owner."""

    NAME = b"CANCELLED"
    rid: str
    job_id: str
    job: JobView


class JobReply(Message, frozen=True, kw_only=True):
    """How the job stands; in answer to JOB also what happened to it, oldest first."""

    NAME = b"JOB"
    rid: str
    job_id: str
    job: JobView
    history: tuple[JobMoment, ...] = ()


class JobsReply(Message, frozen=True, kw_only=True):
    """One page of jobs, newest first; the next one is asked for with `before=next_before`, 0 where there is none."""

    NAME = b"JOBS"
    rid: str
    jobs: tuple[JobView, ...]
    next_before: int


class DeadLettersReply(Message, frozen=True, kw_only=True):
    """One page of the jobs that were given up as poison."""

    NAME = b"DEAD_LETTERS"
    rid: str
    letters: tuple[JobView, ...]
    letters_total: int


class StatusReply(Message, frozen=True, kw_only=True):
    """How the service stands: one page of workers, all models, the counts."""

    NAME = b"STATUS"
    rid: str
    workers: tuple[WorkerView, ...]
    workers_total: int
    models: tuple[ModelView, ...]
    default_model: str  # '' until one is known
    stats: RouterStats
    limits: RouterLimits
    storage_full: str = ""  # why no new job is taken: the router's disk; '': there is room
    failures: tuple[FailureView, ...] = ()  # the last few jobs that failed since the router started, newest first
    measures: RouterMeasures = RouterMeasures()


class KeysReply(Message, frozen=True, kw_only=True):
    """One page of the keys that have been heard since the router's start, by name."""

    NAME = b"KEYS"
    rid: str
    keys: tuple[KeyView, ...]
    keys_total: int


class ErrorReply(Message, frozen=True, kw_only=True):
    """What was sent cannot be done. Never answered. `rid` is '' where it could not be read."""

    NAME = b"ERROR"
    rid: str = ""
    code: str
    message: str


class Pong(Message, frozen=True, kw_only=True):
    """Somebody is."""

    NAME = b"PONG"
    rid: str
