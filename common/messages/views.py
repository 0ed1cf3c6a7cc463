"""How jobs, workers and the router show themselves in STATUS, JOB and the ends of a job. Pure."""

from msgspec import Struct

from common.messages.parts import (
    DeviceInfo,
    DeviceLoad,
    ErrorInfo,
    Note,
    Picture,
    Timings,
)
from common.models import ModelCard

STATUS_WORKERS_PER_PAGE = 48  # at most: fewer where they are so long that one header has no room for them
DEAD_LETTERS_PER_PAGE = 8  # likewise
JOBS_PER_PAGE = 32  # at most
KEYS_PER_PAGE = 256
STATUS_FAILURES = 5


class WorkerView(Struct, frozen=True, kw_only=True):
    """One GPU daemon as STATUS shows it."""

    worker_id: str
    host: str
    device: DeviceInfo
    load: DeviceLoad
    state: str  # ready | loading | broken | draining | suspect
    detail: str  # what a person should know about that state
    models: tuple[str, ...]
    busy: bool  # a job is running
    job_id: str  # running one, or ''
    step: int
    steps: int
    queue_size: int  # jobs waiting that are planned for or already sent to this GPU
    credit: int
    granted_total: int
    dispatched_total: int
    done_total: int  # pictures since the router knows this worker
    failed_total: int
    last_used_at: float  # wall seconds; 0: never
    step_s: float  # learned seconds a step, 0: unknown
    job_timeout_s: float  # after which its running job is stopped
    version: str
    pid: int  # of its engine process; 0: none just now
    drawing_s_total: float = 0.0  # seconds that its engine took for those pictures


class ModelView(Struct, frozen=True, kw_only=True):
    """One model ever registered, and who serves it now."""

    card: ModelCard
    workers: int
    model_path: str


class RouterStats(Struct, frozen=True, kw_only=True):
    """Counts since the router started, and what it holds now."""

    uptime_s: float
    submitted_total: int  # accepted
    done_total: int
    failed_total: int
    cancelled_total: int
    rejected_total: int  # all refusals of well-formed submissions
    queue_full_total: int
    protocol_errors_total: int
    retried_total: int
    queued: int  # accepted, not running
    running: int  # including those whose picture is being stored
    overflow: int  # of the queued, those that no GPU's own queue has room for


class Histogram(Struct, frozen=True, kw_only=True):
    """How often something took how long. Nothing is ever taken back: both only rise while the router lives."""

    counts: tuple[int, ...] = ()  # one a bound of RouterMeasures.bounds_s, then those above the last; not cumulative
    sum_s: float = 0.0


class RouterMeasures(Struct, frozen=True, kw_only=True):
    """What the router has measured since it started, for /metrics."""

    started_at: float = 0.0  # wall seconds since 1970
    bounds_s: tuple[float, ...] = ()  # upper bounds of the histograms' classes, which they include
    stages: dict[str, Histogram] = {}  # queue (to the first start), encode, denoise, preview, decode, save, whole
    failed: dict[str, int] = {}  # jobs by the code of their failure
    rejected: dict[str, int] = {}  # refused submissions by code
    steps_total: int = 0  # denoising steps of the pictures that were done
    oldest_wait_s: float = 0.0  # since the acceptance of the oldest job that waits now; 0: none waits


class RouterLimits(Struct, frozen=True, kw_only=True):
    """The bounds in force."""

    gpu_queue_size: int
    global_queue_size: int
    job_deadline_s: float
    result_ttl_s: float
    attempts_max: int


class FailureView(Struct, frozen=True, kw_only=True):
    """A job that failed not long ago."""

    at: float  # wall seconds since 1970
    job_id: str
    worker_id: str  # the GPU that had it last; '': none
    code: str
    message: str  # cut where it is long


class JobMoment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened to a job."""

    at: float  # wall seconds since 1970
    event: str  # accepted | dispatched | started | requeued | done | failed | cancelled | requeued_as
    detail: str = ""  # on which GPU, why, or as which job


class JobView(Struct, frozen=True, kw_only=True):
    """One job as its owner sees it. Wall times in seconds since 1970, 0 where not yet."""

    job_id: str
    state: str  # queued | running | done | failed | cancelled
    model: str
    width: int
    height: int
    steps: int
    seed: int
    guidance_scale: float
    priority: int
    client: str  # whom it is counted to
    created_at: float
    deadline_at: float  # it fails where it has not ended by then
    started_at: float
    ended_at: float
    step: int
    position: int  # 1 = next to start; 0 = not queued
    eta_s: float | None  # to its end; None where no speed is known yet
    attempts: int
    worker_id: str
    device: str
    notes: tuple[Note, ...]
    error: ErrorInfo | None
    picture: Picture | None
    timings: Timings | None
    owner: str = ""  # the name of the key that sent it; 'local' where there are none, and for HTTP
    traceparent: str = ""  # the span that it is part of, as it was submitted


class KeyView(Struct, frozen=True, kw_only=True):
    """One key that has been heard since the router's start."""

    name: str
    role: str
    connections: int  # open now
    seen_at: float  # when it last said something; seconds since 1970
