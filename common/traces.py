"""Traces in OpenTelemetry's form, sent as OTLP over HTTP: off, and nothing of it imported, unless an endpoint is set.

Knows no job and no request. Spans wait in a bounded queue of the SDK's and are sent by its thread; where nobody takes
them they are dropped and the log says so: nothing waits for a collector.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common.errors import GenServeError
from common.log import get_logger

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Tracer

FLUSH_S_MAX = 2.0  # for what waits to be sent when a process ends
NANOSECONDS = 1_000_000_000
OWN_ENV = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
ANY_ENV = "OTEL_EXPORTER_OTLP_ENDPOINT"
OFF_ENV = "OTEL_SDK_DISABLED"
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def endpoint_of(setting: str, env: Mapping[str, str]) -> str:
    """Where traces go: the setting, else OpenTelemetry's own variables; '': nowhere."""
    if env.get(OFF_ENV, "").lower() == "true":
        return ""
    own, base = env.get(OWN_ENV, ""), env.get(ANY_ENV, "")
    return setting or own or (f"{base.rstrip('/')}/v1/traces" if base else "")


def valid(traceparent: str) -> str:
    """`traceparent` where it is one of version 00 that names a span; else ''."""
    return traceparent if _TRACEPARENT.fullmatch(traceparent) else ""


def open_traces(service: str, setting: str, env: Mapping[str, str], *, version: str) -> Traces | None:
    """None where traces are off. Raises GenServeError invalid_settings where they are on and cannot be."""
    endpoint = endpoint_of(setting, env)
    return Traces(service, endpoint, version=version) if endpoint else None


class Traces:
    """A tracer, and the way of its spans to the collector."""

    def __init__(self, service: str, endpoint: str, *, version: str) -> None:
        """Raises GenServeError invalid_settings where OpenTelemetry is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # an extra, and seldom wanted
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  # an extra, and seldom wanted
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # an extra, and seldom wanted
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  # an extra, and seldom wanted
        except ModuleNotFoundError as error:
            raise GenServeError(
                "invalid_settings",
                f"traces go to {endpoint}, but {error.name} is not installed: install genserve[traces], "
                "or leave traces_endpoint empty",
                param="traces_endpoint",
            ) from None
        self.endpoint = endpoint
        library = logging.getLogger("opentelemetry")
        library.addHandler(_ToStructlog())
        library.propagate = False
        self._ids = _ids()
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service, "service.version": version}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self.tracer: Tracer = self._provider.get_tracer("genserve", version)  # type: ignore[assignment]  # the SDK's own

    def within(self, traceparent: str, *, trace_id: str = "") -> Context:
        """The context of the span that `traceparent` names; where it is '', a new trace, called `trace_id` if given."""
        from opentelemetry.context import Context  # noqa: PLC0415  # an extra, and seldom wanted
        from opentelemetry.trace import (  # noqa: PLC0415  # an extra, and seldom wanted
            NonRecordingSpan,
            SpanContext,
            TraceFlags,
            set_span_in_context,
        )

        if not valid(traceparent):
            self._ids.wanted = int(trace_id, 16) if trace_id else None
            return Context()
        _, trace, span, flags = traceparent.split("-")
        parent = SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
        return set_span_in_context(NonRecordingSpan(parent), Context())

    def close(self) -> None:
        """Send what waits, for at most FLUSH_S_MAX: the library would wait longer for one that is gone."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(FLUSH_S_MAX)


def _ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415  # an extra, and seldom wanted

    class Ids(RandomIdGenerator):
        """Random, but for the next trace where somebody wants it called otherwise."""

        wanted: int | None = None

        def generate_trace_id(self) -> int:
            wanted, self.wanted = self.wanted, None
            return wanted or super().generate_trace_id()

    return Ids()


class _ToStructlog(logging.Handler):
    """What the library has to say goes into the same log: spans that nobody takes, above all."""

    def emit(self, record: logging.LogRecord) -> None:
        get_logger().log(record.levelno, "traces.library", logger=record.name, message=record.getMessage()[:300])
