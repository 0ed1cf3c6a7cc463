"""Gives the spans of ended jobs to OpenTelemetry. Only where traces are on; what they say is made in spans.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.log import get_logger
from common.traces import NANOSECONDS, Traces
from router.jobs import Job
from router.spans import JobTrace, trace_of

if TYPE_CHECKING:
    from opentelemetry.context import Context


class TraceWriter:
    """Writes jobs' traces."""

    def __init__(self, traces: Traces) -> None:
        self._traces = traces

    def write(self, job: Job) -> None:
        """All spans of one job. A fault of our own costs its trace and nothing else."""
        try:
            self._write(trace_of(job))
        except Exception:
            get_logger().exception("traces.bug", job_id=job.job_id)

    def _write(self, job: JobTrace) -> None:
        """Under the span that its client named; else in a trace that has the job's own id."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context  # noqa: PLC0415  # an extra

        contexts: list[Context] = []
        above = self._traces.within(job.traceparent, trace_id=job.job_id)
        for each in job.spans:
            span = self._traces.tracer.start_span(
                each.name,
                above if each.parent is None else contexts[each.parent],
                kind=SpanKind.CONSUMER if each.parent is None else SpanKind.INTERNAL,
                attributes=each.attributes,
                start_time=_ns(each.began_at),
            )
            for step, at in each.steps_at:
                span.add_event("step", {"genserve.step": step}, timestamp=_ns(at))
            if each.error:
                span.set_status(Status(StatusCode.ERROR, each.error))
            contexts.append(set_span_in_context(span))
            span.end(_ns(each.ended_at))


def _ns(wall_s: float) -> int:
    return round(wall_s * NANOSECONDS)
