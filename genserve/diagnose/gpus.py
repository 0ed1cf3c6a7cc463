"""The NVIDIA driver and its GPUs, and which of them GenServe would serve."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from common.errors import GenServeError
from genserve.diagnose import nvml
from genserve.diagnose.finding import Note, check, fail, mib, ok, pip_install, quoted, warn
from genserve.diagnose.host import Host, NotChecked
from genserve.diagnose.mend import setting
from genserve.diagnose.outside import said
from gpu_daemon import devices
from gpu_daemon.device_lock import is_held

DEV = Path("/dev")
PCI = Path("/sys/bus/pci/devices")
NVIDIA, DISPLAY = "0x10de", "0x03"  # a PCI vendor, and how the class of a graphics device begins
HELD_BY_OTHERS_SHARE = 0.05  # of a GPU's memory, from which on it is told
XIDS_SHOWN = 3


@check(
    "gpus.driver", "The NVIDIA driver: whether it is loaded, answers, and fits its library; an NVIDIA GPU without one"
)
def driver(host: Host) -> Iterator[Note]:
    """Without any of it, the CPU draws."""
    try:
        gpus = devices.list_gpus({})
    except GenServeError as error:
        yield fail(error.message, _mend_driver(host, error.message))
        return
    if gpus:
        cuda, version = nvml.driver()
        names = ", ".join(sorted({gpu.name for gpu in gpus}))
        yield ok(f"{version}, CUDA {'.'.join(map(str, cuda))}; {len(gpus)} GPUs: {names}")
    elif devices.DRIVER.exists():
        yield fail(
            "the kernel has an NVIDIA driver, but libnvidia-ml.so.1 shows no GPU: this container was given none",
            "nvidia-smi   # a container is given GPUs by: docker run --gpus all",
        )
    elif cards := _nvidia_cards():
        yield fail(
            f"this machine has an NVIDIA GPU ({', '.join(cards)}) and no driver is loaded for it",
            "sudo modprobe nvidia || sudo apt install nvidia-driver   # then: sudo reboot",
        )
    else:
        yield ok("no NVIDIA GPU in this machine: the CPU draws")


def _mend_driver(host: Host, message: str) -> str:
    if "nvidia-ml-py" in message:
        return pip_install("nvidia-ml-py>=13")
    if "mismatch" in message:  # the driver was upgraded and the kernel still has the older one
        return "sudo reboot   # the driver's library is newer than what the kernel has loaded"
    if "ermission" in message:
        return _join_group(host)
    return "sudo nvidia-smi || sudo reboot"


def _nvidia_cards() -> list[str]:
    found = []
    for card in sorted(PCI.iterdir()) if PCI.is_dir() else ():
        try:
            vendor, kind = ((card / name).read_text("ascii").strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == NVIDIA and kind.startswith(DISPLAY):
            found.append(card.name)
    return found


@check("gpus.files", "The device files under /dev that CUDA opens, and whether this user may")
def files(host: Host) -> Iterator[Note]:
    """The driver's library makes some of them only when root asks."""
    gpus = _seen()
    wanted = [f"nvidia{gpu.minor}" for gpu in gpus if gpu.minor is not None] + ["nvidiactl", "nvidia-uvm"]
    missing = [name for name in wanted if not (DEV / name).exists()]
    closed = [name for name in wanted if name not in missing and not os.access(DEV / name, os.R_OK | os.W_OK)]
    if missing:
        yield fail(f"{', '.join(missing)} missing in {DEV}: CUDA cannot start", "sudo nvidia-modprobe -u -c 0")
    if closed:
        yield fail(f"this user may not open {', '.join(closed)} in {DEV}", _join_group(host))
    if not missing and not closed:
        yield ok(f"{', '.join(wanted)}")


def _join_group(host: Host) -> str:
    user = host.env.get("USER") or pwd.getpwuid(os.geteuid()).pw_name
    return f"sudo usermod -aG video,render {quoted(user)}   # then log in again"


@check("gpus.visible", "Whether CUDA_VISIBLE_DEVICES hides GPUs")
def visible(host: Host) -> Iterator[Note]:
    """CUDA ends such a list at the first entry that names no GPU, and says nothing."""
    gpus = _seen()
    value = host.env.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        yield ok(f"all {len(gpus)} may be used")
        return
    seen, entries = len(host.gpus), len([part for part in value.split(",") if part.strip()])
    words = f"CUDA_VISIBLE_DEVICES = {value!r} lets {seen} of {len(gpus)} GPUs be used"
    if seen == 0 or seen < entries:
        yield (fail if seen == 0 else warn)(f"{words}: it names one that is not there", "unset CUDA_VISIBLE_DEVICES")
    else:
        yield ok(words)


@check("gpus.memory", "GPU memory that other programs hold")
def memory(_host: Host) -> Iterator[Note]:
    """A model may not fit beside them."""
    for gpu in _seen():
        others = [(pid, size, name) for pid, size in gpu.holders if not (name := _name_of(pid)).startswith("genserve")]
        held = sum(size for _, size, _ in others)
        words = f"GPU {gpu.index}: {mib(gpu.free)} of {mib(gpu.total)} free"
        if held > HELD_BY_OTHERS_SHARE * gpu.total:
            who = ", ".join(f"{name or 'a process'} (pid {pid}): {mib(size)}" for pid, size, name in others)
            yield warn(f"{words}; others hold {who}", f"sudo kill {' '.join(str(pid) for pid, _, _ in others)}")
        else:
            yield ok(words)


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:  # of another namespace, or gone
        return ""


@check("gpus.health", "ECC errors, row remapping, MIG, heat and Xid errors that the GPUs or the kernel tell of")
def health(host: Host) -> Iterator[Note]:
    """A GPU that is breaking draws wrong pictures before it draws none."""
    for gpu in _seen():
        faults = list(_ills(gpu))
        yield from faults
        if not faults:
            heat = f", {gpu.temperature} °C" if gpu.temperature is not None else ""
            yield ok(f"GPU {gpu.index}: well{heat}")
    try:
        lines = said("journalctl", "-k", "-b", "-g", "NVRM: Xid", "-o", "cat", "-n", str(XIDS_SHOWN), env=host.env)
    except NotChecked:
        return
    if xids := [line for line in lines.splitlines() if "Xid" in line]:
        yield warn(f"the kernel has told of GPU errors since it started: {xids[-1].strip()[:200]}", "sudo reboot")


def _ills(gpu: nvml.Gpu) -> Iterator[Note]:
    who, reset = f"GPU {gpu.index} ({gpu.name})", f"sudo nvidia-smi --gpu-reset -i {gpu.index}"
    if gpu.mig:
        yield fail(f"{who} is split by MIG; GenServe serves whole GPUs", f"sudo nvidia-smi -i {gpu.index} -mig 0")
    if gpu.remap_failed:
        yield fail(
            f"{who} has memory rows that could not be replaced: it is broken",
            f"nvidia-smi -q -i {gpu.index} -d ROW_REMAPPER",
        )
    if gpu.uncorrected:
        yield fail(f"{who} counts {gpu.uncorrected} uncorrected memory errors", reset)
    if gpu.remap_pending:
        yield warn(f"{who} replaces a bad memory row at its next reset", reset)
    if gpu.slowed:
        yield warn(
            f"{who} is slowed down: {gpu.slowed}", f"nvidia-smi -q -i {gpu.index} -d PERFORMANCE,TEMPERATURE,POWER"
        )


@check("gpus.assignment", "The devices that the settings name: that each is there, once, and which GPU it is")
def assignment(host: Host) -> Iterator[Note]:
    """As `genserve up` would take them."""
    name = "up.gpus" if host.up.gpus else "gpu_daemon.device"
    labels = host.up.gpus or host.daemon.device
    try:
        chosen = host.devices
    except NotChecked:
        gpus = host.gpus
        try:
            devices.parse_devices(labels, gpus)
        except GenServeError as error:
            right = ",".join(gpu.device for gpu in gpus) if name == "up.gpus" else gpus[0].device if gpus else ""
            yield fail(f"{error.message} ({name}, from {host.source(name)})", setting(host, name, right or "cpu"))
        return
    if host.daemon.worker_id and len(chosen) > 1:
        yield fail(
            f"gpu_daemon.worker_id = {host.daemon.worker_id!r} names one daemon, and {len(chosen)} would start",
            setting(host, "gpu_daemon.worker_id", ""),
        )
    held = [device.device for device in chosen if device.kind == "cuda" and is_held(device)]
    words = ", ".join(f"{device.device} ({device.name})" for device in chosen)
    yield ok(words + (f"; {', '.join(held)} served by a daemon that runs now" if held else ""))


def _seen() -> list[nvml.Gpu]:
    if not (gpus := nvml.look()):
        raise NotChecked("there is no GPU")
    return gpus


CHECKS = (driver, files, visible, memory, health, assignment)
