"""What a daemon calls itself, with a key and without, and keys that are none of its own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import SettingsError
from common.keys import new_key, write_key
from common.messages import DeviceInfo
from common.settings import GpuDaemonSettings
from gpu_daemon.introduction import introduce

SERVER = new_key("server", "server")
KEY = new_key("host-b", "daemon", SERVER.public_key)
DEVICE = DeviceInfo(device="cuda:3", kind="cuda")
RUN = (
    "import os, sys\nfrom common.settings import GpuDaemonSettings, load_settings\nfrom gpu_daemon.control import run\n"
    "sys.exit(run(load_settings(GpuDaemonSettings, env=os.environ)))"
)


def name(worker_id: str = "", *, keyed: bool = True) -> str:
    settings = GpuDaemonSettings(engine="noop", worker_id=worker_id)
    return introduce(settings, DEVICE, KEY if keyed else None).worker_id


def test_a_daemons_name_is_its_keys_and_its_devices() -> None:
    assert name() == "host-b/cuda:3"
    assert name("host-b/left") == "host-b/left"
    assert name(keyed=False) == f"{socket.gethostname()}/cuda:3"
    assert name("anything", keyed=False) == "anything"


@pytest.mark.parametrize("wrong", ["left", "host-bb/left", "host-b", "host-a/cuda:3"])
def test_another_name_is_refused_before_it_is_sent(wrong: str) -> None:
    with pytest.raises(SettingsError, match="must begin with 'host-b/'"):
        name(wrong)


def test_a_key_of_another_role_stops_the_start(tmp_path: Path) -> None:
    write_key(tmp_path / "lab.key", new_key("lab", "client", SERVER.public_key))
    env = {
        "GENSERVE_GPU_DAEMON_KEY_FILE": str(tmp_path / "lab.key"),
        "GENSERVE_GPU_DAEMON_ENGINE": "noop",
        "GENSERVE_GPU_DAEMON_DEVICE": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN], env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 78
    assert "is a client key (lab); here a key of the role daemon is needed" in done.stderr
