"""The engine that draws flat colours: what remains of a job's time is what the service itself costs.

It obeys the production contract (a real picture of the ordered size, the colour by the seed, steps that can be
stopped). It imports no torch, and Pillow only for formats other than PNG: without Pillow it offers PNG alone.
"""

import hashlib
import json
import struct
import time
import zlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import TypeAlias

import msgspec

from common.clock import monotonic_s
from common.errors import SettingsError
from common.messages import DeviceInfo, DeviceLoad, JobOrder, Picture, Timings
from common.models import ModelCard
from common.settings import GpuDaemonSettings
from gpu_daemon.devices import cpu_load
from gpu_daemon.engine.backend import FORMATS, OnStep, Painting, Preview, Report
from gpu_daemon.engine.previews import preview_steps

NAME = "noop"
SIZES_CACHED_MAX = 64
Colour: TypeAlias = tuple[int, int, int]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def noop_card(settings: GpuDaemonSettings) -> ModelCard:
    """The card of the model that draws nothing. Raises SettingsError for a model_name that cannot be one."""
    card = ModelCard(
        name=settings.model_name or NAME,
        description="draws flat colours: measures the service itself",
        width=512,
        height=512,
        side_min=16,
        side_max=2048,
        side_multiple=1,
        steps=4,
        guided=True,
        edits=True,
        formats=FORMATS if find_spec("PIL") else ("png",),
    )
    try:
        return msgspec.convert(msgspec.to_builtins(card), ModelCard)
    except msgspec.ValidationError as error:
        raise SettingsError(f"gpu_daemon.model_name = {settings.model_name!r} is not right: {error}") from None


class NoopBackend:
    """Flat colours at `noop_step_s` seconds a step."""

    def __init__(self, settings: GpuDaemonSettings, device: DeviceInfo) -> None:
        self.card = noop_card(settings)
        self.device = device
        self.offloaded = False
        self._step_s = settings.noop_step_s

    def load(self, report: Report) -> None:
        """There is nothing to load; the default size is drawn once, as every engine does."""
        report("warming up", 0.5)
        _pixels(self.card.width, self.card.height)

    def draw(self, job: JobOrder, on_step: OnStep, files: Sequence[bytes] = ()) -> Painting:
        """A picture of `colour_of(job.seed)`, or of another colour for other `files`; its previews have their own."""
        colour = colour_of(job.seed, *files)
        steps = job.drawn_steps
        began = before = monotonic_s()
        shown = preview_steps(job.previews, steps)
        for step in range(1, steps + 1):
            if self._step_s:
                time.sleep(self._step_s)
            now = monotonic_s()
            preview = _preview(job, self.card.name, shown.index(step), step) if step in shown else None
            on_step(step, steps, now - before, preview)
            before = now
        data = self._file(job, colour)
        ended = monotonic_s()
        picture = _picture_of(job, data, job.format)
        timings = Timings(denoise_s=before - began, save_s=ended - before, total_s=ended - began)
        return Painting(data, picture, timings, ())

    def _file(self, job: JobOrder, colour: Colour) -> bytes:
        if job.format == "png":
            return _png(job, colour, self.card.name)
        from PIL import Image  # noqa: PLC0415  # what draws PNGs alone does without it

        from gpu_daemon.engine.pictures import encode  # noqa: PLC0415  # likewise

        return encode(Image.new("RGB", (job.width, job.height), colour), job, self.card)

    def device_load(self) -> DeviceLoad:
        """On a CPU what this process holds; of a GPU it holds nothing and asks nothing."""
        return cpu_load() if self.device.kind == "cpu" else DeviceLoad()

    def became_idle(self) -> None:
        """There is nothing to give back."""


def colour_of(seed: int, *more: bytes) -> Colour:
    """The red, green and blue (0 to 255) that a seed is drawn in, or another colour for whatever else there is."""
    digests = [hashlib.sha256(each).digest() for each in (str(seed).encode(), *more)]
    red, green, blue = (digests[0] if not more else hashlib.sha256(b"".join(digests)).digest())[:3]
    return red, green, blue


def _preview(job: JobOrder, model: str, index: int, step: int) -> Preview:
    data = _png(job, colour_of(job.seed, f"step {step}".encode()), model)
    return Preview(index, data, _picture_of(job, data, "png"))


def _picture_of(job: JobOrder, data: bytes, format_: str) -> Picture:
    return Picture(
        format=format_,
        width=job.width,
        height=job.height,
        drawn_width=job.width,
        drawn_height=job.height,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _png(job: JobOrder, colour: Colour, model: str) -> bytes:
    facts = {"model": model, "seed": job.seed, "steps": job.steps, "width": job.width, "height": job.height}
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", job.width, job.height, 1, 3, 0, 0, 0)),  # 1 bit, by palette
            _chunk(b"PLTE", bytes(colour)),
            _chunk(b"tEXt", b"genserve\0" + json.dumps(facts).encode("ascii")),
            _chunk(b"IDAT", _pixels(job.width, job.height)),
            _chunk(b"IEND", b""),
        )
    )


@lru_cache(maxsize=SIZES_CACHED_MAX)
def _pixels(width: int, height: int) -> bytes:
    """Every pixel the palette's first colour: the same bytes for every colour."""
    row = bytes(1 + (width + 7) // 8)
    return zlib.compress(row * height)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
