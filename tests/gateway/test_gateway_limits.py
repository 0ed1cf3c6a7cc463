"""Slow clients, and too many of them: each limit is kept, and said."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from common.messages import Submit
from gateway.connection import TurnedAway
from gateway.lines import Lines
from tests.gateway.conftest import Door, until
from tests.gateway.fake_router import FakeRouter

LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
BODY = b'{"prompt": "a fox"}'


async def read_all(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), 10)


def error_of(answer: bytes) -> tuple[bytes, Any]:
    """The status line, and the one error."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], json.loads(body)["error"]


class TestBodies:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"body_timeout_s": 0.1}

    async def test_a_body_that_does_not_come(self, door: Door, router: FakeRouter) -> None:
        async with door.raw(POST % (100, b"{")) as reader:
            answer = await read_all(reader)
        assert b"Connection: close" in answer
        status, error = error_of(answer)
        assert b" 408 " in status
        assert (error["code"], error["param"]) == ("invalid_request", None)
        assert "0.1 s (gateway.body_timeout_s)" in error["message"]
        assert error["what_to_do"] == "send the whole body at once"
        assert router.count(Submit) == 0

    async def test_the_limit_is_of_the_body_and_not_of_the_picture(self, door: Door, router: FakeRouter) -> None:
        router.draws = lambda _spec: False
        async with door.raw(POST % (len(BODY), BODY)) as reader:
            await until(lambda: router.jobs, "a job")
            await asyncio.sleep(0.2)
            router.finish(*router.jobs)
            assert b" 200 OK" in await asyncio.wait_for(reader.readline(), 10)


class TestHeads:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"head_timeout_s": 0.1}

    @pytest.mark.parametrize("sent", [b"", b"GET /health/live HTTP/1.1\r\nHost: loc"], ids=["nothing", "half"])
    async def test_a_head_that_does_not_come(self, door: Door, sent: bytes) -> None:
        async with door.raw(sent) as reader:
            assert await read_all(reader) == b""

    @pytest.mark.parametrize("more", [b"", b"GET /heal"], ids=["nothing", "half"])
    async def test_a_second_head_that_does_not_come(self, door: Door, more: bytes) -> None:
        async with door.raw(LIVE + more) as reader:
            assert (await read_all(reader)).count(b"HTTP/1.1 200 OK") == 1

    async def test_who_waits_for_a_picture_is_not_cut(self, door: Door, router: FakeRouter) -> None:
        router.draws = lambda _spec: False
        async with door.raw(POST % (len(BODY), BODY)) as reader:
            await until(lambda: router.jobs, "a job")
            await asyncio.sleep(0.3)
            router.finish(*router.jobs)
            assert b" 200 OK" in await read_all(reader)


class TestReaders:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"send_timeout_s": 0.2}

    async def test_a_client_that_does_not_read_is_cut(self, door: Door, router: FakeRouter) -> None:
        router.picture_size = 20_000_000  # more than the buffers of a connection hold
        with capture_logs() as lines:
            async with door.raw(POST % (len(BODY), BODY)) as reader:
                await until(lambda: any(line["event"] == "http.unread" for line in lines), "the cut")
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await asyncio.wait_for(reader.readexactly(router.picture_size), 10)
        assert (await door.get("/health/live"))[0] == 200


class TestConnections:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"connections_max": 3}

    async def test_one_too_many_is_told_so(self, door: Door) -> None:
        manager = door.server._runner.server
        assert manager is not None
        async with AsyncExitStack() as stack:
            for _ in range(3):
                reader = await stack.enter_async_context(door.raw(LIVE))
                assert b" 200 OK" in await asyncio.wait_for(reader.readline(), 10)
            async with door.raw(LIVE) as refused:
                status, error = error_of(await read_all(refused))
            assert b" 503 " in status
            assert error["code"] == "unavailable"
            assert "3 connections are open already (gateway.connections_max)" in error["message"]
            async with door.client.post(f"{door.url}/v1/images/generations", data=b"x" * 500_000) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
                assert (await answer.json())["error"]["code"] == "unavailable"
            async with door.raw() as silent:
                assert await asyncio.wait_for(silent.read(), 10) == b""  # it asks nothing and is closed
        await until(lambda: not manager.connections, "those who went away to make room")
        assert (await door.get("/health/live"))[0] == 200


def test_uvloops_transports_are_turned_away_as_well() -> None:
    """The gateway runs on uvloop, whose transports are asyncio's in all but name."""

    async def meet() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: TurnedAway(3, Lines()), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            try:
                return await reader.read()
            finally:
                writer.close()
                await writer.wait_closed()

    assert uvloop.run(meet()).startswith(b"HTTP/1.1 503 ")
