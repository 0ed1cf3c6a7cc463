"""Views of the fleet: /v1/status, the older dialect's /status /gpu/load /config /models /devices, and /health.

Pure: the router's STATUS in, response bodies out. Nothing here is estimated: each number is the router's or
a count over its workers. Workers go by device where that is unique in the fleet, else by worker_id.
"""

from collections import Counter

from msgspec import structs

from common.messages import PROMPT_CHARS_MAX, DeviceLoad, StatusReply, WorkerView
from common.settings import GatewaySettings, LogSettings
from gateway.dialects.fleet_views import (
    Concurrency,
    Config,
    DeviceFacts,
    Devices,
    GpuLoad,
    Health,
    Instance,
    Load,
    Logging,
    ManagerView,
    ModelManagement,
    OlderModels,
    OlderStatus,
    Security,
    ServedModel,
    ServiceFacts,
    ServiceView,
    TaskCounts,
)
from gateway.dialects.generate import gpu_id


def keyed(status: StatusReply) -> dict[str, WorkerView]:
    """Every worker under the name that the older dialect knows it by."""
    devices = Counter(worker.device.device for worker in status.workers)
    return {
        worker.device.device if devices[worker.device.device] == 1 else worker.worker_id: worker
        for worker in status.workers
    }


def service_view(status: StatusReply) -> ServiceView:
    """GET /v1/status: the fields of the message STATUS, without the name of the question."""
    return ServiceView(**{name: getattr(status, name) for name in ServiceView.__struct_fields__})


def status_view(status: StatusReply) -> OlderStatus:
    """GET /status."""
    stats, limits, workers = status.stats, status.limits, keyed(status)
    manager = ManagerView(
        is_running=True,  # the router answered
        global_queue_size=stats.overflow,
        max_global_queue_size=limits.global_queue_size,
        total_queue_size=stats.queued,
        worker_threads=len(workers),  # each daemon draws one job at a time
        busy_instances=sum(worker.busy for worker in workers.values()),
        total_instances=len(workers),
        load_balance_strategy="idle_first_then_soonest_free",
        task_timeout=limits.job_deadline_s,
        stats=TaskCounts(
            total_tasks=stats.submitted_total,
            completed_tasks=stats.done_total,
            failed_tasks=stats.failed_total,
            cancelled_tasks=stats.cancelled_total,
            queue_full_rejections=stats.queue_full_total,
        ),
        model_instances={
            view.card.name: [
                _instance(worker, limits.gpu_queue_size)
                for worker in workers.values()
                if view.card.name in worker.models
            ]
            for view in status.models
        },
    )
    return OlderStatus(concurrent_manager=manager, device_info=device_info(status), gpu_load=gpu_load_info(status))


def gpu_load_view(status: StatusReply) -> GpuLoad:
    """GET /gpu/load."""
    return GpuLoad(gpu_load_info=gpu_load_info(status), model_gpu_config=model_gpu_config(status))


def gpu_load_info(status: StatusReply) -> dict[str, Load]:
    """Memory of each device in MiB; utilization_percent is the share of it that is in use by anyone."""
    return {key: _load(worker) for key, worker in keyed(status).items()}


def model_gpu_config(status: StatusReply) -> dict[str, list[str]]:
    """Which devices serve each model."""
    workers = keyed(status)
    return {
        view.card.name: [key for key, worker in workers.items() if view.card.name in worker.models]
        for view in status.models
    }


def device_info(status: StatusReply) -> dict[str, DeviceFacts]:
    """Every device as it is built, and how its daemon stands."""
    return {
        key: DeviceFacts(
            device=worker.device.device,
            gpu_id=gpu_id(worker.device.device),
            kind=worker.device.kind,
            name=worker.device.name,
            uuid=worker.device.uuid or None,
            total_mb=worker.device.total_mb,
            host=worker.host,
            worker=worker.worker_id,
            state=worker.state,
            detail=worker.detail,
            models=list(worker.models),
        )
        for key, worker in keyed(status).items()
    }


def devices_view(status: StatusReply) -> Devices:
    """GET /devices."""
    devices = device_info(status)
    return Devices(devices=devices, device_count=len(devices))


def models_view(status: StatusReply) -> OlderModels:
    """GET /models."""
    devices = model_gpu_config(status)
    return OlderModels(
        models={
            view.card.name: ServedModel(
                **structs.asdict(view.card),
                model_path=view.model_path,
                devices=devices[view.card.name],
                available=view.workers > 0,
            )
            for view in status.models
        },
        default_model=status.default_model or None,
    )


def config_view(
    status: StatusReply, settings: GatewaySettings, log: LogSettings, *, version: str, address: tuple[str, int]
) -> Config:
    """GET /config: what is in force, whoever decided it."""
    cards = [view.card for view in status.models]
    sides = [max(card.side_max, card.enlarged_side_max if card.enlarges else 0) for card in cards]
    return Config(
        service=ServiceFacts(name="genserve", version=version, host=address[0], port=address[1]),
        device=list(keyed(status)),
        model_management=ModelManagement(
            model_gpu_config=model_gpu_config(status),
            model_paths={view.card.name: view.model_path for view in status.models},
            default_model=status.default_model or None,
        ),
        concurrent=Concurrency(
            max_global_queue_size=status.limits.global_queue_size,
            max_gpu_queue_size=status.limits.gpu_queue_size,
            task_timeout=status.limits.job_deadline_s,
        ),
        security=Security(
            max_prompt_length=PROMPT_CHARS_MAX,
            max_image_size=max(sides, default=None),
            max_body_bytes=settings.body_bytes_max,
        ),
        logging=Logging(level=log.level, format=log.format),
    )


def health_view(status: StatusReply | None, problem: str, version: str = "") -> Health:
    """GET /health and /health/ready; `status` is None where the router does not answer, `problem` says why."""
    workers = list(keyed(status).items()) if status else []
    ready = sum(worker.state == "ready" for _, worker in workers)
    reasons = []
    if status is None:
        reasons.append(problem)
    elif not workers:
        reasons.append("no GPU daemon is registered")
    elif not ready:
        reasons += [f"{key} is {w.state}{': ' + w.detail if w.detail else ''}" for key, w in workers]
    if status is not None and status.storage_full:
        reasons.append(f"no new jobs are taken: {status.storage_full}")
    return Health(
        status="unhealthy" if reasons else "healthy",
        reasons=reasons,
        router=status is not None,
        workers_ready=ready,
        workers_total=len(workers),
        version=version,
    )


def _instance(worker: WorkerView, gpu_queue_size: int) -> Instance:
    return Instance(
        instance_id=worker.worker_id,
        device=worker.device.device,
        is_busy=worker.busy,
        is_loaded=worker.busy or worker.state == "ready",
        current_task=worker.job_id or None,
        queue_size=worker.queue_size,
        max_queue_size=gpu_queue_size,
        total_generations=worker.done_total,
        last_used=worker.last_used_at or None,
        state=worker.state,
    )


def _load(worker: WorkerView) -> Load:
    total, load = worker.device.total_mb, worker.load
    known = load != DeviceLoad() and total > 0  # an engine that is starting has not measured yet
    return Load(
        allocated_mb=load.allocated_mb,
        cached_mb=load.cached_mb,
        total_mb=total,
        free_mb=load.free_mb if known else None,
        utilization_percent=round(100 * (total - load.free_mb) / total, 1) if known else None,
        available=worker.state == "ready",
    )
