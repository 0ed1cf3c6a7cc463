"""What installing changes, worked out and carried out, without a systemd: that is tests/system's."""

import io
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console

from common.errors import SettingsError
from common.keys import new_key, write_key
from common.settings import GatewaySettings
from common.settings.reference import digest_line, reference
from genserve.http_keys import HttpStore
from genserve.installation import carry as carrying
from genserve.installation import checks, door, sources
from genserve.installation.carry import carry, look
from genserve.installation.install import units_for
from genserve.installation.layout import (
    CONFIG,
    DAEMON_KEY,
    GATEWAY,
    GATEWAY_SOCKET,
    KEYS,
    ROUTER,
    SETTINGS,
    SETTINGS_NEW,
    STATE,
    TARGET,
    UNITS,
    by_number,
    device_of,
    gpu_unit,
    place_of,
)
from genserve.installation.steps import (
    File,
    Folder,
    Host,
    Kept,
    Note,
    Present,
    Remove,
    Run,
    Step,
    installed,
    paths_read,
    removed,
    switched_on,
    wanted_units,
)
from genserve.installation.trouble import HostError
from genserve.parts import listening
from tests.service import free_ports

COMMAND = Path("/opt/genserve/bin/genserve")
BARE = Host({})
HTTP = "127.0.0.1:12411"


def steps_on(host: Host, *, text: str = "", line: str = "", key: bytes | None = None, http: str = HTTP) -> list[Step]:
    units = units_for(COMMAND, http)
    return installed(units, text or reference(), line or digest_line(), key, host)


def after(steps: list[Step], host: Host) -> Host:
    """The host once these steps were carried out."""
    present = dict(host.present)
    for step in steps:
        match step:
            case File(path, data, mode):
                present[path] = Present(mode, data)
            case Folder(path, mode):
                present[path] = Present(mode)
            case Remove(path):
                present = {other: what for other, what in present.items() if not other.is_relative_to(path)}
    return Host(present, host.enabled)


def commands(steps: list[Step]) -> list[str]:
    return [" ".join(step.argv) for step in steps if isinstance(step, Run)]


def test_a_bare_host_gets_everything_users_before_what_is_theirs() -> None:
    steps = steps_on(BARE, key=b"secret")
    written = {step.path: step for step in steps if isinstance(step, File)}
    assert set(written) == {*map(place_of, sources.shipped()), SETTINGS, DAEMON_KEY}
    assert written[DAEMON_KEY].mode == 0o600
    assert {step.path: step.mode for step in steps if isinstance(step, Folder)}[KEYS] == 0o700
    assert f"ExecStart={COMMAND} router".encode() in written[UNITS / ROUTER].data
    ran = commands(steps)
    assert [line.split()[0] for line in ran] == ["systemd-sysusers", "systemd-tmpfiles", "systemctl"]
    assert set(written) <= set(paths_read(sources.shipped()))  # what a second run looks at


def test_a_second_run_changes_nothing() -> None:
    host = after(steps_on(BARE, key=b"secret"), BARE)
    again = steps_on(host, key=b"secret")
    assert [step for step in again if not isinstance(step, Kept | Run)] == []


def test_a_file_that_differs_or_may_be_written_by_others_is_put_right() -> None:
    host = after(steps_on(BARE), BARE)
    unit = UNITS / ROUTER
    other = Host({**host.present, unit: Present(0o644, b"edited"), KEYS: Present(0o755)})
    assert [step.path for step in steps_on(other) if isinstance(step, File | Folder)] == [unit, KEYS]


def test_the_operators_settings_are_never_written_over() -> None:
    host = after(steps_on(BARE), BARE)
    mine = (host.present[SETTINGS].data or b"") + b"\n[up]\ngpus = '0'\n"
    edited = Host({**host.present, SETTINGS: Present(0o640, mine)})
    assert [step for step in steps_on(edited) if isinstance(step, File | Note)] == []
    newer = steps_on(edited, text="# newer\n", line="of a newer one")
    assert [(step.path, step.data) for step in newer if isinstance(step, File)] == [(SETTINGS_NEW, b"# newer\n")]
    assert [step for step in newer if isinstance(step, Note) and str(SETTINGS_NEW) in step.text]
    taken = Host({**after(newer, edited).present, SETTINGS: Present(0o640, b"# of a newer one\n")})
    then = steps_on(taken, text="# newer\n", line="of a newer one")
    assert Remove(SETTINGS_NEW) in then
    assert not [step for step in then if isinstance(step, File)]


def test_units_of_gpus_that_are_not_served_any_more_stop() -> None:
    wanted = wanted_units(["cuda:0", "cuda:2"], router_elsewhere=False)
    host = Host({}, frozenset(wanted_units(["cuda:0", "cuda:1"], router_elsewhere=False)))
    steps = commands(switched_on(wanted, host))
    assert steps == [f"systemctl disable --now {gpu_unit('cuda:1')}", f"systemctl enable {gpu_unit('cuda:2')}"]
    assert switched_on(wanted, Host({}, frozenset(wanted))) == []


def test_units_are_named_as_people_count_gpus() -> None:
    named = {
        "cuda:10": "genserve-gpu@10.service",
        "cpu": "genserve-gpu@cpu.service",
        "cpu:1": "genserve-gpu@cpu:1.service",
    }
    assert {device: gpu_unit(device) for device in named} == named
    assert [device_of(unit) for unit in (*named.values(), ROUTER, TARGET)] == [*named, "", ""]
    assert sorted(["cuda:10", "cpu:1", "cuda:2"], key=by_number) == ["cpu:1", "cuda:2", "cuda:10"]


def test_a_host_of_gpus_alone_gets_neither_router_nor_gateway() -> None:
    units = units_for(COMMAND, None)
    assert not [name for name in units if "router" in name or "gateway" in name]
    assert wanted_units(["cuda:0"], router_elsewhere=True) == (TARGET, gpu_unit("cuda:0"))


def test_the_socket_listens_where_the_settings_say_and_that_it_moves_is_told() -> None:
    host = after(steps_on(BARE), BARE)
    assert b"ListenStream=127.0.0.1:12411\n" in (host.present[UNITS / GATEWAY_SOCKET].data or b"")
    elsewhere = steps_on(host, http="0.0.0.0:80")
    (written,) = [step for step in elsewhere if isinstance(step, File) and step.path == UNITS / GATEWAY_SOCKET]
    assert re.findall(rb"^ListenStream=.*$", written.data, re.MULTILINE) == [b"ListenStream=0.0.0.0:80"]
    assert ["HTTP moves to 0.0.0.0:80" in step.text for step in elsewhere if isinstance(step, Note)] == [True]
    reworded = Host({**host.present, UNITS / GATEWAY_SOCKET: Present(0o644, b"# old\nListenStream=127.0.0.1:12411\n")})
    assert [step for step in steps_on(reworded) if isinstance(step, Note)] == []


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("127.0.0.1", 12411, "127.0.0.1:12411"),
        ("localhost", 80, "127.0.0.1:80"),
        ("0.0.0.0", 80, "0.0.0.0:80"),
        ("::", 80, "[::]:80"),
        ("[::1]", 80, "[::1]:80"),
    ],
)
def test_an_address_is_written_as_systemd_reads_it(host: str, port: int, address: str) -> None:
    assert door.http_address(GatewaySettings(host=host, port=port)) == address


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [("gpu-host", 80, "0.0.0.0 for all"), ("0.0.0.0\nUser=root", 80, "is no address"), ("::", 0, "gateway.port = 0")],
)
def test_what_systemd_cannot_listen_on_is_refused(host: str, port: int, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        door.http_address(GatewaySettings(host=host, port=port))


def test_a_door_for_others_needs_keys_that_the_gateway_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, port = tmp_path / "http-keys.toml", free_ports(1)
    settings = GatewaySettings(host="0.0.0.0", port=port, http_keys_file=str(keys))
    (missing,) = door.need_door(settings)
    assert "gateway.host = '0.0.0.0' with gateway.auth = 'auto' asks everybody for a key" in missing
    assert "`genserve keys add-http NAME`" in missing
    HttpStore(keys).add("alice", ["generate"])
    monkeypatch.setattr(checks, "HIDDEN", (str(tmp_path),))
    (hidden,) = door.need_door(settings)
    assert f"lies in {tmp_path}, which the gateway does not see" in hidden
    monkeypatch.setattr(checks, "HIDDEN", ())
    if os.geteuid() == 0:  # pytest's folders are their owner's alone
        (shut,) = door.need_door(settings)
        assert f"genserve-gateway cannot read {keys}: chmod 644" in shut
    monkeypatch.setattr(os, "geteuid", lambda: 1)  # who is not root cannot look with the gateway's eyes
    assert list(door.need_door(settings)) == []
    HttpStore(keys).revoke("alice")
    (revoked,) = door.need_door(settings)
    assert "lets nobody in" in revoked
    for open_to_all in (replace(settings, auth="none"), replace(settings, host="127.0.0.1")):
        assert list(door.need_door(open_to_all)) == []


def test_an_address_of_another_host_or_a_port_in_use_is_refused() -> None:
    port = free_ports(1)
    (elsewhere,) = door.need_door(GatewaySettings(host="203.0.113.1", port=port, auth="none"))
    assert "say an address of this host" in elsewhere
    with listening("127.0.0.1", port):
        (taken,) = door.need_door(GatewaySettings(port=port))
    assert f"127.0.0.1:{port} cannot be listened on (Address already in use)" in taken


def test_removing_leaves_what_is_the_operators_and_purging_does_not() -> None:
    host = after(steps_on(BARE, key=b"secret"), BARE)
    host = Host({**host.present, STATE: Present(0o755)}, frozenset({TARGET, ROUTER, GATEWAY}))
    units = sources.shipped()
    gone = removed(units, (), host, purge=False)
    assert commands(gone)[:2] == [
        f"systemctl disable --now {GATEWAY}",  # whose open requests finish
        f"systemctl disable --now {ROUTER} {TARGET}",
    ]
    assert {step.path for step in gone if isinstance(step, Remove)} == set(map(place_of, units))
    assert [step.path for step in gone if isinstance(step, Kept)] == [CONFIG, STATE]
    purged = removed(units, (), host, purge=True)
    assert {step.path for step in purged if isinstance(step, Remove)} == {*map(place_of, units), CONFIG, STATE}
    assert "userdel genserve-router" in commands(purged)
    assert removed(units, (), BARE, purge=False) == []


def shown(steps: list[Step], *, dry_run: bool) -> str:
    said = io.StringIO()
    carry(steps, Console(file=said, width=200), dry_run=dry_run)
    return said.getvalue()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to root: run this test as root")
def test_steps_are_carried_out_whole_and_private(tmp_path: Path) -> None:
    folder, file, old = tmp_path / "keys", tmp_path / "keys" / "daemon.key", tmp_path / "old"
    old.mkdir()
    (old / "deep").write_text("x")
    steps: list[Step] = [Folder(folder, 0o700), File(file, b"secret", 0o600), Remove(old), Run(("true",))]
    shown(steps, dry_run=True)
    assert sorted(tmp_path.iterdir()) == [old]
    assert "secret" not in shown(steps, dry_run=False)
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode), file.stat().st_uid) == (b"secret", 0o600, 0)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not old.exists()
    assert look([folder, file, old]).present == {folder: Present(0o700), file: Present(0o600, b"secret")}


def test_a_dry_run_shows_whole_new_files_what_changes_in_old_ones_and_no_secret() -> None:
    said = shown(
        [
            File(Path("/etc/new.conf"), b"first\nsecond\n"),
            File(Path("/etc/old.conf"), b"same\nafter\n", before=Present(0o644, b"same\nbefore\n")),
            File(Path("/etc/key"), b"hush", 0o600),
            Run(("systemctl", "daemon-reload")),
        ],
        dry_run=True,
    )
    for words in ("new       /etc/new.conf", "first", "second", "-before", "+after", "systemctl daemon-reload"):
        assert words in said
    assert "hush" not in said


def test_a_step_that_fails_says_which_and_why(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"`false` ended with 1"):
        shown([Run(("false",))], dry_run=False)
    with pytest.raises(HostError, match="Mend that"):
        shown([File(tmp_path / "missing" / "x", b"")], dry_run=False)
    shown([Run(("false",), may_fail=True)], dry_run=False)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/opt/my environment/bin/genserve", "characters that a unit cannot hold"),
        ("/run/user/0/venv/bin/genserve", "lies in /run/user, which the services do not see"),
        ("/tmp/venv/bin/genserve", "python3 -m venv /opt/genserve"),
    ],
)
def test_an_environment_that_the_services_cannot_use_is_refused(command: str, words: str) -> None:
    (fault,) = checks.need_environment(Path(command))
    assert words in fault


def test_an_environment_of_a_python_in_a_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "HIDDEN", (str(tmp_path / "home"),))
    for folder in (tmp_path / "home" / "pyenv", tmp_path / "opt" / "bin"):
        folder.mkdir(parents=True)
    python = tmp_path / "home" / "pyenv" / "python3.11"
    python.touch()
    (tmp_path / "opt" / "bin" / "python3").symlink_to(python)
    (fault,) = checks.need_environment(tmp_path / "opt" / "bin" / "genserve")
    assert str(python) in fault
    assert "/usr/bin/python3 -m venv /opt/genserve" in fault


def test_an_environment_with_packages_in_a_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "HIDDEN", (str(tmp_path),))
    monkeypatch.syspath_prepend(tmp_path / "checkout")
    (fault,) = checks.need_environment(Path(sys.executable).parent / "genserve")
    assert f"{tmp_path / 'checkout'} is part of this environment" in fault


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: run this test as root")
def test_an_environment_that_the_service_users_cannot_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "HIDDEN", ())
    command = tmp_path / "genserve"
    command.write_text("#!/bin/sh\necho genserve\n")
    command.chmod(0o755)
    (fault,) = checks.need_environment(command)  # pytest's folders are its user's alone
    assert "Permission denied" in fault
    assert "chmod a+rX" in fault
    assert list(checks.need_environment(Path("/bin/true"))) == []


def test_commands_of_the_system_that_are_missing_are_named() -> None:
    with pytest.raises(FileNotFoundError):
        carrying.run(("no-such-command",))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["install", "--gpus", "cuda:97"], "there is no cuda:97 on this machine"),
        (["install", "--gpus", "tpu"], "'tpu' in the list of devices"),
        (["install", "--gpus", "cpu", "--router-host", "tcp://x"], "is not HOST or HOST:PORT"),
        (["install", "--gpus", "cpu", "--router-host", "h", "--key", "missing.key"], "name the key file made for"),
        (["install", "--gpus", "cpu", "--router-host", "h", "--key", "x.key"], "x.key is no key file"),
        (["install", "--gpus", "cpu", "--router-host", "h", "--key", "app.key"], "is a client key (app); here a key"),
        (["install", "--gpus", "cpu", "--router-host", "h", "--key", "open.key"], "others may read open.key"),
        (["install", "--gpus", "cpu", "--key", "x.key"], "--key goes with --router-host"),
        (["install", "--gpus", "cpu", "--gateway-host", "0.0.0.0"], "asks everybody for a key"),
        (["install", "--gpus", "cpu", "--gateway-host", "gpu-host"], "say an address of this host, or 0.0.0.0"),
        (["install", "--gpus", "cpu", "--gateway-host", "::", "--router-host", "h"], "goes without --router-host"),
        (["install", "--gpus", "cpu", "--router-host", "10.0.0.5"], "make one there with `genserve keys new NAME"),
    ],
)
def test_a_wrong_wish_changes_nothing_and_says_what_is_right(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "x.key").write_text("a key")
    (tmp_path / "x.key").chmod(0o600)
    write_key(tmp_path / "app.key", new_key("app", "client", new_key("server", "server").public_key))
    (tmp_path / "open.key").touch(0o644)
    done = subprocess.run(
        [sys.executable, "-m", "genserve", *words, "--dry-run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert said in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr


def test_the_settings_file_can_be_printed() -> None:
    done = subprocess.run([sys.executable, "-m", "genserve", "config"], capture_output=True, text=True, check=True)
    assert done.stdout == reference()
