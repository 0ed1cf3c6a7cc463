"""GET /v1/status, and the older dialect's GET /status /gpu/load /config /models /devices."""

from aiohttp import web

from common.messages import StatusReply
from gateway.access import WHO
from gateway.context import GATEWAY, reply
from gateway.dialects import fleet


async def get_service(request: web.Request) -> web.Response:
    """The router's STATUS as it came, all pages of GPUs together."""
    return reply(fleet.service_view(await _status(request)))


async def get_status(request: web.Request) -> web.Response:
    """Queues, instances, counts, devices and their memory."""
    return reply(fleet.status_view(await _status(request)))


async def get_gpu_load(request: web.Request) -> web.Response:
    """Each device's memory."""
    return reply(fleet.gpu_load_view(await _status(request)))


async def get_config(request: web.Request) -> web.Response:
    """The bounds and settings in force."""
    gateway, status = request.app[GATEWAY], await _status(request)
    return reply(
        fleet.config_view(
            status, gateway.settings, gateway.log_settings, version=gateway.version, address=gateway.address
        )
    )


async def get_models(request: web.Request) -> web.Response:
    """Every known model's card, folder and devices."""
    return reply(fleet.models_view(await _status(request)))


async def get_devices(request: web.Request) -> web.Response:
    """Every device of the fleet."""
    return reply(fleet.devices_view(await _status(request)))


async def _status(request: web.Request) -> StatusReply:
    """As far as the caller may see it."""
    return await request.app[GATEWAY].status(request[WHO].sees)
