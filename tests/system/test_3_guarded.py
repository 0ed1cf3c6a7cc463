"""What is kept from whom, and what the journal holds."""

import json

from tests.system.machine import Machine
from tests.system.service import GATEWAY, GPUS, ROUTER, SERVICES

PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3"}


def user_of(machine: Machine, unit: str) -> str:
    return machine.run("stat", "--format=%U", f"/proc/{machine.property(unit, 'MainPID')}").strip()


def test_no_service_runs_as_root_or_as_another_one(ready: Machine) -> None:
    users = {unit: user_of(ready, unit) for unit in (ROUTER, GATEWAY, GPUS[0])}
    assert "root" not in users.values()
    assert len(set(users.values())) == 3
    assert user_of(ready, GPUS[1]) == users[GPUS[0]]


def test_lines_of_the_journal_are_json_with_their_priority(ready: Machine) -> None:
    for unit in SERVICES:
        pid = ready.property(unit, "MainPID")
        entries = ready.journal("--unit", unit, f"_PID={pid}")
        ours = [entry for entry in entries if entry["_TRANSPORT"] == "stdout"]
        assert ours, unit
        for entry in ours:
            line = json.loads(entry["MESSAGE"])
            assert entry["PRIORITY"] == PRIORITIES[line["level"]], line
            assert {"event", "time", "process"} <= set(line)
