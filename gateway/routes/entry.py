"""One entry of the table of routes: an operation, and who answers it."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from msgspec import Struct

from gateway.dialects.operation import Operation

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Route(Struct, frozen=True):
    """An operation and who answers it."""

    operation: Operation
    handler: Handler
