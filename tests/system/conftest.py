"""The booted machine that all tests here share, in the order of their files: installing, serving, guarding, removing.

They are collected only where they are asked for by name, since they need root and a few minutes: `make test-system`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import wait_for
from tests.system.keys import make_keys
from tests.system.machine import Machine, booted, why_not
from tests.system.service import GATEWAY, GPUS, READY_WITHIN_S, ROUTER, gpus_ready

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.invocation_params.args]
    if any(path == HERE or path.is_relative_to(HERE) for path in asked):
        return None
    return True


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted machine with the wheel in its environment; nothing is installed as a service."""
    if why := why_not():
        pytest.skip(why)
    with booted(Path(tmp_path_factory.mktemp("machine"))) as started:
        yield started


@pytest.fixture(scope="session")
def host(machine: Machine) -> Machine:
    """The same, with keys and GenServe installed as services of two CPUs by its own command."""
    make_keys(machine)
    machine.genserve("install", "--gpus", "cpu,cpu")
    return machine


@pytest.fixture
def ready(host: Machine) -> Machine:
    """The same, with everything up again whatever a test before has done."""
    host.run("systemctl", "start", "genserve.target", ROUTER, GATEWAY, *GPUS)
    wait_for("two ready GPUs", lambda: gpus_ready(host) == len(GPUS), READY_WITHIN_S)
    return host
