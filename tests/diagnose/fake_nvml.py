"""An NVML for machines without GPUs: the real module's constants and errors, with GPUs and ills of the test's own."""

import types
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

GIB = 2**30


@dataclass
class FakeGpu:
    """One GPU, well and idle where nothing else is said."""

    name: str = "NVIDIA H100 80GB HBM3"
    uuid: str = "GPU-0abc"
    total: int = 80 * GIB
    free: int = 79 * GIB
    holders: list[tuple[int, int]] = field(default_factory=list)
    capability: tuple[int, int] = (9, 0)
    mig: bool = False
    uncorrected: int = 0
    remapped: tuple[int, int, int, int] = (0, 0, 0, 0)  # corrected, uncorrected, pending, failed
    reasons: int = 0
    utilization: int | None = 0  # percent; None: the driver does not say


def fake_nvml(*gpus: FakeGpu, cuda: int = 13000, fault: int | None = None) -> Any:
    """The module. `fault` is an NVML error code that its start raises."""
    module = types.ModuleType("pynvml")
    module.__dict__.update(vars(pynvml))

    def init() -> None:
        if fault is not None:
            raise pynvml.NVMLError(fault)

    def by_uuid(uuid: str) -> FakeGpu:
        for gpu in gpus:
            if gpu.uuid == uuid:
                return gpu
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def rates(gpu: FakeGpu) -> SimpleNamespace:
        if gpu.utilization is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=gpu.utilization, memory=0)

    said = {
        "nvmlInit": init,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetCudaDriverVersion_v2": lambda: cuda,
        "nvmlSystemGetDriverVersion": lambda: "580.95.05",
        "nvmlDeviceGetCount": lambda: len(gpus),
        "nvmlDeviceGetHandleByIndex": lambda index: gpus[index],
        "nvmlDeviceGetHandleByUUID": by_uuid,
        "nvmlDeviceGetUtilizationRates": rates,
        "nvmlDeviceGetName": lambda gpu: gpu.name,
        "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
        "nvmlDeviceGetMinorNumber": gpus.index,
        "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(total=gpu.total, free=gpu.free),
        "nvmlDeviceGetCudaComputeCapability": lambda gpu: gpu.capability,
        "nvmlDeviceGetComputeRunningProcesses": lambda gpu: [
            SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in gpu.holders
        ],
        "nvmlDeviceGetMigMode": lambda gpu: [int(gpu.mig), int(gpu.mig)],
        "nvmlDeviceGetTotalEccErrors": lambda gpu, _kind, _counter: gpu.uncorrected,
        "nvmlDeviceGetRemappedRows": lambda gpu: gpu.remapped,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: gpu.reasons,
        "nvmlDeviceGetTemperature": lambda _gpu, _sensor: 41,
    }
    assert set(said) <= set(vars(pynvml))
    module.__dict__.update(said)
    return module
