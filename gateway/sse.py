"""Server-sent events: one response of lines that come when something happens.

Knows no event's meaning. What fails after the first byte cannot have a status any more: it is told as an event. A
client that does not read is cut.
"""

import asyncio

import msgspec
from aiohttp import web
from msgspec import Struct

from common.errors import GenServeError
from gateway.context import GATEWAY, REQUEST_ID
from gateway.dialects.errors import ErrorBody, facts

RETRY_MS = 1000
KEEP_ALIVE_S = 15.0  # of silence, after which a comment says that somebody is there
_encoder = msgspec.json.Encoder()


class EventStream:
    """The answer to one request, between `open` and the return of its route."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._send_timeout_s = request.app[GATEWAY].settings.send_timeout_s
        self.response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # a proxy must not wait for more
            }
        )

    async def open(self) -> None:
        """Begin. From here on errors are told by `fail`, which the middleware calls for whatever is raised."""
        gateway = self._request.app[GATEWAY]
        if gateway.leaving:
            self.response.force_close()
        self.response.headers["X-Request-Id"] = self._request[REQUEST_ID]
        self._request[OPEN_STREAM] = self
        await self.response.prepare(self._request)

    async def send(self, event: str, data: Struct, *, event_id: str = "") -> None:
        """One event. Raises ConnectionError where the client is gone or does not read."""
        await self.send_json(event, _encoder.encode(data), event_id=event_id)

    async def send_json(self, event: str, data: bytes, *, event_id: str = "") -> None:
        """The same, where `data` is JSON on one line already."""
        head = f"id: {event_id}\n" if event_id else ""
        await self._write(b"".join((head.encode(), b"event: ", event.encode(), b"\ndata: ", data, b"\n\n")))

    async def say_retry(self) -> None:
        """How soon a browser whose stream ends comes back. Raises as `send`."""
        await self._write(f"retry: {RETRY_MS}\n\n".encode())

    async def keep_alive(self) -> None:
        """A comment. Raises as `send`."""
        await self._write(b": keep-alive\n\n")

    async def fail(self, error: GenServeError) -> None:
        """The last event: what went wrong. Raises as `send`."""
        await self.send("error", ErrorBody(error=facts(error)))

    async def _write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self.response.write(data)
        except TimeoutError:
            request = self._request
            request.app[GATEWAY].lines.write(
                "warning", "http.unread", peer=request.remote, send_timeout_s=self._send_timeout_s
            )
            if request.transport is not None:
                request.transport.abort()  # close() would wait until the rest is read
            raise ConnectionError("the client does not read") from None


OPEN_STREAM = web.RequestKey("open_stream", EventStream)  # the answer, where it has begun
