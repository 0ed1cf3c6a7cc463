"""The systemd units: accepted by systemd itself, and in keeping with the settings they rely on."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.process import EXIT_CONFIG
from common.settings import GatewaySettings, GpuDaemonSettings, RouterSettings

UNITS = Path(__file__).resolve().parents[2] / "systemd"
SERVICES = {
    "genserve-router.service": RouterSettings().drain_s,
    "genserve-gateway.service": GatewaySettings().drain_s,
    "genserve-gpu@.service": GpuDaemonSettings().drain_s + GpuDaemonSettings().job_stop_grace_s,
}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_them(tmp_path: Path) -> None:
    installed = "/opt/genserve/.venv/bin/genserve"
    for unit in UNITS.glob("genserve*.*"):
        name = unit.name.replace("@.", "@0.")
        (tmp_path / name).write_text(unit.read_text("utf-8").replace(installed, sys.executable), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "genserve" in line]
    assert complaints == []


@pytest.mark.parametrize(("name", "drain_s"), SERVICES.items())
def test_a_unit_waits_for_its_drain_and_is_not_restarted_in_vain(name: str, drain_s: float) -> None:
    text = (UNITS / name).read_text("utf-8")
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert drain_s + 5 <= float(stop_s)
    assert f"RestartPreventExitStatus={EXIT_CONFIG}" in text
