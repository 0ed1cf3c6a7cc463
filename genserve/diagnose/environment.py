"""The Python that runs GenServe: its version, its packages, and a torch that fits the GPUs."""

import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from genserve.diagnose import nvml
from genserve.diagnose.finding import Note, check, fail, ok, pip_install, quoted, warn
from genserve.diagnose.host import Host, NotChecked
from genserve.diagnose.outside import ProbeFailed, probe
from genserve.diagnose.requirements import NAME, Requirement, installed, lacking, package, release, required

PYTHON_LEAST = (3, 11)
IMPORT_WITHIN_S = 120.0
WHEELS = "https://download.pytorch.org/whl"
WHEEL_TAGS = (((13, 0), "cu130"), ((12, 8), "cu128"), ((12, 6), "cu126"))  # newest first: CUDA of the driver at least


@check("environment.python", "The Python version, and that it is Linux on a 64-bit processor")
def python(_host: Host) -> Iterator[Note]:
    """Too old is hard to get here, but an environment can be moved under another interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON_LEAST:
        yield fail(f"Python {version} is too old: 3.11 or newer is needed", "sudo apt install python3.11-venv")
    if sys.platform != "linux" or sys.maxsize < 2**32:
        yield fail(f"GenServe runs on 64-bit Linux, and this is {platform.platform()}", "uname -a")
    yield ok(f"{version} on {platform.machine()}, {sys.executable}")


@check("environment.venv", "A virtual environment of GenServe's own, and whether `genserve` on the path is its command")
def venv(host: Host) -> Iterator[Note]:
    """Two installations beside each other are the usual cause of 'I have just upgraded that'."""
    own = Path(sys.executable).parent / "genserve"
    found = shutil.which("genserve", path=host.env.get("PATH", os.defpath))
    if found and own.exists() and Path(found).resolve() != own.resolve():
        yield warn(
            f"`genserve` means {found}, and this is {own}: two installations",
            f'export PATH={quoted(own.parent)}:"$PATH"',
        )
    if sys.prefix == sys.base_prefix:
        yield warn(
            f"GenServe shares the Python of {sys.prefix} with other programs, whose upgrades may break it",
            f"python3 -m venv /opt/genserve && /opt/genserve/bin/pip install {quoted(package('gpu'))}",
        )
    yield ok(sys.prefix)


@check("environment.packages", "The packages of the service, present and new enough")
def packages(_host: Host) -> Iterator[Note]:
    """Those of the router, the gateway and the commands."""
    wanted = required()
    if not wanted:
        yield fail(f"{NAME} is not installed in {sys.prefix}: nothing says what it needs", pip_install(package()))
        return
    yield from _held(wanted, "the service needs")


@check("environment.engine", "The packages that draw: torch, diffusers, transformers, sentencepiece and what they need")
def engine_packages(host: Host) -> Iterator[Note]:
    """The extra `gpu`."""
    host.need_model()
    yield from _held(required("gpu"), "drawing needs", host.spared)


def _held(wanted: Sequence[Requirement], who: str, spared: Collection[str] = ()) -> Iterator[Note]:
    """`spared`: packages without which it works here."""
    there = installed()
    faults = lacking(wanted, there)
    for requirement, have in faults:
        is_there = f"and {have} is installed" if have else "which is not installed"
        mend = pip_install(*(str(r) for r, _ in faults))
        if requirement.name in spared:
            yield warn(f"{requirement} is wanted by other models than this one, {is_there}", mend)
        else:
            yield fail(f"{who} {requirement}, {is_there}", mend)
    if not faults:
        yield ok(f"{len(wanted)} packages, all as needed")


@check("environment.torch", "Whether torch is built for the GPUs that are here, and for a driver as old as this one")
def torch(host: Host) -> Iterator[Note]:
    """Read from its files; it is not imported."""
    host.need_model()
    version, cuda = _torch_build()
    built = f"built for CUDA {cuda}" if cuda else "built for the CPU only"
    wanted = [device for device in host.devices if device.kind == "cuda"]
    if not wanted:
        yield ok(f"torch {version}, {built}; no GPU is to be used")
        return
    driver, _ = nvml.driver()
    tag = next((tag for least, tag in WHEEL_TAGS if driver >= least), "")
    told = ".".join(map(str, driver))
    update = "sudo apt update && sudo apt upgrade   # then: sudo reboot. It needs a newer NVIDIA driver"
    reinstall = pip_install("torch", options=f"--force-reinstall --index-url {WHEELS}/{tag}") if tag else update
    if not cuda:
        yield fail(f"torch {version} is {built}, and there are {len(wanted)} GPUs ({wanted[0].name})", reinstall)
    elif release(cuda)[:1] > driver[:1]:
        yield fail(f"torch {version} is {built}, and this driver knows CUDA up to {told}", reinstall)
    else:
        yield ok(f"torch {version}, {built}; the driver knows CUDA up to {told}")


def _torch_build() -> tuple[str, str]:
    """Its version, and the CUDA it is built for ('' for none)."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise NotChecked("torch is not installed: see environment.engine")
    try:
        text = (Path(spec.origin).parent / "version.py").read_text("utf-8")
    except OSError as error:
        raise NotChecked(f"torch's version.py cannot be read: {error.strerror}") from None
    cuda = re.search(r"^cuda\b.*= *'([\d.]+)'", text, re.MULTILINE)
    return metadata.version("torch"), cuda[1] if cuda else ""


@check(
    "environment.imports",
    "The packages that draw are really imported, in a process of their own; torch sees the GPUs and knows their kind",
    bound_s=IMPORT_WITHIN_S + 10,
    slow=True,
)
def imports(host: Host) -> Iterator[Note]:
    """A library that is missing below them shows only now."""
    host.need_model()
    reinstall = pip_install(package("gpu"), options="--force-reinstall")
    try:
        found = probe("gpu_daemon.engine.probe", (), host.env, within_s=IMPORT_WITHIN_S)
    except ProbeFailed as error:
        yield fail(f"importing torch and diffusers: {error}", reinstall)
        return
    for name, why in found["failed"].items():
        told = warn if name in host.spared else fail
        yield told(f"{name} cannot be imported: {why}", pip_install(name, options="--force-reinstall"))
    gpus = [device for device in host.devices if device.kind == "cuda"]
    if gpus and not found["cuda_available"]:
        yield fail("torch finds no GPU that it can use, though the driver does", "nvidia-smi; ls -l /dev/nvidia*")
    arches = [int(arch.removeprefix("sm_").rstrip("af")) for arch in found["arches"] if arch.startswith("sm_")]
    for gpu in nvml.look() if gpus and arches else ():
        kind = gpu.capability[0] * 10 + gpu.capability[1]
        if not any(kind // 10 == arch // 10 and arch <= kind for arch in arches):
            yield fail(
                f"this torch has no code for {gpu.name} (sm_{kind}): it is built for {', '.join(found['arches'])}",
                pip_install("torch", options="--upgrade"),
            )
    if not found["failed"]:
        yield ok(f"torch {found['torch']}, diffusers {found['diffusers']}, transformers {found['transformers']}")


CHECKS = (python, venv, packages, engine_packages, torch, imports)
