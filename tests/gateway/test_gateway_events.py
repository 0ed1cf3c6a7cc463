"""GET /v1/jobs/{id}/events in front of a router that a test plays; and the log that streams are told from."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs

from common.codec import encode
from common.messages import ErrorInfo, JobProgress, Picture, Watch
from gateway.dialects import events
from gateway.following import Following
from gateway.joblog import EVENTS_MAX, JobLog
from tests.gateway.conftest import Door, until
from tests.gateway.fake_router import FakeRouter


class Stream:
    """One stream of events, read one by one."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.ids: list[str] = []

    async def next(self) -> dict[str, Any] | None:
        """The next event's body; None at the end. Its name and id are those that the body and `ids` say."""
        name, data = "", ""
        while line := (await asyncio.wait_for(self._answer.content.readline(), 10)).decode():
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "id":
                self.ids.append(value)
            elif field == "event":
                name = value
            elif field == "data":
                data = value
            elif not line.strip() and data:
                body: dict[str, Any] = json.loads(data)
                assert body["type"] == name
                return body
        return None

    async def until(self, name: str) -> dict[str, Any]:
        """The next event of this name."""
        while (body := await self.next()) is not None:
            if body["type"] == name:
                return body
        raise AssertionError(f"the stream ended before {name}")


@asynccontextmanager
async def following(door: Door, job_id: str, last: str = "") -> AsyncIterator[Stream]:
    headers = {"Last-Event-ID": last} if last else {}
    async with door.client.get(f"{door.url}/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert answer.headers["X-Request-Id"]
        yield Stream(answer)


async def waiting_job(door: Door, router: FakeRouter) -> str:
    router.draws = lambda _spec: False
    _, job, _ = await door.post("/v1/jobs", {"prompt": "x"})
    assert job["links"]["events"] == f"/v1/jobs/{job['id']}/events"
    return str(job["id"])


def moves(router: FakeRouter, job_id: str, step: int, preview: bytes = b"") -> None:
    """The router's word to all who watch."""
    job = router.jobs[job_id]
    for _, rid in job.watchers:
        picture = Picture(
            format="jpeg", width=8, height=8, drawn_width=8, drawn_height=8, bytes=len(preview), sha256="0" * 64
        )
        news = JobProgress(
            rid=rid, job_id=job_id, state=job.view.state, step=step, steps=4, position=job.view.position, eta_s=1.5,
            preview=picture if preview else None, preview_index=step, parts=(len(preview),) if preview else (),
        )  # fmt: skip
        router.send_all(encode(news, [preview] if preview else []))


async def test_a_job_from_where_it_stands_to_its_end(door: Door, router: FakeRouter) -> None:
    job_id = await waiting_job(door, router)
    async with following(door, job_id) as stream:
        first = await stream.next()
        assert first is not None
        _, shown, _ = await door.get(f"/v1/jobs/{job_id}")
        del shown["history"]
        assert first == {"type": "job.state", "job": shown}
        moves(router, job_id, 1)
        assert await stream.next() == {"type": "job.step", "id": job_id, "step": 1, "steps": 4, "eta_s": 1.5}
        moves(router, job_id, 2, b"a picture")
        assert (await stream.next() or {}).get("step") == 2, "who shows a bar needs no preview"
        preview = await stream.next()
        assert preview is not None
        assert (preview["type"], preview["index"], preview["b64_json"]) == ("job.preview", 2, "YSBwaWN0dXJl")
        router.finish(job_id)
        last = await stream.next()
        assert last is not None
        assert (last["type"], last["job"]["state"]) == ("job.done", "done")
        assert last["job"]["image"]["format"] == "png"
        assert await stream.next() is None
    async with following(door, job_id) as stream:  # who comes after the end
        assert await stream.next() == last
        assert await stream.next() is None


async def test_failed_and_cancelled_ends(door: Door, router: FakeRouter) -> None:
    router.fails = lambda _spec: ErrorInfo(code="engine_error", message="it broke")
    job_id = await waiting_job(door, router)
    async with following(door, job_id) as stream:
        await stream.until("job.state")
        router.finish(job_id)
        assert (await stream.until("job.failed"))["job"]["error"]["code"] == "engine_error"
    job_id = await waiting_job(door, router)
    async with following(door, job_id) as stream:
        await stream.until("job.state")
        async with door.client.delete(f"{door.url}/v1/jobs/{job_id}") as answer:
            assert answer.status == 200
        assert (await stream.until("job.cancelled"))["job"]["state"] == "cancelled"


async def test_what_is_expected_of_a_job_that_waits_is_no_step(door: Door, router: FakeRouter) -> None:
    job_id = await waiting_job(door, router)
    router.jobs[job_id].view = structs.replace(router.jobs[job_id].view, state="queued", position=3)
    async with following(door, job_id) as stream:
        first = await stream.next()
        assert first is not None
        assert first["job"]["eta_s"] is None
        for _ in range(2):  # the second says nothing new
            moves(router, job_id, 0)
        assert await stream.next() == {"type": "job.state", "job": first["job"] | {"eta_s": 1.5}}
        router.finish(job_id)
        assert (await stream.next() or {})["type"] == "job.done"


async def test_who_comes_back_has_missed_nothing(door: Door, router: FakeRouter) -> None:
    job_id = await waiting_job(door, router)
    async with following(door, job_id) as stream:
        await stream.until("job.state")
        moves(router, job_id, 1)
        await stream.until("job.step")
        seen = stream.ids[-1]
    for step in (2, 3):
        moves(router, job_id, step)
    router.finish(job_id)
    async with following(door, job_id, seen) as stream:
        assert [(await stream.until("job.step"))["step"] for _ in range(2)] == [2, 3]
        assert (await stream.until("job.done"))["job"]["id"] == job_id
    for unknown in ("00000000-1", "nonsense", f"{seen[:9]}999999"):
        async with following(door, job_id, unknown) as stream:
            assert (await stream.next() or {})["type"] == "job.done"
    last = stream.ids[-1]
    async with door.client.get(f"{door.url}/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last}) as answer:
        assert (answer.status, await answer.read()) == (204, b"")  # a browser comes back no more


async def test_many_streams_share_one_watch_and_none_of_them_moves_the_job(door: Door, router: FakeRouter) -> None:
    job_id = await waiting_job(door, router)
    async with following(door, job_id) as one, following(door, job_id) as other:
        await one.until("job.state")
        await other.until("job.state")
        assert router.count(Watch) == 1
        moves(router, job_id, 1)
        assert await one.until("job.step") == await other.until("job.step")
    await until(lambda: not door.server._gateway.streams, "both streams to be closed")
    assert router.states() == ["running"]


async def test_a_stream_goes_on_after_the_router_was_away(
    door: Door, router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.link.WATCH_INTERVAL_S", 0.05)
    job_id = await waiting_job(door, router)
    async with following(door, job_id) as stream:
        await stream.until("job.state")
        router.stop()
        router.jobs[job_id].view = structs.replace(router.jobs[job_id].view, attempts=2)
        router.start()
        assert (await stream.until("job.state"))["job"]["attempts"] == 2
        router.finish(job_id)
        await stream.until("job.done")


async def test_a_job_that_the_router_forgets_ends_its_streams(
    door: Door, router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.link.WATCH_INTERVAL_S", 0.05)
    job_id = await waiting_job(door, router)
    async with following(door, job_id) as stream:
        await stream.until("job.state")
        kept = router.jobs.copy()
        router.forget()
        assert (await stream.until("error"))["error"]["code"] == "not_found"
        assert await stream.next() is None
    assert (await door.get(f"/v1/jobs/{job_id}/events"))[0] == 404
    router.jobs.update(kept)  # as a router that was another one for a while
    async with following(door, job_id, stream.ids[-1]) as stream:
        assert (await stream.next() or {})["type"] == "job.state"


async def test_head_has_no_body(door: Door, router: FakeRouter) -> None:
    job_id = await waiting_job(door, router)
    host = "Host: localhost\r\n"
    two = (
        f"HEAD /v1/jobs/{job_id}/events HTTP/1.1\r\n{host}\r\n"
        f"GET /health/live HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
    )
    async with door.raw(two.encode()) as reader:
        head, live, _ = (await asyncio.wait_for(reader.read(), 10)).split(b"\r\n\r\n", 2)
    assert (head[:15], b"text/event-stream" in head) == (b"HTTP/1.1 200 OK", True)
    assert live.startswith(b"HTTP/1.1 200 OK")


async def test_a_job_that_is_not_there(door: Door) -> None:
    for job_id, said in (("0" * 32, "no such job"), ("x", "32 hexadecimal digits")):
        status, body, _ = await door.get(f"/v1/jobs/{job_id}/events")
        assert (status, body["error"]["code"]) == (404, "not_found")
        assert said in body["error"]["message"]
    assert len(door.server._link.following) == 0


@pytest.mark.parametrize("settings", [{"event_streams_max": 1}])
async def test_streams_are_bounded_and_others_are_served_on(door: Door, router: FakeRouter) -> None:
    job_id = await waiting_job(door, router)
    async with following(door, job_id) as stream:
        await stream.until("job.state")
        status, body, headers = await door.get(f"/v1/jobs/{job_id}/events")
        assert (status, "event_streams_max" in body["error"]["message"]) == (503, True)
        assert headers["Retry-After"]
        assert (await door.get(f"/v1/jobs/{job_id}"))[0] == 200


async def test_a_gateway_that_stops_ends_its_streams(door: Door, router: FakeRouter) -> None:
    job_id = await waiting_job(door, router)
    async with following(door, job_id) as stream:
        await stream.until("job.state")
        door.server._link.drain()
        assert await stream.next() is None
    assert router.states() == ["running"]


def test_a_log_keeps_the_latest_events_and_one_picture() -> None:
    log = JobLog("abc")
    for number in range(2 * EVENTS_MAX):
        name = events.PREVIEW if number % 2 else events.STEP
        log.add(events.Told(name, {"type": name, "n": number}))
    kept = log.after(0)
    assert [event.name for event in kept].count(events.PREVIEW) == 1
    assert kept[-1].id == f"abc-{2 * EVENTS_MAX}"
    assert len(kept) == EVENTS_MAX
    assert log.begin_after(kept[-2].id) == 2 * EVENTS_MAX - 1
    for foreign in ("", "abc", "abd-1", "abc--1", "abc-1.5", f"abc-{2 * EVENTS_MAX + 1}", "abc-²"):
        assert log.begin_after(foreign) is None


async def test_a_job_that_nobody_listens_to_is_followed_for_a_while_only(door: Door, router: FakeRouter) -> None:
    job_id = await waiting_job(door, router)
    async with following(door, job_id) as stream:
        await stream.until("job.state")
    followed: Following = door.server._link.following
    await until(lambda: not door.server._gateway.streams, "the stream to be closed")
    followed.repeat(0.0)
    assert len(followed) == 1
    followed.repeat(float("inf"))
    assert len(followed) == 0
