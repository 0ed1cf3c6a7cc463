"""The devices of this machine: what there is, what a person's words for them mean, what an engine may see.

Free of torch: GPUs are asked of the driver (NVML), the CPU of /proc. A label ('cuda:0', 'cpu', 'cpu:1')
counts what CUDA_VISIBLE_DEVICES lets through, in the order of the PCI bus.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import GenServeError, SettingsError
from common.messages import DeviceInfo, DeviceLoad

MIB = 1024 * 1024
DRIVER = Path("/proc/driver/nvidia/version")  # there while the kernel has the NVIDIA driver
DAEMONS_ALONE = frozenset(  # what systemd gives a daemon is not its engine's
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY", "LISTEN_FDS", "LISTEN_PID"}
)
_LABEL = re.compile(r"(?:(?:cuda:)?(?P<gpu>\d{1,4})|cpu(?::(?P<cpu>\d{1,4}))?)")


def list_devices() -> list[DeviceInfo]:
    """Every GPU that may be used, then the CPU. Raises device_unavailable where the driver is out of order."""
    return [*list_gpus(), cpu()]


def list_gpus(env: Mapping[str, str] = os.environ) -> list[DeviceInfo]:
    """Every GPU that `env` lets through. None without a driver; device_unavailable where it is out of order."""
    try:
        import pynvml  # noqa: PLC0415  # part of the `gpu` extra: without it there is no GPU to use
    except ModuleNotFoundError:
        if DRIVER.exists():  # never the CPU in silence where somebody paid for a GPU
            raise GenServeError(
                "device_unavailable",
                "this machine has an NVIDIA driver but nvidia-ml-py is not installed: "
                "install genserve[gpu], or choose the device cpu",
            ) from None
        return []
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return []
    except pynvml.NVMLError as error:
        raise _driver_fault(error) from None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        gpus = [_gpu(pynvml, handle) for handle in handles]
        return visible(gpus, env.get("CUDA_VISIBLE_DEVICES"))
    except pynvml.NVMLError as error:
        raise _driver_fault(error) from None
    finally:
        pynvml.nvmlShutdown()


def visible(gpus: Sequence[DeviceInfo], value: str | None) -> list[DeviceInfo]:
    """What CUDA_VISIBLE_DEVICES = `value` lets through, relabelled from cuda:0.

    As CUDA does, it takes numbers or (the beginnings of) UUIDs and ends at the first entry that names none.
    """
    chosen: list[DeviceInfo] = list(gpus)
    if value is not None:
        chosen = []
        for entry in (part.strip() for part in value.split(",")):
            found = [
                gpu
                for index, gpu in enumerate(gpus)
                if (entry == str(index) if entry.isdecimal() else entry and gpu.uuid.startswith(entry))
            ]
            if len(found) != 1 or found[0] in chosen:
                break
            chosen += found
    return [
        DeviceInfo(device=f"cuda:{index}", kind="cuda", name=gpu.name, uuid=gpu.uuid, total_mb=gpu.total_mb)
        for index, gpu in enumerate(chosen)
    ]


def cpu(label: str = "cpu") -> DeviceInfo:
    """This machine's processor; its memory is the host's."""
    return DeviceInfo(device=label, kind="cpu", name=_cpu_name(), total_mb=_meminfo_mb("MemTotal"))


def cpu_load() -> DeviceLoad:
    """What this process holds of the host's memory, and what is left."""
    resident_pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return DeviceLoad(
        allocated_mb=resident_pages * os.sysconf("SC_PAGE_SIZE") // MIB, free_mb=_meminfo_mb("MemAvailable")
    )


def parse_devices(text: str, gpus: Sequence[DeviceInfo] | None = None) -> list[str]:
    """The labels that a person's list of devices means: '0, 1', 'cuda:0,cuda:1', 'cpu,cpu'.

    '' means every GPU, else the CPU. Several plain 'cpu' are numbered. `gpus` are those there are; None: ask
    the driver where it matters. Raises SettingsError for what is no device, not there or named twice.
    """
    entries = [part.strip() for part in text.split(",")] if text.strip() else []
    matches = [(entry, _LABEL.fullmatch(entry)) for entry in entries]
    for entry, match in matches:
        if match is None:
            raise SettingsError(
                f"{entry!r} in the list of devices {text!r} is no device; "
                "write e.g. '0, 1', 'cuda:0,cuda:1' or 'cpu,cpu'"
            )
    if not entries or any(match and match["gpu"] for _, match in matches):
        gpus = list_gpus() if gpus is None else gpus
        if not entries:
            return [gpu.device for gpu in gpus] or ["cpu"]
    labels = [f"cuda:{int(match['gpu'])}" if match and match["gpu"] else entry for entry, match in matches]
    _number_cpus(labels)
    for label in labels:
        if label.startswith("cuda") and label not in [gpu.device for gpu in gpus or ()]:
            raise SettingsError(f"there is no {label} on this machine; {_there_is(gpus or ())}")
        if labels.count(label) > 1:
            raise SettingsError(f"{label} is named twice in {text!r}; one daemon serves one device")
    return labels


def find_device(label: str) -> DeviceInfo:
    """The device called `label`; '' is the first GPU, else the CPU; '1' is cuda:1. Raises device_unavailable."""
    if label.startswith("cpu"):
        return cpu(label)
    gpus = list_gpus()
    label = f"cuda:{int(label)}" if label.isdecimal() else label
    if not label:
        return gpus[0] if gpus else cpu()
    for gpu in gpus:
        if gpu.device == label:
            return gpu
    raise GenServeError("device_unavailable", f"there is no {label} on this machine; {_there_is(gpus)}")


def engine_environment(device: DeviceInfo, env: Mapping[str, str]) -> dict[str, str]:
    """The environment in which an engine sees its own GPU only, as cuda:0, or none at all on a CPU."""
    passed = {name: value for name, value in env.items() if name not in DAEMONS_ALONE}
    return {**passed, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": device.uuid}


def _gpu(nvml: Any, handle: Any) -> DeviceInfo:
    name, uuid = nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetUUID(handle)
    total_mb = nvml.nvmlDeviceGetMemoryInfo(handle).total // MIB
    return DeviceInfo(device="", kind="cuda", name=name, uuid=uuid, total_mb=total_mb)


def _driver_fault(error: Exception) -> GenServeError:
    return GenServeError(
        "device_unavailable", f"the NVIDIA driver does not answer ({error}); see nvidia-smi, or choose the device cpu"
    )


def _there_is(gpus: Sequence[DeviceInfo]) -> str:
    named = [f"{gpu.device} ({gpu.name})" for gpu in gpus]
    return f"there is {', '.join([*named, 'cpu'])}"


def _number_cpus(labels: list[str]) -> None:
    """Give plain 'cpu's numbers where there are several CPUs, so that labels stay unique."""
    if sum(label.startswith("cpu") for label in labels) < 2:
        return
    free = (f"cpu:{number}" for number in range(len(labels)) if f"cpu:{number}" not in labels)
    for index, label in enumerate(labels):
        if label == "cpu":
            labels[index] = next(free)


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()[:128]
    return os.uname().machine


def _meminfo_mb(field: str) -> int:
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) // 1024
    return 0
