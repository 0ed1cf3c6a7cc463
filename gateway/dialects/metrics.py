"""What the router says of itself and its GPUs, as Prometheus metrics.

Pure: STATUS in, metric families out. Counters are the router's own and begin at 0 with it, at the time that
genserve_router_start_time_seconds tells; so a gateway that starts anew changes nothing in them. Labels are names of GPU
daemons, models, stages and codes: as many as the fleet has, and none that a client makes up.
"""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from common.errors import ERRORS
from common.messages import DeviceLoad, Histogram, RouterMeasures, StatusReply, WorkerView

MIB = 1024 * 1024
WORKER_STATES = ("ready", "loading", "broken", "draining", "suspect")


def router_families(status: StatusReply | None) -> Iterator[Metric]:
    """Everything that the router knows; only that it is down where it does not answer."""
    yield _gauge("router_up", "Whether the router answered this scrape.", status is not None)
    if status is None:
        return
    yield _gauge(
        "router_start_time_seconds",
        "When the router started, in seconds since 1970: its counters begin there.",
        status.measures.started_at,
    )
    yield from _queue(status)
    yield from _jobs(status)
    yield from _times(status.measures)
    yield from _workers(status.workers)
    models = GaugeMetricFamily("genserve_model_workers", "GPU daemons that serve a model now.", labels=["model"])
    for view in status.models:
        models.add_metric([view.card.name], view.workers)
    yield models


def _queue(status: StatusReply) -> Iterator[Metric]:
    stats = status.stats
    yield _gauge("jobs_waiting", "Accepted jobs that no GPU has begun.", stats.queued)
    yield _gauge("jobs_overflow", "Of the waiting jobs, those that no GPU's own queue has room for.", stats.overflow)
    yield _gauge("jobs_running", "Jobs that are drawn or stored now.", stats.running)
    yield _gauge(
        "queue_oldest_wait_seconds",
        "Time since the acceptance of the oldest job that waits now; 0 where none does.",
        status.measures.oldest_wait_s,
    )
    yield _gauge("storage_full", "Whether new jobs are refused because the router's disk is full.", status.storage_full)


def _jobs(status: StatusReply) -> Iterator[Metric]:
    stats, measures = status.stats, status.measures
    yield _counter("jobs_submitted", "Jobs accepted.", stats.submitted_total)
    ended = CounterMetricFamily(
        "genserve_jobs_ended", "Jobs by how they ended; failed ones by the code of their error.", labels=["end", "code"]
    )
    ended.add_metric(["done", ""], stats.done_total)
    ended.add_metric(["cancelled", ""], stats.cancelled_total)
    for code in sorted(ERRORS):  # those at 0 too, else the first of a kind would be no increase
        ended.add_metric(["failed", code], measures.failed.get(code, 0))
    yield ended
    rejected = CounterMetricFamily(
        "genserve_jobs_rejected", "Well-formed jobs that were not accepted, by code.", labels=["code"]
    )
    for code in sorted(ERRORS):
        rejected.add_metric([code], measures.rejected.get(code, 0))
    yield rejected
    yield _counter("jobs_retried", "Times that a job was queued again after a failure or a loss.", stats.retried_total)
    yield _counter("steps", "Denoising steps of the pictures that were done.", measures.steps_total)
    yield _counter("protocol_errors", "Messages that the router could not read.", stats.protocol_errors_total)


def _times(measures: RouterMeasures) -> Iterator[Metric]:
    stages = HistogramMetricFamily(
        "genserve_job_stage_seconds",
        "Time of a job in each stage: queue (until its first start), encode, denoise, preview, decode, save.",
        labels=["stage"],
    )
    for stage, times in measures.stages.items():
        if stage != "whole":
            stages.add_metric([stage], *_classes(measures.bounds_s, times))
    yield stages
    whole = HistogramMetricFamily("genserve_job_seconds", "Time from a job's acceptance to its stored picture.")
    if "whole" in measures.stages:
        whole.add_metric([], *_classes(measures.bounds_s, measures.stages["whole"]))
    yield whole


def _classes(bounds_s: tuple[float, ...], times: Histogram) -> tuple[list[tuple[str, float]], float]:
    names = [*(repr(bound) for bound in bounds_s), "+Inf"]
    return list(zip(names, accumulate(times.counts), strict=True)), times.sum_s


def _workers(workers: tuple[WorkerView, ...]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "genserve_worker_info",
        "A GPU daemon: its device and software; always 1.",
        labels=["worker", "host", "device", "name", "version"],
    )
    states = GaugeMetricFamily(
        "genserve_worker_state", "Whether a GPU daemon is in this state.", labels=["worker", "state"]
    )
    ended = CounterMetricFamily(
        "genserve_worker_jobs", "Jobs that ended on a GPU daemon, done or failed.", labels=["worker", "end"]
    )
    for view in workers:
        device = view.device
        info.add_metric([view.worker_id, view.host, device.device, device.name, view.version], 1)
        for state in WORKER_STATES:
            states.add_metric([view.worker_id, state], view.state == state)
        ended.add_metric([view.worker_id, "done"], view.done_total)
        ended.add_metric([view.worker_id, "failed"], view.failed_total)
    yield from (info, states, ended)
    yield from _worker_numbers(workers)
    yield from _gpus(workers)


def _worker_numbers(workers: tuple[WorkerView, ...]) -> Iterator[Metric]:
    drawing, dispatched = (
        CounterMetricFamily(f"genserve_worker_{name}", text, labels=["worker"])
        for name, text in (
            ("drawing_seconds", "Time that a GPU daemon's engine took for the pictures that were done."),
            ("dispatched", "Jobs sent to a GPU daemon since it registered last."),
        )
    )
    gauges = {
        name: GaugeMetricFamily(f"genserve_worker_{name}", text, labels=["worker"])
        for name, text in (
            ("busy", "Whether a job runs on a GPU daemon."),
            ("queue_jobs", "Jobs that wait and are planned for or sent to a GPU daemon."),
            ("credit", "Jobs that a GPU daemon would take now."),
            ("step_seconds", "Learned time of a denoising step; 0 where unknown."),
        )
    }
    for view in workers:
        drawing.add_metric([view.worker_id], view.drawing_s_total)
        dispatched.add_metric([view.worker_id], view.dispatched_total)
        numbers = {
            "busy": view.busy,
            "queue_jobs": view.queue_size,
            "credit": view.credit,
            "step_seconds": view.step_s,
        }
        for name, number in numbers.items():
            gauges[name].add_metric([view.worker_id], number)
    yield from (drawing, dispatched, *gauges.values())


def _gpus(workers: tuple[WorkerView, ...]) -> Iterator[Metric]:
    """Nothing of a device whose engine has not measured it yet; on a CPU it is the host's memory."""
    memory = {
        name: GaugeMetricFamily(f"genserve_gpu_memory_{name}_bytes", text, labels=["worker"])
        for name, text in (
            ("size", "Memory that the device has."),
            ("free", "Memory of the device that nobody holds."),
            ("allocated", "Memory in the engine's tensors; on a CPU, resident in the engine's process."),
            ("cached", "Memory that the engine's allocator holds beyond its tensors."),
        )
    }
    busy = GaugeMetricFamily(
        "genserve_gpu_utilization_ratio",
        "Share of the last moments in which anything ran on the GPU.",
        labels=["worker"],
    )
    for view in workers:
        load, name = view.load, [view.worker_id]
        if view.device.total_mb:
            memory["size"].add_metric(name, view.device.total_mb * MIB)
        if load != DeviceLoad():
            memory["free"].add_metric(name, load.free_mb * MIB)
            memory["allocated"].add_metric(name, load.allocated_mb * MIB)
            memory["cached"].add_metric(name, load.cached_mb * MIB)
        if load.utilization_percent is not None:
            busy.add_metric(name, load.utilization_percent / 100)
    yield from (*memory.values(), busy)


def _gauge(name: str, text: str, value: object) -> Metric:
    """Its value is a number, or whether something is so."""
    number = value if isinstance(value, int | float) else bool(value)
    return GaugeMetricFamily(f"genserve_{name}", text, value=float(number))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"genserve_{name}", text, value=value)
