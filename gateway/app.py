"""The gateway process: HTTP on loopback in front, the link to the router behind.

Here are the start, the listening and the stop; what is answered is in routes/. Stopping: no new connections;
requests whose body has not arrived are refused; the others may finish within `drain_s`, then they are cut, and
their jobs go on without them; last the link closes. A second signal cuts at once.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import uvloop
from aiohttp import web

from common.clock import monotonic_s
from common.errors import GenServeError, SettingsError
from common.keys import GATEWAY_FILE, KeyFile, load_key
from common.log import configure, get_logger
from common.notify import notify
from common.process import EXIT_OK, exit_config, name_process, on_stop_signals
from common.settings import GatewaySettings, Loaded
from common.sockets import is_loopback
from gateway import routes
from gateway.connection import protocol_factory
from gateway.context import GATEWAY, Gateway
from gateway.link import RouterLink
from gateway.middleware import every_request

LISTEN_BACKLOG = 1024
CUT_S = 0.1  # that aiohttp gives a request it cuts


def run(loaded: Loaded[GatewaySettings]) -> int:
    """Serve until a stop signal; the exit status."""
    name_process("genserve gateway")
    configure("gateway", loaded.log)
    try:
        key = load_key(loaded.settings.key_file, os.environ, GATEWAY_FILE, "gateway")
        listener = listen(loaded.settings.host, loaded.settings.port)
    except GenServeError as error:
        return exit_config(error)
    with listener:
        uvloop.run(_serve_until_stopped(loaded, listener, key))
    return EXIT_OK


def build_app(gateway: Gateway) -> web.Application:
    """The application: routes and middleware around one `gateway`."""
    app = web.Application(middlewares=[every_request], client_max_size=gateway.settings.body_bytes_max)
    app[GATEWAY] = gateway
    routes.add_all(app.router)
    return app


class Server:
    """HTTP on one listening socket. Used on one event loop, between `start` and `stop`."""

    def __init__(self, loaded: Loaded[GatewaySettings], listener: socket.socket, key: KeyFile | None = None) -> None:
        settings = loaded.settings
        self._listener = listener
        self._link = RouterLink(settings.router_endpoint, answer_timeout_s=settings.router_timeout_s, key=key)
        self._gateway = Gateway(loaded, self._link, version=version("genserve"))
        self._gateway.address = (settings.host, listener.getsockname()[1])
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
        await self._runner.setup()
        assert self._runner.server is not None
        self._http = await asyncio.get_running_loop().create_server(
            protocol_factory(self._runner.server, self._gateway.settings), sock=self._listener, backlog=LISTEN_BACKLOG
        )

    def cut(self) -> None:
        """Make `stop` wait no longer for open requests."""
        self._cut.set()

    async def stop(self) -> None:
        """Listen no more; let open requests finish within `drain_s` or until `cut()`; then cut them and the link."""
        self._http.close()
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
        await self._link.close()


async def _serve_until_stopped(loaded: Loaded[GatewaySettings], listener: socket.socket, key: KeyFile | None) -> None:
    log, began = get_logger(), monotonic_s()
    logging.getLogger("aiohttp").addHandler(_ToStructlog())
    server = Server(loaded, listener, key)
    stop_asked = asyncio.Event()
    _on_signals(asyncio.get_running_loop(), stop_asked.set, server.cut)
    await server.start()
    log.info("gateway.listening", url=server.url, router=loaded.settings.router_endpoint)
    notify(READY=1, STATUS=f"listening on {server.url}")
    await stop_asked.wait()
    log.info("gateway.draining", drain_s=loaded.settings.drain_s)
    notify(STOPPING=1)
    await server.stop()
    log.info("gateway.stopped", elapsed_s=round(monotonic_s() - began, 3))


def _on_signals(loop: asyncio.AbstractEventLoop, first: Callable[[], None], again: Callable[[], None]) -> None:
    """As on_stop_signals, but on the loop and not between any two bytecodes."""

    def call(what: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(what)

    on_stop_signals(partial(call, first), partial(call, again))


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises GenServeError for an address that others could reach, or one that is taken."""
    if not is_loopback(host):
        raise SettingsError(
            f"gateway.host = {host!r} could be reached from other machines and there are no keys yet; "
            "listen on 127.0.0.1 and put a reverse proxy with authentication on this machine in front"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        why = "is in use by another process" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise GenServeError("address_in_use", f"gateway.port = {port}: {host}:{port} {why}") from None
    return listener


class _ToStructlog(logging.Handler):
    """What aiohttp itself has to say goes into the same log."""

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        if isinstance(cause, web.RequestPayloadError):  # the rest of a body that is answered for already
            get_logger().debug("http.body_broken", error=str(cause))
            return
        fields: dict[str, Any] = {"logger": record.name, "message": record.getMessage()}
        get_logger().log(record.levelno, "http.library", exc_info=cause, **fields)
