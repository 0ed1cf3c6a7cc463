"""The device's memory: the figures told, what is put back and released. The plan is memory_plan's.

Knows torch and modules, but no pipeline and no job.
"""

from collections.abc import Mapping
from itertools import chain

import psutil
import torch

from common.errors import GenServeError
from common.messages import DeviceLoad

MIB = 1024 * 1024


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
