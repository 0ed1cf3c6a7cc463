"""What every request passes: its id, who may ask at all, the one error body, one line in the log.

Where no keys are asked for, two things stand between the service and any web page that somebody has open: the Host must
be a name that nobody else can own (gateway/host_names.py), and a request that changes something must not come from
another origin.
"""

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import HttpVersion10, HttpVersion11, web

from common.clock import monotonic_s
from common.errors import GenServeError
from common.log import write
from gateway.access import REVOKED, WHO, Access
from gateway.callers import revoked
from gateway.context import GATEWAY, JOB_IDS, PLAIN_JSON, REQUEST_ID, reply
from gateway.dialects import generate, keys
from gateway.dialects.errors import ErrorBody, HttpError, facts, headers_of, status_of
from gateway.sse import OPEN_STREAM, EventStream

PREFLIGHT_AGE_S = 600
EXPOSED = "Location, Retry-After, retry-after-ms, x-should-retry, X-Request-Id"
QUIET_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})  # asked every few seconds: debug only
POLLED = ("/v1/status", "/page/")  # by every open page; only what goes wrong with them is worth a line
SHOWN_PATH_CHARS_MAX = 120
HUNG_UP = 499  # the status, in the metrics alone, of a request whose client did not wait
PRIVATE = frozenset({"prompt", "negative_prompt", keys.HEADER})  # whose values are not logged
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_boot = uuid.uuid4().hex[:8]
_numbers = itertools.count(1)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def every_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer, whatever happens, in JSON with a request id; write the line."""
    gateway = request.app[GATEWAY]
    with gateway.counted(), gateway.tracing.request(request) as span:
        began = monotonic_s()
        try:
            response = await _answer(request, handler)
        except asyncio.CancelledError:  # the client hung up, or we stop: nobody is answered
            gateway.metrics.answered(request, HUNG_UP, monotonic_s() - began)
            raise
        span.answered(response.status, request[REQUEST_ID], request.get(JOB_IDS, []))
        return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    began = monotonic_s()
    request_id = request[REQUEST_ID] = f"{_boot}-{next(_numbers)}"
    fields: dict[str, object] = {}
    response: web.StreamResponse
    access = request.app[GATEWAY].access
    try:
        _check_frame(request)
        _check_browser(request, access)
        caller = request[WHO] = access.judge(request)
        access.begin(request, caller)
        response = _preflight() if _asks_first(request) else await handler(request)
    except asyncio.CancelledError:
        if (name := request.get(REVOKED)) is None:
            raise
        if OPEN_STREAM in request and request.transport is not None:
            request.transport.abort()  # an end that says nothing: no event is for who may not listen
            raise
        _go_on()
        response, fields = await _refused(revoked(name), request)
    except GenServeError as error:
        response, fields = await _refused(error, request)
    except web.HTTPException as error:
        refusal = _refusal_of(error, request)
        response = error_response(refusal, request.path)
        response.headers.update({name: error.headers[name] for name in ("Allow",) if name in error.headers})
        fields = _failure_fields(refusal)
    except (web.RequestPayloadError, ConnectionError) as error:
        refusal = HttpError(400, "the body did not arrive as its headers announce it")
        stream = request.get(OPEN_STREAM)
        response = error_response(refusal, request.path) if stream is None else stream.response
        fields = {**(_failure_fields(refusal) if stream is None else {}), "cause": type(error).__name__}
    except Exception:
        request.app[GATEWAY].log.exception("request.crashed", request_id=request_id, path=request.path)
        crash = GenServeError("internal", f"something went wrong inside GenServe (request {request_id})")
        response = await _failed(crash, request)
        fields = _failure_fields(crash)
    finally:
        access.end(request)
    late = response.status == HTTPStatus.REQUEST_TIMEOUT
    if not response.prepared:
        if request.app[GATEWAY].leaving or late or _oddly_coded(request) or _oddly_versioned(request):
            response.force_close()
        response.headers["X-Request-Id"] = request_id
    elapsed_s = round(monotonic_s() - began, 6)
    request.app[GATEWAY].metrics.answered(request, response.status, elapsed_s)
    _log_line(request, response.status, {"elapsed_s": elapsed_s, "request_id": request_id, **fields})
    return response


async def _refused(error: GenServeError, request: web.Request) -> tuple[web.StreamResponse, dict[str, object]]:
    return await _failed(error, request), _failure_fields(error)


def _go_on() -> None:
    """After a cancellation that was meant for what was awaited."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()


async def _failed(error: GenServeError, request: web.Request) -> web.StreamResponse:
    """The answer that tells an error; where the answer has begun, its last event does."""
    stream: EventStream | None = request.get(OPEN_STREAM)
    if stream is None:
        return error_response(error, request.path)
    with suppress(ConnectionError):
        await stream.fail(error)
    return stream.response


def refused_unrouted(request: web.Request, error: web.HTTPException) -> web.Response:
    """The answer and the line of a request that aiohttp refuses before it passes here."""
    refusal, request_id = _refusal_of(error, request), f"{_boot}-{next(_numbers)}"
    response = error_response(refusal, request.path)
    response.headers["X-Request-Id"] = request_id
    request.app[GATEWAY].metrics.answered(request, response.status, 0.0)
    _log_line(request, response.status, {"request_id": request_id, **_failure_fields(refusal)})
    return response


def error_response(error: GenServeError, path: str) -> web.Response:
    """The error body in the dialect of `path`."""
    body = generate.to_error(error) if path in ("/generate", "/generate/upload") else ErrorBody(error=facts(error))
    return reply(body, status=status_of(error), headers=headers_of(error))


def _check_frame(request: web.Request) -> None:
    """What is no HTTP as it is spoken here is refused, whoever asks."""
    if _oddly_versioned(request):
        major, minor = request.version
        raise HttpError(400, f"HTTP/{major}.{minor} is not spoken here", next_step="speak HTTP/1.1")
    if _oddly_coded(request):
        raise HttpError(
            400,
            "Transfer-Encoding may be chunked and nothing else here",
            param="Transfer-Encoding",
            next_step=PLAIN_JSON,
        )


def _check_browser(request: web.Request, access: Access) -> None:
    """Without keys a page that somebody has open must not use this service behind their back."""
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin", "")
    if "://" in request.raw_path.partition("?")[0]:  # absolute, as to a proxy: what it names is asked for
        host = urlsplit(request.raw_path).netloc
    settings = request.app[GATEWAY].settings
    names = request.app[GATEWAY].host_names
    if host and not access.asks_for_keys and not names.answers(host):
        raise HttpError(
            403,
            f"without keys this service answers to {names.told()}, not to {host[:80]!r}",
            param="Host",
            next_step="ask under one of those, or have the operator name this one too (gateway.allowed_hosts); a "
            "reverse proxy may also send one of those as Host",
        )
    foreign = origin and origin.partition("://")[2] != host and origin not in settings.cors_origins
    if foreign and request.method not in _SAFE_METHODS:
        raise HttpError(
            403,
            f"pages of {origin[:80]!r} may not use this service, only those of the same origin",
            param="Origin",
            next_step="call it from the same origin, or have the operator name this one (gateway.cors_origins)",
        )


async def allow_origin(request: web.Request, response: web.StreamResponse) -> None:
    """Before the head is sent: pages of the origins that the operator names may read the answer."""
    origin, allowed = request.headers.get("Origin", ""), request.app[GATEWAY].settings.cors_origins
    if allowed:
        response.headers.add("Vary", "Origin")
    if origin in allowed:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = EXPOSED


def _asks_first(request: web.Request) -> bool:
    """Is it a browser that asks whether a page may (CORS preflight)?"""
    asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    return asks and request.headers.get("Origin", "") in request.app[GATEWAY].settings.cors_origins


def _preflight() -> web.Response:
    headers = {
        "Access-Control-Allow-Methods": "GET, POST, DELETE",
        "Access-Control-Allow-Headers": f"Authorization, Content-Type, Last-Event-ID, {keys.HEADER}, X-API-Key, "
        "X-GenServe-Client",
        "Access-Control-Max-Age": str(PREFLIGHT_AGE_S),
    }
    return web.Response(status=204, headers=headers)


def _oddly_coded(request: web.Request) -> bool:
    """Is its body in a coding that somebody before us may have read otherwise?"""
    coding = request.headers.get("Transfer-Encoding")
    return coding is not None and coding.lower() != "chunked"


def _oddly_versioned(request: web.Request) -> bool:
    return request.version not in (HttpVersion10, HttpVersion11)


def _refusal_of(error: web.HTTPException, request: web.Request) -> HttpError:
    path = (request.path or request.raw_path)[:SHOWN_PATH_CHARS_MAX]  # CONNECT names a host, and no path
    param, next_step = None, ""
    match error:
        case web.HTTPRequestEntityTooLarge():
            message = f"the body is too long: {error.text}"
        case web.HTTPMethodNotAllowed():
            message = f"{path} does not take {request.method}, only {', '.join(sorted(error.allowed_methods))}"
        case web.HTTPNotFound():
            message, next_step = f"there is no {path}", "GET / lists what there is"
        case web.HTTPExpectationFailed():
            param, message = "Expect", f"Expect: {request.headers['Expect'][:40]} is not understood, only 100-continue"
        case _:
            message = error.text or error.reason
    return HttpError(error.status, message, param=param, next_step=next_step)


def _failure_fields(error: GenServeError) -> dict[str, object]:
    job_id = getattr(error, "job_id", None)
    message = f"{error.param} is not right" if error.param in PRIVATE else error.message  # which may quote it
    return {"code": error.code, "error": message, **({"job_id": job_id} if job_id else {})}


def _log_line(request: web.Request, status: int, fields: dict[str, object]) -> None:
    job_ids = request.get(JOB_IDS)
    if job_ids:
        fields["job_id"] = job_ids[0]
        if len(job_ids) > 1:
            fields["job_ids"] = job_ids
    fields = {
        "method": request.method,
        "path": request.path[:SHOWN_PATH_CHARS_MAX],
        "status": status,
        "peer": request.remote,
        **fields,
    }
    caller = request.get(WHO)
    if caller is not None and caller.key is not None:
        fields["caller"] = caller.key.name
    gateway = request.app[GATEWAY]
    quiet = request.path in QUIET_PATHS or (status < 400 and request.path.startswith(POLLED))
    level = "debug" if quiet else "error" if status >= 500 else "info"
    refused = 400 <= status < 500 or status == HTTPStatus.SERVICE_UNAVAILABLE
    if refused and "job_id" not in fields:  # of refusals that are alike one line a second
        gateway.lines.write(level, "http.request", **fields)
    else:
        write(gateway.log, level, "http.request", fields)
