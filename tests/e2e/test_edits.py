"""Pictures that start from others, through every process: what is opened is drawn anew, the rest stays."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.rawclient import RawClient
from tests.service import GENSERVE, Service
from training.checker import problems
from training.scene import Ground, Scene, Thing

ON_THE_RIGHT = "a blue square on the right on a yellow background"
BOTH = Scene((Thing("red", "circle", place="left"), Thing("blue", "square", place="right")), ground=Ground("yellow"))
EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "edit.py"


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with a red circle on its left, and a mask that opens its right half."""
    folder: Path = tmp_path_factory.mktemp("edits")
    with RawClient(service.client_endpoint) as client:
        prompt = "a red circle on the left on a yellow background"
        _, _, data = client.draw(prompt=prompt, seed=5, steps=20)
    (folder / "image.png").write_bytes(data)
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (64, 0, 128, 128))
    mask.save(folder / "mask.png")
    return folder


def test_the_command_inpaints(service: Service, folder: Path) -> None:
    _run(
        GENSERVE, "generate", ON_THE_RIGHT, "--image", "image.png", "--mask", "mask.png", "-o", "out.png",
        "--seed", "5", "--router", service.client_endpoint, cwd=folder,
    )  # fmt: skip
    drawn, image = _pixels(folder / "out.png"), _pixels(folder / "image.png")
    assert np.array_equal(drawn[:, :64], image[:, :64])
    assert problems(drawn, BOTH) == []


def test_the_command_draws_near_an_image(service: Service, folder: Path) -> None:
    Image.open(folder / "image.png").save(folder / "photo.jpg", quality=95)
    told = _run(
        GENSERVE, "generate", "a red circle", "--image", "photo.jpg", "--strength", "0.1", "--steps", "20",
        "-o", "near.webp", "--router", service.client_endpoint, cwd=folder,
    )  # fmt: skip
    assert "2 steps" in told, "of 20 a tenth is drawn"
    off = np.abs(_pixels(folder / "near.webp").astype(float) - _pixels(folder / "image.png")).mean()
    assert off < 8


def test_the_commands_refusals_name_the_flag(folder: Path) -> None:
    (folder / "words.txt").write_text("no picture")
    for flags, words in (
        (("--mask", "mask.png"), "--mask"),
        (("--image", "words.txt"), "neither PNG nor JPEG nor WebP"),
        (("--image", "missing.png"), "cannot be read"),
    ):
        done = subprocess.run(
            [GENSERVE, "generate", "x", *flags], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert words in done.stderr


def test_the_example_of_the_protocol_page_edits(service: Service, folder: Path) -> None:
    _run(
        sys.executable, "-P", str(EXAMPLE), ON_THE_RIGHT, "image.png", "mask.png", "example.png",
        service.client_endpoint, cwd=folder,
    )  # fmt: skip
    assert np.array_equal(_pixels(folder / "example.png")[:, :64], _pixels(folder / "image.png")[:, :64])


def test_large_inputs_reach_the_engine_whole(noop_pair: Service, tmp_path: Path) -> None:
    """The no-op engine's colour tells of the bytes that it was given; those of a few megabytes come in many frames."""

    def draw(data: bytes) -> Any:
        path = tmp_path / "noise.png"
        path.write_bytes(data)
        ask = ("generate", "x", "--image", str(path), "--seed", "1", "--steps", "1", "--size", "64x64")
        _run(GENSERVE, *ask, "-o", "o.png", "--router", noop_pair.client_endpoint, cwd=tmp_path)
        return tuple(_pixels(tmp_path / "o.png")[0, 0])

    def noise(seed: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (1200, 1200, 3), "uint8")).save(file, "png")
        return file.getvalue()

    assert len(noise(1)) > 4_000_000
    assert draw(noise(1)) == draw(noise(1)) != draw(noise(2))
