"""What a picture's file says of itself: PNG, JPEG or WebP, and how large it is shown.

Pure, and decodes no pixel: a few bytes are read, whatever they claim. Width and height are those shown, with the EXIF
orientation applied.
"""

from dataclasses import dataclass
from typing import Literal

from common.errors import GenServeError

CHUNKS_MAX = 65_536  # of one file; real ones have a few thousand
EXIF_ENTRIES_MAX = 512
_PNG, _EXIF = b"\x89PNG\r\n\x1a\n", b"Exif\0\0"
_ORIENTATION = 0x0112
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's start-of-frame markers
_BARE = frozenset(range(0xD0, 0xD9)) | {0x01, 0xFF}  # JPEG's markers without a length
_SIDEWAYS = 5  # orientations from here on swap the sides


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What there is to know before decoding."""

    format: Literal["png", "jpeg", "webp"]
    width: int  # pixels, as shown
    height: int


def look(data: bytes) -> PictureFacts:
    """The facts of a whole file. Raises GenServeError invalid_request, without naming a field, for anything else."""
    try:
        if data.startswith(_PNG):
            return _facts("png", *_png(data))
        if data.startswith(b"\xff\xd8\xff"):
            return _facts("jpeg", *_jpeg(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _facts("webp", *_webp(data))
    except (IndexError, ValueError):
        pass  # cut off, or it points beyond its end
    else:
        raise GenServeError("invalid_request", "it is neither PNG nor JPEG nor WebP")
    raise GenServeError("invalid_request", "the file is damaged: its header cannot be read")


def _facts(format_: Literal["png", "jpeg", "webp"], width: int, height: int, orientation: int) -> PictureFacts:
    if not (width and height):
        raise ValueError(width, height)
    return PictureFacts(format_, *((height, width) if orientation >= _SIDEWAYS else (width, height)))


def _number(data: bytes, at: int, size: int, *, little: bool = False) -> int:
    part = data[at : at + size]
    if len(part) != size:
        raise IndexError(at)
    return int.from_bytes(part, "little" if little else "big")


def _png(data: bytes) -> tuple[int, int, int]:
    if data[12:16] != b"IHDR":
        raise ValueError(data[12:16])
    at, orientation = len(_PNG), 1
    for _ in range(CHUNKS_MAX):
        size, kind = _number(data, at, 4), data[at + 4 : at + 8]
        if kind == b"eXIf":
            orientation = _orientation(data[at + 8 : at + 8 + size])
        if kind == b"IEND" or at + 12 + size >= len(data):
            break
        at += 12 + size
    return _number(data, 16, 4), _number(data, 20, 4), orientation


def _jpeg(data: bytes) -> tuple[int, int, int]:
    at, orientation = 2, 1
    for _ in range(CHUNKS_MAX):
        if data[at] != 0xFF:
            raise ValueError(at)
        marker = data[at + 1]
        if marker in _BARE:
            at += 1 if marker == 0xFF else 2
            continue
        size = _number(data, at + 2, 2)
        if marker in _FRAMES:
            return _number(data, at + 7, 2), _number(data, at + 5, 2), orientation
        if marker == 0xE1 and data[at + 4 : at + 10] == _EXIF:
            orientation = _orientation(data[at + 10 : at + 2 + size])
        at += 2 + size
    raise ValueError(at)


def _webp(data: bytes) -> tuple[int, int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return _number(data, 24, 3, little=True) + 1, _number(data, 27, 3, little=True) + 1, _webp_orientation(data)
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = _number(data, 21, 4, little=True)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return _number(data, 26, 2, little=True) & 0x3FFF, _number(data, 28, 2, little=True) & 0x3FFF, 1
    raise ValueError(kind)


def _webp_orientation(data: bytes) -> int:
    at = 12
    for _ in range(CHUNKS_MAX):
        if at + 8 > len(data):
            break
        size = _number(data, at + 4, 4, little=True)
        if data[at : at + 4] == b"EXIF":
            return _orientation(data[at + 8 : at + 8 + size].removeprefix(_EXIF))
        at += 8 + size + size % 2
    return 1


def _orientation(tiff: bytes) -> int:
    """The orientation, 1 to 8, that EXIF data names; 1 where it names none, or is not as it should be."""
    little = tiff[:2] == b"II"
    try:
        at = _number(tiff, 4, 4, little=little)
        for entry in range(min(_number(tiff, at, 2, little=little), EXIF_ENTRIES_MAX)):
            place = at + 2 + 12 * entry
            if _number(tiff, place, 2, little=little) == _ORIENTATION:
                found = _number(tiff, place + 8, 2, little=little)
                return found if 1 <= found <= 8 else 1
    except IndexError:
        pass
    return 1
