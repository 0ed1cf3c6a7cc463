"""How busy a GPU is, in its daemon's heartbeats; nothing where nobody knows."""

import sys

import pytest

from common.messages import Credit, DeviceInfo, DeviceLoad, Heartbeat
from gpu_daemon.devices import list_gpus
from gpu_daemon.utilization import Utilization
from tests.diagnose.fake_nvml import FakeGpu, fake_nvml

GPU = DeviceInfo(device="cuda:0", kind="cuda", uuid="GPU-0abc", total_mb=1000)
LOAD = DeviceLoad(allocated_mb=1, free_mb=999)


def told(load: DeviceLoad, device: DeviceInfo = GPU) -> DeviceLoad:
    message = Utilization(device).told(Heartbeat(epoch=1, state="ready", load=load))
    assert isinstance(message, Heartbeat)
    return message.load


@pytest.mark.parametrize("percent", [0, 97, 100, None])
def test_a_heartbeat_says_what_the_driver_says(monkeypatch: pytest.MonkeyPatch, percent: int | None) -> None:
    gpus = (FakeGpu(uuid="GPU-1", utilization=50), FakeGpu(utilization=percent))
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(*gpus))
    assert told(LOAD) == DeviceLoad(allocated_mb=1, free_mb=999, utilization_percent=percent)
    assert told(DeviceLoad()) == DeviceLoad()  # an engine that has not measured yet
    other = Credit(epoch=1, granted_total=1)
    assert Utilization(GPU).told(other) is other


@pytest.mark.parametrize("fault", [9, 999])
def test_a_driver_that_is_out_of_order_costs_only_the_figure(monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(FakeGpu(), fault=fault))
    assert told(LOAD) == LOAD


def test_a_cpu_has_none() -> None:
    assert told(LOAD, DeviceInfo(device="cpu", kind="cpu", total_mb=1)) == LOAD


@pytest.mark.skipif(not list_gpus(), reason="there is no GPU here")
def test_a_real_gpu_says_a_share() -> None:
    percent = told(LOAD, list_gpus()[0]).utilization_percent
    assert percent is not None
    assert 0 <= percent <= 100
