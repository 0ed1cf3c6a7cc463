"""Services that are stopped, killed, frozen and upgraded under load: no job fails."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service import wait_for
from tests.system.machine import COMMAND, Machine
from tests.system.service import GATEWAY, GPUS, ROUTER, SERVICES, job, picture, submit, wait_done, wait_up

LONG = {"num_inference_steps": 40, "size": "128x128"}  # seconds on a CPU
NEWER = "/opt/genserve-newer"


def in_hand(machine: Machine, paths: list[str], device: str) -> bool:
    views = [job(machine, path) for path in paths]
    return any(view["state"] == "running" and view["device"] == device for view in views)


def test_a_daemon_stopped_in_the_middle_of_a_job_fails_nobody(ready: Machine) -> None:
    paths = [submit(ready, **LONG) for _ in range(3)]
    wait_for("job on the GPU that is to stop", lambda: in_hand(ready, paths, "cpu:0"))
    ready.run("systemctl", "stop", GPUS[0])
    assert ready.property(GPUS[0], "Result") == "success"
    wait_done(ready, paths)


def test_each_main_process_is_started_again_when_it_is_killed(ready: Machine) -> None:
    paths = [submit(ready, **LONG) for _ in range(4)]
    for unit in SERVICES:
        pid = ready.property(unit, "MainPID")
        ready.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", unit)
        wait_up(ready, unit, other_than=pid)
    wait_done(ready, paths)


@pytest.fixture
def impatient(ready: Machine) -> Iterator[Machine]:
    """A watchdog that waits six seconds, not thirty, and two for a last word."""
    quick = "/etc/systemd/system/genserve-router.service.d/quick.conf"
    ready.write(quick, "[Service]\nWatchdogSec=6\nTimeoutAbortSec=2\n")
    ready.run("systemctl", "daemon-reload")
    ready.run("systemctl", "restart", ROUTER)
    yield ready
    ready.run("rm", "-r", str(Path(quick).parent))
    ready.run("systemctl", "daemon-reload")
    ready.run("systemctl", "restart", ROUTER)


def test_a_frozen_router_is_ended_by_its_watchdog_and_comes_back_with_its_queue(impatient: Machine) -> None:
    paths = [submit(impatient, **LONG) for _ in range(4)]
    pid = impatient.property(ROUTER, "MainPID")
    impatient.run("systemctl", "kill", "--signal=STOP", "--kill-whom=main", ROUTER)
    wait_up(impatient, ROUTER, other_than=pid)
    said = impatient.run("journalctl", "--unit", ROUTER, "--output=cat", "--no-pager")
    assert "Watchdog timeout" in said
    wait_done(impatient, paths)


def test_an_upgrade_under_load_fails_nobody_and_can_be_undone(ready: Machine) -> None:
    newer = ready.environment(NEWER)
    pids = {unit: ready.property(unit, "MainPID") for unit in SERVICES}
    upgrading = ready.callers.submit(ready.try_, newer, "upgrade")
    answers: list[tuple[int, Any]] = []
    paths = []
    while not upgrading.done():
        waiting = [picture(ready) for _ in range(4)]
        paths.append(submit(ready))
        answers += [each.result() for each in waiting]
    done = upgrading.result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [answer for status, answer in answers if status != 200] == []
    assert len(answers) >= 8
    wait_done(ready, paths)
    after = {unit: ready.property(unit, "MainPID") for unit in SERVICES}
    assert [unit for unit in SERVICES if after[unit] in ("0", pids[unit])] == []
    assert [unit for unit in SERVICES if newer not in ready.property(unit, "ExecStart")] == []
    order = [line.split()[0] for line in done.stdout.splitlines() if "new after" in line]
    assert order == [ROUTER, GATEWAY, *GPUS]
    back = ready.genserve("upgrade", "--dry-run")
    assert f"From {newer} to {COMMAND}" in back
    assert f"+ExecStart={COMMAND} router" in back


def test_a_version_that_does_not_come_up_leaves_the_others_as_they_are(ready: Machine) -> None:
    broken = "/etc/systemd/system/genserve-gateway.service.d/broken.conf"
    ready.write(broken, "[Service]\nEnvironment=GENSERVE_GATEWAY_ROUTER_ENDPOINT=nonsense\n")
    pids = [ready.property(unit, "MainPID") for unit in GPUS]
    done = ready.try_(COMMAND, "upgrade")
    ready.run("rm", "-r", str(Path(broken).parent))
    ready.run("systemctl", "daemon-reload")
    assert done.returncode == 1
    assert "gateway.router_endpoint = 'nonsense'" in done.stderr  # its last line
    assert f"To go back: sudo {NEWER}/bin/genserve upgrade" in done.stderr
    assert [ready.property(unit, "MainPID") for unit in GPUS] == pids
