"""Every route over real HTTP, in front of a router over a real socket."""

import asyncio
import base64
from typing import Any

import aiohttp
import msgspec
import pytest

from common.messages import CancelJob, ErrorInfo, Note, Rejected, StatusQuery, StatusReply, Submit
from gateway import link
from tests.common.samples import LIMITS, STATS
from tests.gateway.conftest import Door, until
from tests.gateway.fake_router import FakeRouter, picture_bytes
from tests.gateway.views import worker

IMAGES = "/v1/images/generations"
FULL = Rejected(rid="", code="queue_full", message="the queue is full", retry_after_s=1.5)


def _asked(router: FakeRouter) -> list[Submit]:
    return [message for message in router.received if isinstance(message, Submit)]


# --- drawing -----------------------------------------------------------------------------------


async def test_pictures_come_in_the_order_of_their_seeds(door: Door, router: FakeRouter) -> None:
    status, body, headers = await door.post(IMAGES, {"prompt": "a fox", "n": 10, "seed": 40, "size": "256x512"})
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert [base64.b64decode(item["b64_json"]) for item in body["data"]] == [picture_bytes(40 + i) for i in range(10)]
    assert [item["genserve"]["seed"] for item in body["data"]] == list(range(40, 50))
    assert (body["size"], body["data"][0]["genserve"]["drawn_size"]) == ("256x512", "128x128")
    assert body["model"] == "genserve-shapes"
    assert router.count(CancelJob) == 0


async def test_a_picture_of_many_frames_arrives_whole(door: Door, router: FakeRouter) -> None:
    router.picture_size = 3 * 512 * 1024 + 7
    _, body, _ = await door.post(IMAGES, {"prompt": "a fox", "seed": 1})
    assert base64.b64decode(body["data"][0]["b64_json"]) == picture_bytes(1, router.picture_size)


async def test_without_a_seed_requests_differ(door: Door, router: FakeRouter) -> None:
    for _ in range(2):
        await door.post(IMAGES, {"prompt": "a fox", "n": 2})
    seeds = [submit.job.seed for submit in _asked(router)]
    assert seeds[1] == seeds[0] + 1  # type: ignore[operator]  # the gateway always names one
    assert len(set(seeds)) == 4


async def test_who_asks_is_told_to_the_router(door: Door, router: FakeRouter) -> None:
    await door.post(IMAGES, {"prompt": "a fox"}, headers={"X-GenServe-Client": "studio"})
    await door.post("/generate", {"prompt": "a fox"})
    assert [submit.job.client for submit in _asked(router)] == ["studio", "127.0.0.1"]


async def test_an_alias_is_looked_up_once_for_many(door: Door, router: FakeRouter) -> None:
    for name in ("gpt-image-1", "dall-e-3", "flux1-dev", "genserve-shapes", ""):
        status, body, _ = await door.post(IMAGES, {"prompt": "a fox", "model": name})
        assert (status, body["model"]) == (200, "genserve-shapes")
    assert [submit.job.model for submit in _asked(router)] == ["", "", "", "genserve-shapes", ""]
    assert router.count(StatusQuery) == 1


async def test_warnings_reach_both_dialects(door: Door, router: FakeRouter) -> None:
    router.notes = (Note(code="prompt_cut", message="only 512 tokens were read"),)
    _, body, _ = await door.post(IMAGES, {"prompt": "a fox", "n": 2})
    assert body["warnings"] == [{"code": "prompt_cut", "message": "only 512 tokens were read"}]
    _, body, _ = await door.post("/generate", {"prompt": "a fox"})
    assert body["warnings"] == [{"code": "prompt_cut", "message": "only 512 tokens were read"}]


async def test_generate_and_its_task_again_and_again(door: Door, router: FakeRouter) -> None:
    status, body, _ = await door.post("/generate", {"prompt": "a fox", "seed": 5, "save_disk_path": "/tmp/fox.png"})
    assert (status, body["success"], body["elapsed_time"]) == (200, True, "1.25s")
    assert base64.b64decode(body["output"]) == picture_bytes(5)
    assert _asked(router)[0].job.save is True
    for _ in range(3):
        status, task, _ = await door.get(f"/task/{body['task_id']}")
        assert (status, task["status"], task["image_base64"]) == (200, "done", body["output"])


async def test_tasks_that_are_not_done(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    waiting = asyncio.ensure_future(door.post("/generate", {"prompt": "a fox"}))
    await until(lambda: router.jobs, "a job")
    [job_id] = router.jobs
    status, task, _ = await door.get(f"/task/{job_id}")
    assert (status, task["status"], task["error"]) == (200, "running", None)
    router.fails = lambda _spec: ErrorInfo(code="poison", message="it ended two engines")
    router.finish(job_id)
    status, body, headers = await waiting
    assert (status, body["success"], body["error"]["code"], body["task_id"]) == (500, False, "poison", job_id)
    assert headers["x-should-retry"] == "false"
    _, task, _ = await door.get(f"/task/{job_id}")
    assert (task["status"], task["message"], task["error"]["code"]) == ("failed", "it ended two engines", "poison")
    for unknown in ("0" * 32, "nonsense"):
        status, body, _ = await door.get(f"/task/{unknown}")
        assert (status, body["error"]["code"]) == (404, "not_found")


# --- refusals ----------------------------------------------------------------------------------


async def test_a_full_queue_says_when_to_come_back(door: Door, router: FakeRouter) -> None:
    router.refuse = lambda _spec: FULL
    status, body, headers = await door.post(IMAGES, {"prompt": "a fox"})
    assert (status, body["error"]["code"], body["error"]["type"]) == (429, "queue_full", "rate_limit_error")
    assert (headers["Retry-After"], headers["retry-after-ms"]) == ("2", "1500")
    assert "x-should-retry" not in headers
    status, body, headers = await door.post("/generate", {"prompt": "a fox"})
    assert (status, body["success"], body["error"]["code"], headers["Retry-After"]) == (429, False, "queue_full", "2")


async def test_all_are_admitted_or_none(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    router.refuse = lambda spec: FULL if spec.seed == 13 else None
    status, *_ = await door.post(IMAGES, {"prompt": "a fox", "n": 5, "seed": 10})
    assert status == 429
    await until(lambda: router.states() == ["cancelled"] * 4, "the admitted four to be cancelled")


async def test_one_failure_ends_the_request_and_the_others(door: Door, router: FakeRouter) -> None:
    router.draws = lambda spec: spec.seed == 2
    router.fails = lambda spec: ErrorInfo(code="engine_error", message="it broke") if spec.seed == 2 else None
    status, body, _ = await door.post(IMAGES, {"prompt": "a fox", "n": 3, "seed": 0})
    assert (status, body["error"]["code"], body["error"]["message"]) == (500, "engine_error", "it broke")
    await until(lambda: sorted(router.states()) == ["cancelled", "cancelled", "failed"], "the rest to be cancelled")


@pytest.mark.parametrize(
    ("param", "images", "older"),
    [("steps", "num_inference_steps", "num_inference_steps"), ("guidance_scale", "guidance_scale", "cfg"),
     ("size", "size", "size"), (None, None, None)],
)  # fmt: skip
async def test_a_refused_field_has_the_dialects_name(
    door: Door, router: FakeRouter, param: str | None, images: str | None, older: str | None
) -> None:
    router.refuse = lambda _spec: Rejected(rid="", code="invalid_request", message="not so", param=param)
    status, body, _ = await door.post(IMAGES, {"prompt": "a fox"})
    assert (status, body["error"]["param"]) == (400, images)
    status, body, _ = await door.post("/generate", {"prompt": "a fox"})
    assert (status, body["error"]["param"]) == (400, older)


async def test_unknown_model_is_the_routers_list(door: Door, router: FakeRouter) -> None:
    message = "there is no model 'sdxl'; there are genserve-shapes"
    router.refuse = lambda _spec: Rejected(rid="", code="unknown_model", message=message, param="model")
    status, body, _ = await door.post(IMAGES, {"prompt": "a fox", "model": "sdxl"})
    assert (status, body["error"]["code"], body["error"]["message"]) == (404, "unknown_model", message)
    status, body, _ = await door.get("/v1/models/org/sdxl")
    assert (status, body["error"]["code"]) == (404, "unknown_model")


class TestImpatient:
    """A gateway that waits 0.4 s at most."""

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"wait_s": 0.4, "router_timeout_s": 0.1}

    async def test_a_request_that_waits_too_long_is_cancelled(self, door: Door, router: FakeRouter) -> None:
        router.draws = lambda _spec: False
        status, body, _ = await door.post(IMAGES, {"prompt": "a fox"})
        assert (status, body["error"]["code"]) == (504, "deadline_exceeded")
        await until(lambda: router.states() == ["cancelled"], "the job to be cancelled")

    async def test_a_router_that_is_away_is_said_so(self, door: Door, router: FakeRouter) -> None:
        router.stop()
        status, body, headers = await door.post(IMAGES, {"prompt": "a fox"})
        assert (status, body["error"]["code"]) == (503, "unavailable")
        assert router.endpoint in body["error"]["message"]
        assert int(headers["Retry-After"]) >= 1
        for path in ("/v1/status", "/status", "/gpu/load", "/config", "/models", "/devices", f"/task/{'0' * 32}"):
            status, body, headers = await door.get(path)
            assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "unavailable", "2"), path
        status, body, _ = await door.get("/health")
        assert (status, body["status"], body["router"]) == (503, "unhealthy", False)
        assert (await door.get("/health/live"))[0] == 200


# --- the other routes --------------------------------------------------------------------------


async def test_status_is_the_routers_numbers(door: Door, router: FakeRouter) -> None:
    router.workers = tuple(worker(f"cuda:{n}", f"host{n // 8}", busy=n % 2 == 0) for n in range(20))
    router.workers_per_page = 7
    _, body, _ = await door.get("/status")
    view = body["concurrent_manager"]
    assert (view["total_instances"], view["busy_instances"]) == (20, 10)
    assert len(view["model_instances"]["genserve-shapes"]) == 20
    assert (view["total_queue_size"], view["global_queue_size"]) == (STATS.queued, STATS.overflow)
    assert view["task_timeout"] == LIMITS.job_deadline_s
    assert set(body["gpu_load"]) == set(body["device_info"])
    _, load, _ = await door.get("/gpu/load")
    assert load["gpu_load_info"] == body["gpu_load"]
    assert sorted(load["model_gpu_config"]["genserve-shapes"]) == sorted(body["gpu_load"])
    _, devices, _ = await door.get("/devices")
    assert devices == {"devices": body["device_info"], "device_count": 20}
    _, models, _ = await door.get("/models")
    assert models["default_model"] == "genserve-shapes"


async def test_the_routers_status_as_it_came(door: Door, router: FakeRouter) -> None:
    router.workers = tuple(worker(f"cuda:{n}") for n in range(9))
    router.workers_per_page = 7
    _, body, _ = await door.get("/v1/status")
    assert msgspec.convert({"rid": "1", **body}, StatusReply).workers == router.workers
    assert (body["limits"], body["failures"]) == (msgspec.structs.asdict(LIMITS), [])
    assert "rid" not in body


async def test_health_follows_the_workers(door: Door, router: FakeRouter) -> None:
    for path in ("/health", "/health/ready"):
        status, body, _ = await door.get(path)
        assert (status, body["status"], body["workers_ready"]) == (200, "healthy", 2)
    router.workers = (worker("cuda:0", state="loading", detail="warming up"),)
    for path in ("/health", "/health/ready"):
        status, body, _ = await door.get(path)
        assert (status, body["reasons"]) == (503, ["cuda:0 is loading: warming up"])


async def test_models(door: Door) -> None:
    _, body, _ = await door.get("/v1/models")
    assert body["object"] == "list"
    assert [item["id"] for item in body["data"]] == ["genserve-shapes"]
    _, item, _ = await door.get("/v1/models/gpt-image-1")
    assert item == body["data"][0]


async def test_config_names_the_true_port(door: Door) -> None:
    _, body, _ = await door.get("/config")
    assert door.url == f"http://127.0.0.1:{body['service']['port']}"


async def test_home_lists_what_there_is(door: Door) -> None:
    async with door.client.get(door.url + "/") as answer:
        page = await answer.text()
    assert f"curl -s {door.url}{IMAGES}" in page
    for path in (IMAGES, "/generate", "/status", "/health/ready", "/task/{task_id}"):
        assert path in page


# --- hanging up, and many at once --------------------------------------------------------------


async def test_hanging_up_cancels_the_jobs(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with aiohttp.ClientSession() as leaving:
        waiting = asyncio.ensure_future(leaving.post(door.url + IMAGES, json={"prompt": "a fox", "n": 3}))
        await until(lambda: len(router.jobs) == 3, "three jobs")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await until(lambda: router.states() == ["cancelled"] * 3, "all to be cancelled")


async def test_hanging_up_before_the_routers_word_cancels_too(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    router.stop()
    waiting = asyncio.ensure_future(door.post(IMAGES, {"prompt": "left at once"}))
    await asyncio.sleep(0.05)  # the request is on its way, the router is not there
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    router.start()
    status, *_ = await door.get("/status")
    assert status == 200
    assert [state for state in router.states() if state != "cancelled"] == []


async def test_a_hundred_at_once(door: Door, router: FakeRouter) -> None:
    answers = await asyncio.gather(*(door.post(IMAGES, {"prompt": "a fox", "seed": seed}) for seed in range(100)))
    for seed, (status, body, _) in enumerate(answers):
        assert status == 200
        assert base64.b64decode(body["data"][0]["b64_json"]) == picture_bytes(seed)
    assert len(router.jobs) == 100


async def test_too_many_waiting_are_told_so(door: Door, router: FakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "WAITING_MAX", 4)
    router.draws = lambda _spec: False
    waiting = asyncio.ensure_future(door.post(IMAGES, {"prompt": "a fox", "n": 4}))
    await until(lambda: len(router.jobs) == 4, "four jobs")
    status, body, _ = await door.post(IMAGES, {"prompt": "a fox"})
    assert (status, body["error"]["code"]) == (503, "unavailable")
    for job_id in router.jobs:
        router.finish(job_id)
    assert (await waiting)[0] == 200
