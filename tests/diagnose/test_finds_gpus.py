"""Drivers and GPUs that are not in order, as NVML and /dev would show them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from genserve.diagnose import gpus
from gpu_daemon import devices
from tests.diagnose.fake_nvml import GIB, FakeGpu, fake_nvml
from tests.diagnose.looking import found, look, model
from tests.diagnose.test_finds_models import WEIGHTS, safetensors

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """Makes this machine one with these GPUs and their device files."""

    def make(*fakes: FakeGpu, files: bool = True, **nvml: Any) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(*fakes, **nvml))
        dev = tmp_path / "dev"
        dev.mkdir()
        names = [f"nvidia{n}" for n in range(len(fakes))] + ["nvidiactl", "nvidia-uvm"]
        for name in names if files else names[:-1]:
            (dev / name).touch()
        monkeypatch.setattr(gpus, "DEV", dev)

    return make


ILLS = [
    (FakeGpu(uncorrected=3), "fail", "counts 3 uncorrected memory errors", "sudo nvidia-smi --gpu-reset -i 0"),
    (FakeGpu(mig=True), "fail", "is split by MIG", "sudo nvidia-smi -i 0 -mig 0"),
    (FakeGpu(remapped=(0, 1, 0, 1)), "fail", "it is broken", "ROW_REMAPPER"),
    (FakeGpu(remapped=(0, 1, 1, 0)), "warn", "replaces a bad memory row", "--gpu-reset"),
    (FakeGpu(reasons=pynvml.nvmlClocksThrottleReasonHwThermalSlowdown), "warn", "too hot", "TEMPERATURE"),
]


@pytest.mark.parametrize(("gpu", "status", "said", "mend"), ILLS)
def test_a_gpu_that_is_not_well(gpu: FakeGpu, status: str, said: str, mend: str, machine: Machine):
    machine(gpu)
    found(look("gpus.health")["gpus.health"], status, said, mend)


def test_a_driver_that_does_not_fit_its_library(machine: Machine):
    machine(fault=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    findings = look("gpus")
    found(findings["gpus.driver"], "fail", "version mismatch", "sudo reboot")
    assert [name for name, finding in findings.items() if not finding.skipped] == ["gpus.driver"]


def test_a_driver_without_nvidia_ml_py(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(devices, "DRIVER", tmp_path)
    finding = look("gpus.driver")["gpus.driver"]
    found(finding, "fail", "nvidia-ml-py is not installed", f"{sys.executable} -m pip install")


def test_a_driver_that_shows_no_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    machine(fault=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    monkeypatch.setattr(devices, "DRIVER", tmp_path)
    found(look("gpus.driver")["gpus.driver"], "fail", "this container was given none", "docker run --gpus all")


def test_a_gpu_without_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    card = tmp_path / "0000:17:00.0"
    card.mkdir()
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x030200\n")
    monkeypatch.setattr(gpus, "PCI", tmp_path)
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "none")
    finding = look("gpus.driver")["gpus.driver"]
    found(finding, "fail", "an NVIDIA GPU (0000:17:00.0) and no driver", "sudo modprobe nvidia")


def test_a_device_file_that_is_missing(machine: Machine):
    machine(FakeGpu(), files=False)
    found(look("gpus.files")["gpus.files"], "fail", "nvidia-uvm missing", "sudo nvidia-modprobe -u -c 0")


def test_memory_that_others_hold(machine: Machine):
    machine(FakeGpu(free=9 * GIB, holders=[(os.getpid(), 70 * GIB)]))
    finding = look("gpus.memory")["gpus.memory"]
    found(finding, "warn", f"(pid {os.getpid()}): 70.0 GiB", f"sudo kill {os.getpid()}")


@pytest.mark.parametrize("value", ["", "7"])
def test_a_variable_that_hides_every_gpu(value: str, machine: Machine):
    machine(FakeGpu())
    finding = look("gpus.visible", env={"CUDA_VISIBLE_DEVICES": value})["gpus.visible"]
    found(finding, "fail", "lets 0 of 1 GPUs be used", "unset CUDA_VISIBLE_DEVICES")


def test_a_variable_that_names_one_gpu_too_many(machine: Machine):
    machine(FakeGpu())
    finding = look("gpus.visible", env={"CUDA_VISIBLE_DEVICES": "0,1"})["gpus.visible"]
    found(finding, "warn", "names one that is not there", "unset CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(("text", "said"), [("0,1", "there is no cuda:1"), ("0,cuda:0", "cuda:0 is named twice")])
def test_gpus_that_are_not_there_or_named_twice(text: str, said: str, machine: Machine):
    machine(FakeGpu())
    finding = look("gpus.assignment", env={"FLUX_GPUS": text})["gpus.assignment"]
    found(finding, "fail", said, "export FLUX_GPUS=cuda:0")
    assert "FLUX_GPUS" in finding.detail


def test_a_torch_for_the_cpu_beside_a_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    machine(FakeGpu(), cuda=12080)
    finding = _with_torch("None", monkeypatch, tmp_path)
    found(
        finding,
        "fail",
        "built for the CPU only, and there are 1 GPUs",
        "--index-url https://download.pytorch.org/whl/cu128",
    )


def test_a_torch_that_is_newer_than_the_driver(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    machine(FakeGpu(), cuda=12060)
    finding = _with_torch("'13.0'", monkeypatch, tmp_path)
    found(finding, "fail", "this driver knows CUDA up to 12.6", "whl/cu126")


def test_a_torch_that_fits(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    machine(FakeGpu())
    assert _with_torch("'13.0'", monkeypatch, tmp_path).status == "ok"


def _with_torch(cuda: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """The finding where the first torch on the path is one built so; it is read, not imported."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").touch()
    (folder / "torch" / "version.py").write_text(f"__version__ = '2.13.0'\ncuda: Optional[str] = {cuda}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return look("environment.torch")["environment.torch"]


def test_plans_for_gpus_of_three_sizes(machine: Machine, tmp_path: Path):
    """30 GiB in bfloat16, the largest part 20: whole on 80 GiB, part by part on 24, not at all on 8."""
    machine(
        FakeGpu(),
        FakeGpu(uuid="GPU-1abc", total=24 * GIB, free=24 * GIB),
        FakeGpu(uuid="GPU-2abc", total=8 * GIB, free=8 * GIB),
    )
    folder = model(tmp_path)
    safetensors(folder / "transformer" / WEIGHTS, [10 * GIB], "BF16", 20 * GIB)
    safetensors(folder / "text_encoder_2" / "model.safetensors", [5 * GIB], "BF16", 10 * GIB)
    finding = look("memory.plan", env={"FLUX_MODEL_PATH": str(folder)})["memory.plan"]
    lines = finding.detail.splitlines()
    assert finding.status == "fail"
    assert next(line for line in lines if line.startswith("cuda:0")).endswith("79.0 GiB of 80.0 GiB free: fits")
    assert any(line.startswith("cuda:1") and "offloaded, for the weights" in line for line in lines)
    assert any(line.startswith("cuda:2") and "even its largest part alone does not fit" in line for line in lines)
    assert "export GENSERVE_UP_GPUS=cpu" in finding.fix


def test_offload_that_is_off_where_the_model_needs_it(machine: Machine, tmp_path: Path):
    machine(FakeGpu(total=22 * GIB, free=22 * GIB))
    folder = model(tmp_path)
    safetensors(folder / "transformer" / WEIGHTS, [10 * GIB], "BF16", 20 * GIB)
    env = {"FLUX_MODEL_PATH": str(folder), "GENSERVE_GPU_DAEMON_OFFLOAD": "off"}
    finding = look("memory.plan", env=env)["memory.plan"]
    found(finding, "fail", "the model does not fit", "export GENSERVE_GPU_DAEMON_OFFLOAD=auto")


def test_a_machine_with_two_gpus_in_order(machine: Machine):
    machine(FakeGpu(), FakeGpu(uuid="GPU-1abc"))
    findings = look("gpus,memory")
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert "2 GPUs: NVIDIA H100 80GB HBM3" in findings["gpus.driver"].detail
    assert findings["gpus.assignment"].detail.startswith("cuda:0 (NVIDIA H100 80GB HBM3), cuda:1")
