"""Orders as the router makes them, and what plain diffusers draws for the same."""

import hashlib
import io
from typing import Any

from PIL import Image

from common.messages import InputPicture, JobOrder
from gpu_daemon.engine.backend import OnStep, Painting, Preview
from gpu_daemon.engine.flux import FluxBackend

PROMPT_TOKENS_MAX = 64  # of the embedded model


def order(**changes: Any) -> JobOrder:
    """A job for the embedded model; `width` and `height` are drawn natively unless told otherwise."""
    fields: dict[str, Any] = {
        "prompt": "a red circle on a blue background",
        "negative_prompt": "",
        "model": "genserve-shapes",
        "width": 128,
        "height": 128,
        "steps": 4,
        "guidance_scale": 3.5,
        "true_cfg_scale": 1.0,
        "seed": 7,
        "priority": 0,
        "client": "",
        "save": False,
    } | changes
    fields.setdefault("drawn_width", fields["width"])
    fields.setdefault("drawn_height", fields["height"])
    return JobOrder(**fields)


def ignore(_step: int, _steps: int, _step_s: float, _preview: Preview | None) -> None:
    """An `on_step` that lets every job go on."""


def paint(backend: FluxBackend, job: JobOrder, on_step: OnStep = ignore) -> Image.Image:
    return picture(backend.draw(job, on_step))


def picture(painting: Painting) -> Image.Image:
    image = Image.open(io.BytesIO(painting.data))
    image.load()
    return image


def plain(pipe: Any, job: JobOrder) -> Image.Image:
    """What someone gets who calls the pipeline as its documentation says."""
    import torch  # noqa: PLC0415  # a test runs this file in a process that must not have it yet

    image: Image.Image = pipe(
        prompt=job.prompt,
        negative_prompt=job.negative_prompt or None,
        true_cfg_scale=job.true_cfg_scale,
        width=job.drawn_width,
        height=job.drawn_height,
        num_inference_steps=job.steps,
        guidance_scale=job.guidance_scale,
        max_sequence_length=PROMPT_TOKENS_MAX,
        generator=torch.Generator("cpu").manual_seed(job.seed),
    ).images[0]
    return image


def told(image: Image.Image, kind: Any = "image", format_: Any = "png", **how: Any) -> tuple[InputPicture, bytes]:
    """An image or mask as a job's input: what is said of its file, and the file. One with `exif` is shown turned."""
    file = io.BytesIO()
    image.save(file, format_, **how)
    data = file.getvalue()
    shown = (image.height, image.width) if how.get("exif") else image.size
    digest = hashlib.sha256(data).hexdigest()
    facts = InputPicture(kind=kind, format=format_, width=shown[0], height=shown[1], bytes=len(data), sha256=digest)
    return facts, data


def edit(backend: FluxBackend, *inputs: tuple[InputPicture, bytes], on_step: Any = ignore, **more: Any) -> Image.Image:
    """What is drawn from these inputs."""
    job = order(inputs=tuple(facts for facts, _ in inputs), **more)
    return picture(backend.draw(job, on_step, [data for _, data in inputs]))
