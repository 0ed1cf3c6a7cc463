"""Workers and models as STATUS shows them, for the gateway's tests."""

from typing import Any

from msgspec import structs, to_builtins

from common.messages import DeviceInfo, DeviceLoad, ModelView, StatusReply, WorkerView
from common.models import ModelCard
from tests.common.samples import LIMITS, STATS, WORKER

TINY = ModelCard(
    name="genserve-shapes", embedded=True, width=128, height=128, side_min=32, side_max=128, pixels_max=16384,
    enlarges=True, enlarged_side_max=2048, steps=4, steps_max=50,
)  # fmt: skip
DEV = ModelCard(name="flux1-dev")


def worker(device: str, host: str = "host", **changes: object) -> WorkerView:
    """A ready worker on `device` with 1000 MiB of which 250 are free."""
    kind = "cuda" if device.startswith("cuda") else "cpu"
    base = structs.replace(
        WORKER,
        worker_id=f"{host}/{device}",
        host=host,
        device=DeviceInfo(device=device, kind=kind, name="a device", total_mb=1000),
        load=DeviceLoad(allocated_mb=700, cached_mb=50, free_mb=250),
        models=("genserve-shapes",),
    )
    return structs.replace(base, **changes)


WORKERS = (worker("cuda:0"), worker("cuda:1", busy=False, job_id="", queue_size=0, done_total=3, last_used_at=0.0))
MODELS = (ModelView(card=TINY, workers=2, model_path="/models/tiny"),)


def status(workers: tuple[WorkerView, ...] = WORKERS, models: tuple[ModelView, ...] = MODELS) -> StatusReply:
    """A STATUS answer."""
    return StatusReply(
        rid="1", workers=workers, workers_total=len(workers), models=models,
        default_model=models[0].card.name if models else "", stats=STATS, limits=LIMITS,
    )  # fmt: skip


def shown(view: Any) -> Any:
    """A struct as its reader sees it, but for bytes, which stay as they are."""
    return to_builtins(view, builtin_types=(bytes,))
