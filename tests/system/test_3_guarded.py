"""What is kept from whom, and what the journal holds."""

import json

from tests.system.keys import FOLDER
from tests.system.machine import Machine
from tests.system.service import GATEWAY, GPUS, ROUTER, SERVICES, picture, wait_up

PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3"}
OWN_KEY = {ROUTER: "server.key", GATEWAY: "gateway.key", GPUS[0]: "daemon.key"}


def user_of(machine: Machine, unit: str) -> str:
    return machine.run("stat", "--format=%U", f"/proc/{machine.property(unit, 'MainPID')}").strip()


def inside(machine: Machine, unit: str, *words: str) -> int:
    """The exit status of a command that runs as the unit's user, where the unit's processes see the files."""
    user, pid = user_of(machine, unit), machine.property(unit, "MainPID")
    become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
    return machine.try_("nsenter", "--target", pid, "--mount", "--", *become, *words).returncode


def test_no_service_runs_as_root_or_as_another_one(ready: Machine) -> None:
    users = {unit: user_of(ready, unit) for unit in (ROUTER, GATEWAY, GPUS[0])}
    assert "root" not in users.values()
    assert len(set(users.values())) == 3
    assert user_of(ready, GPUS[1]) == users[GPUS[0]]


def test_a_service_reads_its_own_key_and_no_other(ready: Machine) -> None:
    assert picture(ready).result()[0] == 200
    folders = {unit: f"/run/credentials/{unit}" for unit in OWN_KEY}
    for unit, name in OWN_KEY.items():
        assert inside(ready, unit, "cat", f"{folders[unit]}/{name}") == 0
        for other, others in OWN_KEY.items():
            assert inside(ready, unit, "cat", f"{FOLDER}/{others}") != 0, (unit, others)
            if other != unit:
                assert inside(ready, unit, "cat", f"{folders[other]}/{others}") != 0, (unit, other)
                assert inside(ready, unit, "ls", folders[other]) != 0, (unit, other)


def test_the_queue_is_the_routers_alone(ready: Machine) -> None:
    assert inside(ready, ROUTER, "ls", "/var/lib/genserve/journal.db") == 0
    for unit in (GATEWAY, GPUS[0]):
        assert inside(ready, unit, "ls", "/var/lib/genserve/journal.db") != 0


def test_no_service_may_write_what_it_runs_or_is_set_by(ready: Machine) -> None:
    for unit in OWN_KEY:
        for path in (
            "/etc/genserve/genserve.toml",
            "/opt/genserve/bin/genserve",
            "/etc/systemd/system/genserve.target",
        ):
            assert inside(ready, unit, "test", "-w", path) != 0, (unit, path)


def test_lines_of_the_journal_are_json_with_their_priority(ready: Machine) -> None:
    for unit in SERVICES:
        entries = ready.journal("--unit", unit, f"_PID={wait_up(ready, unit)}")
        ours = [entry for entry in entries if entry["_TRANSPORT"] == "stdout"]
        assert ours, unit
        for entry in ours:
            line = json.loads(entry["MESSAGE"])
            assert entry["PRIORITY"] == PRIORITIES[line["level"]], line
            assert {"event", "time", "process"} <= set(line)
