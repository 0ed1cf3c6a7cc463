"""Ports, routers, journals, keys, units and limits that are not in order: each planted for real."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from genserve.diagnose import disk, requirements, system
from genserve.http_keys import HttpStore
from genserve.installation.sources import rendered
from genserve.keys import host_name
from router.sqlite_journal import NAME
from tests.diagnose.looking import clean, found, look, model
from tests.keyring import Keyring
from tests.ports import free_ports
from tests.router.journals import finish, opened
from tests.router.process import RouterProcess
from tests.service import GENSERVE, Service

DAEMON = "daemon.key"
ROOT = Path(__file__).resolve().parents[2]

# --- ports -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "offset", "said", "mend"),
    [
        ("network.gateway", 0, "has the gateway's port", "genserve up --port"),
        ("network.clients", 1, "has the router's port", "export GENSERVE_ROUTER_CLIENT_ENDPOINT=tcp://127.0.0.1:"),
        ("network.workers", 2, "has the router's port", "export GENSERVE_ROUTER_WORKER_ENDPOINT=tcp://127.0.0.1:"),
    ],
)
def test_a_port_that_another_program_has(name: str, offset: int, said: str, mend: str):
    port = free_ports()
    with socket.create_server(("127.0.0.1", port + offset)):
        finding = look(name, port=port)[name]
    found(finding, "fail", said, mend)
    assert f"(pid {os.getpid()}) on 127.0.0.1:{port + offset}" in finding.detail


def test_a_router_that_hears_nothing(tmp_path: Path):
    router = RouterProcess(tmp_path).start()
    assert router.process is not None
    env = {key: value for key, value in router.environment.items() if "ENDPOINT" in key}
    try:
        alone = look("network", env=env, port=None)
        everywhere = {name: value.replace("127.0.0.1", "*") for name, value in env.items()}
        wide = look("network.router", env=everywhere, port=None)["network.router"]
        router.process.send_signal(signal.SIGSTOP)
        stopped = look("network.router", env=env, port=None)["network.router"]
    finally:
        router.process.send_signal(signal.SIGCONT)
        router.process.kill()
        router.process.wait()
        router.context.destroy(linger=0)
    assert alone["network.router"].status == "ok"
    assert wide.detail.startswith("up "), "it is asked where this machine reaches it"
    found(alone["network.fleet"], "warn", "no GPU daemon is registered", "genserve gpu-daemon")
    found(stopped, "fail", "it listens and does not answer", "journalctl -u genserve-router")


@pytest.mark.parametrize(
    ("variable", "value", "mend"),
    [
        ("GENSERVE_ROUTER_CLIENT_ENDPOINT", "tcp://0.0.0.0:12412", "sudo genserve keys init"),
        ("GENSERVE_GATEWAY_HOST", "0.0.0.0", "sudo genserve keys add-http NAME"),
        ("GENSERVE_GATEWAY_HOST", "0.0.0.0", "export GENSERVE_GATEWAY_HOST=127.0.0.1"),
    ],
)
def test_an_address_that_others_reach_without_keys(variable: str, value: str, mend: str, tmp_path: Path):
    finding = look("network.exposure", env={variable: value}, etc=tmp_path)["network.exposure"]
    found(finding, "fail", value, mend)


def test_keys_of_http(tmp_path: Path):
    path, env = tmp_path / "genserve" / "http-keys.toml", {"GENSERVE_GATEWAY_HOST": "0.0.0.0"}

    def looked(**more: str):
        return look("keys.http,network.exposure", env={**env, **more}, etc=tmp_path)

    found(looked()["keys.http"], "fail", str(path), "sudo genserve keys add-http NAME")
    found(looked(GENSERVE_GATEWAY_AUTH="none")["network.exposure"], "warn", "asks for no keys", "GENSERVE_GATEWAY_AUTH")
    store = HttpStore(path)
    store.add("lab", ["generate"])
    assert looked()["keys.http"].detail == "1 keys, 0 revoked"
    assert looked()["network.exposure"].status == "ok"
    path.chmod(0o666)
    found(looked()["keys.http"], "fail", "others may write", f"sudo chmod 644 {path}")
    path.chmod(0o644)
    store.revoke("lab")
    found(looked()["keys.http"], "fail", "lets nobody in", "add-http")
    path.write_text("[[key")
    found(looked()["keys.http"], "fail", "is no TOML", str(path))


# --- journal -----------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with one job that has ended, and its picture."""
    folder = tmp_path / "state"
    with opened(folder) as journal:
        finish(journal, 1, b"picture")
    return folder


def at(folder: Path) -> dict[str, str]:
    return {"GENSERVE_ROUTER_STATE_DIR": str(folder)}


def test_a_journal_is_read_and_left_as_it_was(state: Path):
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    finding = look("disk.journal", env=at(state))["disk.journal"]
    assert finding.status == "ok"
    assert finding.detail == "whole: 1 jobs, 0 of them not ended, 1 pictures; version 1"
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before


def test_a_journal_that_a_router_has(state: Path):
    with opened(state):
        finding = look("disk.journal", env=at(state))["disk.journal"]
    assert finding.detail == f"in use by a router (pid {os.getpid()}), 1 MiB"


def test_a_row_that_was_changed(state: Path):
    with closing(sqlite3.connect(state / NAME)) as database, database:
        database.execute("UPDATE record SET body = x'00' WHERE place = 1 AND n = 1")
    finding = look("disk.journal", env=at(state))["disk.journal"]
    found(finding, "fail", f"the journal {state / NAME} is damaged", f"-m apsw {state / NAME} 'DELETE FROM record")


def test_a_journal_that_is_no_database(state: Path):
    (state / NAME).write_bytes(b"nonsense" * 1000)
    found(look("disk.journal", env=at(state))["disk.journal"], "fail", "is damaged", f"mv {state} {state}.damaged")


def test_a_picture_that_is_gone(state: Path):
    for path in (state / "pictures").rglob("*.1"):
        path.unlink()
    finding = look("disk.journal", env=at(state))["disk.journal"]
    found(finding, "fail", "is missing", "'DELETE FROM record WHERE shelf = 1")


def test_a_journal_of_a_newer_version(state: Path):
    with closing(sqlite3.connect(state / NAME)) as database, database:
        database.execute("PRAGMA user_version = 99")
    finding = look("disk.journal", env=at(state))["disk.journal"]
    found(finding, "fail", "is of version 99", "-m pip install")


def test_a_disk_without_room(tmp_path: Path):
    env = {**at(tmp_path), "GENSERVE_ROUTER_DISK_FREE_MIN_MB": "999999999"}
    found(look("disk.room", env=env)["disk.room"], "fail", "it refuses new jobs", f"du -xh -d1 {tmp_path}")


def test_a_state_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "state").touch()
    finding = look("disk.state", env=at(tmp_path / "state" / "x"))["disk.state"]
    found(finding, "fail", f"{tmp_path}/state is no folder", f"export GENSERVE_ROUTER_STATE_DIR={tmp_path}/state-state")


def test_a_state_folder_for_everybodys_eyes(state: Path):
    state.chmod(0o755)
    finding = look("disk.state", env=at(state))["disk.state"]
    found(finding, "warn", f"others may look into {state}", f"chmod 700 {state}")


def test_a_state_folder_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: Path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n")
    monkeypatch.setattr(disk, "MOUNTS", mounts)
    finding = look("disk.state", env=at(state))["disk.state"]
    found(finding, "warn", "lies in memory (tmpfs)", "export GENSERVE_ROUTER_STATE_DIR=/var/lib/genserve")


def test_a_state_folder_as_up_is_told_of_it(state: Path):
    told = json.loads(
        subprocess.run(
            [GENSERVE, "diagnose", "--json", "--only", "disk.journal", "--state-dir", str(state)],
            env=clean(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert told["checks"][0]["detail"].startswith("whole: 1 jobs")


# --- keys --------------------------------------------------------------------------------------


class Keys:
    """/etc/genserve as `genserve keys` leaves it."""

    def __init__(self, etc: Path) -> None:
        self.etc = etc
        self.folder = etc / "genserve" / "keys"
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o700)
        self.peers = etc / "genserve" / "peers.toml"
        self.router, secret = (key.decode() for key in zmq.curve_keypair())
        self._write(
            "server", f'name = "server"\nrole = "server"\npublic_key = "{self.router}"\nsecret_key = "{secret}"\n'
        )
        self.entries: list[str] = []
        for role in ("gateway", "daemon"):
            public, secret = (key.decode() for key in zmq.curve_keypair())
            text = f'name = "{role}-1"\nrole = "{role}"\npublic_key = "{public}"\nsecret_key = "{secret}"\n'
            self._write(role, f'{text}router_public_key = "{self.router}"\n')
            self.entries.append(
                f'[[peer]]\nname = "{role}-1"\nrole = "{role}"\n'
                f'public_key = "{public}"\ncreated = 2026-01-01T00:00:00Z\n'
            )
        self.say(*self.entries)

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def _write(self, name: str, text: str) -> None:
        self.file(name).write_text(text)
        self.file(name).chmod(0o600)

    def say(self, *entries: str) -> None:
        """The peers that there are."""
        self.peers.write_text("\n".join(entries))
        self.peers.chmod(0o644)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "etc")


def test_keys_in_order(keys: Keys):
    findings = look("keys", etc=keys.etc)
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert findings["keys.peers"].detail == "2 keys, 0 of them revoked"


def test_no_keys_at_all(tmp_path: Path):
    assert all(finding.skipped for finding in look("keys", etc=tmp_path).values())


def test_a_key_that_others_may_read(keys: Keys):
    keys.file("daemon").chmod(0o644)
    keys.folder.chmod(0o755)
    findings = look("keys", etc=keys.etc)
    found(findings["keys.files"], "fail", "others may read", f"sudo chmod 600 {keys.file('daemon')}")
    found(findings["keys.folder"], "fail", "mode 0755", f"sudo chmod 700 {keys.folder}")


def test_a_key_file_that_is_damaged(keys: Keys):
    path = keys.file("gateway")
    path.write_text(path.read_text().replace('secret_key = "', 'secret_key = "0'))
    found(look("keys.files", etc=keys.etc)["keys.files"], "fail", "is damaged", "genserve keys")
    path.write_text("no toml")
    found(look("keys.files", etc=keys.etc)["keys.files"], "fail", "is no key file", "genserve keys")


def test_a_key_that_was_revoked_and_one_that_nobody_knows(keys: Keys):
    gateway, daemon = keys.entries
    keys.say(f"{gateway}revoked = 2026-02-01T00:00:00Z\n")
    finding = look("keys.peers", etc=keys.etc)["keys.peers"]
    found(finding, "fail", "(gateway-1) is revoked", "genserve keys")
    assert "(daemon-1) is not in" in finding.detail
    assert daemon not in finding.detail


def test_peers_that_are_missing_or_no_toml(keys: Keys):
    keys.peers.write_text("[[peer")
    found(look("keys.peers", etc=keys.etc)["keys.peers"], "fail", "is no TOML", "peers.toml")
    keys.say(keys.entries[0].replace('role = "gateway"', 'role = "king"'))
    found(look("keys.peers", etc=keys.etc)["keys.peers"], "fail", "entry 1", "peers.toml")
    keys.peers.unlink()
    found(look("keys.peers", etc=keys.etc)["keys.peers"], "fail", "let nobody in", "sudo genserve keys init")


def key_settings(keyring: Keyring, **more: Path) -> dict[str, str]:
    """As `genserve keys init --folder` tells them."""
    files = {name: keyring.path(f"{name}.key") for name in ("gateway", "client")} | {"gpu_daemon": keyring.path(DAEMON)}
    return keyring.router_settings | {
        f"GENSERVE_{name.upper()}_KEY_FILE": str(path) for name, path in (files | more).items()
    }


def test_keys_in_a_folder_of_ones_own(tmp_path: Path):
    keyring = Keyring(tmp_path / "my keys")
    findings = look("keys", env=key_settings(keyring), etc=tmp_path / "etc")
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert {name for name, finding in findings.items() if finding.skipped} == {"keys.http"}
    keyring.store.keys_folder.chmod(0o755)
    keyring.path("gateway.key").unlink()
    findings = look("keys", env=key_settings(keyring), etc=tmp_path / "etc")
    found(findings["keys.folder"], "warn", "mode 0755", f"chmod 700 '{keyring.store.keys_folder}'")
    place = f"--folder '{keyring.store.keys_folder.parent}'"
    found(findings["keys.files"], "fail", "is named by gateway.key_file and not there", place)


@pytest.mark.parametrize(
    ("setting", "file", "said", "mend"),
    [
        ("gateway", "daemon.key", "gateway.key_file takes one of the role gateway", "GATEWAY_KEY_FILE={}/gateway.key"),
        ("gateway", "client.key", "gateway.key_file takes one of the role gateway", "GATEWAY_KEY_FILE={}/gateway.key"),
        ("client", "daemon.key", "client.key_file takes one of the role client", "CLIENT_KEY_FILE={}/client.key"),
        ("gpu_daemon", "client.key", "takes one of the role daemon", "GPU_DAEMON_KEY_FILE={}/daemon.key"),
    ],
)
def test_a_key_in_the_place_of_another(setting: str, file: str, said: str, mend: str, tmp_path: Path):
    keyring = Keyring(tmp_path)
    env = key_settings(keyring, **{setting: keyring.path(file)})
    finding = look("keys.files", env=env, etc=tmp_path / "etc")["keys.files"]
    found(finding, "fail", said, mend.format(keyring.store.keys_folder))
    keyring.path(Path(mend.partition("/")[2]).name).unlink()
    finding = look("keys.files", env=env, etc=tmp_path / "etc")["keys.files"]
    found(finding, "fail", said, f"-o {mend.partition('=')[2].format(keyring.store.keys_folder)}")


def test_a_damaged_key_is_made_anew_under_the_name_that_init_gave_it(keys: Keys):
    keys.file("gateway").write_text("damaged")
    finding = look("keys.files", etc=keys.etc)["keys.files"]
    assert f"genserve keys new {host_name()}-gateway --role gateway --replace" in finding.fix


def test_a_file_whose_name_tells_what_it_is_taken_for(keys: Keys):
    shutil.copy(keys.file("daemon"), keys.file("gateway"))
    finding = look("keys.files", etc=keys.etc)["keys.files"]
    found(finding, "fail", "gateway.key is a daemon key (daemon-1)", f"sudo mv {keys.file('gateway')} ")


def test_keys_for_another_router(tmp_path: Path):
    keyring, other = Keyring(tmp_path), Keyring(tmp_path / "other")
    env = key_settings(keyring) | {"GENSERVE_ROUTER_SERVER_KEY_FILE": str(other.path("server.key"))}
    finding = look("keys.files", env=env, etc=tmp_path / "etc")["keys.files"]
    found(finding, "fail", "neither lets the other in", "genserve keys new here-gateway --role gateway --replace")
    assert {line.split(" ")[0] for line in finding.detail.splitlines() if "another router" in line} == {
        str(keyring.path(name)) for name in ("gateway.key", DAEMON, "client.key")
    }
    elsewhere = {"GENSERVE_GPU_DAEMON_ROUTER_ENDPOINT": "tcp://192.0.2.1:12413"}
    finding = look("keys.files", env=env | elsewhere, etc=tmp_path / "etc")["keys.files"]
    assert f"{keyring.path(DAEMON)} (here) is for another router" not in finding.detail


# --- systemd -----------------------------------------------------------------------------------


class Systemd:
    """A machine of systemd's: units in a folder, and a systemctl that tells what the test says."""

    def __init__(self, folder: Path) -> None:
        self.etc = folder / "etc"
        self.units = self.etc / "systemd" / "system"
        self.units.mkdir(parents=True)
        for name, text in rendered(Path(GENSERVE), "127.0.0.1:12411").items():  # as `genserve install` writes them
            if not name.endswith(".conf"):
                (self.units / name).write_text(text)
        self._program = folder / "bin" / "systemctl"
        self._program.parent.mkdir()
        self.given = {"etc": self.etc, "systemd_runs": folder, "port": 12411}
        self.env = {"PATH": f"{self._program.parent}:{os.environ['PATH']}"}

    def says(self, **unit: str) -> None:
        fields = {"LoadState": "loaded", "ActiveState": "active", "Result": "success", "NRestarts": "0", **unit}
        lines = "\n".join(f"{key}={value}" for key, value in {"Id": "genserve-router.service", **fields}.items())
        self._program.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
        self._program.chmod(0o755)


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    made = Systemd(tmp_path)
    made.says(StatusText="3 jobs wait")
    return made


def test_units_in_order(systemd: Systemd):
    findings = look("systemd", env=systemd.env, **systemd.given)
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert findings["systemd.state"].detail == "genserve-router.service active: 3 jobs wait"


@pytest.mark.parametrize(
    ("unit", "said", "mend"),
    [
        (
            {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78"},
            "cannot start until something is mended",
            "journalctl -u genserve-router.service",
        ),
        (
            {"ActiveState": "failed", "Result": "watchdog", "ExecMainStatus": "6"},
            "has failed (watchdog, status 6)",
            "sudo systemctl restart genserve-router.service",
        ),
        ({"LoadState": "masked"}, "is masked", "sudo systemctl unmask genserve-router.service"),
    ],
)
def test_a_unit_that_does_not_stand_well(unit: dict[str, str], said: str, mend: str, systemd: Systemd):
    systemd.says(**unit)
    found(look("systemd.state", env=systemd.env, **systemd.given)["systemd.state"], "fail", said, mend)


def test_http_that_is_listened_on_elsewhere_than_the_settings_say(systemd: Systemd):
    env = systemd.env | {"GENSERVE_GATEWAY_HOST": "10.0.0.5"}
    finding = look("systemd.address", env=env, **systemd.given)["systemd.address"]
    found(finding, "warn", "say 10.0.0.5:12411, and genserve-gateway.socket listens on 127.0.0.1:12411", "upgrade")
    env = systemd.env | {"GENSERVE_GATEWAY_HOST": "gpu-1"}
    finding = look("systemd.address", env=env, **systemd.given)["systemd.address"]
    found(finding, "fail", "gateway.host = 'gpu-1' is no address", "genserve.toml")


def test_a_unit_that_starts_again_and_again(systemd: Systemd):
    systemd.says(NRestarts="40")
    finding = look("systemd.state", env=systemd.env, **systemd.given)["systemd.state"]
    found(finding, "warn", "was started 40 times again", "journalctl")


def test_units_that_are_masked_outdated_or_run_what_is_gone(systemd: Systemd):
    (systemd.units / "genserve-gateway.service").unlink()
    (systemd.units / "genserve-gateway.service").symlink_to("/dev/null")
    router = systemd.units / "genserve-router.service"
    text = router.read_text()
    router.write_text(f"{text}# of an older version\n")
    finding = look("systemd.units", env=systemd.env, **systemd.given)["systemd.units"]
    found(finding, "fail", "genserve-gateway.service masked", "sudo systemctl unmask genserve-gateway.service")
    assert "genserve-router.service differ from those of this version" in finding.detail
    router.write_text(text.replace(GENSERVE, "/gone/genserve"))
    finding = look("systemd.command", env=systemd.env, **systemd.given)["systemd.command"]
    found(finding, "fail", "runs /gone/genserve", "sudo genserve install")


# --- the machine -------------------------------------------------------------------------------


def test_too_few_open_files():
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 256; exec {GENSERVE} diagnose --only system.files"],
        env=clean(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the gateway may need 2112" in " ".join(done.stdout.split())


@pytest.mark.parametrize(("has_systemd", "mend"), [(True, "timedatectl set-ntp true"), (False, "chrony")])
def test_a_clock_that_nothing_keeps_right(
    has_systemd: bool, mend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(system, "_unsynchronised", lambda: True)
    runs = tmp_path if has_systemd else tmp_path / "no"
    found(look("system.clock", systemd_runs=runs)["system.clock"], "warn", "nothing keeps it right", mend)


def test_a_temporary_folder_that_is_too_deep(tmp_path: Path):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    finding = look("system.sockets", env={"TMPDIR": str(deep)})["system.sockets"]
    found(finding, "fail", "is too long a path for a socket", "export TMPDIR=/tmp")


def test_more_threads_than_cores():
    env = {"FLUX_GPUS": ",".join(["cpu"] * 4), "GENSERVE_GPU_DAEMON_CPU_THREADS": "200"}
    finding = look("system.threads", env=env)["system.threads"]
    found(finding, "warn", "4 engines of 200 threads", "export GENSERVE_GPU_DAEMON_CPU_THREADS=")


# --- packages ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crippled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python of a real virtual environment with everything but SentencePiece, and with an ancient msgpack."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    source = Path(zmq.__file__).parents[1]
    for path in source.iterdir():
        if (
            not path.name.startswith(("sentencepiece", "msgpack-", "genserve-", "__pycache__"))
            and path.suffix != ".pth"
        ):
            (site / path.name).symlink_to(path)
    (site / "msgpack-0.5.dist-info").mkdir()
    (site / "msgpack-0.5.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: msgpack\nVersion: 0.5\n")
    (site / "genserve.pth").write_text(str(ROOT))
    yield folder / "bin" / "python"
    shutil.rmtree(folder)


def test_packages_that_are_missing_or_too_old(crippled: Path):
    done = subprocess.run(
        [str(crippled), "-m", "genserve", "diagnose", "--quick", "--only", "environment,tokenizers"],
        env=clean(),
        capture_output=True,
        text=True,
        check=False,
    )
    told = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stderr
    assert "the service needs msgpack>=1.1, and 0.5 is installed" in told
    assert f"{crippled} -m pip install 'sentencepiece>=0.2.1'" in told
    assert re.search(r"warn engine +sentencepiece>=0.2.1 is wanted by other models than this one", told)
    assert re.search(r"warn sentencepiece +sentencepiece cannot be imported: ModuleNotFoundError", told)
    assert "1 of" in told


def test_a_package_that_is_missing_and_needed(crippled: Path, tmp_path: Path):
    folder = model(tmp_path)
    (folder / "tokenizer_2" / "tokenizer.json").unlink()
    done = subprocess.run(
        [str(crippled), "-m", "genserve", "diagnose", "--quick", "--only", "environment.engine,tokenizers"],
        env=clean(FLUX_MODEL_PATH=str(folder)),
        capture_output=True,
        text=True,
        check=False,
    )
    told = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stderr
    assert re.search(r"fail engine +drawing needs sentencepiece>=0.2.1, which is not installed", told)
    assert re.search(r"fail sentencepiece +sentencepiece cannot be imported: ModuleNotFoundError", told)


def test_versions_are_compared_by_their_numbers():
    assert requirements.release("2.13.0+cpu") == (2, 13)
    assert requirements.release("10.0") > requirements.release("9.8.1")
    needed = [requirements.Requirement("a", "1.10"), requirements.Requirement("B_c", "")]
    assert requirements.lacking(needed, {"a": "1.9", "b-c": "0"}) == [(needed[0], "1.9")]


# --- all of it ---------------------------------------------------------------------------------


def test_a_service_that_runs(noop_pair: Service):
    env = {"GENSERVE_ROUTER_STATE_DIR": str(noop_pair.state_dir), "FLUX_GPUS": "cpu,cpu"}
    findings = look("disk,network,settings,gpus", env=env, port=noop_pair.port)
    assert {name for name, finding in findings.items() if finding.status != "ok"} == set()
    assert "in use by a router" in findings["disk.journal"].detail
    assert findings["network.fleet"].detail == "2 of 2 ready"
    assert findings["network.health"].detail == "healthy, 2 of 2 GPUs ready"
    assert "genserve router" in findings["network.clients"].detail
    assert "genserve gateway" in findings["network.gateway"].detail


def test_what_an_installed_wheel_needs_is_told_by_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    in_checkout = {str(needed) for needed in requirements.required("gpu")}
    assert requirements.package("gpu") == f"{ROOT}[gpu]"
    monkeypatch.setattr(requirements, "CHECKOUT", tmp_path)  # as where site-packages holds it
    assert {str(needed) for needed in requirements.required("gpu")} == in_checkout
    assert requirements.package("gpu") == "genserve[gpu]"
    assert "--force-reinstall --no-deps genserve" in requirements.restore(ROOT)
