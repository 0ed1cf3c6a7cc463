"""What is installed from a wheel: our packages with their data, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"common", "router", "gpu_daemon", "gateway", "genserve"}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("genserve-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_only_our_packages(names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_every_source_is_in_it(names: list[str]) -> None:
    sources = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    sources |= {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.css")}
    assert sources <= set(names)
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_the_embedded_model_is_in_it(names: list[str]) -> None:
    embedded = ROOT / "gpu_daemon" / "models"
    data = {path.relative_to(ROOT).as_posix() for path in embedded.rglob("*") if path.is_file()}
    data = {name for name in data if "__pycache__" not in name}
    assert any(name.endswith(".safetensors") for name in data)
    assert data <= set(names)


def test_every_unit_is_in_it(names: list[str]) -> None:
    units = {f"genserve/systemd/{path.name}" for path in (ROOT / "systemd").iterdir()}
    assert {"genserve/systemd/genserve.target", "genserve/systemd/genserve-gpu@.service"} <= units
    assert units <= set(names)


def test_the_licence_is_in_it(names: list[str]) -> None:
    assert any(name.endswith("licenses/LICENSE") for name in names)
