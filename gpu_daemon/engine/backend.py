"""What the engine process asks of whatever draws. Two exist: flux (diffusers) and noop (flat colours)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

from common.errors import GenServeError
from common.messages import DeviceInfo, DeviceLoad, Format, JobOrder, Note, Picture, Timings
from common.models import ModelCard

FORMATS: tuple[str, ...] = get_args(Format)  # that Pillow writes for every engine that has it

Report = Callable[[str, float], None]  # (stage, fraction done): called while loading


@dataclass(frozen=True)
class Preview:
    """The picture as the denoiser believes it to be so far, the `index`-th of its job from 0."""

    index: int
    data: bytes
    picture: Picture


# (step from 1, steps, its seconds, the preview that follows it); raises Stopped to stop the job
OnStep = Callable[[int, int, float, Preview | None], None]


class Stopped(Exception):  # noqa: N818  # not an error: the owner's wish
    """Raised by `on_step` and passed on by `draw`: the job is not wanted any more."""


class EngineMustEnd(GenServeError):  # noqa: N818  # says what must follow, not only that something failed
    """Raised by `draw`, code engine_died: only a new process can use the device again, so this one must end.

    CUDA errors other than lack of memory are sticky: every later call fails too.
    """

    def __init__(self, message: str) -> None:
        super().__init__("engine_died", message)


@dataclass(frozen=True)
class Painting:
    """A drawn picture: its file bytes, its facts, where the seconds went, what to tell its reader."""

    data: bytes
    picture: Picture
    timings: Timings
    notes: tuple[Note, ...]


class Backend(Protocol):
    """Draws one picture at a time, on one device."""

    card: ModelCard
    device: DeviceInfo
    offloaded: bool

    def load(self, report: Report) -> None:
        """Make ready, warm-up picture included. Raises GenServeError model_load_failed, device_unavailable, …"""

    def draw(self, job: JobOrder, on_step: OnStep, files: Sequence[bytes] = ()) -> Painting:
        """Draw, from the `files` of the job's inputs if it has some.

        Raises Stopped, or GenServeError with a typed code; the backend is usable afterwards.
        After EngineMustEnd it is not: the process must end.
        """

    def device_load(self) -> DeviceLoad:
        """The device's memory just now."""

    def became_idle(self) -> None:
        """Nothing was asked for `idle_after_s`: give back what is not needed."""
