"""What the views of the fleet look like: the answers of /v1/status and of the older dialect's status, load and lists.

Pure: shapes only; fleet.py fills them. Memory in MiB, times ending in `_at` and `last_used` in wall seconds since 1970.
"""

from msgspec import Struct

from common.messages import FailureView, ModelView, RouterLimits, RouterMeasures, RouterStats, WorkerView
from common.models import ModelCard


class ServiceView(Struct, frozen=True, kw_only=True):
    """The router's own account of itself: every GPU, every model, the counts and the limits."""

    workers: tuple[WorkerView, ...]
    workers_total: int
    models: tuple[ModelView, ...]
    default_model: str  # '' until one is known
    stats: RouterStats
    limits: RouterLimits
    storage_full: str  # why no new job is taken; '': there is room
    failures: tuple[FailureView, ...]
    measures: RouterMeasures


class Instance(Struct, frozen=True, kw_only=True):
    """One GPU daemon, as the older dialect knows it."""

    instance_id: str
    device: str
    is_busy: bool
    is_loaded: bool
    current_task: str | None
    queue_size: int
    max_queue_size: int
    total_generations: int
    last_used: float | None
    state: str


class TaskCounts(Struct, frozen=True, kw_only=True):
    """Jobs since the router started."""

    total_tasks: int
    completed_tasks: int
    failed_tasks: int
    cancelled_tasks: int
    queue_full_rejections: int


class ManagerView(Struct, frozen=True, kw_only=True):
    """The queue and who works it off."""

    is_running: bool
    global_queue_size: int
    max_global_queue_size: int
    total_queue_size: int
    worker_threads: int
    busy_instances: int
    total_instances: int
    load_balance_strategy: str
    task_timeout: float  # seconds
    stats: TaskCounts
    model_instances: dict[str, list[Instance]]


class Load(Struct, frozen=True, kw_only=True):
    """One device's memory, MiB; null where its engine has not measured yet."""

    allocated_mb: int
    cached_mb: int
    total_mb: int
    free_mb: int | None
    utilization_percent: float | None  # of the memory, by anyone
    available: bool


class DeviceFacts(Struct, frozen=True, kw_only=True):
    """One device as it is built, and how its daemon stands."""

    device: str
    gpu_id: int | None
    kind: str
    name: str
    uuid: str | None
    total_mb: int
    host: str
    worker: str
    state: str
    detail: str
    models: list[str]


class OlderStatus(Struct, frozen=True, kw_only=True):
    """GET /status."""

    concurrent_manager: ManagerView
    device_info: dict[str, DeviceFacts]
    gpu_load: dict[str, Load]


class GpuLoad(Struct, frozen=True, kw_only=True):
    """GET /gpu/load."""

    gpu_load_info: dict[str, Load]
    model_gpu_config: dict[str, list[str]]


class Devices(Struct, frozen=True, kw_only=True):
    """GET /devices."""

    devices: dict[str, DeviceFacts]
    device_count: int


class ServedModel(ModelCard, frozen=True, kw_only=True):
    """A model's card, its folder, and which devices serve it."""

    model_path: str
    devices: list[str]
    available: bool


class OlderModels(Struct, frozen=True, kw_only=True):
    """GET /models."""

    models: dict[str, ServedModel]
    default_model: str | None


class ServiceFacts(Struct, frozen=True, kw_only=True):
    """This gateway."""

    name: str
    version: str
    host: str
    port: int


class ModelManagement(Struct, frozen=True, kw_only=True):
    """Which models there are, and where."""

    model_gpu_config: dict[str, list[str]]
    model_paths: dict[str, str]
    default_model: str | None


class Concurrency(Struct, frozen=True, kw_only=True):
    """How many jobs may wait, and how long one may take, in seconds."""

    max_global_queue_size: int
    max_gpu_queue_size: int
    task_timeout: float


class Security(Struct, frozen=True, kw_only=True):
    """The bounds of a request: characters, pixels a side, bytes."""

    max_prompt_length: int
    max_image_size: int | None
    max_body_bytes: int


class Logging(Struct, frozen=True, kw_only=True):
    """How this gateway logs."""

    level: str
    format: str


class Config(Struct, frozen=True, kw_only=True):
    """GET /config: what is in force, whoever decided it."""

    service: ServiceFacts
    device: list[str]
    model_management: ModelManagement
    concurrent: Concurrency
    security: Security
    logging: Logging


class Health(Struct, frozen=True, kw_only=True):
    """GET /health and /health/ready."""

    status: str
    reasons: list[str]
    router: bool
    workers_ready: int
    workers_total: int
    version: str = ""


class Live(Struct, frozen=True, kw_only=True):
    """GET /health/live."""

    status: str
    version: str
