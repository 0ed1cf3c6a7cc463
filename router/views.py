"""How jobs, workers and the router show themselves to clients.

Pure. Only reads; every number is counted where it arises, never made up here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import msgspec

from common.messages import (
    STATUS_WORKERS_PER_PAGE,
    ErrorInfo,
    FailureView,
    JobView,
    ModelView,
    RouterLimits,
    RouterStats,
    StatusQuery,
    StatusReply,
    WorkerView,
)
from common.text import clip
from router.jobs import Job, JobState
from router.permission import may_see

if TYPE_CHECKING:
    from common.roles import Identity
    from router.fleet import Worker
    from router.plan import Plan
    from router.state import RouterState

TEXT_BYTES_MAX = 200  # of details and paths
PAGE_BYTES_MAX = 60 * 1024  # of a header of HEADER_BYTES_MAX: what follows in pages has what the rest leaves of it
_encoder = msgspec.msgpack.Encoder()
V = TypeVar("V", JobView, WorkerView)
_SHOWN = {JobState.DISPATCHED: "queued", JobState.STORING: "running"}


def shown_state(job: Job) -> str:
    """The state as clients know it."""
    return _SHOWN.get(job.state) or job.state.value


def job_view(job: Job, position: int, eta_s: float | None) -> JobView:
    """The job as its owner sees it."""
    order = job.order
    return JobView(
        job_id=job.job_id,
        state=shown_state(job),
        model=order.model,
        width=order.width,
        height=order.height,
        steps=order.drawn_steps,
        seed=order.seed,
        guidance_scale=order.guidance_scale,
        priority=order.priority,
        client=order.client,
        created_at=job.created_at,
        deadline_at=job.deadline_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        step=job.step,
        position=position,
        eta_s=eta_s,
        attempts=job.starts,
        worker_id=job.worker_id,
        device=job.device,
        notes=job.notes,
        error=job.error,
        picture=job.picture if job.state is JobState.DONE else None,
        timings=job.timings,
        owner=job.owner,
        traceparent=job.traceparent,
    )


def failure_view(job: Job, error: ErrorInfo) -> FailureView:
    """A job that has just failed, as STATUS shows it."""
    return FailureView(
        at=job.ended_at,
        job_id=job.job_id,
        worker_id=job.worker_id,
        code=error.code,
        message=clip(error.message, TEXT_BYTES_MAX),
    )


def worker_view(state: RouterState, worker: Worker, plan: Plan, asked: StatusQuery, asks: Identity) -> WorkerView:
    """One GPU daemon as STATUS shows it; which job it draws is told to those alone who may see that job."""
    held = [state.jobs[job_id] for job_id in worker.hand]
    running = next((job for job in held if job.state is JobState.RUNNING), None)
    away = worker.suspect or worker.peer is None
    silent_s = state.now - worker.heard_now
    detail = f"nothing heard for {silent_s:.1f} s" if away else worker.detail
    if worker.rests_until_now > state.now:
        detail = f"rests for {worker.rests_until_now - state.now:.0f} s after failures in a row; {detail}"
    speaks_for_all = asks.rights.acts_for_others and not asked.owner
    shown = running if running and (speaks_for_all or may_see(running.owner, asked, asks)) else None
    service = worker.service
    return WorkerView(
        worker_id=worker.worker_id,
        host=worker.host,
        device=worker.device,
        load=worker.load,
        state="suspect" if away else worker.state,
        detail=clip(detail, TEXT_BYTES_MAX),
        models=tuple(worker.models),
        busy=running is not None,
        job_id=shown.job_id if shown else "",
        step=running.step if running else 0,
        steps=running.order.drawn_steps if running else 0,
        queue_size=plan.queue_sizes.get(worker.worker_id, 0),
        credit=worker.credit,
        granted_total=worker.granted_total,
        dispatched_total=worker.dispatched_total,
        done_total=service.done_total,
        failed_total=service.failed_total,
        last_used_at=service.last_used_at,
        step_s=service.speeds.last_step_s,
        job_timeout_s=worker.job_timeout_s,
        version=worker.version,
        pid=worker.engine_pid,
        drawing_s_total=round(service.drawing_s, 6),
    )


def page(views: Iterable[V], *, count_max: int, bytes_max: int = PAGE_BYTES_MAX) -> tuple[V, ...]:
    """As many as one header has room for, and at least one of them."""
    found: list[V] = []
    for view in islice(views, count_max):
        bytes_max -= len(_encoder.encode(view))
        if found and bytes_max < 0:
            break
        found.append(view)
    return tuple(found)


def status_reply(state: RouterState, asked: StatusQuery, asks: Identity) -> StatusReply:
    """One page of workers, all models, the counts."""
    plan = state.plan(exact=True)
    everyone = sorted(state.fleet.workers.values(), key=_by_name)
    models = tuple(
        ModelView(
            card=card,
            workers=len(state.fleet.serving(name)),
            model_path=clip(state.model_paths.get(name, ""), TEXT_BYTES_MAX),
        )
        for name, card in state.cards.items()
    )
    measures = state.measures.view(_oldest_wait_s(state))
    return StatusReply(
        rid=asked.rid,
        workers=page(
            (worker_view(state, worker, plan, asked, asks) for worker in everyone[asked.workers_from :]),
            count_max=STATUS_WORKERS_PER_PAGE,
            bytes_max=PAGE_BYTES_MAX - len(_encoder.encode(models)) - len(_encoder.encode(measures)),
        ),
        workers_total=len(everyone),
        models=models,
        default_model=state.default_model,
        stats=_stats(state, plan),
        limits=_limits(state),
        storage_full=state.storage_full,
        failures=tuple(failure for owner, failure in state.failures if may_see(owner, asked, asks)),
        measures=measures,
    )


def _oldest_wait_s(state: RouterState) -> float:
    waiting = (job for job in state.live.values() if job.state is JobState.QUEUED)  # oldest first
    oldest = next(waiting, None)
    return 0.0 if oldest is None else state.now - oldest.created_now


def _by_name(worker: Worker) -> list[tuple[int, str]]:
    """As people sort: cuda:2 before cuda:10."""
    return [(int(part or 0), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", worker.worker_id)]


def _stats(state: RouterState, plan: Plan) -> RouterStats:
    totals, census = state.totals, state.census
    started = state.now if state.started_now is None else state.started_now
    return RouterStats(
        uptime_s=state.now - started,
        submitted_total=totals.submitted,
        done_total=totals.done,
        failed_total=totals.failed,
        cancelled_total=totals.cancelled,
        rejected_total=totals.rejected,
        queue_full_total=totals.queue_full,
        protocol_errors_total=totals.protocol_errors,
        retried_total=totals.retried,
        queued=census[JobState.QUEUED] + census[JobState.DISPATCHED],
        running=census[JobState.RUNNING] + census[JobState.STORING],
        overflow=plan.overflow + len(state.delayed),
    )


def _limits(state: RouterState) -> RouterLimits:
    settings = state.settings
    return RouterLimits(
        gpu_queue_size=settings.gpu_queue_size,
        global_queue_size=settings.global_queue_size,
        job_deadline_s=settings.job_deadline_s,
        result_ttl_s=settings.result_ttl_s,
        attempts_max=settings.attempts_max,
    )
