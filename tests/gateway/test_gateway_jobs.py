"""/v1/jobs: submit, look, fetch, cancel."""

import asyncio
import hashlib
from typing import Any

import aiohttp
import pytest
from msgspec import structs

from common.messages import CancelJob, ErrorInfo, JobMoment, JobSpec, Note, Rejected, Submit
from gateway.dialects import jobs
from tests.common.samples import JOB, PICTURE
from tests.gateway.conftest import Door, until
from tests.gateway.fake_router import FakeRouter, picture_bytes
from tests.gateway.views import shown

JOBS = "/v1/jobs"
KEY = {"Idempotency-Key": "mine"}


def _link(job_id: str) -> str:
    return f"{JOBS}/{job_id}"


# --- the dialect -------------------------------------------------------------------------------


def test_everything_asked_reaches_the_job() -> None:
    asked = jobs.read_request(
        b'{"prompt": "a fox", "model": "x", "size": "640x480", "seed": 9, "num_inference_steps": 12, "priority": -2,'
        b'"guidance_scale": 2, "negative_prompt": "fog", "true_cfg_scale": 3.5, "deadline_s": 90}'
    )
    assert jobs.to_job(asked, model="flux1-dev", client="me", random_seed=1) == JobSpec(
        prompt="a fox", negative_prompt="fog", model="flux1-dev", width=640, height=480, steps=12, guidance_scale=2.0,
        true_cfg_scale=3.5, seed=9, priority=-2, client="me", deadline_s=90.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "format_", "quality"),
    [('"webp"', "webp", None), ('"jpeg", "output_compression": 60', "jpeg", 60), ('"png"', "png", None)],
)
def test_the_file_is_of_the_format_that_is_asked_for(asked: str, format_: str, quality: int | None) -> None:
    request = jobs.read_request(f'{{"prompt": "a fox", "output_format": {asked}}}'.encode())
    job = jobs.to_job(request, model="", client="", random_seed=1)
    assert (job.format, job.quality) == (format_, quality)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"output_format": "gif"}, "output_format"),
        ({"output_format": "x"}, "output_format"),
        ({"output_compression": 60}, "output_compression"),
        ({"output_format": "jpeg", "output_compression": 101}, "output_compression"),
    ],
)
async def test_a_format_that_there_is_not(door: Door, router: FakeRouter, asked: dict[str, Any], param: str) -> None:
    status, answer, _ = await door.post(JOBS, {"prompt": "x", **asked})
    assert (status, answer["error"]["param"]) == (400, param)
    assert router.jobs == {}


def test_the_least_body_leaves_all_to_the_model() -> None:
    asked = jobs.read_request(b'{"prompt": "a fox", "seed": null}')
    assert jobs.to_job(asked, model="", client="", random_seed=77) == JobSpec(prompt="a fox", seed=77)


def test_a_running_job_in_full() -> None:
    view = shown(
        jobs.to_view(JOB, (JobMoment(at=1.5, event="accepted"), JobMoment(at=2.5, event="started", detail="cuda:0")))
    )
    assert view == {
        "id": JOB.job_id, "state": "running", "model": "flux1-dev", "size": "1024x1024", "seed": 7, "steps": 28,
        "step": 3, "guidance_scale": 3.5, "priority": 0, "client": "", "position": 0, "eta_s": 4.5, "created_at": 1.5,
        "started_at": 2.5, "ended_at": None, "deadline_at": 0.0, "attempts": 1, "device": "cuda:0",
        "worker": "host/cuda:0", "error": None, "timings": None,
        "image": None, "warnings": ({"code": "enlarged", "message": "drawn at 128x128 and enlarged"},),
        "links": {
            "self": f"/v1/jobs/{JOB.job_id}", "image": f"/v1/jobs/{JOB.job_id}/image",
            "events": f"/v1/jobs/{JOB.job_id}/events",
        },
        "history": ({"at": 1.5, "event": "accepted", "detail": ""},
                    {"at": 2.5, "event": "started", "detail": "cuda:0"}),
    }  # fmt: skip


def test_ends_are_told_in_full() -> None:
    done = shown(jobs.to_view(structs.replace(JOB, state="done", ended_at=9.0, picture=PICTURE)))
    assert (done["ended_at"], "history" in done) == (9.0, False)
    assert done["image"] == {name: getattr(PICTURE, name) for name in ("format", "width", "height", "bytes", "sha256")}
    error = ErrorInfo(code="poison", message="it ended two engines", next_step="read the log")
    failed = shown(jobs.to_view(structs.replace(JOB, state="failed", error=error)))
    assert failed["error"] == {
        "message": "it ended two engines", "type": "server_error", "param": None, "code": "poison",
        "what_to_do": "read the log",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "eta_s", "says", "retry_after_s"),
    [("running", 4.5, "is running, at step 3 of 28", 4.5), ("queued", None, "is queued, number 7 in the queue", None),
     ("queued", 4000.0, "number 7", 60.0)],
)  # fmt: skip
def test_a_picture_that_is_not_there_yet(
    state: str, eta_s: float | None, says: str, retry_after_s: float | None
) -> None:
    error = jobs.not_finished(structs.replace(JOB, state=state, position=7, eta_s=eta_s))
    assert (error.status, error.code, error.retry_after_s) == (409, "not_finished", retry_after_s)
    assert says in error.message


# --- over HTTP ---------------------------------------------------------------------------------


async def test_a_job_from_its_submission_to_its_picture(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    router.notes = (Note(code="prompt_cut", message="only 512 tokens were read"),)
    status, job, headers = await door.post(
        JOBS, {"prompt": "a fox", "seed": 5, "priority": 3, "deadline_s": 90}, headers={"X-GenServe-Client": "studio"}
    )
    assert (status, job["state"], job["seed"], job["priority"]) == (202, "running", 5, 3)
    assert (job["client"], job["warnings"][0]["code"]) == ("studio", "prompt_cut")
    assert headers["Location"] == job["links"]["self"] == _link(job["id"])
    assert "history" not in job
    [submit] = [message for message in router.received if isinstance(message, Submit)]
    assert (submit.job.deadline_s, submit.digest, len(submit.key)) == (90.0, "", 32)

    status, early, headers = await door.get(job["links"]["image"])
    assert (status, early["error"]["code"], headers["Retry-After"]) == (409, "not_finished", "2")
    assert "x-should-retry" not in headers

    router.finish(job["id"])
    await until(lambda: router.states() == ["done"], "the end")
    status, done, _ = await door.get(job["links"]["self"])
    assert (status, done["state"], done["id"]) == (200, "done", job["id"])
    assert [moment["event"] for moment in done["history"]] == ["accepted", "started", "done"]
    async with door.client.get(door.url + done["links"]["image"]) as answer:
        data = await answer.read()
        assert (answer.status, answer.headers["Content-Type"], data) == (200, "image/png", picture_bytes(5))
        assert answer.headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
        assert answer.headers["Content-Disposition"] == f'inline; filename="genserve-{job["id"]}.png"'
        assert done["image"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert router.count(CancelJob) == 0


async def test_a_picture_that_is_known_is_not_sent_again(door: Door, router: FakeRouter) -> None:
    _, job, _ = await door.post(JOBS, {"prompt": "a fox"})
    url = door.url + job["links"]["image"]
    async with door.client.get(url) as answer:
        tag = answer.headers["ETag"]
    for given in (tag, f'"other", W/{tag}', "*"):
        async with door.client.get(url, headers={"If-None-Match": given}) as answer:
            assert (answer.status, await answer.read(), answer.headers["ETag"]) == (304, b"", tag), given
    async with door.client.get(url, headers={"If-None-Match": '"other"'}) as answer:
        assert answer.status == 200


async def test_heads(door: Door, router: FakeRouter) -> None:
    _, job, _ = await door.post(JOBS, {"prompt": "a fox", "seed": 2})
    async with door.client.head(door.url + job["links"]["image"]) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(router.picture_size))
        assert await answer.read() == b""
    async with door.client.head(door.url + job["links"]["self"]) as answer:
        assert answer.status == 200


async def test_a_repeated_key_is_the_same_job(door: Door, router: FakeRouter) -> None:
    first = await door.post(JOBS, {"prompt": "a fox"}, headers=KEY)
    second = await door.post(JOBS, {"prompt": "a fox"}, headers=KEY)
    assert (first[0], second[0]) == (202, 200)
    assert first[1]["id"] == second[1]["id"]
    assert second[1]["state"] == "done"
    assert first[2]["Location"] == second[2]["Location"]
    status, body, _ = await door.post(JOBS, {"prompt": "a fox", "seed": 1}, headers=KEY)
    assert (status, body["error"]["code"], body["error"]["param"]) == (422, "key_conflict", "Idempotency-Key")
    assert len(router.jobs) == 1


async def test_submitting_never_cancels(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    router.silent.add(Submit)
    async with aiohttp.ClientSession() as leaving:
        waiting = asyncio.ensure_future(leaving.post(door.url + JOBS, json={"prompt": "a fox"}))
        await until(lambda: router.count(Submit), "a submission")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    [asked] = [message for message in router.received if isinstance(message, Submit)]
    await until(lambda: next(iter(door.server._link._submitted.values())).released, "nobody to wait any more")
    router.silent.clear()
    router.accept_late(asked)
    await until(lambda: not door.server._link._submitted, "the late word")
    await door.get("/status")
    assert (router.states(), router.count(CancelJob)) == (["running"], 0)


async def test_delete_cancels_a_job_and_no_ended_one(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    _, job, _ = await door.post(JOBS, {"prompt": "a fox"})
    for _ in range(2):  # an answer may be lost: again is no mistake
        async with door.client.delete(door.url + _link(job["id"])) as answer:
            assert (answer.status, (await answer.json())["state"]) == (200, "cancelled")
    status, body, headers = await door.get(job["links"]["image"])
    assert (status, body["error"]["code"], headers["x-should-retry"]) == (409, "cancelled", "false")
    router.draws = lambda _spec: True
    _, job, _ = await door.post(JOBS, {"prompt": "a fox"})
    async with door.client.delete(door.url + _link(job["id"])) as answer:
        body = await answer.json()
        assert (answer.status, answer.headers["x-should-retry"]) == (409, "false")
        assert "has ended before (done)" in body["error"]["message"]
        assert body["error"]["what_to_do"] == f"GET {_link(job['id'])} tells how it ended"
    assert router.states() == ["cancelled", "done"]


async def test_a_page_of_another_origin_may_not_cancel(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    _, job, _ = await door.post(JOBS, {"prompt": "a fox"})
    async with door.client.delete(door.url + _link(job["id"]), headers={"Origin": "http://evil.example"}) as answer:
        assert answer.status == 403
    assert router.states() == ["running"]


async def test_who_waits_for_a_job_that_is_deleted_is_told(door: Door, router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    waiting = asyncio.ensure_future(door.post("/v1/images/generations", {"prompt": "a fox"}))
    await until(lambda: router.jobs, "a job")
    async with door.client.delete(door.url + _link(*router.jobs)) as answer:
        assert answer.status == 200
    status, body, _ = await waiting
    assert (status, body["error"]["code"]) == (409, "cancelled")


async def test_a_failed_job_tells_its_own_error(door: Door, router: FakeRouter) -> None:
    router.fails = lambda _spec: ErrorInfo(code="poison", message="it ended two engines")
    _, job, _ = await door.post(JOBS, {"prompt": "a fox"})
    status, view, _ = await door.get(_link(job["id"]))
    assert (status, view["state"], view["error"]["code"], view["image"]) == (200, "failed", "poison", None)
    status, body, headers = await door.get(job["links"]["image"])
    assert (status, body["error"]["code"], headers["x-should-retry"]) == (500, "poison", "false")


@pytest.mark.parametrize("job_id", ["0" * 32, "nonsense", "0" * 31 + "G", "0" * 33])
async def test_unknown_jobs(door: Door, router: FakeRouter, job_id: str) -> None:
    for method, path in (("GET", _link(job_id)), ("GET", f"{_link(job_id)}/image"), ("DELETE", _link(job_id))):
        async with door.client.request(method, door.url + path) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found"), (method, path)


async def test_what_is_not_done_here(door: Door) -> None:
    for method, path, allowed in (
        ("PUT", JOBS, "GET,HEAD,POST"), ("PUT", _link("0" * 32), "DELETE,GET,HEAD"),
        ("POST", f"{_link('0' * 32)}/image", "GET,HEAD"),
    ):  # fmt: skip
        async with door.client.request(method, door.url + path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("refused", "status", "headers"),
    [
        (Rejected(rid="", code="queue_full", message="full", retry_after_s=1.5), 429, {"Retry-After": "2"}),
        (Rejected(rid="", code="storage_full", message="no room", retry_after_s=30), 507, {"Retry-After": "30"}),
        (Rejected(rid="", code="storage_full", message="no room"), 507, {"Retry-After": "30"}),
        (Rejected(rid="", code="deadline_unreachable", message="60 s at least", param="deadline_s"), 422,
         {"x-should-retry": "false"}),
        (Rejected(rid="", code="invalid_request", message="too many", param="steps"), 400, {"x-should-retry": "false"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [JOBS, "/v1/images/generations", "/generate"])
async def test_refusals(
    door: Door, router: FakeRouter, path: str, refused: Rejected, status: int, headers: dict[str, str]
) -> None:
    router.refuse = lambda _spec: refused
    got, body, told = await door.post(path, {"prompt": "a fox"})
    assert (got, body["error"]["code"]) == (status, refused.code)
    assert {name: told.get(name) for name in headers} == headers
    assert ("x-should-retry" in told) == ("Retry-After" not in told)
    assert body["error"]["param"] == {"steps": "num_inference_steps"}.get(refused.param or "", refused.param)


class TestAway:
    """A gateway whose router is away."""

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"router_timeout_s": 0.3}

    async def test_a_router_that_is_away_is_said_so(self, door: Door, router: FakeRouter) -> None:
        router.stop()
        status, body, headers = await door.post(JOBS, {"prompt": "a fox"}, headers=KEY)
        assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "unavailable", "2")
        for path in (_link("0" * 32), f"{_link('0' * 32)}/image"):
            assert (await door.get(path))[0] == 503


async def test_a_submission_waits_for_a_router_that_comes_back(door: Door, router: FakeRouter) -> None:
    router.stop()
    waiting = asyncio.ensure_future(door.post(JOBS, {"prompt": "a fox"}))
    await until(lambda: door.server._link._submitted, "a submission")
    router.start()
    status, job, _ = await waiting
    assert (status, len(router.jobs)) == (202, 1)
    assert job["id"] in router.jobs
