"""How a model lies in memory: whole on its GPU, or part by part while each runs. Decided before anything is loaded.

Pure arithmetic, free of torch: the engine decides by it, a diagnosis tells of it beforehand.
"""

from dataclasses import dataclass
from typing import Literal

MIB = 1024 * 1024
MIB_PER_GIB = 1024
ROOM_FOR_WORK = 1.15  # of the weights: what drawing itself needs beside them
NUMBER_BYTES = {"cpu": 4, "cuda": 2}  # float32 and bfloat16: as weights are loaded, however they are stored


@dataclass(frozen=True)
class MemoryPlan:
    """Do model parts visit the GPU one at a time (`offloaded`), or do all of them stay? And why."""

    offloaded: bool
    reason: str


def weights_mb(parameters: int, kind: str) -> int:
    """MiB that so many numbers take once they are loaded for a device of `kind`, 'cpu' or 'cuda'."""
    return parameters * NUMBER_BYTES[kind] // MIB


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
