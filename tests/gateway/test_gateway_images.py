"""OpenAI's images over a fake router: events as they come, pictures that are sent, links; and the older form upload."""

import asyncio
import base64
import io
import json
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from common.clock import monotonic_s
from common.errors import ERRORS
from common.messages import CancelJob, ErrorInfo, InputSpec, Rejected, Submit
from gateway import sse
from tests.common.test_picture_files import file_of
from tests.gateway.conftest import Door, until
from tests.gateway.fake_router import FakeRouter, picture_bytes

IMAGES, EDITS, UPLOAD, JOBS = "/v1/images/generations", "/v1/images/edits", "/generate/upload", "/v1/jobs"
PICTURE, MASK = file_of("jpeg"), file_of("png", mode="RGBA")


def form(files: dict[str, bytes | list[bytes]], **fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, value in {"prompt": "a fox", **fields}.items():
        data.add_field(name, value)
    for name, given in files.items():
        for content in given if isinstance(given, list) else [given]:
            data.add_field(name, io.BytesIO(content), filename="../x.png", content_type="application/octet-stream")
    return data


async def send(door: Door, path: str, data: aiohttp.FormData, **more: Any) -> tuple[int, Any]:
    async with door.client.post(door.url + path, data=data, **more) as answer:
        return answer.status, await answer.json()


async def events(answer: aiohttp.ClientResponse) -> list[tuple[str, dict[str, Any]]]:
    found = []
    text = (await answer.read()).decode()
    assert text.endswith("\n\n")
    for block in text[:-2].split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((lines["event"], json.loads(lines["data"])))
    return found


# --- events ----------------------------------------------------------------------------------------


async def test_a_stream_has_the_previews_and_the_picture(door: Door) -> None:
    body = {"prompt": "a fox", "stream": True, "partial_images": 2, "seed": 7, "quality": "high"}
    async with door.client.post(door.url + IMAGES, json=body) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Request-Id"]
        told = await events(answer)
    assert [name for name, _ in told] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    for index, (name, event) in enumerate(told[:2]):
        assert event["type"] == name
        assert base64.b64decode(event.pop("b64_json")) == picture_bytes(-1 - index)
        assert event.pop("genserve").pop("step") == index + 1
        assert event.pop("created_at") > 1.7e9
        assert event == {
            "type": name, "output_format": "png", "partial_image_index": index, "size": "64x64", "quality": "high",
            "background": "opaque",
        }  # fmt: skip
    name, event = told[2]
    assert base64.b64decode(event.pop("b64_json")) == picture_bytes(7)
    assert event.pop("genserve")["seed"] == 7
    del event["created_at"]
    assert event == {
        "type": name, "output_format": "png", "size": "128x128", "quality": "high", "background": "opaque", "index": 0,
        "usage": {
            "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        },
    }  # fmt: skip


async def test_a_stream_of_several_says_which_is_which(door: Door) -> None:
    body = {"prompt": "a fox", "stream": True, "n": 3, "seed": 7}
    async with door.client.post(door.url + IMAGES, json=body) as answer:
        told = await events(answer)
    assert sorted((event["index"], event["genserve"]["seed"]) for _, event in told) == [(0, 7), (1, 8), (2, 9)]


async def test_what_is_refused_before_the_first_event_has_its_status(door: Door, router: FakeRouter) -> None:
    router.refuse = lambda _: Rejected(rid="", code="queue_full", message="full", retry_after_s=2.5)
    status, body, headers = await door.post(IMAGES, {"prompt": "a fox", "stream": True})
    assert (status, body["error"]["code"], headers["retry-after-ms"]) == (429, "queue_full", "2500")


async def test_what_fails_later_is_the_last_event(door: Door, router: FakeRouter) -> None:
    router.fails = lambda _: ErrorInfo(code="out_of_memory", message="too large")
    async with door.client.post(door.url + IMAGES, json={"prompt": "a fox", "stream": True}) as answer:
        assert answer.status == 200
        [(name, event)] = await events(answer)
    assert name == "error"
    assert (event["error"]["code"], event["error"]["type"]) == ("out_of_memory", "server_error")
    assert event["error"]["what_to_do"] == ERRORS["out_of_memory"].next_step


async def test_one_failure_ends_the_others(door: Door, router: FakeRouter) -> None:
    router.draws = lambda spec: spec.seed == 8
    router.fails = lambda _: ErrorInfo(code="engine_error", message="no")
    body = {"prompt": "a fox", "stream": True, "n": 3, "seed": 7}
    async with door.client.post(door.url + IMAGES, json=body) as answer:
        assert [name for name, _ in await events(answer)] == ["error"]
    await until(lambda: router.states() == ["cancelled", "failed", "cancelled"], "cancelled jobs")


async def test_silence_is_kept_alive_and_hanging_up_cancels(
    door: Door, router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.routes.images.KEEP_ALIVE_S", 0.05)
    router.draws = lambda _: False
    async with door.client.post(door.url + IMAGES, json={"prompt": "a fox", "stream": True}) as answer:
        assert await answer.content.readline() == b": keep-alive\n"
        assert router.count(CancelJob) == 0
        answer.close()
    await until(lambda: router.states() == ["cancelled"], "a cancelled job")
    assert sse.KEEP_ALIVE_S == 15.0


@pytest.mark.parametrize("settings", [{"wait_s": 0.3}])
async def test_a_stream_ends_in_time(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _: False
    async with door.client.post(door.url + IMAGES, json={"prompt": "a fox", "stream": True}) as answer:
        [(name, event)] = await events(answer)
    assert (name, event["error"]["code"]) == ("error", "deadline_exceeded")
    await until(lambda: router.states() == ["cancelled"], "a cancelled job")


@pytest.mark.parametrize("settings", [{"send_timeout_s": 0.2}])
async def test_a_client_that_does_not_read_is_cut(door: Door, router: FakeRouter) -> None:
    router.picture_size = 40_000_000
    router.draws = lambda spec: spec.seed == 7
    body = json.dumps({"prompt": "a fox", "stream": True, "n": 2, "seed": 7}).encode()
    head = f"POST {IMAGES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    async with door.raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body):
        await until(lambda: "cancelled" in router.states(), "the other job cancelled")


# --- formats and links -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "format_", "quality"),
    [
        ({}, "png", None), ({"output_compression": 100}, "png", None),
        ({"output_format": "jpeg"}, "jpeg", None), ({"output_format": "webp", "output_compression": 0}, "webp", 1),
        ({"output_format": "jpeg", "output_compression": 60}, "jpeg", 60),
    ],
)  # fmt: skip
async def test_formats(
    door: Door, router: FakeRouter, asked: dict[str, Any], format_: str, quality: int | None
) -> None:
    status, body, _ = await door.post(IMAGES, {"prompt": "a fox", **asked})
    assert (status, body["output_format"]) == (200, format_)
    (job,) = router.jobs.values()
    assert (job.spec.format, job.spec.quality) == (format_, quality)


async def test_a_link_leads_to_the_picture_for_whoever_has_it(door: Door) -> None:
    status, body, _ = await door.post(IMAGES, {"prompt": "a fox", "response_format": "url", "seed": 3, "n": 2})
    assert status == 200
    for index, item in enumerate(body["data"]):
        assert "b64_json" not in item
        assert item["url"].startswith(door.url + "/v1/images/files/")
        async with door.client.get(item["url"]) as answer:
            assert (answer.status, answer.content_type) == (200, "image/png")
            assert await answer.read() == picture_bytes(3 + index)
            assert "max-age=3" in answer.headers["Cache-Control"]
        wrong = item["url"][:-1] + ("0" if item["url"][-1] != "0" else "1")
        status, refused, headers = await door.get(urlsplit(wrong).path + "?" + urlsplit(wrong).query)
        assert (status, refused["error"]["param"], headers["x-should-retry"]) == (403, "signature", "false")


@pytest.mark.parametrize("settings", [{"link_ttl_s": 1.0, "public_url": "https://pictures.example.org"}])
async def test_a_link_ends(door: Door) -> None:
    _, body, _ = await door.post(IMAGES, {"prompt": "a fox", "response_format": "url"})
    url = urlsplit(body["data"][0]["url"])
    assert (url.scheme, url.netloc) == ("https", "pictures.example.org")

    path, status, deadline = f"{door.url}{url.path}?{url.query}", 200, monotonic_s() + 10
    while status == 200 and monotonic_s() < deadline:
        async with door.client.get(path) as answer:
            status = answer.status
    status, body, _ = await door.get(path.removeprefix(door.url))
    assert status == 403
    error = body["error"]
    assert error["param"] == "expires"
    assert "gateway.link_ttl_s" in error["message"]


# --- pictures that are sent ------------------------------------------------------------------------


async def test_a_job_to_be_fetched_later_may_start_from_a_picture_too(door: Door, router: FakeRouter) -> None:
    files: dict[str, bytes | list[bytes]] = {"image": PICTURE, "mask": MASK}
    fields = {"seed": "5", "strength": "0.5", "previews": "3", "output_format": "webp"}
    headers = {"Idempotency-Key": "mine"}
    status, first = await send(door, JOBS, form(files, **fields), headers=headers)
    assert status == 202
    [job] = router.jobs.values()
    assert (job.spec.seed, job.spec.strength, job.spec.previews, job.spec.format) == (5, 0.5, 3, "webp")
    assert [each.kind for each in job.spec.inputs] == ["image", "mask"]
    assert router.files == [PICTURE + MASK]
    status, again = await send(door, JOBS, form(files, **fields), headers=headers)
    assert (status, again["id"]) == (200, first["id"])
    status, body = await send(door, JOBS, form({"image": PICTURE}, **fields), headers=headers)
    assert (status, body["error"]["code"]) == (422, "key_conflict"), "the files are part of what was asked"


@pytest.mark.parametrize(
    ("files", "fields", "param"),
    [
        ({"mask": MASK}, {}, "image"),
        ({"image": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}, {}, "image"),
        ({"image": [PICTURE, PICTURE]}, {}, "image"),
        ({"image": PICTURE}, {"strength": "2"}, "strength"),
        ({"image": PICTURE}, {"n": "2"}, "n"),
        ({"image": PICTURE}, {"size": "1x"}, "size"),
        ({"image": PICTURE}, {"webhook": "https://example.org"}, "webhook"),
        ({"image": PICTURE}, {"webhook": '{"url": "https://example.org", "secret": "x"}'}, "webhook.url"),
    ],
)
async def test_what_is_wrong_with_a_jobs_form(
    door: Door, router: FakeRouter, files: Any, fields: dict[str, str], param: str
) -> None:
    status, body = await send(door, JOBS, form(files, **fields))
    assert (status in (400, 403), body["error"]["param"]) == (True, param)
    assert not router.jobs


async def test_an_edit_is_a_job_with_its_files(door: Door, router: FakeRouter) -> None:
    files: dict[str, bytes | list[bytes]] = {"image[]": [PICTURE], "mask": MASK}
    fields = {"n": "2", "seed": "5", "strength": "0.5", "size": "64x64", "user": "", "input_fidelity": "high"}
    status, body = await send(door, EDITS, form(files, **fields))
    assert status == 200
    assert [warning["code"] for warning in body["warnings"]] == ["input_fidelity_has_no_effect"]
    assert router.files == [PICTURE + MASK] * 2
    for index, job in enumerate(router.jobs.values()):
        assert (job.spec.seed, job.spec.strength, job.spec.width) == (5 + index, 0.5, 64)
        assert [(each.kind, each.format, each.width, each.height) for each in job.spec.inputs] == [
            ("image", "jpeg", 40, 30),
            ("mask", "png", 40, 30),
        ]
        assert all(type(each) is InputSpec for each in job.spec.inputs)


async def test_an_edit_may_be_streamed(door: Door) -> None:
    data = form({"image": PICTURE}, stream="true", partial_images="1")
    async with door.client.post(door.url + EDITS, data=data) as answer:
        assert [name for name, _ in await events(answer)] == ["image_edit.partial_image", "image_edit.completed"]


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
BOMB = PICTURE[: PICTURE.index(b"\xff\xc0") + 5] + b"\xff\xff\xff\xff" + PICTURE[PICTURE.index(b"\xff\xc0") + 9 :]


@pytest.mark.parametrize(
    ("files", "fields", "param", "says"),
    [
        ({}, {}, "image", "missing"),
        ({"image": SVG}, {}, "image", "neither PNG nor JPEG nor WebP"),
        ({"image": b"GIF89a" + bytes(100)}, {}, "image", "neither PNG"),
        ({"image": PICTURE[:20]}, {}, "image", "damaged"),
        ({"image": BOMB}, {}, "image", "65535x65535"),
        ({"image": PICTURE, "mask": b"no mask"}, {}, "mask", "neither PNG"),
        ({"image": PICTURE, "mask": file_of("png", (30, 40))}, {}, "mask", "40x30"),
        ({"image[]": [PICTURE, PICTURE]}, {}, "image", "one picture"),
        ({"image": PICTURE, "mask": [MASK, MASK]}, {}, "mask", "one is taken"),
        ({"image": PICTURE, "picture": PICTURE}, {}, "picture", "image, mask"),
        ({}, {"image": "https://example.org/cat.png"}, "image", "no address is fetched"),
        ({"image": PICTURE}, {"n": "many"}, "n", "not right"),
        ({"image": PICTURE}, {"n": "11"}, "n", "not right"),
        ({"image": PICTURE}, {"stream": "maybe"}, "stream", "not right"),
        ({"image": PICTURE}, {"strength": "2"}, "strength", "not right"),
        ({"image": PICTURE}, {"size": "big"}, "size", "WIDTHxHEIGHT"),
        ({"image": PICTURE}, {"markup": "x"}, "markup", "no field"),
        ({"image": PICTURE}, {"prompt": " "}, "prompt", "empty"),
    ],
)
async def test_an_edit_is_refused_with_its_field(
    door: Door,
    router: FakeRouter,
    files: dict[str, bytes | list[bytes]],
    fields: dict[str, str],
    param: str,
    says: str,
) -> None:
    status, body = await send(door, EDITS, form(files, **fields))
    assert (status, body["error"]["param"]) == (400, param)
    assert says in body["error"]["message"]
    assert router.count(Submit) == 0


async def test_a_form_is_asked_for_by_its_name(door: Door) -> None:
    status, body, _ = await door.post(EDITS, {"prompt": "a fox", "image": "https://example.org/cat.png"})
    assert (status, body["error"]["param"]) == (415, "Content-Type")
    assert "multipart/form-data" in body["error"]["message"]


@pytest.mark.parametrize("settings", [{"upload_bytes_max": 5000}])
async def test_a_long_form_is_cut(door: Door) -> None:
    for chunked in (None, True):
        status, body = await send(door, EDITS, form({"image": bytes(6000)}), chunked=chunked)
        assert (status, body["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize("settings", [{"uploads_mb_max": 1}])
async def test_there_is_room_for_so_many_uploads_and_it_is_given_back(door: Door, router: FakeRouter) -> None:
    gateway = door.server._gateway
    status, body = await send(door, EDITS, form({"image": bytes(2 * 1024 * 1024)}))
    assert (status, body["error"]["code"]) == (503, "unavailable")
    assert gateway.upload_bytes == 0
    router.draws = lambda _: False
    waiting = asyncio.ensure_future(send(door, EDITS, form({"image": PICTURE})))
    await until(lambda: router.jobs, "a job")
    assert gateway.upload_bytes > len(PICTURE)
    router.finish(next(iter(router.jobs)))
    assert (await waiting)[0] == 200
    assert gateway.upload_bytes == 0


async def test_a_key_stands_for_the_files_as_well(door: Door, router: FakeRouter) -> None:
    headers = {"Idempotency-Key": "k"}
    for _ in range(2):
        assert (await send(door, EDITS, form({"image": PICTURE}), headers=headers))[0] == 200
    assert len(router.jobs) == 1
    status, body = await send(door, EDITS, form({"image": MASK}), headers=headers)
    assert (status, body["error"]["code"]) == (422, "key_conflict")


@pytest.mark.parametrize("settings", [{"upload_timeout_s": 0.2}])
async def test_a_slow_form_is_cut(door: Door) -> None:
    head = f"POST {EDITS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    async with door.raw(f"{head}Content-Length: 9000\r\n\r\n--x\r\n".encode()) as reader:
        answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"gateway.upload_timeout_s" in answer


# --- the older dialect -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "fields", "kinds", "strength"),
    [
        ({}, {"mode": "text2img", "strength": "0.8"}, [], None),
        ({"input_image": PICTURE}, {"strength": "0.8"}, ["image"], 0.8),
        ({"input_image": PICTURE, "mask_image": MASK}, {"mode": "fill"}, ["image", "mask"], None),
    ],
)
async def test_the_older_form(
    door: Door,
    router: FakeRouter,
    files: dict[str, bytes | list[bytes]],
    fields: dict[str, str],
    kinds: list[str],
    strength: float | None,
) -> None:
    more = {"model_id": "flux1-dev", "num_inference_steps": "4", "cfg": "2.5", "seed": "3", **fields}
    status, body = await send(door, UPLOAD, form(files, **more))
    assert (status, body["success"], body["seed"]) == (200, True, 3)
    assert base64.b64decode(body["image_base64"]) == picture_bytes(3)
    (job,) = router.jobs.values()
    assert (job.spec.steps, job.spec.guidance_scale, job.spec.strength) == (4, 2.5, strength)
    assert [each.kind for each in job.spec.inputs] == kinds


@pytest.mark.parametrize(
    ("files", "fields", "param"),
    [
        ({}, {"mode": "img2img"}, "input_image"),
        ({"input_image": PICTURE}, {"mode": "fill"}, "mask_image"),
        ({"input_image": PICTURE}, {"mode": "text2img"}, "input_image"),
        ({"mask_image": MASK}, {}, "input_image"),
        ({"control_image": PICTURE}, {"mode": "controlnet"}, "control_image"),
        ({}, {"mode": "redux"}, "mode"),
        ({}, {"loras": "[]"}, "loras"),
        ({"input_image": SVG}, {}, "input_image"),
    ],
)
async def test_the_older_form_is_refused_with_its_field(
    door: Door, files: dict[str, bytes | list[bytes]], fields: dict[str, str], param: str
) -> None:
    status, body = await send(door, UPLOAD, form(files, **fields))
    assert (status, body["success"], body["error"]["param"]) == (400, False, param)
