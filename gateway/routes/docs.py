"""GET /openapi.json and GET /docs: what this gateway can be asked, for programs and for people."""

from collections.abc import Sequence
from functools import cached_property
from html import escape

import msgspec
from aiohttp import web

from gateway.dialects import openapi, reference
from gateway.dialects.operation import Operation

CACHE = "no-cache"  # a newer gateway answers at the same address
HOST_CHARS_MAX = 100


class Reference:
    """Both forms of the document, each made when it is first asked for."""

    def __init__(self, operations: Sequence[Operation], version: str) -> None:
        self._operations, self._version = operations, version

    @cached_property
    def json(self) -> bytes:
        """The OpenAPI document."""
        return msgspec.json.format(msgspec.json.encode(openapi.document(self._operations, version=self._version)))

    @cached_property
    def html(self) -> str:
        """The page."""
        return reference.page(openapi.document(self._operations, version=self._version))


REFERENCE = web.AppKey("reference", Reference)


async def get_openapi(request: web.Request) -> web.Response:
    """The document."""
    body = request.app[REFERENCE].json
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": CACHE})


async def get_docs(request: web.Request) -> web.Response:
    """The page."""
    host = escape(request.host[:HOST_CHARS_MAX])
    headers = {
        "Cache-Control": CACHE,
        "Content-Security-Policy": reference.POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    page = request.app[REFERENCE].html.replace(reference.HOST, host)
    return web.Response(text=page, content_type="text/html", headers=headers)
