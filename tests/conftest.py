"""Whole services that several test files share."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service, running

for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # of what a shell starts with & or nohup, and of its children
        signal.signal(number, usual)


@pytest.fixture(autouse=True)
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No router that a test starts takes up what another one has left, nor a user's own state."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state" / uuid.uuid4().hex))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`genserve up --gpus cpu` with the embedded model, ready."""
    with running(Path(tmp_path_factory.mktemp("service")), "--gpus", "cpu") as started:
        yield started


@pytest.fixture(scope="session")
def noop_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two daemons with no-op engines whose step takes 20 ms, ready."""
    folder = Path(tmp_path_factory.mktemp("noop"))
    env = {"GENSERVE_GPU_DAEMON_NOOP_STEP_S": "0.02"}
    with running(folder, "--gpus", "cpu,cpu", "--engine", "noop", workers=2, env=env) as started:
        yield started
