"""Webhooks: refused before the job where they could not be told, and else told whatever happens."""

import base64
import hashlib
import hmac
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from common.codec import encode
from common.messages import ErrorInfo, ErrorReply, Submit, Watch
from common.settings import GatewaySettings, Loaded, LogSettings
from gateway import webhooks
from gateway.app import Server
from gateway.dialects.webhooks import Webhook, check
from gateway.listener import listen
from tests.gateway.conftest import Door, until
from tests.gateway.fake_router import FakeRouter

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


class Receiver:
    """What a program has that is told."""

    def __init__(self) -> None:
        self.statuses = [200]  # of the answers; the last one for all further
        self.told: list[tuple[dict[str, str], bytes]] = []

    async def serve(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/hook", self._hear)
        runner = web.AppRunner(app)
        await runner.setup()
        with listen("127.0.0.1", 0) as listener:
            await web.SockSite(runner, listener).start()
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
            yield
            await runner.cleanup()

    async def _hear(self, request: web.Request) -> web.Response:
        self.told.append((dict(request.headers), await request.read()))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else None)

    def body(self) -> dict[str, Any]:
        """Of the last one, whose signature is right as the specification says it."""
        headers, data = self.told[-1]
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + data
        right = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{right}"
        body: dict[str, Any] = json.loads(data)
        assert body["data"]["id"] == headers["webhook-id"]
        return body


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    async for _ in made.serve():
        yield made


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(webhooks, "REPEAT_AFTER_S", (0.01, 0.01))
    monkeypatch.setattr(webhooks, "ASK_AGAIN_S", 0.05)
    monkeypatch.setattr(webhooks, "LOOK_INTERVAL_S", 0.05)
    return {"webhook_hosts": ("127.0.0.1",)}


def body(receiver: Receiver) -> dict[str, Any]:
    return {"prompt": "x", "webhook": {"url": receiver.url, "secret": SECRET}}


def files(door: Door) -> list[Path]:
    return sorted(door.server._gateway.webhooks._folder.glob("*"))


async def test_the_end_of_a_job_is_told_and_proved(door: Door, router: FakeRouter, receiver: Receiver) -> None:
    status, job, _ = await door.post("/v1/jobs", body(receiver))
    assert status == 202
    await until(lambda: receiver.told, "the webhook")
    told = receiver.body()
    assert (told["type"], told["data"]["state"]) == ("job.done", "done")
    assert told["data"]["id"] == job["id"]
    await until(lambda: not files(door), "its file to go")
    router.fails = lambda _spec: ErrorInfo(code="engine_error", message="it broke")
    await door.post("/v1/jobs", body(receiver))
    await until(lambda: len(receiver.told) == 2, "the second one")
    assert (receiver.body()["type"], receiver.body()["data"]["error"]["code"]) == ("job.failed", "engine_error")


@pytest.mark.parametrize("refusal", [500, 302, 429])
async def test_it_is_repeated_until_it_is_taken(door: Door, receiver: Receiver, refusal: int) -> None:
    receiver.statuses = [refusal, refusal, 204]
    await door.post("/v1/jobs", body(receiver))
    await until(lambda: len(receiver.told) == 3 and not files(door), "the third one to be taken")
    assert len({headers["webhook-id"] for headers, _ in receiver.told}) == 1


@pytest.mark.parametrize(("status", "tries"), [(500, 3), (410, 1)])
async def test_it_is_given_up_in_the_end(door: Door, receiver: Receiver, status: int, tries: int) -> None:
    receiver.statuses = [status]
    await door.post("/v1/jobs", body(receiver))
    await until(lambda: receiver.told and not files(door), "its file to go")
    assert len(receiver.told) == tries


async def test_the_next_gateway_goes_on(door: Door, router: FakeRouter, receiver: Receiver) -> None:
    router.draws = lambda _spec: False
    _, job, _ = await door.post("/v1/jobs", body(receiver))
    [path] = files(door)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (path.parent / f"{'0' * 32}.json").write_text("half a fi")
    await door.server._gateway.webhooks.stop()
    assert path.exists()
    router.finish(job["id"])
    loaded = Loaded(GatewaySettings(router_endpoint=router.endpoint, port=0), LogSettings(), {})
    with listen("127.0.0.1", 0) as listener:
        following = Server(loaded, listener)
        await following.start()
        await until(lambda: receiver.told and not path.exists(), "the webhook")
        await following.stop()
    assert receiver.body()["data"]["state"] == "done"


async def test_what_a_gateway_writes_until_its_end_is_told_by_the_one_that_relieves_it(
    door: Door, router: FakeRouter, receiver: Receiver
) -> None:
    router.draws = lambda _spec: False
    loaded = Loaded(GatewaySettings(router_endpoint=router.endpoint, port=0), LogSettings(), {})
    with listen("127.0.0.1", 0) as listener:
        following = Server(loaded, listener)
        await following.start()
        _, job, _ = await door.post("/v1/jobs", body(receiver))
        await door.server._gateway.webhooks.stop()
        router.finish(job["id"])
        await until(lambda: not files(door), "the webhook")
        await following.stop()
    assert receiver.body()["data"]["id"] == job["id"]


async def test_a_file_that_is_taken_away_is_told_no_more(door: Door, receiver: Receiver) -> None:
    receiver.statuses = [500]
    webhooks_of_door = door.server._gateway.webhooks
    await door.post("/v1/jobs", body(receiver))
    await until(lambda: receiver.told, "the first one")
    for path in files(door):
        path.unlink()
    await until(lambda: not webhooks_of_door._tasks, "its end")
    assert len(receiver.told) <= 2


async def test_a_router_that_says_no_is_asked_again(
    door: Door, router: FakeRouter, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.link.WATCH_INTERVAL_S", 0.05)
    router.draws = lambda _spec: False
    _, job, _ = await door.post("/v1/jobs", body(receiver))
    rid = await watched(router)
    router.send_all(encode(ErrorReply(rid=rid, code="forbidden", message="this key has been revoked")))
    assert await watched(router, before=rid)
    router.finish(job["id"])
    await until(lambda: receiver.told and not files(door), "the webhook")
    assert receiver.body()["data"]["state"] == "done"


async def watched(router: FakeRouter, before: str = "") -> str:
    """The latest WATCH's rid, once it is another than `before`."""

    def rid() -> str:
        return next(
            (each.rid for each in reversed(router.received) if isinstance(each, Watch) and each.rid != sent), ""
        )

    [sent] = {each.rid for each in router.received if isinstance(each, Submit)}
    await until(lambda: rid() not in ("", before), "a WATCH")
    return rid()


async def test_a_job_that_the_router_has_lost_is_told_to_nobody(
    door: Door, router: FakeRouter, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.link.WATCH_INTERVAL_S", 0.05)
    router.draws = lambda _spec: False
    await door.post("/v1/jobs", body(receiver))
    await until(lambda: len(door.server._link.following), "the job to be followed")
    router.forget()
    await until(lambda: not files(door), "its file to go")
    assert receiver.told == []


@pytest.mark.parametrize(
    ("webhook", "status", "param"),
    [
        ({"url": "http://169.254.169.254/latest", "secret": SECRET}, 403, "webhook.url"),
        ({"url": "http://127.0.0.1.evil.example/", "secret": SECRET}, 403, "webhook.url"),
        ({"url": "http://127.0.0.1@evil.example/", "secret": SECRET}, 400, "webhook.url"),
        ({"url": "file:///etc/passwd", "secret": SECRET}, 400, "webhook.url"),
        ({"url": "http://127.0.0.1:99999/", "secret": SECRET}, 400, "webhook.url"),
        ({"url": "http://[::1", "secret": SECRET}, 400, "webhook.url"),
        ({"url": "http://127.0.0.1/", "secret": "abc"}, 400, "webhook.secret"),
        ({"url": "http://127.0.0.1/", "secret": "whsec_c2hvcnQ="}, 400, "webhook.secret"),
        ({"url": "http://127.0.0.1/"}, 400, "webhook"),
        ({"url": "http://127.0.0.1/", "secret": SECRET, "retries": 3}, 400, "webhook"),
        ("http://127.0.0.1/", 400, "webhook"),
    ],
)
async def test_what_cannot_be_told_is_refused_before_the_job(
    door: Door, router: FakeRouter, webhook: Any, status: int, param: str
) -> None:
    got, answer, _ = await door.post("/v1/jobs", {"prompt": "x", "webhook": webhook})
    assert (got, answer["error"]["param"].startswith(param)) == (status, True), answer
    assert router.jobs == {}
    assert SECRET not in json.dumps(answer)


def test_hosts_are_the_same_in_capitals() -> None:
    for url in ("https://Hooks.example.ORG/x", "https://hooks.example.org:443/x"):
        check(Webhook(url=url, secret=SECRET), ("HOOKS.example.org",))


@pytest.mark.parametrize("settings", [{}])
async def test_none_is_told_unless_the_operator_allows_its_host(door: Door, receiver: Receiver) -> None:
    status, answer, _ = await door.post("/v1/jobs", body(receiver))
    assert status == 403
    assert "gateway.webhook_hosts" in answer["error"]["what_to_do"]
