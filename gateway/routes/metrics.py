"""GET /metrics: everything there is to measure, for Prometheus."""

from aiohttp import web

from common.errors import GenServeError
from common.messages import StatusReply
from gateway.context import GATEWAY

SCRAPE_TIMEOUT_S = 2.0  # for the router's part: a scrape that gets the rest is better than none


async def get_metrics(request: web.Request) -> web.Response:
    """The gateway's own metrics, and the router's where it answers."""
    gateway = request.app[GATEWAY]
    status: StatusReply | None = None
    try:
        status = await gateway.status(timeout_s=min(SCRAPE_TIMEOUT_S, gateway.settings.router_timeout_s))
    except GenServeError as error:
        gateway.log.debug("metrics.without_router", error=error.message)
    body, content_type = gateway.metrics.exposition(status, request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})
