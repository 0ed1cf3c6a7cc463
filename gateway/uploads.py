"""Forms with picture files, read as they arrive, within bounds on one body and on all that are held at one time."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from aiohttp import web

from common.errors import GenServeError
from gateway.context import GATEWAY
from gateway.dialects.errors import HttpError
from gateway.dialects.multipart import AS_FORM, Form, reader_of

MIB = 1024 * 1024


@asynccontextmanager
async def uploaded(request: web.Request, files: Collection[str]) -> AsyncIterator[Form]:
    """The request's form; its bytes count as held until the block ends. `files`: the fields that are files.

    Raises HttpError 408, 413 or 415, GenServeError invalid_request and too_large with the field at fault, and
    unavailable where there is no room for so much at one time.
    """
    gateway, held = request.app[GATEWAY], 0
    limit, room = gateway.settings.upload_bytes_max, gateway.settings.uploads_mb_max * MIB
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        text = f"the body must not be compressed ({encoding[:40]})"
        raise HttpError(415, text, param="Content-Encoding", next_step=AS_FORM)
    reader = reader_of(request.headers.get("Content-Type", ""), files)
    try:
        if (request.content_length or 0) > limit:
            raise _too_long(limit)
        async with gateway.arriving(gateway.settings.upload_timeout_s, "upload_timeout_s"):
            async for piece in request.content.iter_any():
                held += len(piece)
                gateway.upload_bytes += len(piece)
                if held > limit:
                    raise _too_long(limit)
                if gateway.upload_bytes > room:
                    text = "too many pictures are being uploaded at this moment (gateway.uploads_mb_max)"
                    raise GenServeError("unavailable", text)
                reader.feed(piece)
        yield reader.finish()
    finally:
        gateway.upload_bytes -= held


def _too_long(limit: int) -> HttpError:
    return HttpError(413, f"the body is too long: at most {limit} bytes are taken (gateway.upload_bytes_max)")
