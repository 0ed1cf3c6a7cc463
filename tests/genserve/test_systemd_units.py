"""The systemd units: accepted by systemd itself, as closed as they claim, and in keeping with the settings."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.process import EXIT_CONFIG
from common.settings import GatewaySettings, GpuDaemonSettings, RouterSettings

UNITS = Path(__file__).resolve().parents[2] / "systemd"
DRAINS_S = {
    "genserve-router.service": RouterSettings().drain_s,
    "genserve-gateway.service": GatewaySettings().drain_s,
    "genserve-gpu@.service": GpuDaemonSettings().drain_s + GpuDaemonSettings().job_stop_grace_s,
}
EXPOSURE_TENTHS_MAX = {"genserve-router.service": 12, "genserve-gateway.service": 13, "genserve-gpu@.service": 16}
KEYS = {
    "genserve-router.service": "server.key",
    "genserve-gateway.service": "gateway.key",
    "genserve-gpu@.service": "daemon.key",
}

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not installed: apt-get install systemd",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the units as they stand on a host, with instances of the template beside it."""
    folder = tmp_path_factory.mktemp("units")
    for unit in UNITS.glob("genserve*.*"):
        if unit.suffix == ".conf":
            continue
        text = unit.read_text("utf-8")
        assert set(re.findall(r"@[A-Z]+@", text)) <= {"@GENSERVE@", "@HTTP@"}
        text = text.replace("@GENSERVE@", sys.executable).replace("@HTTP@", "0.0.0.0:12411")
        for name in [unit.name, *(unit.name.replace("@.", f"@{device}.") for device in ("0", "cpu", "cpu:1"))]:
            (folder / name).write_text(text, "utf-8")
    return folder


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@needs_systemd
def test_systemd_accepts_them(installed: Path) -> None:
    units = [str(path) for path in installed.iterdir() if "@." not in path.name]
    assert len(units) >= 8
    done = _analyze("verify", "--man=no", *units)
    assert [line for line in done.stderr.splitlines() if "genserve" in line] == []


@needs_systemd
@pytest.mark.parametrize(("unit", "tenths"), EXPOSURE_TENTHS_MAX.items())
def test_they_are_as_closed_as_they_can_bear(installed: Path, unit: str, tenths: int) -> None:
    done = _analyze("security", "--offline=true", f"--threshold={tenths}", str(installed / unit))
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()
    assert "Overall exposure level" in done.stdout


@pytest.mark.parametrize(("name", "drain_s"), DRAINS_S.items())
def test_a_unit_waits_for_its_drain_and_is_not_restarted_in_vain(name: str, drain_s: float) -> None:
    text = (UNITS / name).read_text("utf-8")
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert drain_s + 5 <= float(stop_s)
    assert f"RestartPreventExitStatus={EXIT_CONFIG}" in text


def test_each_has_a_user_and_a_key_of_its_own() -> None:
    users = (UNITS / "genserve.sysusers.conf").read_text("utf-8")
    links = (UNITS / "genserve.tmpfiles.conf").read_text("utf-8")
    for name, key in KEYS.items():
        text = (UNITS / name).read_text("utf-8")
        user = name.partition(".")[0].partition("@")[0]
        assert f"\nUser={user}\n" in text
        assert re.search(rf"^u {user} ", users, re.MULTILINE)
        assert re.findall(r"^LoadCredential=(.*)$", text, re.MULTILINE) == [f"{key}:genserve.{key}"]
        assert re.search(rf"^L /etc/credstore/genserve\.{key} .* /etc/genserve/keys/{key}$", links, re.MULTILINE)
        assert "-/etc/genserve/keys" in text
