"""`genserve uninstall` takes away what install wrote; then the same machine becomes one that has only GPUs."""

import tomllib

from tests.system.keys import Key
from tests.system.machine import COMMAND, Machine
from tests.system.service import GPUS, SERVICES, picture, submit, wait_done

WRITTEN = "ls -d /etc/systemd/system/genserve* /etc/sysusers.d/genserve* /etc/tmpfiles.d/genserve* /etc/credstore/*"
OWNED = "ls -d /etc/genserve /var/lib/genserve*"


def listed(machine: Machine, command: str) -> str:
    return machine.run("sh", "-c", command, check=False)


def test_uninstalling_keeps_the_operators_and_purging_does_not(ready: Machine) -> None:
    wait_done(ready, [submit(ready)])
    shown = ready.genserve("uninstall", "--dry-run")
    assert "Nothing was changed." in shown
    assert ready.property(SERVICES[0], "ActiveState") == "active"
    said = ready.genserve("uninstall")
    assert listed(ready, WRITTEN) == ""
    assert [ready.property(unit, "LoadState") for unit in SERVICES] == ["not-found"] * len(SERVICES)
    assert "/var/lib/genserve (kept; --purge removes it as well)" in said
    ready.run("test", "-f", "/etc/genserve/genserve.toml")
    ready.run("test", "-f", "/var/lib/genserve/journal.db")
    ready.genserve("uninstall", "--purge")
    assert listed(ready, OWNED) == ""
    assert ready.try_("getent", "passwd", "genserve-router").returncode != 0
    assert "Nothing of GenServe is installed" in ready.genserve("uninstall")
    done = ready.try_(COMMAND, "upgrade")
    assert done.returncode == 1
    assert f"sudo {COMMAND} install" in done.stderr


def test_a_host_is_installed_for_other_machines_once_it_has_keys(machine: Machine) -> None:
    machine.genserve("uninstall", "--purge")
    dropin = f"/etc/systemd/system/{GPUS[1]}.d/noop.conf"
    machine.write(dropin, "[Service]\nEnvironment=GENSERVE_GPU_DAEMON_ENGINE=noop\n")
    words = ("install", "--gpus", "cpu:1", "--gateway-host", "0.0.0.0")
    done = machine.try_(COMMAND, *words)
    assert done.returncode == 1
    assert "nothing was changed" in done.stderr
    assert "genserve keys add-http NAME" in done.stderr
    key = machine.genserve("keys", "add-http", "alice").strip()
    assert "http://0.0.0.0:12411" in machine.genserve(*words)
    assert machine.property("genserve-gateway.socket", "Listen") == "0.0.0.0:12411 (Stream)"
    settings = tomllib.loads(machine.run("cat", "/etc/genserve/genserve.toml"))
    assert settings["gateway"] == {"host": "0.0.0.0"}
    assert picture(machine).result()[0] == 401
    assert picture(machine, key=key).result()[0] == 200
    assert "unchanged" in machine.genserve(*words)
    done = machine.try_(COMMAND, *words[:-1], "127.0.0.1")
    assert done.returncode == 1
    assert "change it there" in done.stderr
    machine.genserve("uninstall", "--purge")
    machine.run("rm", "-r", dropin.rpartition("/")[0])


def test_a_host_of_gpus_alone_serves_a_router_elsewhere(machine: Machine) -> None:
    machine.genserve("uninstall", "--purge")
    dropin = f"/etc/systemd/system/{GPUS[1]}.d/noop.conf"
    machine.write(dropin, "[Service]\nEnvironment=GENSERVE_GPU_DAEMON_ENGINE=noop\n")
    machine.write("/tmp/host2.key", Key.new("daemon").file(Key.new("server")))
    machine.run("chmod", "600", "/tmp/host2.key")
    words = ("install", "--gpus", "cpu:1", "--router-host", "10.0.0.5")
    done = machine.try_(COMMAND, *words)
    assert done.returncode == 1
    assert "make one there with `genserve keys new NAME" in done.stderr
    machine.genserve(*words, "--key", "/tmp/host2.key")
    assert machine.property(GPUS[1], "ActiveState") == "active"
    assert "router" not in listed(machine, "ls /etc/systemd/system")
    settings = tomllib.loads(machine.run("cat", "/etc/genserve/genserve.toml"))
    assert settings["gpu_daemon"] == {"router_endpoint": "tcp://10.0.0.5:12413"}
    assert machine.run("stat", "--format=%a %U", "/etc/genserve/keys/daemon.key").strip() == "600 root"
    assert "unchanged" in machine.genserve(*words)  # the key is there
    for wrong, said in (
        (("install",), "say --router-host again, or uninstall first"),
        ((*words[:-1], "10.0.0.6"), "change it there"),
    ):
        done = machine.try_(COMMAND, *wrong)
        assert done.returncode == 1
        assert said in done.stderr
    machine.genserve("upgrade")
    machine.genserve("uninstall", "--purge")
    machine.run("test", "-f", dropin)  # the operator's
    machine.run("rm", "-r", dropin.rpartition("/")[0])
    assert listed(machine, f"{WRITTEN}; {OWNED}") == ""
