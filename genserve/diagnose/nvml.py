"""What the NVIDIA driver says of its GPUs beyond their names: memory, who holds it, health.

Where it cannot be asked, NotChecked: gpus.driver tells why.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from genserve.diagnose.host import NotChecked

T = TypeVar("T")


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML counts them, CUDA_VISIBLE_DEVICES or not. None: this kind of GPU does not tell."""

    index: int
    minor: int | None  # of /dev/nvidia<minor>
    name: str
    uuid: str
    capability: tuple[int, int]
    total: int  # bytes
    free: int
    holders: Sequence[tuple[int, int]]  # (pid, bytes) of the processes that compute on it
    mig: bool
    uncorrected: int | None  # ECC errors since the last reset
    remap_failed: bool | None
    remap_pending: bool | None
    slowed: str  # why the hardware slows it down; '' where it does not
    temperature: int | None  # degrees Celsius


def driver() -> tuple[tuple[int, ...], str]:
    """The CUDA version that the driver knows, e.g. (13, 0), and the driver's own."""
    with _nvml() as lib:
        cuda = lib.nvmlSystemGetCudaDriverVersion_v2()
        return (cuda // 1000, cuda % 1000 // 10), str(lib.nvmlSystemGetDriverVersion())


def look() -> list[Gpu]:
    """Every GPU of this machine."""
    with _nvml() as lib:
        return [_gpu(lib, index, lib.nvmlDeviceGetHandleByIndex(index)) for index in range(lib.nvmlDeviceGetCount())]


@contextmanager
def _nvml() -> Iterator[Any]:
    try:
        import pynvml  # noqa: PLC0415  # part of the `gpu` extra
    except ModuleNotFoundError:
        raise NotChecked("there is no nvidia-ml-py to ask the driver: see gpus.driver") from None
    try:
        pynvml.nvmlInit()
        try:
            yield pynvml
        finally:
            pynvml.nvmlShutdown()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        raise NotChecked("there is no GPU") from None
    except pynvml.NVMLError as error:
        raise NotChecked(f"the driver does not tell ({error}): see gpus.driver") from None


def _gpu(lib: Any, index: int, handle: Any) -> Gpu:
    def told(ask: Callable[[], T], otherwise: Any = None) -> Any:
        try:
            return ask()
        except lib.NVMLError:  # this kind of GPU does not tell
            return otherwise

    memory = lib.nvmlDeviceGetMemoryInfo(handle)
    remapped = told(lambda: lib.nvmlDeviceGetRemappedRows(handle))
    reasons = told(lambda: lib.nvmlDeviceGetCurrentClocksThrottleReasons(handle), 0)
    slow = {
        lib.nvmlClocksThrottleReasonHwThermalSlowdown: "it is too hot",
        lib.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "its power supply is short",
    }
    return Gpu(
        index=index,
        minor=told(lambda: lib.nvmlDeviceGetMinorNumber(handle)),
        name=lib.nvmlDeviceGetName(handle),
        uuid=lib.nvmlDeviceGetUUID(handle),
        capability=tuple(lib.nvmlDeviceGetCudaComputeCapability(handle)),
        total=memory.total,
        free=memory.free,
        holders=[
            (process.pid, process.usedGpuMemory or 0)
            for process in told(lambda: lib.nvmlDeviceGetComputeRunningProcesses(handle), ())
        ],
        mig=told(lambda: lib.nvmlDeviceGetMigMode(handle)[0] == lib.NVML_DEVICE_MIG_ENABLE, otherwise=False),
        uncorrected=told(
            lambda: lib.nvmlDeviceGetTotalEccErrors(
                handle, lib.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, lib.NVML_VOLATILE_ECC
            )
        ),
        remap_failed=bool(remapped[3]) if remapped else None,
        remap_pending=bool(remapped[2]) if remapped else None,
        slowed="; ".join(words for bit, words in slow.items() if reasons & bit),
        temperature=told(lambda: lib.nvmlDeviceGetTemperature(handle, lib.NVML_TEMPERATURE_GPU)),
    )
