"""Runs of `genserve burst` that never happened, made of a few jobs, for the tests of what is said of them."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import structs

from common.messages import RouterLimits
from genserve.burst.record import DONE, Gpu, Job, Options, Order, Request, Run, Totals

EPOCH = 1_800_000_000.0  # of the router's clock; the client's begins at 0
LIMITS = RouterLimits(gpu_queue_size=5, global_queue_size=50, job_deadline_s=3600, result_ttl_s=3600, attempts_max=3)
OPTIONS = Options(
    over="http", url="http://127.0.0.1:12411", router="tcp://127.0.0.1:12412", requests=40, concurrency=8,
    rate_per_s=0.0, seed=1, model="", sizes=((128, 128),), steps=(4,), priorities=(0,), clients=1, give_up_percent=0.0,
    retries=3, timeout_s=600.0, warm_up=None,
)  # fmt: skip


def request(
    number: int, *, gpu: str = "a", at: float = 0.0, wait: float = 0.0, took: float = 1.0, **changes: Any
) -> Request:
    """One that was asked for at `at`, started after `wait` and took `took` seconds on a GPU; 10 ms go elsewhere."""
    order = Order(
        number=number, door=changes.pop("door", "http"), at_s=at, client=changes.pop("client", "burst-1"), prompt="x",
        width=changes.pop("width", 128), height=128, steps=changes.pop("steps", 4), seed=1,
        priority=changes.pop("priority", 0), give_up_after_s=None,
    )  # fmt: skip
    job = Job(
        job_id=f"{number:032x}", worker_id=f"host/{gpu}", state="done", width=order.width, height=128,
        steps=order.steps, created_at=EPOCH + at, started_at=EPOCH + at + wait, ended_at=EPOCH + at + wait + took,
        starts=changes.pop("starts", 1), engine_s=took, denoise_s=took,
    )  # fmt: skip
    made = Request(
        order=order, due_s=at, sent_s=at, ended_s=at + wait + took + changes.pop("elsewhere", 0.01), outcome=DONE,
        bytes=1000, job_id=job.job_id, job=job,
    )  # fmt: skip
    return structs.replace(made, **changes)


def run(requests: Sequence[Request], *, gpus: str = "ab", **options: Any) -> Run:
    """A run of these requests on GPUs of one letter each."""
    return Run(
        options=structs.replace(OPTIONS, requests=len(requests), **options),
        began_at=EPOCH,
        version="0.1.0",
        model="genserve-shapes",
        gpus=tuple(Gpu(worker_id=f"host/{g}", name=g, host="host", built="A GPU", version="0.1.0") for g in gpus),
        limits=LIMITS,
        warmed_up=2,
        totals=Totals(submitted=len(requests), done=len(requests), failed=0, cancelled=0, refused=0, retried=0),
        requests=tuple(requests),
    )


def queue(gpu_of: Callable[[int], str], took: dict[str, float], count: int = 40, **changes: Any) -> list[Request]:
    """All asked for at once, and each GPU draws its own one after another."""
    free = dict.fromkeys(took, 0.0)
    made = []
    for number in range(count):
        gpu = gpu_of(number)
        made.append(request(number, gpu=gpu, wait=free[gpu], took=took[gpu], **changes))
        free[gpu] += took[gpu]
    return made
