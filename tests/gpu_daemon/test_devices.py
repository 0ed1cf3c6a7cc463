"""What a person's words for devices mean, and who may have one."""

import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import GenServeError, SettingsError
from common.messages import DeviceInfo
from common.settings import GpuDaemonSettings, load_settings
from gpu_daemon import devices
from gpu_daemon.device_lock import DeviceLock
from gpu_daemon.devices import cpu, cpu_load, engine_environment, find_device, parse_devices, visible

GPUS = [
    DeviceInfo(device=f"cuda:{n}", kind="cuda", name="NVIDIA Test", uuid=f"GPU-{n}abc", total_mb=141_000)
    for n in range(3)
]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("", ["cuda:0", "cuda:1", "cuda:2"]),
        ("  ", ["cuda:0", "cuda:1", "cuda:2"]),
        ("0, 1", ["cuda:0", "cuda:1"]),
        ("cuda:0,cuda:2", ["cuda:0", "cuda:2"]),
        ("2,cuda:0", ["cuda:2", "cuda:0"]),
        ("01", ["cuda:1"]),
        ("cpu", ["cpu"]),
        ("cpu,cpu", ["cpu:0", "cpu:1"]),
        ("cpu:3", ["cpu:3"]),
        ("cpu:0,cpu", ["cpu:0", "cpu:1"]),
        ("cuda:0,cpu", ["cuda:0", "cpu"]),
    ],
)
def test_lists_of_devices(text: str, labels: list[str]) -> None:
    assert parse_devices(text, GPUS) == labels


def test_without_a_gpu_no_words_mean_the_cpu() -> None:
    assert parse_devices("", []) == ["cpu"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3", "there is no cuda:3 on this machine; there is cuda:0 (NVIDIA Test)"),
        ("0,0", "cuda:0 is named twice"),
        ("0,cuda:0", "cuda:0 is named twice"),
        ("cpu:1,cpu:1", "cpu:1 is named twice"),
        ("gpu0", "'gpu0' in the list of devices 'gpu0' is no device; write e.g. '0, 1'"),
        ("-1", "'-1' in the list"),
        ("0,,1", "'' in the list"),
        ("cuda:", "'cuda:' in the list"),
        ("0 1", "'0 1' in the list"),
        ("CUDA:0", "'CUDA:0' in the list"),
    ],
)
def test_nonsense_is_refused_with_what_would_be_right(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_devices(text, GPUS)
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("value", "uuids"),
    [
        (None, ["GPU-0abc", "GPU-1abc", "GPU-2abc"]),
        ("", []),
        ("2,0", ["GPU-2abc", "GPU-0abc"]),
        ("GPU-1", ["GPU-1abc"]),
        ("GPU-", []),  # several begin so
        ("1,-1,2", ["GPU-1abc"]),
        ("1,1", ["GPU-1abc"]),
        ("7,0", []),
    ],
)
def test_cuda_visible_devices_is_honoured_as_cuda_does(value: str | None, uuids: list[str]) -> None:
    seen = visible(GPUS, value)
    assert [gpu.uuid for gpu in seen] == uuids
    assert [gpu.device for gpu in seen] == [f"cuda:{n}" for n in range(len(uuids))]


def test_a_device_is_found_by_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "list_gpus", lambda: GPUS)
    assert find_device("") == GPUS[0]
    assert find_device("cuda:2") == GPUS[2]
    assert find_device("cpu:1").device == "cpu:1"
    with pytest.raises(GenServeError) as refused:
        find_device("cuda:9")
    assert refused.value.code == "device_unavailable"
    monkeypatch.setattr(devices, "list_gpus", list)
    assert find_device("").kind == "cpu"


@pytest.mark.parametrize("driver", [True, False])
def test_a_gpu_that_cannot_be_asked_about_is_not_passed_over(
    driver: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as where nvidia-ml-py is not installed
    monkeypatch.setattr(devices, "DRIVER", tmp_path if driver else tmp_path / "none")
    if driver:
        with pytest.raises(GenServeError, match=r"install genserve\[gpu\]") as refused:
            find_device("")
        assert refused.value.code == "device_unavailable"
    else:
        assert find_device("").kind == "cpu"
    assert find_device("cpu").kind == "cpu"


def test_the_cpu_is_described_as_the_kernel_does() -> None:
    found = cpu()
    assert found.name
    assert found.total_mb > 100
    load = cpu_load()
    assert 1 <= load.allocated_mb < found.total_mb
    assert 0 < load.free_mb <= found.total_mb


def test_an_engine_sees_its_own_gpu_only() -> None:
    env = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0,1,2"}
    assert engine_environment(GPUS[1], env) == {
        "PATH": "/bin",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "GPU-1abc",
    }
    assert engine_environment(cpu(), env)["CUDA_VISIBLE_DEVICES"] == ""


def test_what_systemd_gives_the_daemon_is_not_its_engines() -> None:
    given = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY", "LISTEN_FDS", "LISTEN_PID")
    passed = engine_environment(cpu(), dict.fromkeys(given, "x") | {"HOME": "/"})
    assert set(passed) == {"HOME", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"}


def test_a_bare_number_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_daemon.devices.list_gpus", lambda: GPUS)
    assert find_device("1") == find_device("cuda:1") == GPUS[1]
    with pytest.raises(GenServeError, match="there is no cuda:7"):
        find_device("7")
    for good in ("0", "17", "cuda:0", "cpu", "cpu:1", ""):
        assert load_settings(GpuDaemonSettings, env={}, flags={"device": good}).settings.device == good
    for bad in ("cuda", "gpu0", "cpu-1", "-1", "0,1"):
        with pytest.raises(GenServeError, match="device"):
            load_settings(GpuDaemonSettings, env={}, flags={"device": bad})


def test_one_daemon_a_gpu() -> None:
    with DeviceLock(GPUS[0]), DeviceLock(GPUS[1]):
        with pytest.raises(GenServeError) as refused, DeviceLock(GPUS[0]):
            pass
        assert refused.value.code == "device_unavailable"
        assert "GPU-0abc" in refused.value.message
    with DeviceLock(GPUS[0]):
        pass


def test_cpus_are_not_locked() -> None:
    with DeviceLock(cpu()), DeviceLock(cpu()):
        pass


def test_the_lock_goes_with_its_process() -> None:
    code = (
        "from common.messages import DeviceInfo\nfrom gpu_daemon.device_lock import DeviceLock\nimport time\n"
        "lock = DeviceLock(DeviceInfo(device='cuda:0', kind='cuda', uuid='GPU-gone')).__enter__()\n"
        "print('held', flush=True)\ntime.sleep(60)"
    )
    gpu = DeviceInfo(device="cuda:0", kind="cuda", uuid="GPU-gone")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(GenServeError), DeviceLock(gpu):
                pass
        finally:
            holder.kill()
    with DeviceLock(gpu):
        pass
