"""The gateway process: HTTP on loopback in front, the link to the router behind.

Here are the start and the stop; what is answered is in routes/. Stopping: no new connections; requests whose body
has not arrived are refused; the others may finish within `drain_s`, then they are cut, and their jobs go on without
them; last the link closes. A second signal cuts at once.

Where systemd holds the listening socket, the next gateway serves on it meanwhile, so nobody may be lost between
the two: who has connected already is first given a moment in which requests are answered as ever.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from secrets import token_bytes
from typing import Any

import uvloop
from aiohttp import web

from common.clock import monotonic_s
from common.errors import GenServeError
from common.health import Check, Standing
from common.keys import GATEWAY_FILE, KeyFile, load_key
from common.log import configure, get_logger
from common.notify import Systemd
from common.process import EXIT_OK, allow_files, exit_config, name_process, on_stop_signals
from common.restarts import Restarts
from common.settings import GatewaySettings, Loaded
from common.traces import Traces, open_traces
from gateway import routes
from gateway.connection import protocol_factory
from gateway.context import GATEWAY, Gateway
from gateway.handover import Predecessor, hand_over
from gateway.link import RouterLink
from gateway.listener import LISTEN_BACKLOG, check_reach, held_descriptor, held_listener, listen
from gateway.middleware import allow_origin, every_request
from gateway.secret import link_secret, state_folder
from gateway.standing import standing

LAST_REQUESTS_S = 2.0  # for those who had connected to a held socket before we left it
TEND_INTERVAL_S = 0.5
POLL_S = 0.02
CUT_S = 0.1  # that aiohttp gives a request it cuts


def run(loaded: Loaded[GatewaySettings]) -> int:
    """Serve until a stop signal; the exit status."""
    name_process("genserve gateway")
    allow_files()
    configure("gateway", loaded.log)
    systemd, restarts = Systemd(), Restarts()
    restarts.hold_back(systemd)
    predecessor = Predecessor.of(os.environ)
    try:
        key = load_key(loaded.settings.key_file, os.environ, GATEWAY_FILE, "gateway")
        traces = open_traces(
            "genserve-gateway", loaded.settings.traces_endpoint, os.environ, version=version("genserve")
        )
        held = held_descriptor(os.environ) if predecessor is None else predecessor.listening
        settings = loaded.settings
        secret = link_secret(settings.link_secret_file, os.environ)
        if held is None:
            check_reach(settings, settings.host, f"gateway.host = {settings.host!r}")
        listener = listen(settings.host, settings.port) if held is None else held_listener(loaded, held)
        server = Server(loaded, listener, key, held=held is not None, secret=secret, traces=traces)
    except GenServeError as error:
        return exit_config(error)
    with listener:
        handed_over = uvloop.run(_serve_until_stopped(loaded, server, systemd, predecessor))
    if not handed_over:
        restarts.ended_well()
    systemd.end()
    return EXIT_OK


def build_app(gateway: Gateway) -> web.Application:
    """The application: routes and middleware around one `gateway`."""
    app = web.Application(middlewares=[every_request], client_max_size=gateway.settings.body_bytes_max)
    app[GATEWAY] = gateway
    app.on_response_prepare.append(allow_origin)
    routes.add_all(app, gateway.version)
    return app


class Server:
    """HTTP on one listening socket. Used on one event loop, between `start` and `stop`."""

    def __init__(
        self,
        loaded: Loaded[GatewaySettings],
        listener: socket.socket,
        key: KeyFile | None = None,
        *,
        held: bool = False,
        secret: bytes = b"",
        state: Path | None = None,
        traces: Traces | None = None,
    ) -> None:
        """`key`: this gateway's, where the router asks for one; `held`: another listens on when this one ends.

        `secret` signs links to pictures; without one they are good for as long as this process lives. `state` is the
        folder for what outlives it; left out: the usual one.
        """
        settings = loaded.settings
        self._listener = listener
        self.held = held
        self._link = RouterLink(settings.router_endpoint, answer_timeout_s=settings.router_timeout_s, key=key)
        secret = secret or token_bytes()
        state = state or state_folder(os.environ)
        self._gateway = Gateway(
            loaded, self._link, version=version("genserve"), link_secret=secret, state=state, traces=traces
        )
        self._gateway.address = (
            listener.getsockname()[0] if held else settings.host,
            listener.getsockname()[1],
        )
        self._drain_s = settings.drain_s
        self._cut = asyncio.Event()
        self._runner = web.AppRunner(build_app(self._gateway), shutdown_timeout=CUT_S, handler_cancellation=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._gateway.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def start(self) -> None:
        """Connect to the router and listen."""
        self._link.open()
        self._gateway.access.start()
        self._gateway.webhooks.start()
        await self._runner.setup()
        assert self._runner.server is not None
        server = self._runner.server
        self._gateway.metrics.gauge(
            "http_connections_open", "HTTP connections open now.", lambda: len(server.connections)
        )
        factory = protocol_factory(server, self._gateway)
        loop = asyncio.get_running_loop()
        self._http = await loop.create_server(factory, sock=self._listener, backlog=LISTEN_BACKLOG)

    async def until_left(self, systemd: Systemd, stop: asyncio.Event, reload: asyncio.Event) -> bool:
        """Until it is to stop, or another gateway has taken over: True."""
        while not stop.is_set():
            waiting = [asyncio.ensure_future(event.wait()) for event in (stop, reload)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            if reload.is_set():
                reload.clear()
                if await hand_over(self._listener, systemd, stop):
                    return True
        return False

    def checks(self) -> dict[str, Check]:
        """What must be well while it serves."""
        return self._link.checks()

    def standing(self) -> Standing:
        """How it stands, for people."""
        return standing(
            self.url,
            router=self._link.endpoint,
            connected=self._link.connected,
            requests=self._gateway.requests,
            drain_s=self._drain_s if self._gateway.leaving else None,
        )

    def cut(self) -> None:
        """Make `stop` wait no longer for open requests."""
        self._cut.set()

    async def stop(self) -> None:
        """Listen no more; let open requests finish within `drain_s` or until `cut()`; then cut them and the link."""
        self._http.close()  # our own copy of the socket
        self._gateway.leaving = True
        if self.held:
            await self._answer_the_last()
        self._gateway.stop()
        self._link.drain()
        assert self._runner.server is not None
        self._runner.server.pre_shutdown()  # connections between two requests end now
        finished = asyncio.ensure_future(self._runner.server.shutdown(None))
        cutting = asyncio.ensure_future(self._cut.wait())
        await asyncio.wait((finished, cutting), timeout=self._drain_s, return_when=asyncio.FIRST_COMPLETED)
        for task in (finished, cutting):
            task.cancel()
        await asyncio.gather(finished, cutting, return_exceptions=True)
        self._link.keep_jobs()  # a gateway that stops cancels nothing: who had a key finds its job again
        await self._runner.cleanup()
        await self._gateway.webhooks.stop()
        await self._gateway.access.stop()
        await self._link.close()
        self._gateway.lines.close()
        self._gateway.tracing.close()

    def _asked_in_part(self, connections: int) -> bool:
        """Is anybody there who has not asked yet, or whose request is still arriving?"""
        return connections > self._gateway.requests or self._gateway.reads_bodies

    async def _answer_the_last(self) -> None:
        """Requests of those who have connected already and not asked yet; each answer ends its connection."""
        end = monotonic_s() + min(LAST_REQUESTS_S, self._drain_s)
        assert self._runner.server is not None
        while self._asked_in_part(len(self._runner.server.connections)) and monotonic_s() < end:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._cut.wait()
                    return


async def _serve_until_stopped(
    loaded: Loaded[GatewaySettings], server: Server, systemd: Systemd, predecessor: Predecessor | None
) -> bool:
    """Has another gateway taken over?"""
    log, began = get_logger(), monotonic_s()
    logging.getLogger("aiohttp").addHandler(_ToStructlog())
    stop_asked, reload_asked = asyncio.Event(), asyncio.Event()
    _on_signals(stop_asked.set, server.cut, reload_asked.set if server.held else None)
    await server.start()
    log.info("gateway.listening", url=server.url, router=loaded.settings.router_endpoint)
    if predecessor is not None and not await predecessor.relieve():
        log.error("gateway.not_wanted", message="the gateway before this one has given up on it, and goes on")
        stop_asked.set()
    systemd.watch(server.checks())
    tending = asyncio.ensure_future(_tend(systemd, server))
    handed_over = await server.until_left(systemd, stop_asked, reload_asked)
    if handed_over:
        systemd.close()  # it listens to the other one from now on
    log.info("gateway.draining", drain_s=loaded.settings.drain_s)
    await server.stop()
    tending.cancel()
    await asyncio.gather(tending, return_exceptions=True)
    log.info("gateway.stopped", elapsed_s=round(monotonic_s() - began, 3))
    return handed_over


async def _tend(systemd: Systemd, server: Server) -> None:
    """As long as the event loop turns."""
    while True:
        systemd.tend(monotonic_s(), server.standing)
        await asyncio.sleep(TEND_INTERVAL_S)


def _on_signals(first: Callable[[], None], again: Callable[[], None], reload: Callable[[], None] | None) -> None:
    """As on_stop_signals, but on the loop and not between any two bytecodes. SIGHUP asks for `reload`, if given."""
    loop = asyncio.get_running_loop()

    def call(what: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(what)

    on_stop_signals(partial(call, first), partial(call, again))
    if reload is not None:
        signal.signal(signal.SIGHUP, lambda _signal, _frame: call(reload))


class _ToStructlog(logging.Handler):
    """What aiohttp itself has to say goes into the same log."""

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        if isinstance(cause, web.RequestPayloadError):  # the rest of a body that is answered for already
            get_logger().debug("http.body_broken", error=str(cause))
            return
        fields: dict[str, Any] = {"logger": record.name, "message": record.getMessage()}
        get_logger().log(record.levelno, "http.library", exc_info=cause, **fields)
