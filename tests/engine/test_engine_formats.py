"""The file of a picture: its format, its quality, and what it says of how it was made; of both engines."""

import hashlib
import io
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.settings import GpuDaemonSettings
from gpu_daemon.devices import cpu
from gpu_daemon.engine.backend import Backend, Painting
from gpu_daemon.engine.flux import FluxBackend
from gpu_daemon.engine.noop import NoopBackend, colour_of
from gpu_daemon.engine.saving import save_picture
from tests.engine.orders import ignore, order, picture
from tests.gpu_daemon.fake_router import token

EXIF, USER_COMMENT, SOFTWARE = 0x8769, 0x9286, 0x0131


@pytest.fixture(params=["flux", "noop"])
def either(request: pytest.FixtureRequest, backend: FluxBackend) -> Backend:
    return backend if request.param == "flux" else NoopBackend(GpuDaemonSettings(engine="noop"), cpu())


def _told(image: Image.Image) -> tuple[str, dict[str, Any]]:
    if image.format == "PNG":
        return image.text.get("Software", ""), json.loads(image.text["genserve"])
    exif = image.getexif()
    comment = exif.get_ifd(EXIF)[USER_COMMENT]
    assert comment.startswith(b"ASCII\0\0\0")
    return exif[SOFTWARE], json.loads(comment[8:])


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp"])
def test_the_picture_is_of_the_format_and_says_how_it_was_made(either: Backend, format_: str) -> None:
    assert format_ in either.card.formats
    job = order(
        prompt="a secret wish", format=format_, width=256, height=128, drawn_width=128, drawn_height=64, seed=11
    )
    painting = either.draw(job, ignore)
    facts, image = painting.picture, picture(painting)
    assert (image.format, image.size) == (format_.upper(), (256, 128))
    assert (facts.format, facts.width, facts.height) == (format_, 256, 128)
    assert (facts.bytes, facts.sha256) == (len(painting.data), hashlib.sha256(painting.data).hexdigest())
    software, told = _told(image)
    assert {name: told[name] for name in ("seed", "steps", "width", "height")} == {
        "seed": 11, "steps": 4, "width": 256, "height": 128,
    }  # fmt: skip
    assert told["model"] == either.card.name
    assert b"secret" not in painting.data
    if format_ != "png":
        assert software == f"GenServe {version('genserve')}"


def test_quality_trades_bytes_for_likeness_up_to_every_pixel(backend: FluxBackend) -> None:
    def draw(**how: Any) -> Painting:
        return backend.draw(order(steps=2, **how), ignore)

    exact = np.asarray(picture(draw()), float)
    for format_ in ("jpeg", "webp"):
        low, usual, high = (draw(format=format_, quality=quality) for quality in (10, None, 95))
        assert len(low.data) < len(usual.data) < len(high.data)
        off = [np.abs(np.asarray(picture(one), float) - exact).mean() for one in (low, usual, high)]
        assert off[0] > off[1] > off[2] > 0
        assert draw(format=format_, quality=90).data == usual.data
    assert np.array_equal(np.asarray(picture(draw(format="webp", quality=100))), exact)


def test_a_saved_copy_ends_as_its_format_does(tmp_path: Path) -> None:
    noop = NoopBackend(GpuDaemonSettings(engine="noop"), cpu())
    job = order(format="jpeg", quality=95, seed=42)
    path = save_picture(tmp_path, noop.draw(job, ignore), token(1), job, 1.0)
    assert path.suffix == ".jpg"
    colour = Image.open(io.BytesIO(path.read_bytes())).getpixel((5, 5))
    assert np.abs(np.subtract(colour, colour_of(42))).max() < 8
