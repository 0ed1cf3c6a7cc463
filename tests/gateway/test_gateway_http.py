"""HTTP proper: what is not there, who may ask, what is no HTTP, and what a crash tells."""

import asyncio
import json
import re
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.gateway.conftest import Door

IMAGES = "/v1/images/generations"
BROKEN_CHUNK = (
    b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n7\r\n{prompt_zz\r\n"
)


async def test_what_is_not_there_and_what_is_not_done(door: Door) -> None:
    status, body, _ = await door.get("/nope" + "x" * 500)
    assert (status, body["error"]["code"]) == (404, "not_found")
    assert len(body["error"]["message"]) < 200
    status, body, headers = await door.get(IMAGES)
    assert (status, body["error"]["code"], headers["Allow"]) == (405, "method_not_allowed", "POST")
    async with door.client.options(door.url + IMAGES) as answer:
        assert answer.status == 405
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST:80", "[::1]:12411", "127.1.2.3"])
async def test_loopback_names_are_served(door: Door, host: str) -> None:
    assert (await door.get("/health/live", headers={"Host": host}))[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:12411", "192.168.0.2", "localhost.evil.example", "[::"])
async def test_other_names_are_refused(door: Door, host: str) -> None:
    status, body, _ = await door.get("/status", headers={"Host": host})
    assert (status, body["error"]["param"]) == (403, "Host")


async def test_a_page_of_the_same_origin_may_post(door: Door) -> None:
    assert (await door.post(IMAGES, {"prompt": "a fox"}, headers={"Origin": door.url}))[0] == 200
    for origin in ("null", "http://localhost:1", "https://evil.example"):
        status, body, _ = await door.post(IMAGES, {"prompt": "a fox"}, headers={"Origin": origin})
        assert (status, body["error"]["param"]) == (403, "Origin")


@pytest.mark.parametrize(
    "bytes_sent",
    [b"nonsense\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n",
     b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
     b"GET / HTTP/1.1\r\nHo st: localhost\r\n\r\n", BROKEN_CHUNK],
    ids=["no-http", "version", "long-header", "negative-length", "bad-header", "broken-chunk"],
)  # fmt: skip
async def test_malformed_http_gets_the_one_body(door: Door, bytes_sent: bytes) -> None:
    async with door.raw(bytes_sent) as reader:
        answer = await asyncio.wait_for(reader.read(), 10)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.")
    assert b" 400 " in head.split(b"\r\n")[0]
    error = json.loads(body)["error"]
    assert error["code"] == "invalid_request"
    assert re.search(r": \w.*\w|announce it$", error["message"])
    assert not set("\n^") & set(error["message"])


@pytest.mark.parametrize(
    ("line", "named"), [(b"CONNECT x:1", "x:1"), (b"OPTIONS *", "*"), (b"GET //x", "//x"), (b"GET /a?b", "/a")]
)
async def test_what_is_not_there_is_named(door: Door, line: bytes, named: str) -> None:
    request = line + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with door.raw(request) as reader:
        answer = await asyncio.wait_for(reader.read(), 10)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"] == f"there is no {named}"


async def test_expectations(door: Door) -> None:
    status, body, _ = await door.post(IMAGES, {"prompt": "a fox"}, headers={"Expect": "100-continue"})
    assert (status, len(body["data"])) == (200, 1)
    with capture_logs() as lines:
        status, body, headers = await door.get("/nope", headers={"Expect": "foo"})
    assert (status, body["error"]["param"]) == (417, "Expect")
    [line] = [line for line in lines if line["event"] == "http.request"]
    assert (line["status"], line["request_id"]) == (417, headers["X-Request-Id"])


async def test_what_is_asked_again_and_again_is_logged_where_it_goes_wrong(door: Door) -> None:
    pages = ("/health", "/metrics", "/v1/status", "/page/of-today/base.css", "/v1/models", "/page/x/nope.js")
    with capture_logs() as lines:
        statuses = []
        for path in pages:
            async with door.client.get(door.url + path) as answer:
                statuses.append(answer.status)
        door.server._gateway.lines.close()
    assert statuses == [200, 200, 200, 200, 200, 404]
    levels = {line["path"]: line["log_level"] for line in lines if line["event"] == "http.request"}
    assert levels == {**dict.fromkeys(pages[:4], "debug"), "/v1/models": "info", "/page/x/nope.js": "info"}


@pytest.mark.parametrize("path", [IMAGES, "/v1/jobs", "/generate"])
async def test_what_is_wrong_with_a_prompt_or_a_key_is_logged_without_it(door: Door, path: str) -> None:
    canary = "canary-of-somebody"
    bodies: list[Any] = [
        {"prompt": canary * 1000}, {"prompt": f"{canary}\ud800"}, {"prompt": {canary: 1}}, {"prompt": [canary]}, canary,
        {"prompt": "x", "negative_prompt": canary * 1000}, {"prompt": "x"},
    ]  # fmt: skip
    for body in bodies:
        headers = {"Idempotency-Key": canary * 30} if body == bodies[-1] else {}
        with capture_logs() as lines:
            status, *_ = await door.post(path, body, headers=headers)
            door.server._gateway.lines.close()  # what is held back is written
        assert (status, [line["event"] for line in lines]) == (400, ["http.request"])
        assert canary not in str(lines)


async def test_a_crash_inside_tells_nothing_outside(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("gateway.dialects.fleet.status_view", crash)
    with capture_logs() as lines:
        status, body, headers = await door.get("/status")
    assert (status, body["error"]["code"]) == (500, "internal")
    assert "secret" not in json.dumps(body)
    assert headers["X-Request-Id"] in body["error"]["message"]
    [crashed] = [line for line in lines if line["event"] == "request.crashed"]
    assert crashed["exc_info"]
    assert headers["X-Request-Id"] == crashed["request_id"]
