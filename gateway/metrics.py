"""The gateway's own metrics: its requests by route, its connections, its process; and the one answer to a scrape.

Routes are templates ('/v1/jobs/{job_id}'), methods those of HTTP, statuses those that we answer: nobody can make more
series by asking for odd paths.
"""

import platform
from collections.abc import Callable, Iterator
from itertools import chain

from aiohttp import hdrs, web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from common.messages import StatusReply
from gateway.dialects.metrics import router_families

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
NO_ROUTE = "none"  # of what is asked for and is not there
OTHER_METHOD = "OTHER"

disable_created_metrics()  # type: ignore[no-untyped-call]  # the start of the process is told once


class Metrics:
    """Of one gateway."""

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "genserve_http_requests",
            "HTTP requests answered, by route, method and status.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "genserve_http_request_seconds",
            "Time from a request's head to the end of its handler, by route and method.",
            ["route", "method"],
            buckets=BOUNDS_S,
            registry=self._registry,
        )
        self.malformed = Counter(
            "genserve_http_malformed", "Connections that sent what is not HTTP.", registry=self._registry
        )
        self.turned_away = Counter(
            "genserve_http_connections_refused",
            "Connections refused because there were gateway.connections_max.",
            registry=self._registry,
        )
        build = Gauge(
            "genserve_build_info",
            "The gateway's software; always 1.",
            ["version", "python"],
            registry=self._registry,
        )
        build.labels(version, platform.python_version()).set(1)
        ProcessCollector(namespace="genserve_gateway", registry=self._registry)
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """One more, which is asked for its value at each scrape."""
        Gauge(f"genserve_{name}", text, registry=self._registry).set_function(value)

    def answered(self, request: web.Request, status: int, elapsed_s: float) -> None:
        """A request has been answered."""
        key = (_route(request), _method(request.method), status)
        known = self._known.get(key)
        if known is None:
            route, method, _ = key
            known = (self._requests.labels(route, method, str(status)), self._seconds.labels(route, method))
            self._known[key] = known
        known[0].inc()
        known[1].observe(elapsed_s)

    def exposition(self, status: StatusReply | None, accept: str) -> tuple[bytes, str]:
        """A scrape's answer and its content type, in the format that `accept` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(_Scrape(self._registry, status)), content_type


class _Scrape:
    """What one scrape shows."""

    def __init__(self, registry: CollectorRegistry, status: StatusReply | None) -> None:
        self._registry, self._status = registry, status

    def collect(self) -> Iterator[Metric]:
        return chain(self._registry.collect(), router_families(self._status))


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return NO_ROUTE if resource is None else resource.canonical


def _method(method: str) -> str:
    return method if method in hdrs.METH_ALL else OTHER_METHOD
