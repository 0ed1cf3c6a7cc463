"""HTTP routes, one file a topic. Each reads a request, asks a dialect and the link, and answers."""

from aiohttp import web

from gateway.routes.docs import REFERENCE, Reference
from gateway.routes.table import ROUTES


def add_all(app: web.Application, version: str) -> None:
    """Every path that this gateway serves, and the reference of them."""
    for route in ROUTES:
        app.router.add_route(route.operation.method, route.operation.path, route.handler)
        if route.operation.method == "GET":
            app.router.add_route("HEAD", route.operation.path, route.handler)
    app[REFERENCE] = Reference([route.operation for route in ROUTES], version)
