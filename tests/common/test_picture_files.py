"""The facts of picture files, held against Pillow's; and whatever is none is refused in words."""

import io
import random

import pytest
from PIL import Image, ImageOps

from common.errors import GenServeError
from common.picture_files import PictureFacts, look

FORMATS = ("png", "jpeg", "webp")


def file_of(
    format_: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", orientation: int = 0, **how: object
) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
        how["exif"] = exif
    Image.linear_gradient("L").resize(size).convert(mode).save(file, format_, **how)
    return file.getvalue()


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("orientation", [0, 1, 3, 6, 8])
def test_sizes_are_those_shown(format_: str, orientation: int) -> None:
    data = file_of(format_, orientation=orientation)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert look(data) == PictureFacts(format_, *shown.size)
    assert (shown.width > shown.height) == (orientation < 5)


@pytest.mark.parametrize(
    ("format_", "mode", "how"),
    [
        ("png", "RGBA", {}), ("png", "P", {}), ("png", "1", {}), ("jpeg", "L", {}), ("jpeg", "CMYK", {}),
        ("jpeg", "RGB", {"progressive": True}), ("webp", "RGBA", {}), ("webp", "RGB", {"lossless": True}),
        ("webp", "RGBA", {"lossless": True}),
    ],
)  # fmt: skip
def test_every_kind_of_each_is_read(format_: str, mode: str, how: dict[str, object]) -> None:
    for size in ((1, 1), (33, 70), (1000, 17)):
        assert look(file_of(format_, size, mode, **how)) == PictureFacts(format_, *size)


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a" + bytes(20), b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff",
     b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPVP8X", b"\x89PNG\r\n\x1a\n" + bytes(100), b"BM" + bytes(60)],
)  # fmt: skip
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(GenServeError) as caught:
        look(data)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("format_", FORMATS)
def test_damage_is_refused_or_read_and_nothing_else(format_: str) -> None:
    whole, chance = file_of(format_, orientation=6), random.Random(5)
    for _ in range(2000):
        data = bytearray(whole[: chance.randint(1, len(whole))])
        for _ in range(chance.randint(0, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            facts = look(bytes(data))
        except GenServeError:
            continue
        assert facts.width > 0
        assert facts.height > 0
