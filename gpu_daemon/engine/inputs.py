"""The pictures that a job starts from: from the bytes of their files to pixels of the size that is drawn.

Knows Pillow, no torch. What it decodes came from outside: only the declared format is tried, and nothing is decoded
that is larger than was declared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageChops, ImageOps

from common.errors import GenServeError
from common.messages import INPUT_PIXELS_MAX, InputPicture, JobOrder

Image.MAX_IMAGE_PIXELS = INPUT_PIXELS_MAX  # Pillow's own guard; what is declared is held to it before


@dataclass(frozen=True)
class Start:
    """What a drawing starts from, at its drawn size. `mask`: white where it is drawn anew."""

    image: Image.Image
    mask: Image.Image | None


def start_of(job: JobOrder, files: Sequence[bytes]) -> Start | None:
    """What `job` starts from, decoded; None where it has its prompt alone. Raises GenServeError invalid_request."""
    image = mask = None
    for index, (told, data) in enumerate(zip(job.inputs, files, strict=True)):
        picture = _decode(index, told, data)
        size = (job.drawn_width, job.drawn_height)
        if told.kind == "image":
            image = _flat(picture).resize(size, Image.Resampling.LANCZOS)
        else:
            mask = _opening(picture)
            if mask.getbbox() is None:
                raise _refusal(index, "the mask opens nothing: make transparent what is to be drawn anew")
            mask = mask.resize(size, Image.Resampling.BILINEAR)
    return None if image is None else Start(image, mask)


def keep_outside(start: Start, drawn: Image.Image) -> Image.Image:
    """What was drawn inside the mask; outside it, pixel for pixel, what it started from."""
    return drawn if start.mask is None else Image.composite(drawn, start.image, start.mask)


def _decode(index: int, told: InputPicture, data: bytes) -> Image.Image:
    try:
        with Image.open(BytesIO(data), formats=[told.format]) as file:
            if sorted(file.size) != sorted((told.width, told.height)):
                raise _refusal(index, f"it has {file.width}x{file.height} pixels, not {told.width}x{told.height}")
            picture = ImageOps.exif_transpose(file)
            picture.load()
    except Image.DecompressionBombError:
        raise _refusal(index, f"it has more than {INPUT_PIXELS_MAX} pixels") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises of damaged files
        raise _refusal(index, f"it cannot be decoded as {told.format}: {_what_is_wrong(error)}") from error
    return picture


def _what_is_wrong(error: Exception) -> str:
    """In words, since Pillow's own are of its files and classes."""
    said = str(error).lower()
    if "truncated" in said or "eof" in said:
        return "the file ends too early"
    if "too large" in said or "memory limit" in said:
        return "it has more text in it than a picture needs"
    return "its data is damaged"


def _refusal(index: int, what: str) -> GenServeError:
    return GenServeError("invalid_request", f"inputs[{index}]: {what}", param="inputs")


def _flat(picture: Image.Image) -> Image.Image:
    """In RGB; what is transparent lies on white."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layered = picture.convert("RGBA")
    ground = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(ground, layered).convert("RGB")


def _opening(picture: Image.Image) -> Image.Image:
    """White where it is drawn anew: where a mask with transparency is transparent, or one without is white."""
    if picture.has_transparency_data:
        return ImageChops.invert(picture.convert("RGBA").getchannel("A"))
    return picture.convert("L")
