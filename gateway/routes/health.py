"""GET /health, /health/ready and /health/live."""

from aiohttp import web

from common.errors import GenServeError
from gateway.context import GATEWAY, reply
from gateway.dialects import fleet
from gateway.dialects.fleet_views import Live

HEALTH_TIMEOUT_S = 2.0  # a probe must not wait as long as a request may


async def get_health(request: web.Request) -> web.Response:
    """200 where the router answers and an engine has drawn its warm-up picture; else 503 with the reasons."""
    gateway = request.app[GATEWAY]
    status, problem = None, ""
    try:
        status = await gateway.status(timeout_s=min(HEALTH_TIMEOUT_S, gateway.settings.router_timeout_s))
    except GenServeError as error:
        problem = error.message
    view = fleet.health_view(status, problem, gateway.version)
    return reply(view, status=503 if view.reasons else 200)


async def get_live(request: web.Request) -> web.Response:
    """200: this process answers; no more is said."""
    return reply(Live(status="live", version=request.app[GATEWAY].version))
