"""Server-sent events over one response (WHATWG HTML, 9.2): written one by one, each within `send_timeout_s`.

Whoever reads too slowly is cut; whoever hangs up ends the handler, as everywhere in the gateway. Knows no job.
"""

import asyncio
from types import TracebackType
from typing import Self

from aiohttp import web

from gateway.context import GATEWAY, REQUEST_ID

KEEP_ALIVE_S = 15.0  # between two words at most: proxies end what is silent
RETRY_MS = 1000  # that a browser waits before it connects again
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events
}


class EventStream:
    """One response; entering it sends the head, leaving it ends the stream."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._send_timeout_s = request.app[GATEWAY].settings.send_timeout_s
        self.response = web.StreamResponse(headers={**_HEADERS, "X-Request-Id": request[REQUEST_ID]})
        self.response.content_type = "text/event-stream"
        self.response.charset = "utf-8"

    async def __aenter__(self) -> Self:
        """Raises nothing of its own; errors from here on cannot become an error answer."""
        await self.response.prepare(self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The end, unless the client is gone."""
        if kind is None:
            await self._write(b"", last=True)

    async def send(self, name: str, data: bytes, id_: str = "") -> None:
        """One event; `data` is JSON in one line. Raises ConnectionError where the client is gone or does not read."""
        head = f"id: {id_}\n" if id_ else ""
        await self._write(f"{head}event: {name}\ndata: ".encode() + data + b"\n\n")

    async def say_retry(self) -> None:
        """How soon a browser whose connection ends comes back."""
        await self._write(f"retry: {RETRY_MS}\n\n".encode())

    async def keep_alive(self) -> None:
        """A word that is no event."""
        await self._write(b": keep-alive\n\n")

    async def _write(self, data: bytes, *, last: bool = False) -> None:
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await (self.response.write_eof(data) if last else self.response.write(data))
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError(f"its events were not read within {self._send_timeout_s:g} s") from None
