"""The device's memory: the plan made once, the figures told, what is put back and released.

Knows torch and modules, but no pipeline and no job.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import psutil
import torch

from common.errors import GenServeError
from common.messages import DeviceLoad

MIB = 1024 * 1024
MIB_PER_GIB = 1024
ROOM_FOR_WORK = 1.15  # of the weights: what drawing itself needs beside them


@dataclass(frozen=True)
class MemoryPlan:
    """Do model parts visit the GPU one at a time (`offloaded`), or do all of them stay? And why."""

    offloaded: bool
    reason: str


def plan_memory(
    offload: Literal["auto", "on", "off"], *, weights_mb: int, total_mb: int, free_mb: int, offload_below_gb: float
) -> MemoryPlan:
    """The plan for a GPU of `total_mb` MiB of which `free_mb` are free, and weights of `weights_mb` MiB as loaded."""
    if offload != "auto":
        return MemoryPlan(offload == "on", f"gpu_daemon.offload = '{offload}'")
    if total_mb < offload_below_gb * MIB_PER_GIB:
        return MemoryPlan(True, f"the GPU has less than gpu_daemon.offload_below_gb = {offload_below_gb:g} GiB")
    if weights_mb * ROOM_FOR_WORK > free_mb:
        return MemoryPlan(True, "the weights and room to work do not fit into the free memory")
    return MemoryPlan(False, "the weights and room to work fit")


def check_host_memory(weights_mb: int) -> None:
    """Raise GenServeError out_of_memory where weights of `weights_mb` MiB cannot lie in this host's memory."""
    free_mb = psutil.virtual_memory().available // MIB
    if weights_mb > free_mb:
        raise GenServeError(
            "out_of_memory",
            f"the model's weights need {weights_mb} MiB of memory and {free_mb} MiB are available on this host; "
            "stop other programs or use a GPU",
        )


def cuda_memory_mb() -> tuple[int, int]:
    """MiB (free, total) of the one GPU that this process sees."""
    free, total = torch.cuda.mem_get_info(0)
    return free // MIB, total // MIB


def device_load(kind: str) -> DeviceLoad:
    """The memory just now; on a CPU that of this process and what the host has available."""
    if kind == "cpu":
        return DeviceLoad(
            allocated_mb=psutil.Process().memory_info().rss // MIB,
            free_mb=psutil.virtual_memory().available // MIB,
        )
    allocated, reserved = torch.cuda.memory_allocated(0), torch.cuda.memory_reserved(0)
    return DeviceLoad(
        allocated_mb=allocated // MIB, cached_mb=(reserved - allocated) // MIB, free_mb=cuda_memory_mb()[0]
    )


def put_back(modules: Mapping[str, torch.nn.Module], device: torch.device) -> list[str]:
    """Move every module with a tensor elsewhere to `device`; the names of those moved."""
    moved = []
    for name, module in modules.items():
        if any(tensor.device != device for tensor in chain(module.parameters(), module.buffers())):
            module.to(device)
            moved.append(name)
    return moved


def empty_cache() -> None:
    """Hand the GPU memory that torch holds without using it back to the driver."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch types it not
        torch.cuda.empty_cache()
