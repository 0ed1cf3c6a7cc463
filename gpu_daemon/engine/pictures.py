"""From drawn pixels to the bytes of a file that says how it was made: PNG, JPEG or WebP.

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

COMPRESS_LEVEL = 1  # of a PNG: half the time of the default, a few percent more bytes
QUALITY = 90  # of a JPEG or WebP that asks for none
FULL_COLOUR_QUALITY = 90  # from here on a JPEG keeps the colour of each pixel, not of four together
LOSSLESS_QUALITY = 100  # as WebP counts here
PREVIEW_QUALITY = 80  # of 100, as JPEG counts it
SOFTWARE = f"GenServe {version('genserve')}"
_EXIF_IFD, _USER_COMMENT, _SOFTWARE_TAG = 0x8769, 0x9286, 0x0131


def encode(drawn: Image.Image, job: JobOrder, card: ModelCard) -> bytes:
    """The file of the picture that `job` orders, in its format; one drawn smaller is enlarged (Lanczos)."""
    size = (job.width, job.height)
    picture = drawn if drawn.size == size else drawn.resize(size, Image.Resampling.LANCZOS)
    facts = json.dumps(_facts(drawn, job, card))
    quality = QUALITY if job.quality is None else job.quality
    file = io.BytesIO()
    if job.format == "jpeg":
        sampling = 0 if quality >= FULL_COLOUR_QUALITY else 2
        picture.save(file, "jpeg", quality=quality, subsampling=sampling, exif=_exif(facts))
    elif job.format == "webp":
        how = {"lossless": True} if quality == LOSSLESS_QUALITY else {"quality": quality}
        picture.save(file, "webp", exif=_exif(facts), **how)
    else:
        told = PngInfo()
        told.add_text("Software", SOFTWARE)
        told.add_text("genserve", facts)
        picture.save(file, "png", compress_level=COMPRESS_LEVEL, pnginfo=told)
    return file.getvalue()


def _exif(facts: str) -> Image.Exif:
    """What a PNG says in its texts, where JPEG and WebP say such things: Software, and the JSON as UserComment."""
    exif = Image.Exif()
    exif[_SOFTWARE_TAG] = SOFTWARE
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"ASCII\0\0\0" + facts.encode("ascii")
    return exif


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
        **({"strength": job.strength} if job.inputs else {}),
        "guidance_scale": job.guidance_scale if card.guided else None,
        "true_cfg_scale": job.true_cfg_scale,
        "width": job.width,
        "height": job.height,
        "drawn_width": drawn.width,
        "drawn_height": drawn.height,
        "enlarged": drawn.size != (job.width, job.height),
    }
