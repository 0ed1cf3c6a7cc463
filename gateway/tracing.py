"""The span of each HTTP request, where traces are on; and the traceparent that its jobs take with them, in any case.

Knows HTTP's headers and OpenTelemetry's names for them; knows no route. The spans of a job come from its router.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from common.traces import Traces, valid
from gateway.submission import TRACEPARENT

if TYPE_CHECKING:
    from opentelemetry.trace import Span

HEADER = "traceparent"
NOT_TRACED = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})  # asked every few seconds
JOB_IDS_SHOWN_MAX = 10


class Tracing:
    """Of one gateway. `traces`: None where they are off; a traceparent is passed on all the same."""

    def __init__(self, traces: Traces | None) -> None:
        self._traces = traces

    @contextmanager
    def request(self, request: web.Request) -> Iterator[RequestSpan]:
        """Inside, jobs submitted are part of the request's span: of ours, else of the caller's own."""
        given = valid(request.headers.get(HEADER, ""))
        spoken = RequestSpan()
        if self._traces is not None and request.path not in NOT_TRACED:
            spoken = RequestSpan(_start(self._traces, request, given))
        token = TRACEPARENT.set(spoken.traceparent or given)
        try:
            yield spoken
        finally:
            TRACEPARENT.reset(token)
            spoken.end()

    def close(self) -> None:
        """Send what waits."""
        if self._traces is not None:
            self._traces.close()


class RequestSpan:
    """One request's; without a span, nothing is told."""

    def __init__(self, span: Span | None = None) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """As its jobs carry it; '' without a span."""
        if self._span is None:
            return ""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def answered(self, status: int, request_id: str, job_ids: list[str]) -> None:
        """What it was answered with."""
        if self._span is None:
            return
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attribute("genserve.request.id", request_id)
        if job_ids:
            self._span.set_attribute("genserve.job.ids", job_ids[:JOB_IDS_SHOWN_MAX])
        if status >= 500:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415  # an extra; there is a span, so it is there

            self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """The request is over, however."""
        if self._span is not None:
            self._span.end()


def _start(traces: Traces, request: web.Request, traceparent: str) -> Span:
    from opentelemetry.trace import SpanKind  # noqa: PLC0415  # an extra, and seldom wanted

    resource = request.match_info.route.resource
    route = "" if resource is None else resource.canonical
    attributes = {"http.request.method": request.method, "url.path": request.path[:120], "url.scheme": request.scheme}
    if route:
        attributes["http.route"] = route
    return traces.tracer.start_span(
        f"{request.method} {route}".rstrip(), traces.within(traceparent), kind=SpanKind.SERVER, attributes=attributes
    )
