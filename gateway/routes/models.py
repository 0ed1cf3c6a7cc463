"""GET /v1/models and /v1/models/{name}."""

from aiohttp import web

from gateway.context import GATEWAY, reply
from gateway.dialects import models


async def get_models(request: web.Request) -> web.Response:
    """All known models with their cards."""
    gateway = request.app[GATEWAY]
    return reply(models.model_list(await gateway.status(), gateway.settings))


async def get_model(request: web.Request) -> web.Response:
    """One model, by its name or an alias."""
    gateway = request.app[GATEWAY]
    return reply(models.model_item(request.match_info["name"], await gateway.status(), gateway.settings))
