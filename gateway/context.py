"""What every route of the gateway shares, and the one way it writes JSON. Knows no dialect's fields."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from common.clock import monotonic_s
from common.errors import GenServeError
from common.log import get_logger
from common.messages import StatusQuery, StatusReply
from common.roles import LOCAL_NAME
from common.settings import GatewaySettings, Loaded
from common.traces import Traces
from gateway.access import Access
from gateway.dialects import keys, models
from gateway.dialects.body import Body
from gateway.dialects.errors import HttpError
from gateway.host_names import HostNames
from gateway.lines import Lines
from gateway.link import RouterLink
from gateway.metrics import Metrics
from gateway.tracing import Tracing
from gateway.webhooks import Webhooks

STATUS_AGE_S_MAX = 2.0  # of the list of models by which an alias is told from a model
STATUS_PAGES_MAX = 1000
CHARSETS = frozenset({"utf-8", "utf8"})
PLAIN_JSON = "send plain JSON in UTF-8 with the header Content-Type: application/json"
CLIENT_LABEL_CHARS_MAX = 128
JOB_ID = re.compile(r"[0-9a-f]{32}")
REQUEST_ID = web.RequestKey("request_id", str)
JOB_IDS = web.RequestKey("job_ids", list[str])  # the jobs that a request is about, for the log

_encoder = msgspec.json.Encoder()


class Gateway:
    """The connection to the router, the settings, and what is known of the models."""

    def __init__(
        self,
        loaded: Loaded[GatewaySettings],
        link: RouterLink,
        *,
        version: str,
        link_secret: bytes,
        state: Path,
        traces: Traces | None = None,
    ) -> None:
        """`link_secret` signs links to pictures; `state` is the folder for what outlives the gateway."""
        self.settings = loaded.settings
        self.host_names = HostNames(self.settings.host, self.settings.allowed_hosts)
        self.link_secret = link_secret
        self.log_settings = loaded.log
        self.link = link
        self.version = version
        router_ = loaded.settings.router_endpoint.removeprefix("tcp://").replace(":", "_")
        self.webhooks = Webhooks(state / "webhooks" / router_, link.following)  # of that router's jobs
        self.log = get_logger().bind()  # bound once, not for each line
        self.lines = Lines()
        self.access = Access(loaded.settings)
        self.tracing = Tracing(traces)
        self.metrics = Metrics(version)
        self.metrics.gauge("http_requests_open", "HTTP requests being answered now.", lambda: self.requests)
        self.address = (self.settings.host, self.settings.port)  # with the true port once it listens
        self._status: StatusReply | None = None
        self._status_until = 0.0
        self.leaving = False  # no more than what there is: each answer ends its connection
        self.stopping = False
        self.requests = 0  # being answered
        self.streams = 0  # of them those that are streams of events
        self.upload_bytes = 0  # of bodies with picture files, held by open requests
        self._arriving: set[asyncio.Timeout] = set()  # one for each body that is being read

    def stop(self) -> None:
        """Wait for no body any more: a request that is still arriving has no job yet."""
        self.stopping = True
        now = asyncio.get_running_loop().time()
        for limit in self._arriving:
            limit.reschedule(now)

    @property
    def reads_bodies(self) -> bool:
        """Is the body of a request being read?"""
        return bool(self._arriving)

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Inside, one more stream of events is open. Raises GenServeError unavailable where there are too many."""
        if self.streams >= self.settings.event_streams_max:
            message = f"{self.streams} streams of events are open already (gateway.event_streams_max)"
            raise GenServeError("unavailable", message)
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Inside, one more request is being answered."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    async def body(self, request: web.Request) -> bytes:
        """The request's body. Raises as `arriving` does; aiohttp's 413 where it is, or says that it is, too long."""
        announced = request.content_length or 0
        if announced > self.settings.body_bytes_max:  # not even waited for
            raise web.HTTPRequestEntityTooLarge(self.settings.body_bytes_max, announced)
        async with self.arriving(self.settings.body_timeout_s, "body_timeout_s"):
            return await request.read()

    @asynccontextmanager
    async def arriving(self, limit_s: float, setting: str) -> AsyncIterator[None]:
        """Inside, a body is read. Raises HttpError 408 where it is slow, GenServeError unavailable while stopping."""
        try:
            async with asyncio.timeout(0 if self.stopping else limit_s) as limit:  # 0: what is here already
                self._arriving.add(limit)
                try:
                    yield
                finally:
                    self._arriving.discard(limit)
        except TimeoutError:
            if self.stopping:
                raise GenServeError("unavailable", "the gateway is stopping and the body had not arrived") from None
            raise HttpError(
                408,
                f"the body did not arrive within {limit_s:g} s (gateway.{setting})",
                next_step="send the whole body at once",
            ) from None

    async def status(self, owner: str = LOCAL_NAME, *, timeout_s: float | None = None) -> StatusReply:
        """The router's STATUS, all pages of workers in one, naming `owner`'s jobs. Raises GenServeError unavailable."""
        first = await self._page(0, owner, timeout_s)
        workers = list(first.workers)
        for _ in range(STATUS_PAGES_MAX):
            if len(workers) >= first.workers_total:
                break
            page = await self._page(len(workers), owner, timeout_s)
            if not page.workers:  # some left between two pages
                break
            workers += page.workers
        status = msgspec.structs.replace(first, workers=tuple(workers))
        self._status, self._status_until = status, monotonic_s() + STATUS_AGE_S_MAX
        return status

    async def model_meant(self, name: str) -> str:
        """The model that a client's name for it means; '' is the router's default model."""
        if not models.may_be_alias(name, self.settings):
            return name
        fresh = self._status is not None and monotonic_s() < self._status_until
        status = self._status if fresh and self._status is not None else await self.status()
        return models.resolve(name, status.models, self.settings)

    async def _page(self, workers_from: int, owner: str, timeout_s: float | None) -> StatusReply:
        question = StatusQuery(rid=self.link.new_rid(), workers_from=workers_from, owner=owner)
        reply, _ = await self.link.ask(question, timeout_s=timeout_s)
        if not isinstance(reply, StatusReply):
            raise GenServeError("internal", f"the router answered STATUS with {reply.NAME.decode()}")
        return reply


GATEWAY = web.AppKey("gateway", Gateway)


def reply(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`body` as JSON; bytes inside become base64, encoded once, straight into the response."""
    return web.Response(body=_encoder.encode(body), status=status, headers=headers, content_type="application/json")


async def read_json_body(request: web.Request) -> bytes:
    """The body. Raises HttpError 415 unless it is said to be plain JSON, and what Gateway.body raises.

    aiohttp raises 413 where it is too long.
    """
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":  # a body is short anyway, and one that unpacks to gigabytes is no risk then
        raise HttpError(
            415, f"the body must not be compressed ({encoding[:40]})", param="Content-Encoding", next_step=PLAIN_JSON
        )
    kind = request.content_type
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise HttpError(
            415,
            f"the body must be JSON: send Content-Type: application/json, not {kind}",
            param="Content-Type",
            next_step=PLAIN_JSON,
        )
    if request.charset is not None and request.charset.lower() not in CHARSETS:
        raise HttpError(
            415,
            f"the body must be JSON in UTF-8, not in {request.charset[:40]}",
            param="Content-Type",
            next_step=PLAIN_JSON,
        )
    return await request.app[GATEWAY].body(request)


def job_id_of(request: web.Request) -> str:
    """The job that the path names. Raises GenServeError not_found where it can be none."""
    job_id = request.match_info["job_id"]
    if not JOB_ID.fullmatch(job_id):
        raise GenServeError("not_found", "a job id is the 32 hexadecimal digits that POST /v1/jobs gave", param="id")
    request[JOB_IDS] = [job_id]
    return job_id


def client_label(request: web.Request) -> str:
    """Whom to count the job to: the header X-GenServe-Client, else the peer's address."""
    label = request.headers.get("X-GenServe-Client", "").strip()
    if len(label) > CLIENT_LABEL_CHARS_MAX or not label.isprintable():
        raise HttpError(
            400,
            f"X-GenServe-Client must be at most {CLIENT_LABEL_CHARS_MAX} printable characters",
            param="X-GenServe-Client",
        )
    return label or request.remote or ""


def request_key(request: web.Request, endpoint: str, asked: Body, files: bytes = b"") -> keys.RequestKey | None:
    """The request's Idempotency-Key, if it has one; `files`: a digest of those that it brings."""
    return keys.read_key(request.headers.getall(keys.HEADER, []), endpoint, asked, files)


def random_seed(key: keys.RequestKey | None) -> int:
    """The seed of a request that names none: with a key, the same each time it is repeated."""
    return random.randrange(keys.RANDOM_SEEDS) if key is None else key.seed
