"""Idempotency-Key: one request however often it is sent, at every endpoint that submits."""

import asyncio
import base64
import json
from typing import Any

import aiohttp
import pytest

from common.errors import GenServeError
from common.messages import CancelJob, ErrorInfo, Rejected, Submit
from gateway.dialects import generate, jobs, openai
from gateway.dialects.keys import HEADER, KEY_CHARS_MAX, RANDOM_SEEDS, RequestKey, read_key, told_as_header
from tests.gateway.conftest import Door, until
from tests.gateway.fake_router import FakeRouter, picture_bytes

IMAGES = "/v1/images/generations"
KEY = {HEADER: "mine"}


def _key(body: str = '{"prompt": "a fox"}', endpoint: str = "images", name: str = "mine") -> RequestKey:
    key = read_key([name], endpoint, openai.read_request(body.encode()))
    assert key is not None
    return key


def _asked(router: FakeRouter) -> list[Submit]:
    return [message for message in router.received if isinstance(message, Submit)]


# --- the dialect -------------------------------------------------------------------------------


def test_no_header_is_no_key() -> None:
    assert read_key([], "images", openai.read_request(b'{"prompt": "a"}')) is None


def test_the_longest_name_fits_a_key_of_the_router() -> None:
    longest = _key(endpoint="generate", name="~" * KEY_CHARS_MAX)
    assert len(Submit(rid="1", job=_job(), key=longest.of_job(openai.N_MAX - 1)).key) <= 128
    assert len(longest.digest) == 64


def _job() -> Any:
    return jobs.to_job(jobs.read_request(b'{"prompt": "a"}'), model="", client="", random_seed=0)


def test_twice_is_refused() -> None:
    with pytest.raises(GenServeError, match="twice") as raised:
        read_key(["a", "a"], "jobs", jobs.read_request(b'{"prompt": "a"}'))
    assert (raised.value.code, raised.value.param) == ("invalid_request", HEADER)


@pytest.mark.parametrize(
    "body",
    ['{ "n":1, "prompt" : "a fox" }', '{"prompt": "a\\u0020fox", "seed": null, "size": "auto"}',
     '{"prompt": "a fox", "priority": 0, "quality": "auto"}'],
)  # fmt: skip
def test_the_same_said_otherwise_is_the_same_body(body: str) -> None:
    assert _key(body) == _key()


@pytest.mark.parametrize(
    "body",
    ['{"prompt": "a fix"}', '{"prompt": "a fox", "n": 2}', '{"prompt": "a fox", "seed": 0}',
     '{"prompt": "a fox", "model": "gpt-image-1"}', '{"prompt": "a fox", "deadline_s": 5}'],
)  # fmt: skip
def test_another_body_has_another_digest(body: str) -> None:
    assert _key(body).digest != _key().digest
    assert _key(body).of_job(0) == _key().of_job(0)


def test_keys_of_endpoints_names_and_numbers_are_all_different() -> None:
    keys = [
        _key(endpoint=endpoint, name=name).of_job(index)
        for endpoint in ("images", "jobs", "generate")
        for name in ("a", "a/1", "jobs:a")
        for index in range(3)
    ]
    assert len(set(keys)) == len(keys)


def test_the_seed_is_by_chance_and_stays() -> None:
    seeds = [_key(name=str(number)).seed for number in range(1000)]
    assert len(set(seeds)) > 990
    assert all(0 <= seed < RANDOM_SEEDS for seed in seeds)
    assert max(seeds) > RANDOM_SEEDS * 0.99
    assert seeds == [_key(name=str(number)).seed for number in range(1000)]


def test_what_the_router_says_of_a_key_is_said_of_the_header() -> None:
    with pytest.raises(GenServeError, match="key") as raised, told_as_header(_key()):
        raise GenServeError("key_conflict", "the key 'images:mine/0' stands for another", param="key")
    assert (raised.value.param, raised.value.message) == (
        HEADER,
        "Idempotency-Key 'mine' was sent before, with another body",
    )


# --- over HTTP ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "picture"),
    [(IMAGES, lambda body: body["data"][0]["b64_json"]), ("/generate", lambda body: body["output"])],
)
async def test_a_repetition_gets_the_same_picture(door: Door, router: FakeRouter, path: str, picture: Any) -> None:
    answers = [await door.post(path, {"prompt": "a fox"}, headers=KEY) for _ in range(3)]
    assert [status for status, *_ in answers] == [200] * 3
    assert len({picture(body) for _, body, _ in answers}) == len(router.jobs) == 1
    status, body, headers = await door.post(path, {"prompt": "a fix"}, headers=KEY)
    assert (status, body["error"]["code"], body["error"]["param"]) == (422, "key_conflict", HEADER)
    assert "'mine' was sent before, with another body" in body["error"]["message"]
    assert headers["x-should-retry"] == "false"
    assert len(router.jobs) == 1


async def test_a_key_at_one_endpoint_says_nothing_at_another(door: Door, router: FakeRouter) -> None:
    for path in (IMAGES, "/generate", "/v1/jobs"):
        status, *_ = await door.post(path, {"prompt": "a fox"}, headers=KEY)
        assert status in {200, 202}
    assert len(router.jobs) == 3


async def test_several_pictures_have_a_key_each(door: Door, router: FakeRouter) -> None:
    first, second = [await door.post(IMAGES, {"prompt": "a fox", "n": 3}, headers=KEY) for _ in range(2)]
    assert first[1]["data"] == second[1]["data"]
    assert [job.spec.seed for job in router.jobs.values()] == [_key().seed + index for index in range(3)]
    assert list(router.keys) == [f"images:mine/{index}" for index in range(3)]
    for n in (1, 2, 4, 10):
        status, body, _ = await door.post(IMAGES, {"prompt": "a fox", "n": n}, headers=KEY)
        assert (status, body["error"]["code"]) == (422, "key_conflict"), n
    assert len(router.jobs) == 3, "another n leaves no further jobs behind"


async def test_many_at_once_wait_for_one_job(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    waiting = [asyncio.ensure_future(door.post(IMAGES, {"prompt": "a fox"}, headers=KEY)) for _ in range(20)]
    await until(lambda: router.count(Submit) == 20, "all to have asked")
    assert len(router.jobs) == 1
    router.finish(*router.jobs)
    answers = await asyncio.gather(*waiting)
    assert {status for status, *_ in answers} == {200}
    assert len({body["data"][0]["b64_json"] for _, body, _ in answers}) == 1


async def test_a_full_queue_leaves_what_was_admitted_to_the_repetition(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    full = Rejected(rid="", code="queue_full", message="the queue is full", retry_after_s=1.5)
    router.refuse = lambda spec: full if spec.seed == 12 else None
    body = {"prompt": "a fox", "n": 3, "seed": 10}
    status, *_ = await door.post(IMAGES, body, headers=KEY)
    assert status == 429
    assert router.states() == ["running"] * 2
    router.refuse, router.draws = lambda _spec: None, lambda _spec: True
    waiting = asyncio.ensure_future(door.post(IMAGES, body, headers=KEY))
    await until(lambda: len(router.jobs) == 3, "the third")
    for job_id in list(router.jobs)[:2]:
        router.finish(job_id)
    status, answer, _ = await waiting
    assert status == 200
    assert [base64.b64decode(item["b64_json"]) for item in answer["data"]] == [picture_bytes(10 + i) for i in range(3)]


async def test_hanging_up_with_a_key_leaves_the_job_to_the_repetition(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with aiohttp.ClientSession() as leaving:
        waiting = asyncio.ensure_future(leaving.post(door.url + IMAGES, json={"prompt": "a fox", "n": 2}, headers=KEY))
        await until(lambda: len(router.jobs) == 2, "two jobs")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await until(lambda: not door.server._link._submitted, "the request to be over")
    again = asyncio.ensure_future(door.post(IMAGES, {"prompt": "a fox", "n": 2}, headers=KEY))
    await until(lambda: router.count(Submit) == 4, "both to be asked for again")
    for job_id in router.jobs:
        router.finish(job_id)
    assert (await again)[0] == 200
    assert (router.count(CancelJob), router.states()) == (0, ["done"] * 2)


async def test_a_job_that_failed_is_not_drawn_again_by_its_key(door: Door, router: FakeRouter) -> None:
    router.fails = lambda _spec: ErrorInfo(code="out_of_memory", message="there is no room")
    for _ in range(2):
        status, body, _ = await door.post(IMAGES, {"prompt": "a fox"}, headers=KEY)
        assert (status, body["error"]["code"]) == (500, "out_of_memory")
    assert len(router.jobs) == 1


async def test_a_repetition_after_the_result_is_gone_says_so(door: Door, router: FakeRouter) -> None:
    await door.post(IMAGES, {"prompt": "a fox"}, headers=KEY)
    router.expire(*router.jobs)
    status, body, _ = await door.post(IMAGES, {"prompt": "a fox"}, headers=KEY)
    assert (status, body["error"]["code"], body["error"]["param"]) == (404, "not_found", HEADER)
    assert "no longer kept" in body["error"]["message"]


async def test_without_a_header_each_job_has_a_key_of_its_own(door: Door, router: FakeRouter) -> None:
    for _ in range(2):
        await door.post(IMAGES, {"prompt": "a fox", "n": 2, "seed": 1})
        await door.post("/generate", {"prompt": "a fox", "seed": 1})
    keys = [submit.key for submit in _asked(router)]
    assert len(set(keys)) == len(router.jobs) == 6
    assert not any(submit.digest for submit in _asked(router))


async def test_a_header_that_stands_twice(door: Door, router: FakeRouter) -> None:
    body = json.dumps({"prompt": "a fox"})
    headers = [(HEADER, "a"), (HEADER, "b"), ("Content-Type", "application/json")]
    async with door.client.post(f"{door.url}/v1/jobs", data=body, headers=headers) as answer:
        assert (answer.status, (await answer.json())["error"]["param"]) == (400, HEADER)
    assert router.count(Submit) == 0


class TestPatient:
    """A gateway that does not cancel when a client hangs up."""

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"cancel_on_disconnect": False, "wait_s": 1.0}

    async def test_hanging_up_cancels_nothing_but_waiting_too_long_does(self, door: Door, router: FakeRouter) -> None:
        router.draws = lambda _spec: False
        async with aiohttp.ClientSession() as leaving:
            waiting = asyncio.ensure_future(leaving.post(door.url + IMAGES, json={"prompt": "a fox"}))
            await until(lambda: router.jobs, "a job")
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: not door.server._link._submitted, "the request to be over")
        status, *_ = await door.post(IMAGES, {"prompt": "a fox"})
        assert status == 504
        await until(lambda: router.states() == ["running", "cancelled"], "the second alone to be cancelled")


def test_generate_has_a_digest_too() -> None:
    asked = generate.read_request(b'{"prompt": "a fox", "width": 64, "height": 64}')
    other = generate.read_request(b'{"prompt": "a fox", "width": 64, "height": 32}')
    one, two = read_key(["k"], "generate", asked), read_key(["k"], "generate", other)
    assert one is not None
    assert two is not None
    assert (one.of_job(0), one.digest != two.digest) == (two.of_job(0), True)
