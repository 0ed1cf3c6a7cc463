"""What a daemon's control process and its engine process say to each other.

Pure. The same codec as the network's, over a private ipc PAIR with a new path for each engine start:

    LOADING*  READY | BROKEN            once, after the start
    DRAW(token) -> BEGUN -> STEP* -> DRAWN | UNDRAWN
    STOP(token) -> UNDRAWN('cancelled') at the next step, or nothing where that job has ended
    LOAD                                how the device's memory stands; when idle, once a second
    BROKEN -> QUIT                      the engine cannot go on: a last UNDRAWN may follow, then it ends
    QUIT                                the engine ends
"""

from typing import Annotated

from msgspec import Meta, Struct

from common.messages import (
    Count,
    DeviceInfo,
    DeviceLoad,
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
)
from common.models import ModelCard
from common.settings import GpuDaemonSettings, LogSettings


class EngineStart(Struct, frozen=True, kw_only=True):
    """The one argument of an engine process, in JSON."""

    path: str  # of the socket to its daemon
    parent_pid: int  # the daemon's; the engine never outlives it
    settings: GpuDaemonSettings
    log: LogSettings
    device: DeviceInfo


class Draw(Message, frozen=True, kw_only=True):
    """Draw this; the files of its inputs are the payload. Sent only to an engine that is ready and draws nothing."""

    NAME = b"DRAW"
    token: Token
    job: JobOrder
    parts: Parts = ()


class Stop(Message, frozen=True, kw_only=True):
    """Stop drawing this between two steps."""

    NAME = b"STOP"
    token: Token


class Quit(Message, frozen=True, kw_only=True):
    """End the process."""

    NAME = b"QUIT"


class Loading(Message, frozen=True, kw_only=True):
    """What the engine is doing before it is ready."""

    NAME = b"LOADING"
    stage: Label  # 'importing torch', 'loading transformer', 'warming up', …
    fraction: Annotated[float, Meta(ge=0, le=1)]


class Ready(Message, frozen=True, kw_only=True):
    """The warm-up picture is drawn; the engine takes jobs."""

    NAME = b"READY"
    card: ModelCard
    device: DeviceInfo
    load: DeviceLoad
    load_s: Seconds  # from the process's start
    offloaded: bool


class Broken(Message, frozen=True, kw_only=True):
    """The engine cannot be made ready, or cannot go on; the process ends when QUIT answers this."""

    NAME = b"BROKEN"
    code: Label
    message: Text


class Begun(Message, frozen=True, kw_only=True):
    """The job is being drawn."""

    NAME = b"BEGUN"
    token: Token


class Step(Message, frozen=True, kw_only=True):
    """A denoising step is done; a preview's file bytes are the payload."""

    NAME = b"STEP"
    token: Token
    step: Count
    steps: Count
    step_s: Seconds
    load: DeviceLoad
    preview: Picture | None = None
    preview_index: Count = 0
    parts: Parts = ()


class Drawn(Message, frozen=True, kw_only=True):
    """The picture; its file bytes are the payload."""

    NAME = b"DRAWN"
    token: Token
    picture: Picture
    parts: Parts
    timings: Timings
    notes: tuple[Note, ...] = ()
    load: DeviceLoad = DeviceLoad()


class Undrawn(Message, frozen=True, kw_only=True):
    """No picture: `code` is of common/errors.py; the traceback is in the engine's log."""

    NAME = b"UNDRAWN"
    token: Token
    code: Label
    message: Text
    load: DeviceLoad = DeviceLoad()


class Load(Message, frozen=True, kw_only=True):
    """The device's memory just now."""

    NAME = b"LOAD"
    load: DeviceLoad


CONTROL_TO_ENGINE = {t.NAME: t for t in (Draw, Stop, Quit)}
ENGINE_TO_CONTROL = {t.NAME: t for t in (Loading, Ready, Broken, Begun, Step, Drawn, Undrawn, Load)}
