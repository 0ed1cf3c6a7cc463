"""A gateway in front of a fake router, over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from common.clock import monotonic_s
from common.settings import GatewaySettings, Loaded, LogSettings
from gateway.app import Server
from gateway.listener import listen
from tests.gateway.fake_router import FakeRouter, fake_router


@dataclass
class Door:
    """A gateway's URL and a client of it."""

    url: str
    client: aiohttp.ClientSession
    server: Server

    async def get(self, path: str, **more: Any) -> tuple[int, Any, Any]:
        """(status, JSON, headers)."""
        async with self.client.get(self.url + path, **more) as answer:
            return answer.status, await answer.json(), answer.headers

    async def post(self, path: str, body: dict[str, Any], **more: Any) -> tuple[int, Any, Any]:
        """(status, JSON, headers)."""
        async with self.client.post(self.url + path, json=body, **more) as answer:
            return answer.status, await answer.json(), answer.headers

    @asynccontextmanager
    async def raw(self, data: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
        """A connection of its own that has sent `data`, to read from."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        yield reader
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with fake_router() as running:
        yield running


@pytest.fixture
def settings() -> dict[str, Any]:
    """Overrides of the gateway's settings; tests change them by parametrizing or overriding this fixture."""
    return {}


@pytest.fixture
async def door(router: FakeRouter, settings: dict[str, Any]) -> AsyncIterator[Door]:
    values = {"port": 0, "router_endpoint": router.endpoint, "router_timeout_s": 5.0, "drain_s": 0.5, **settings}
    loaded = Loaded(GatewaySettings(**values), LogSettings(), {})
    with listen("127.0.0.1", 0) as listener:
        server = Server(loaded, listener)
        await server.start()
        async with aiohttp.ClientSession() as client:
            yield Door(server.url, client, server)
        await server.stop()


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 10.0) -> None:
    """Poll until `condition()` is true."""
    deadline = monotonic_s() + timeout_s
    while not condition():
        assert monotonic_s() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.005)
