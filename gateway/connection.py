"""One connection: what aiohttp leaves open of malformed HTTP, unknown expectations, slow readers, and too many of them.

Knows HTTP's frame around a request; knows no route and no job. How long a head may take is aiohttp's keep-alive
limit; how long a body may take is held where bodies are read, in context.py.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from aiohttp import web

from common.errors import GenServeError
from common.settings import GatewaySettings
from gateway.context import Gateway
from gateway.dialects.errors import HttpError
from gateway.lines import Lines
from gateway.metrics import Metrics
from gateway.middleware import error_response, refused_unrouted

LINGER_S = 2.0  # for the rest of a body that is answered for already; also while stopping
TURNED_AWAY_S = 1.0  # that a connection too many is given to ask and to read its refusal


class Connection(web.RequestHandler):
    """A connection whose every answer is the one error body, and ends in time."""

    __slots__ = ("_lines", "_metrics", "_send_timeout_s")

    def __init__(
        self,
        manager: web.Server,
        settings: GatewaySettings,
        lines: Lines,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        quiet = logging.getLogger("genserve.access")  # the middleware writes the line of each request
        quiet.disabled = True
        super().__init__(
            manager,
            loop=loop,
            access_log=quiet,
            keepalive_timeout=settings.head_timeout_s,
            lingering_time=LINGER_S,
            auto_decompress=False,
        )
        self._lines, self._metrics = lines, metrics
        self._send_timeout_s = settings.send_timeout_s

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never became a request."""
        self._metrics.malformed.inc()
        self._lines.write("info", "http.malformed", peer=request.remote, status=status, error=type(exc).__name__)
        reason = (message or "").strip().partition("\n")[0].rstrip(": ")  # further lines draw where, for a terminal
        refusal = HttpError(
            status, f"this is not HTTP/1.1 as it should be: {reason}", next_step="correct what the message names"
        )
        response = error_response(refusal, "")
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; cut a client that does not read it within `send_timeout_s`."""
        if isinstance(resp, web.HTTPException) and isinstance(request, web.Request):
            resp = refused_unrouted(request, resp)
        try:
            async with asyncio.timeout(self._send_timeout_s):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self._lines.write("warning", "http.unread", peer=request.remote, send_timeout_s=self._send_timeout_s)
            if self.transport is not None:
                self.transport.abort()  # close() would wait until the rest is read
            return resp, True


class TurnedAway(asyncio.Protocol):
    """A connection too many: whatever it asks is answered 503, and it is closed."""

    def __init__(self, connections_max: int, lines: Lines) -> None:
        self._connections_max = connections_max
        self._lines = lines
        self._told = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give it a moment to ask: some clients overlook an answer that comes before the question."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._end = asyncio.get_running_loop().call_later(TURNED_AWAY_S, self._transport.abort)
        self._lines.write("warning", "http.connections_full", connections_max=self._connections_max)

    def data_received(self, _data: bytes) -> None:
        """Answer the first bytes; the rest is read and dropped, so that the answer is not lost with it."""
        if not self._told:
            self._told = True
            self._transport.write(_refusal_bytes(self._connections_max))
            self._transport.write_eof()

    def connection_lost(self, _exc: Exception | None) -> None:
        """It is gone."""
        self._end.cancel()


def protocol_factory(manager: web.Server, gateway: Gateway) -> Callable[[], asyncio.BaseProtocol]:
    """Makes the protocol of each new connection."""
    loop, settings, lines, metrics = asyncio.get_running_loop(), gateway.settings, gateway.lines, gateway.metrics

    def make() -> asyncio.BaseProtocol:
        if len(manager.connections) >= settings.connections_max:
            metrics.turned_away.inc()
            return TurnedAway(settings.connections_max, lines)
        return Connection(manager, settings, lines, metrics, loop)

    return make


def _refusal_bytes(connections_max: int) -> bytes:
    message = f"{connections_max} connections are open already (gateway.connections_max)"
    response = error_response(GenServeError("unavailable", message), "")
    body = response.body
    assert isinstance(body, bytes)
    headers = {
        **response.headers,
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {response.status} {response.reason}\r\n{head}\r\n".encode() + body
