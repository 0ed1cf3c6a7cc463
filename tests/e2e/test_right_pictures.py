"""The right picture comes back: what a prompt asks for is seen in the pixels, through every door."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.rawclient import RawClient
from tests.service import Service, running
from training.checker import problems
from training.scene import Ground, Scene, Thing

STEPS = 20  # the model's own
ASKED = {
    "a large red heart on a yellow background": Scene(
        (Thing("red", "heart", size="large", place="center"),), ground=Ground("yellow")
    ),
    "a blue cross on the right": Scene((Thing("blue", "cross", place="right"),)),
    "一个绿色的三角形": Scene((Thing("green", "triangle", place="center"),)),
    "a large red circle above a small blue square on a yellow background": Scene(
        (Thing("red", "circle", size="large"), Thing("blue", "square", size="small")), "above", Ground("yellow")
    ),
    "左边一个红色的圆形，右边一个蓝色的三角形": Scene(
        (Thing("red", "circle", place="left"), Thing("blue", "triangle", place="right"))
    ),
}


def seen(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("prompt", ASKED)
def test_over_http(service: Service, prompt: str) -> None:
    status, body, _ = service.post(
        "/v1/images/generations", {"prompt": prompt, "seed": 3, "num_inference_steps": STEPS}
    )
    assert status == 200, body
    assert problems(seen(base64.b64decode(body["data"][0]["b64_json"])), ASKED[prompt]) == []


@pytest.mark.parametrize("prompt", ASKED)
def test_over_raw_zeromq(service: Service, prompt: str) -> None:
    with RawClient(service.client_endpoint) as client:
        name, _, data = client.draw(prompt=prompt, seed=4, steps=STEPS)
    assert name == b"RESULT"
    assert problems(seen(data), ASKED[prompt]) == []


def test_many_at_once_on_two_engines_are_not_mixed_up(tmp_path: Path) -> None:
    things = [Thing(c, s, place="center") for c, s in product(("red", "green", "blue"), ("circle", "square", "star"))]
    with running(tmp_path, "--gpus", "cpu,cpu", workers=2) as both, ThreadPoolExecutor(len(things)) as clients:

        def problems_of(thing: Thing) -> list[str]:
            ask = {"prompt": f"a {thing.colour} {thing.shape}", "seed": 5, "num_inference_steps": 12}
            _, body, _ = both.post("/v1/images/generations", ask)
            return problems(seen(base64.b64decode(body["data"][0]["b64_json"])), Scene((thing,)))

        wrong = dict(zip(things, clients.map(problems_of, things), strict=True))
    assert not any(wrong.values()), wrong
