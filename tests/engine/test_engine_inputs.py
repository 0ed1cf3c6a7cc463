"""What a drawing starts from: images and masks of every kind, and what strength and mask make of them."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from common.errors import GenServeError
from gpu_daemon.engine.backend import Preview, Stopped
from gpu_daemon.engine.flux import FluxBackend
from gpu_daemon.engine.inputs import start_of
from tests.engine.orders import PROMPT_TOKENS_MAX, edit, ignore, order, paint, plain, told

YELLOW, RED, BLUE = (255, 226, 26), (227, 28, 35), (27, 77, 228)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), float)


@pytest.fixture(scope="module")
def base(backend: FluxBackend) -> Image.Image:
    return paint(backend, order(prompt="a red circle on the left on a yellow background", steps=12, seed=5))


@pytest.fixture(scope="module")
def right_half() -> Image.Image:
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (64, 0, 128, 128))
    return mask


def _near(image: np.ndarray, colour: tuple[int, int, int]) -> float:
    """The share of pixels near a colour."""
    return float((np.abs(image - np.array(colour)).max(axis=-1) < 60).mean())


def test_what_a_mask_opens_is_drawn_anew_and_the_rest_stays_as_it_was(
    backend: FluxBackend, base: Image.Image, right_half: Image.Image
) -> None:
    shown: list[Preview] = []

    def on_step(_step: int, _steps: int, _step_s: float, preview: Preview | None) -> None:
        shown.extend([preview] if preview else [])

    prompt = "a blue square on the right on a yellow background"
    how: dict[str, Any] = {"prompt": prompt, "steps": 16, "seed": 5}
    drawn = edit(backend, told(base), told(right_half, "mask"), on_step=on_step, previews=2, **how)
    assert np.array_equal(pixels(drawn)[:, :64], pixels(base)[:, :64])
    assert _near(pixels(drawn)[:, 64:], BLUE) > 0.1
    assert _near(pixels(base)[:, 64:], BLUE) < 0.01
    assert _near(pixels(drawn)[:, 64:], RED) < 0.01
    for preview in shown:
        kept = pixels(Image.open(io.BytesIO(preview.data)))[:, :56]
        assert np.abs(kept - pixels(base)[:, :56]).mean() < 25, "a preview keeps what the mask keeps, too"
    assert len(shown) == 2
    transparent = base.convert("RGBA")
    transparent.putalpha(right_half.point(lambda value: 255 - value))
    same = edit(backend, told(base), told(transparent, "mask"), **how)
    assert same.tobytes() == drawn.tobytes(), "as OpenAI has it: what is transparent is drawn anew"


def test_a_weak_strength_stays_near_the_image_and_a_strong_one_follows_the_prompt(
    backend: FluxBackend, base: Image.Image
) -> None:
    steps: dict[float, list[tuple[int, int]]] = {}
    drawn = {}
    for strength in (0.1, 0.95):
        steps[strength] = []
        drawn[strength] = edit(
            backend, told(base), prompt="a blue square on a yellow background", steps=20, seed=5, strength=strength,
            on_step=lambda step, count, *_, at=strength: steps[at].append((step, count)),
        )  # fmt: skip
    assert steps[0.1] == [(1, 2), (2, 2)]
    assert steps[0.95][-1] == (19, 19)
    assert np.abs(pixels(drawn[0.1]) - pixels(base)).mean() < 6
    assert _near(pixels(drawn[0.95]), BLUE) > 0.05
    assert _near(pixels(drawn[0.95]), RED) < 0.01


def test_it_is_what_plain_diffusers_draws(backend: FluxBackend, pipe: Any, base: Image.Image) -> None:
    job = order(strength=0.5, steps=6, seed=9)
    wanted = FluxImg2ImgPipeline(**pipe.components)
    wanted.set_progress_bar_config(disable=True)
    plainly = wanted(
        prompt=job.prompt, image=base.convert("RGB"), strength=0.5, width=128, height=128, num_inference_steps=6,
        guidance_scale=job.guidance_scale, max_sequence_length=PROMPT_TOKENS_MAX,
        generator=torch.Generator("cpu").manual_seed(9),
    ).images[0]  # fmt: skip
    drawn = edit(backend, told(base), strength=0.5, steps=6, seed=9)
    assert drawn.tobytes() == plainly.tobytes()


def test_no_weight_is_loaded_twice_and_pictures_from_prompts_stay_as_they_are(
    backend: FluxBackend, pipe: Any, base: Image.Image, right_half: Image.Image
) -> None:
    with pytest.raises(Stopped):
        edit(backend, told(base), told(right_half, "mask"), on_step=lambda *_: (_ for _ in ()).throw(Stopped))
    pipeline: Any = backend._painter._pipeline  # what is looked at has no other door
    assert {kind.__name__ for kind in pipeline._editors} <= {"FluxImg2ImgPipeline", "FluxInpaintPipeline"}
    for editor in pipeline._editors.values():
        for name, part in pipeline._pipe.components.items():
            assert editor.components[name] is part, name
    assert paint(backend, order()).tobytes() == plain(pipe, order()).tobytes()


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp"])
def test_every_format_is_read_turned_and_sized(format_: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: what is on the left is shown on top
    image = Image.new("RGB", (80, 40), "white")
    image.paste(RED, (0, 0, 40, 40))
    facts, data = told(image, format_=format_, exif=exif)
    start = start_of(order(inputs=(facts,), width=64, height=128), [data])
    assert start.image.size == (64, 128)
    assert np.abs(np.subtract(start.image.getpixel((32, 20)), RED)).max() < 40
    assert min(start.image.getpixel((32, 110))) > 200


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "I;16", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("L", (32, 32), 255).convert("I;16" if mode == "I;16" else mode)
    facts, data = told(image, format_="jpeg" if mode == "CMYK" else "png")
    start = start_of(order(inputs=(facts,)), [data])
    assert (start.image.mode, start.image.size) == ("RGB", (128, 128))


def test_what_is_transparent_in_an_image_lies_on_white() -> None:
    facts, data = told(Image.new("RGBA", (16, 16), (255, 0, 0, 0)))
    assert start_of(order(inputs=(facts,)), [data]).image.getpixel((5, 5)) == (255, 255, 255)


def _truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _as_jpeg(data: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(file, "jpeg")
    return file.getvalue()


def _larger(data: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((64, 33)).save(file, "png")
    return file.getvalue()


def _svg(_data: bytes) -> bytes:
    return b"<svg xmlns='http://www.w3.org/2000/svg'/>"


def _bomb(_data: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("1", (16_384, 16_384)).save(file, "png")
    return file.getvalue()


def test_a_mask_that_opens_nothing_is_refused_before_anything_is_drawn(backend: FluxBackend, base: Image.Image) -> None:
    with pytest.raises(GenServeError, match=r"inputs\[1\]: the mask opens nothing"):
        edit(backend, told(base), told(Image.new("RGBA", base.size, "black"), "mask"))


def _chatty(data: bytes) -> bytes:
    file, said = io.BytesIO(), PngInfo()
    said.add_text("comment", "x" * 100_000_000, zip=True)
    Image.open(io.BytesIO(data)).save(file, "png", pnginfo=said)
    return file.getvalue()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_truncated, "the file ends too early"),
        (_as_jpeg, "its data is damaged"),
        (_larger, "it has 64x33 pixels, not 64x32"),
        (_svg, "its data is damaged"),
        (_bomb, "pixels"),
        (_chatty, "it has more text in it than a picture needs"),
    ],
)
def test_files_that_are_not_as_told_are_refused_and_the_next_is_right(
    backend: FluxBackend, pipe: Any, harm: Any, says: str
) -> None:
    noise = Image.frombytes("RGB", (64, 32), np.random.default_rng(1).bytes(64 * 32 * 3))
    facts, data = told(noise)
    with pytest.raises(GenServeError) as caught:
        backend.draw(order(inputs=(facts,), strength=0.5), ignore, [harm(data)])
    assert (caught.value.code, caught.value.param) == ("invalid_request", "inputs")
    assert caught.value.message.startswith("inputs[0]: ")
    assert says in caught.value.message
    if harm is _svg:
        assert paint(backend, order()).tobytes() == plain(pipe, order()).tobytes()
