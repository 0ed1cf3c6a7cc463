"""`genserve uninstall` takes away what install wrote, and with --purge what the service kept."""

from tests.system.machine import COMMAND, Machine
from tests.system.service import SERVICES, submit, wait_done

LEFT = "ls -d /etc/systemd/system/genserve* /etc/sysusers.d/genserve* /etc/tmpfiles.d/genserve*"


def test_uninstalling_keeps_the_operators_and_purging_does_not(ready: Machine) -> None:
    wait_done(ready, [submit(ready)])
    shown = ready.genserve("uninstall", "--dry-run")
    assert "Nothing was changed." in shown
    assert ready.property(SERVICES[0], "ActiveState") == "active"
    said = ready.genserve("uninstall")
    assert ready.run("sh", "-c", LEFT, check=False) == ""
    assert [ready.property(unit, "LoadState") for unit in SERVICES] == ["not-found"] * len(SERVICES)
    assert "/var/lib/genserve (kept; --purge removes it as well)" in said
    ready.run("test", "-f", "/etc/genserve/genserve.toml")
    ready.run("sh", "-c", "find /var/lib/genserve -name journal.db | grep .")
    ready.genserve("uninstall", "--purge")
    assert ready.run("sh", "-c", "ls -d /etc/genserve /var/lib/genserve", check=False) == ""
    assert ready.try_("getent", "passwd", "genserve-router").returncode != 0
    assert "Nothing of GenServe is installed" in ready.genserve("uninstall")


def test_what_was_removed_cannot_be_upgraded(machine: Machine) -> None:
    done = machine.try_(COMMAND, "upgrade")
    assert done.returncode == 1
    assert f"sudo {COMMAND} install" in done.stderr
