"""Memory: the plan by its numbers, the figures against the kernel's own, what is put back."""

from pathlib import Path

import pytest
import torch

from common.errors import GenServeError
from gpu_daemon.engine.flux import FluxBackend
from gpu_daemon.engine.memory import check_host_memory, put_back
from gpu_daemon.engine.pipeline import DTYPES
from gpu_daemon.memory_plan import NUMBER_BYTES, plan_memory
from tests.engine.orders import order, paint

DEV_MB = 32_000  # FLUX.1-dev in bfloat16


@pytest.mark.parametrize(
    ("offload", "total_mb", "free_mb", "offloaded"),
    [
        ("auto", 81_000, 80_000, False),
        ("auto", 40_000, 36_800, False),  # exactly 1.15 times the weights
        ("auto", 40_000, 36_799, True),
        ("auto", 81_000, 20_000, True),  # another program holds the rest
        ("auto", 16 * 1024 - 1, 16_000, True),
        ("on", 81_000, 80_000, True),
        ("off", 12_000, 11_000, False),
    ],
)
def test_plan(offload: str, total_mb: int, free_mb: int, offloaded: bool):
    plan = plan_memory(offload, weights_mb=DEV_MB, total_mb=total_mb, free_mb=free_mb, offload_below_gb=16.0)
    assert plan.offloaded == offloaded
    assert plan.reason


def test_small_gpus_do_not_offload_when_told_so():
    plan = plan_memory("auto", weights_mb=1, total_mb=8_000, free_mb=8_000, offload_below_gb=0)
    assert not plan.offloaded


def test_weights_beyond_the_host_are_refused_before_they_are_read():
    with pytest.raises(GenServeError, match="1000000000 MiB of memory") as caught:
        check_host_memory(10**9)
    assert caught.value.code == "out_of_memory"
    check_host_memory(1)


def test_figures_on_a_cpu_are_the_kernels(backend: FluxBackend):
    load = backend.device_load()
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    assert load.allocated_mb == pytest.approx(int(fields["VmRSS"].split()[0]) / 1024, rel=0.05)
    assert load.free_mb == pytest.approx(int(available.split()[1]) / 1024, rel=0.1)
    assert load.cached_mb == 0


def test_only_what_is_elsewhere_is_put_back():
    # Any other device will do to move to; 'meta' exists everywhere.
    there = torch.device("meta")
    modules = {"one": torch.nn.Linear(2, 2), "two": torch.nn.BatchNorm1d(2), "three": torch.nn.Linear(2, 2).to(there)}
    assert put_back(modules, there) == ["one", "two"]
    assert all(tensor.device == there for module in modules.values() for tensor in module.state_dict().values())
    assert put_back(modules, there) == []


def test_idle_keeps_the_model_usable(backend: FluxBackend):
    before = paint(backend, order()).tobytes()
    backend.became_idle()
    assert paint(backend, order()).tobytes() == before


def test_the_plan_counts_numbers_as_the_pipeline_loads_them():
    assert {kind: dtype.itemsize for kind, dtype in DTYPES.items()} == NUMBER_BYTES
