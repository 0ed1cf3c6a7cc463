"""`genserve install` on a bare machine: what it shows, what it writes, and that it serves then."""

import base64
import tomllib

from common.settings.reference import reference
from tests.system.keys import FOLDER
from tests.system.machine import COMMAND, Machine
from tests.system.service import GPUS, SERVICES, picture

SETTINGS = "/etc/genserve/genserve.toml"


def units(machine: Machine) -> str:
    return machine.run("sh", "-c", "ls -d /etc/systemd/system/genserve* /etc/genserve /var/lib/genserve", check=False)


def test_a_dry_run_changes_nothing(machine: Machine) -> None:
    before = units(machine)
    shown = machine.genserve("install", "--gpus", "cpu,cpu", "--dry-run")
    assert f"ExecStart={COMMAND} router" in shown
    assert "systemctl enable genserve.target" in shown
    refused = machine.try_(COMMAND, "install", "--gpus", "cpu,cpu", "--gateway-host", "0.0.0.0", "--dry-run")
    assert refused.returncode == 1
    for words in ("ListenStream=0.0.0.0:12411", 'host = "0.0.0.0"', "genserve keys add-http NAME"):
        assert words in refused.stdout
    assert units(machine) == before == ""
    assert machine.try_("getent", "passwd", "genserve-router").returncode != 0


def test_only_root_may_and_is_told_so(machine: Machine) -> None:
    done = machine.try_("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", COMMAND, "install")
    assert done.returncode == 1
    assert f"sudo {COMMAND} install" in done.stderr


def test_it_is_ready_when_the_command_returns(host: Machine) -> None:
    assert [host.property(unit, "ActiveState") for unit in SERVICES] == ["active"] * len(SERVICES)
    assert [host.property(unit, "UnitFileState") for unit in SERVICES] == ["enabled"] * len(SERVICES)
    assert "ready" in host.property(GPUS[0], "StatusText")
    assert host.run("cat", SETTINGS) == reference()
    assert host.run("sh", "-c", f"stat --format='%a %U' {FOLDER} {FOLDER}/*").split("\n")[:2] == [
        "700 root",
        "600 root",
    ]


def test_a_picture_is_drawn_through_http(host: Machine) -> None:
    status, answer = picture(host, prompt="a large red circle on a white background", size="128x128").result()
    assert status == 200, answer
    assert base64.b64decode(answer["data"][0]["b64_json"]).startswith(b"\x89PNG")


def test_a_second_run_says_what_is_unchanged_and_changes_nothing(host: Machine) -> None:
    pids = [host.property(unit, "MainPID") for unit in SERVICES]
    said = host.genserve("install", "--gpus", "cpu,cpu")
    assert {line.split()[0] for line in said.splitlines() if "/etc/" in line} <= {"unchanged", "run"}
    assert host.genserve("install")  # which GPUs, it knows
    assert [host.property(unit, "MainPID") for unit in SERVICES] == pids


def test_the_operators_settings_stay_and_newer_ones_lie_beside(host: Machine) -> None:
    old = (
        reference()
        .replace("Made from reference", "Made from an older reference")
        .replace("#attempts_max", "attempts_max")
    )
    host.write(SETTINGS, old)
    said = host.genserve("install")
    assert f"{SETTINGS}.new" in said
    assert host.run("cat", SETTINGS) == old
    assert host.run("cat", f"{SETTINGS}.new") == reference()
    host.run("mv", f"{SETTINGS}.new", SETTINGS)
    assert f"{SETTINGS}.new" not in host.genserve("install")
    assert tomllib.loads(host.run("cat", SETTINGS))["router"] == {}


def test_a_faulty_setting_is_told_before_anything_is_restarted(host: Machine) -> None:
    pids = [host.property(unit, "MainPID") for unit in SERVICES]
    host.write(SETTINGS, "[router]\nattempts_max = 0\n")
    for words in ("install", "upgrade"):
        done = host.try_(COMMAND, words)
        assert done.returncode == 1
        assert "router.attempts_max = 0" in done.stderr
    assert [host.property(unit, "MainPID") for unit in SERVICES] == pids
    host.write(SETTINGS, reference())
