"""OpenAI's own Python client, unmodified, against whole services."""

import asyncio
import base64
import io
import time
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image

from tests.service import Service, running, wait_for
from training.checker import problems
from training.scene import Ground, Scene, Thing

SIZE = "128x128"
STEP_S = 0.25
LONG_STEPS = 60  # 15 seconds: longer than any of these tests waits for
AT_ONCE = 32


def client_of(service: Service, **more: int) -> OpenAI:
    return OpenAI(base_url=f"{service.http_url}/v1", api_key="none", **more)


def pixels(b64_json: str | None) -> np.ndarray:
    assert b64_json is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(b64_json))).convert("RGB"))


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    with client_of(service) as made:
        yield made


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One no-op engine of a quarter second a step, and a queue of one place."""
    env = {
        "GENSERVE_GPU_DAEMON_NOOP_STEP_S": str(STEP_S),
        "GENSERVE_ROUTER_GPU_QUEUE_SIZE": "1",
        "GENSERVE_ROUTER_GLOBAL_QUEUE_SIZE": "0",
    }
    folder = Path(tmp_path_factory.mktemp("slow"))
    with running(folder, "--gpus", "cpu", "--engine", "noop", env=env) as started:
        yield started


# --- pictures --------------------------------------------------------------------------------------


def test_it_draws(client: OpenAI) -> None:
    answer = client.images.generate(
        model="gpt-image-1", prompt="a red circle on a white background", size=SIZE, quality="high", n=2,
        background="auto", moderation="low", user="ana", output_format="webp", output_compression=100,
        extra_body={"seed": 5},
    )  # fmt: skip
    assert answer.output_format == "webp"
    assert answer.data is not None
    first, second = (pixels(item.b64_json) for item in answer.data)
    assert first.shape == (128, 128, 3)
    assert problems(first, Scene((Thing("red", "circle"),), ground=Ground("white"))) == []
    assert not np.array_equal(first, second)


def test_partial_pictures_come_while_it_draws(client: OpenAI) -> None:
    whole = client.images.generate(prompt="a blue square", size=SIZE, extra_body={"seed": 6})
    stream = client.images.generate(
        prompt="a blue square", size=SIZE, stream=True, partial_images=3, extra_body={"seed": 6}
    )
    events = list(stream)
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    shown = [pixels(event.b64_json) for event in events]
    assert [event.partial_image_index for event in events[:3] if hasattr(event, "partial_image_index")] == [0, 1, 2]
    assert all(not np.array_equal(a, b) for a, b in pairwise(shown))
    assert np.abs(shown[2].astype(int) - shown[3]).mean() < np.abs(shown[0].astype(int) - shown[3]).mean()
    assert whole.data is not None
    assert np.array_equal(shown[3], pixels(whole.data[0].b64_json)), "previews change nothing"
    assert events[-1].usage.total_tokens == 0


def test_an_edit_changes_what_the_mask_opens_and_nothing_else(client: OpenAI) -> None:
    drawn = client.images.generate(
        prompt="a red circle on the left on a yellow background", size=SIZE,
        extra_body={"seed": 5, "num_inference_steps": 20},
    )  # fmt: skip
    assert drawn.data is not None
    image = base64.b64decode(drawn.data[0].b64_json or "")
    mask = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (64, 0, 128, 128))
    file = io.BytesIO()
    mask.save(file, "png")
    asked = {"prompt": "a blue square on the right on a yellow background", "size": SIZE, "input_fidelity": "high"}
    edited = client.images.edit(
        image=("house.png", image), mask=("mask.png", file.getvalue()), extra_body={"seed": 5}, **asked
    )
    assert edited.data is not None
    before, after = pixels(drawn.data[0].b64_json), pixels(edited.data[0].b64_json)
    assert np.array_equal(after[:, :64], before[:, :64])
    both = (Thing("red", "circle", place="left"), Thing("blue", "square", place="right"))
    assert problems(after, Scene(both, ground=Ground("yellow"))) == []
    stream = client.images.edit(
        image=[image], prompt="a red circle", stream=True, partial_images=2, extra_body={"num_inference_steps": 6}
    )
    kinds = [event.type for event in stream]
    assert kinds == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]


def test_models_are_listed(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["genserve-shapes"]
    assert client.models.retrieve(names[0]).owned_by == "genserve"
    assert client.models.retrieve("gpt-image-1").id == names[0]


# --- what goes wrong -------------------------------------------------------------------------------


def test_errors_are_those_the_client_knows(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as size:
        client.images.generate(prompt="a fox", size="100x100")
    assert (size.value.param, size.value.code, size.value.type) == ("size", "invalid_request", "invalid_request_error")
    assert "the nearest size it draws is " in size.value.message
    with pytest.raises(openai.NotFoundError) as model:
        client.images.generate(model="no-such-model", prompt="a fox")
    assert (model.value.param, model.value.code) == ("model", "unknown_model")
    assert "genserve-shapes" in model.value.message
    with pytest.raises(openai.BadRequestError) as picture:
        client.images.edit(image=("cat.svg", b"<svg/>"), prompt="a fox")
    assert picture.value.param == "image"
    with pytest.raises(openai.BadRequestError) as damaged:
        client.images.edit(image=("cat.png", _noise()[:-3000]), prompt="a fox")
    assert (damaged.value.param, damaged.value.code) == ("image", "invalid_request")
    assert "cannot be decoded as png" in damaged.value.message
    with pytest.raises(openai.BadRequestError) as streamed:
        client.images.generate(prompt="a fox", size="1x1", stream=True)
    assert streamed.value.param == "size", "before the first event, with its status"
    with pytest.raises(openai.BadRequestError) as unsupported:
        client.images.generate(prompt="a fox", background="transparent")
    assert (unsupported.value.param, unsupported.value.code) == ("background", "unsupported")


def _noise() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 60).save(file, "png")
    return file.getvalue()


def test_a_full_queue_is_waited_for_by_the_clients_own_retries(slow: Service) -> None:
    with client_of(slow, max_retries=0) as impatient, client_of(slow, max_retries=5) as patient:
        ids = [slow.post("/v1/jobs", {"prompt": "long", "num_inference_steps": 4})[1]["id"] for _ in range(2)]
        wait_for("started job", lambda: slow.get(f"/v1/jobs/{ids[0]}")[1]["state"] == "running")
        with pytest.raises(openai.RateLimitError) as full:
            impatient.images.generate(prompt="a fox", extra_body={"num_inference_steps": 1})
        assert full.value.code == "queue_full"
        assert float(full.value.response.headers["retry-after-ms"]) > 0
        answer = patient.images.generate(prompt="a fox", extra_body={"num_inference_steps": 1})
        assert answer.data is not None
        assert slow.get("/status")[1]["concurrent_manager"]["stats"]["queue_full_rejections"] >= 2


def test_a_client_that_hangs_up_frees_its_gpu_within_a_step(slow: Service) -> None:
    with client_of(slow) as client:
        stream = client.images.generate(
            prompt="long", stream=True, partial_images=3, extra_body={"num_inference_steps": LONG_STEPS}
        )
        first = next(iter(stream))
        assert first.type == "image_generation.partial_image"
        stream.close()
        left_at = time.monotonic()
        answer = client.images.generate(prompt="next", extra_body={"num_inference_steps": 1})
        waited_s = time.monotonic() - left_at
        assert answer.data is not None
    assert waited_s < STEP_S * LONG_STEPS / 3, "the rest of the long one was not drawn"
    (stopped,) = slow.events("job.stopped")
    cancelled = next(line for line in slow.events("job.cancelled") if line["job_id"] == stopped["job_id"])
    assert _seconds(stopped["time"]) - _seconds(cancelled["time"]) < 2 * STEP_S, "one step, and what the machine takes"


def _seconds(time_: str) -> float:
    return float(np.datetime64(time_.removesuffix("Z"), "us").astype(int)) / 1e6


# --- many, and later -------------------------------------------------------------------------------


def test_thirty_two_at_once_each_get_their_own(noop_pair: Service) -> None:
    async def draw_all() -> list[str]:
        async with AsyncOpenAI(base_url=f"{noop_pair.http_url}/v1", api_key="none") as client:

            async def draw(seed: int) -> str:
                answer = await client.images.generate(
                    prompt="a fox", size="64x64", extra_body={"seed": seed, "num_inference_steps": 2}
                )
                assert answer.data is not None
                return answer.data[0].b64_json or ""

            return await asyncio.gather(*(draw(seed) for seed in range(AT_ONCE)))

    drawn = asyncio.run(draw_all())
    assert len(set(drawn)) == AT_ONCE
    with client_of(noop_pair) as client:
        again = client.images.generate(prompt="a fox", size="64x64", extra_body={"seed": 7, "num_inference_steps": 2})
        assert again.data is not None
        assert np.array_equal(pixels(again.data[0].b64_json), pixels(drawn[7]))


def test_links_outlive_the_gateway(slow: Service) -> None:
    with client_of(slow, max_retries=5) as client:
        answer = client.images.generate(
            prompt="a fox", response_format="url", output_format="jpeg", extra_body={"num_inference_steps": 1}
        )
    assert answer.data is not None
    url = answer.data[0].url
    assert url is not None

    def fetch() -> bytes:
        with urllib.request.urlopen(url, timeout=10) as file:
            assert file.headers["Content-Type"] == "image/jpeg"
            data: bytes = file.read()
            return data

    data = fetch()
    assert data.startswith(b"\xff\xd8\xff")
    (gateway,) = slow.processes("genserve gateway")
    gateway.kill()
    wait_for("another gateway", lambda: [p for p in slow.processes("genserve gateway") if p.pid != gateway.pid])
    slow.wait_ready()
    assert fetch() == data
