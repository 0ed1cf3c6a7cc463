"""Memory: what the host has, and where the model's weights would lie on each device, in numbers.

How it is decided is memory_plan's; here it is told before anything is loaded.
"""

from collections.abc import Iterator
from pathlib import Path

from common.messages import DeviceInfo
from genserve.diagnose import nvml
from genserve.diagnose.finding import Note, check, fail, mib, ok, warn
from genserve.diagnose.host import Host, NotChecked
from genserve.diagnose.mend import setting
from gpu_daemon.devices import cpu_load
from gpu_daemon.memory_plan import MIB, NUMBER_BYTES, ROOM_FOR_WORK, plan_memory, weights_mb

CGROUP = Path("/sys/fs/cgroup")
LOW_MB = 1024  # of host memory, from which on nothing works well


@check("memory.host", "The host's memory, and what a container or unit may use of it")
def memory(_host: Host) -> Iterator[Note]:
    """The least of both counts."""
    free, limit = available_mb(), _limit_mb()
    of = f", limited to {mib(limit * MIB)} by its control group" if limit is not None else ""
    if free < LOW_MB:
        yield warn(f"{mib(free * MIB)} available{of}: little for anything", "ps -eo pid,rss,comm --sort=-rss | head")
    else:
        yield ok(f"{mib(free * MIB)} available{of}")


def available_mb() -> int:
    """MiB of host memory that a new process could have."""
    free, limit = cpu_load().free_mb, _limit_mb()
    if limit is None:
        return free
    try:
        used = int((CGROUP / "memory.current").read_text("ascii")) // MIB
    except (OSError, ValueError):
        used = 0
    return min(free, max(0, limit - used))


def _limit_mb() -> int | None:
    try:
        return int((CGROUP / "memory.max").read_text("ascii")) // MIB
    except (OSError, ValueError):  # 'max', or no such file: no limit
        return None


@check(
    "memory.plan",
    "The model's weights in bytes, part by part, against each device: fits, is offloaded, or does not fit",
    bound_s=60,
)
def plan(host: Host) -> Iterator[Note]:
    """On a GPU, weights pass through the host's memory on their way."""
    model = host.model
    if model.faults:
        raise NotChecked("the model folder has faults: see `--only model`")
    chosen, free = host.devices, available_mb()
    for kind in sorted({device.kind for device in chosen}):
        parts = {name: weights.parameters * NUMBER_BYTES[kind] for name, weights in model.weights.items()}
        told = ", ".join(f"{name} {mib(size)}" for name, size in parts.items())
        yield ok(f"{mib(sum(parts.values()))} of weights on {kind}: {told}")
    coming = [device for device in chosen if device.device not in host.served]
    for device in chosen:
        if device not in coming:
            yield ok(f"{device.device}: served by a daemon that runs now, which holds its weights")
        elif device.kind == "cuda":
            yield _on_gpu(host, device, max(weights.parameters for weights in model.weights.values()))
    if coming:
        yield from _on_host(host, coming, model.parameters, free)


def _on_host(host: Host, coming: list[DeviceInfo], parameters: int, free: int) -> Iterator[Note]:
    """Each CPU daemon keeps its own weights; each GPU daemon holds them while it loads, or always where it offloads."""
    needs = [weights_mb(parameters, device.kind) for device in coming]
    one, together = max(needs), sum(needs)
    if one > free:
        yield fail(
            f"the weights need {mib(one * MIB)} of this host's memory and {mib(free * MIB)} are available",
            "ps -eo pid,rss,comm --sort=-rss | head   # end what is not needed",
        )
    elif together > free:
        fewer = ",".join(device.device for device in coming[: max(1, free // one)])
        yield warn(
            f"{len(coming)} daemons that load at the same time need {mib(together * MIB)} of host memory, and "
            f"{mib(free * MIB)} are available",
            setting(host, "up.gpus", fewer),
        )


def _on_gpu(host: Host, device: DeviceInfo, largest: int) -> Note:
    gpu = next(gpu for gpu in nvml.look() if gpu.uuid == device.uuid)
    free, needed = gpu.free // MIB, weights_mb(host.model.parameters, "cuda")
    found = plan_memory(
        host.daemon.offload,
        weights_mb=needed,
        total_mb=device.total_mb,
        free_mb=free,
        offload_below_gb=host.daemon.offload_below_gb,
    )
    words = f"{device.device}: {mib(needed * MIB)} of weights, {mib(gpu.free)} of {mib(gpu.total)} free"
    if (weights_mb(largest, "cuda") if found.offloaded else needed) * ROOM_FOR_WORK <= free:
        return ok(f"{words}: offloaded, for {found.reason}; slower" if found.offloaded else f"{words}: fits")
    if not found.offloaded:
        return fail(f"{words}: the model does not fit", setting(host, "gpu_daemon.offload", "auto"))
    words += ": even its largest part alone does not fit"
    if gpu.holders:
        pids = " ".join(str(pid) for pid, _ in gpu.holders)
        return fail(f"{words} beside what others hold (see gpus.memory)", f"sudo kill {pids}")
    return fail(words, setting(host, "up.gpus", "cpu"))


CHECKS = (memory, plan)
