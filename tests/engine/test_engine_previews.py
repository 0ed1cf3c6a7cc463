"""Previews: when they come, what they show, and that the picture is the same without them."""

import io

import numpy as np
import pytest
from PIL import Image

from common.messages import PREVIEWS_MAX, STEPS_MAX
from gpu_daemon.engine import estimate
from gpu_daemon.engine.backend import Preview, Stopped
from gpu_daemon.engine.flux import FluxBackend
from gpu_daemon.engine.previews import preview_steps
from tests.engine.orders import ignore, order, picture


def _draw(backend: FluxBackend, **changes: object) -> tuple[dict[int, Preview], bytes]:
    shown: dict[int, Preview] = {}

    def on_step(step: int, _steps: int, _step_s: float, preview: Preview | None) -> None:
        if preview is not None:
            shown[step] = preview

    return shown, backend.draw(order(**changes), on_step).data


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


@pytest.mark.parametrize(
    ("previews", "steps", "expected"),
    [(0, 20, ()), (3, 28, (7, 14, 21)), (3, 4, (1, 2, 3)), (20, 4, (1, 2, 3)), (1, 1, ()), (2, 20, (7, 13))],
)
def test_they_are_spread_evenly_and_never_follow_the_last_step(
    previews: int, steps: int, expected: tuple[int, ...]
) -> None:
    assert preview_steps(previews, steps) == expected


def test_there_are_as_many_as_asked_for_where_there_are_steps_enough() -> None:
    for previews in range(PREVIEWS_MAX + 1):
        for steps in (*range(1, 60), STEPS_MAX):
            found = preview_steps(previews, steps)
            assert len(found) == min(previews, steps - 1)
            assert sorted(set(found)) == list(found)
            assert all(1 <= step < steps for step in found)


def test_the_picture_is_the_same_bit_for_bit_with_previews(backend: FluxBackend) -> None:
    shown, data = _draw(backend, previews=PREVIEWS_MAX, steps=5)
    assert list(shown) == [1, 2, 3, 4]
    assert data == backend.draw(order(steps=5), ignore).data
    _, data = _draw(backend, previews=2, steps=5, negative_prompt="green", true_cfg_scale=3.0)
    assert data == backend.draw(order(steps=5, negative_prompt="green", true_cfg_scale=3.0), ignore).data


def test_each_is_nearer_to_the_picture_and_the_first_shows_what_it_will_be(backend: FluxBackend) -> None:
    prompt = "a large red circle on a yellow background"
    shown, data = _draw(backend, prompt=prompt, previews=4, steps=20, seed=3)
    final = _pixels(data)
    distances = [_distance(_pixels(preview.data), final) for preview in shown.values()]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] < 20.0, "of 255: true already"
    assert distances[-1] < 4.0
    assert [preview.index for preview in shown.values()] == [0, 1, 2, 3]
    for preview in shown.values():
        image = Image.open(io.BytesIO(preview.data))
        assert (image.format, image.size) == ("JPEG", (128, 128))
        facts = preview.picture
        assert (facts.format, facts.width, facts.height, facts.bytes) == ("jpeg", 128, 128, len(preview.data))


def test_one_that_would_cost_much_is_halved(backend: FluxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "PREVIEW_SIDE_MAX", 100)
    shown, data = _draw(backend, previews=3, steps=8, width=128, height=64)
    assert {(p.picture.width, p.picture.height, p.picture.drawn_width) for p in shown.values()} == {(64, 32, 128)}
    small = np.asarray(picture(backend.draw(order(steps=8, width=128, height=64), ignore)).resize((64, 32)), float)
    assert _distance(_pixels(shown[max(shown)].data), small) < 12.0
    assert data == backend.draw(order(steps=8, width=128, height=64), ignore).data


def test_one_of_a_picture_that_is_enlarged_is_not(backend: FluxBackend) -> None:
    shown, _ = _draw(backend, previews=1, steps=2, width=512, height=256, drawn_width=128, drawn_height=64)
    assert (shown[1].picture.width, shown[1].picture.height) == (128, 64)


def test_a_job_stops_at_a_step_with_a_preview(backend: FluxBackend) -> None:
    def stop(_step: int, _steps: int, _step_s: float, preview: Preview | None) -> None:
        if preview is not None:
            raise Stopped

    with pytest.raises(Stopped):
        backend.draw(order(previews=1), stop)


def test_their_seconds_are_not_the_steps(backend: FluxBackend) -> None:
    told: list[float] = []
    timings = backend.draw(order(steps=6, previews=5), lambda *step: told.append(step[2])).timings
    assert timings.preview_s > 0
    assert sum(told) <= timings.denoise_s
    stages = (timings.encode_s, timings.denoise_s, timings.preview_s, timings.decode_s, timings.save_s)
    assert sum(stages) <= timings.total_s
    assert backend.draw(order(), ignore).timings.preview_s == 0
