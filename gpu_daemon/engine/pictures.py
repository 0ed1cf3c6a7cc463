"""From drawn pixels to the bytes of a PNG file that says how it was made.

Knows no torch and no pipeline. The prompt is not written: a picture travels further than its words should.
"""

import hashlib
import io
import json
from importlib.metadata import version

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from common.messages import JobOrder, Picture
from common.models import ModelCard
from gpu_daemon.engine.backend import Preview

COMPRESS_LEVEL = 1  # half the time of the default, a few percent more bytes
PREVIEW_QUALITY = 80  # of 100, as JPEG counts it
SOFTWARE = f"GenServe {version('genserve')}"


def encode_png(drawn: Image.Image, job: JobOrder, card: ModelCard) -> bytes:
    """The file of the picture that `job` orders; one drawn smaller is enlarged (Lanczos)."""
    size = (job.width, job.height)
    picture = drawn if drawn.size == size else drawn.resize(size, Image.Resampling.LANCZOS)
    facts = PngInfo()
    facts.add_text("Software", SOFTWARE)
    facts.add_text("genserve", json.dumps(_facts(drawn, job, card)))
    file = io.BytesIO()
    picture.save(file, "png", compress_level=COMPRESS_LEVEL, pnginfo=facts)
    return file.getvalue()


def preview_of(image: Image.Image, index: int, job: JobOrder) -> Preview:
    """The `index`-th preview of a job: small and quick to make, so a JPEG, never enlarged."""
    file = io.BytesIO()
    image.save(file, "jpeg", quality=PREVIEW_QUALITY)
    data = file.getvalue()
    picture = Picture(
        format="jpeg",
        width=image.width,
        height=image.height,
        drawn_width=job.drawn_width,
        drawn_height=job.drawn_height,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return Preview(index, data, picture)


def is_black(drawn: Image.Image) -> bool:
    """Is every pixel exactly black? So looks what a broken VAE decodes."""
    return all(extreme == (0, 0) for extreme in drawn.getextrema())


def _facts(drawn: Image.Image, job: JobOrder, card: ModelCard) -> dict[str, str | int | float | bool | None]:
    return {
        "model": card.name,
        "seed": job.seed,
        "steps": job.steps,
        "guidance_scale": job.guidance_scale if card.guided else None,
        "true_cfg_scale": job.true_cfg_scale,
        "width": job.width,
        "height": job.height,
        "drawn_width": drawn.width,
        "drawn_height": drawn.height,
        "enlarged": drawn.size != (job.width, job.height),
    }
