"""What GPU daemons and the router say to each other. Pure; the grammar stands in common/messages."""

from typing import Annotated

from msgspec import Meta

from common.messages.parts import (
    PREVIEWS_MAX,
    STEPS_MAX,
    Count,
    DeviceInfo,
    DeviceLoad,
    HeldToken,
    JobOrder,
    Label,
    Message,
    Note,
    Parts,
    Picture,
    Seconds,
    Text,
    Timings,
    Token,
    TraceParent,
    WorkerId,
)
from common.models import ModelCard

HELD_TOKENS_MAX = 64  # that one daemon may list
Tokens = Annotated[tuple[Token, ...], Meta(max_length=HELD_TOKENS_MAX)]
Interval = Annotated[float, Meta(gt=0, le=1e7)]  # as the settings have it

# --- daemon -> router --------------------------------------------------------------------------


class Register(Message, frozen=True, kw_only=True):
    """Bind this connection to a worker. Repeated until a WELCOME echoes the nonce."""

    NAME = b"REGISTER"
    worker_id: WorkerId
    boot_id: Label  # random at each start of the control process
    nonce: Label
    host: Label
    device: DeviceInfo
    models: Annotated[tuple[ModelCard, ...], Meta(min_length=1, max_length=16)]
    model_path: Text = ""
    job_timeout_s: Seconds = 0.0
    tokens: Annotated[tuple[HeldToken, ...], Meta(max_length=HELD_TOKENS_MAX)] = ()
    version: Label = ""


class WorkerMessage(Message, frozen=True, kw_only=True):
    """Everything a registered daemon says carries its epoch."""

    epoch: Count


class Credit(WorkerMessage, frozen=True, kw_only=True):
    """How many jobs this daemon has asked for in this epoch, in all. Only ever rises."""

    NAME = b"CREDIT"
    granted_total: Count


class Started(WorkerMessage, frozen=True, kw_only=True):
    """The engine has begun this job."""

    NAME = b"STARTED"
    token: Token


class WorkerProgress(WorkerMessage, frozen=True, kw_only=True):
    """A step is done; with a `preview`, the picture as it is so far is the payload. May be lost."""

    NAME = b"PROGRESS"
    token: Token
    step: Annotated[int, Meta(ge=0, le=STEPS_MAX)]
    steps: Annotated[int, Meta(ge=1, le=STEPS_MAX)]
    step_s: Seconds = 0.0  # the last step's
    preview: Picture | None = None
    preview_index: Annotated[int, Meta(ge=0, lt=PREVIEWS_MAX)] = 0
    parts: Parts = ()


class Done(WorkerMessage, frozen=True, kw_only=True):
    """The picture is drawn; kept by the daemon until RESULT_ACK or FENCED."""

    NAME = b"DONE"
    token: Token
    picture: Picture
    parts: Parts
    timings: Timings
    notes: Annotated[tuple[Note, ...], Meta(max_length=16)] = ()


class Fail(WorkerMessage, frozen=True, kw_only=True):
    """The job failed here; kept until RESULT_ACK or FENCED. `code` is of common/errors.py."""

    NAME = b"FAIL"
    token: Token
    code: Label
    message: Text
    started: bool = True  # had the engine begun it?


class Returned(WorkerMessage, frozen=True, kw_only=True):
    """The job was not started and is given back."""

    NAME = b"RETURNED"
    token: Token
    reason: Label = ""


class Heartbeat(WorkerMessage, frozen=True, kw_only=True):
    """Alive, and so it stands. Sent every interval and at once when `state` changes."""

    NAME = b"HEARTBEAT"
    state: Annotated[str, Meta(pattern="^(ready|loading|broken|draining)$")]
    detail: Text = ""
    load: DeviceLoad = DeviceLoad()
    engine_pid: Count = 0


class Draining(WorkerMessage, frozen=True, kw_only=True):
    """No more jobs, please; what has not started comes back as RETURNED."""

    NAME = b"DRAINING"


class Bye(WorkerMessage, frozen=True, kw_only=True):
    """Everything is acknowledged; this daemon leaves."""

    NAME = b"BYE"


# --- router -> daemon --------------------------------------------------------------------------


class Welcome(Message, frozen=True, kw_only=True):
    """Registered. Every daemon message from here on carries `epoch`."""

    NAME = b"WELCOME"
    nonce: Label
    epoch: Count
    heartbeat_interval_s: Interval
    dead_after_s: Interval
    keep: Tokens = ()
    drop: Tokens = ()


class Dispatch(Message, frozen=True, kw_only=True):
    """Draw this; the files of the job's inputs are the payload. Uses one credit."""

    NAME = b"DISPATCH"
    epoch: Count
    token: Token
    job: JobOrder
    remaining_s: Seconds  # until the job's deadline
    traceparent: TraceParent = ""  # of the job, for the log
    parts: Parts = ()


class CancelToken(Message, frozen=True, kw_only=True):
    """Stop this; nothing it yields is wanted. It is fenced already."""

    NAME = b"CANCEL"
    token: Token


class ResultAck(Message, frozen=True, kw_only=True):
    """The end of this token is written down; forget it."""

    NAME = b"RESULT_ACK"
    token: Token


class Fenced(Message, frozen=True, kw_only=True):
    """This token is no longer current; forget whatever is held of it."""

    NAME = b"FENCED"
    token: Token


class Drain(Message, frozen=True, kw_only=True):
    """Drain, as if asked by a signal."""

    NAME = b"DRAIN"


class Resync(Message, frozen=True, kw_only=True):
    """You are not registered on this connection: send REGISTER."""

    NAME = b"RESYNC"
