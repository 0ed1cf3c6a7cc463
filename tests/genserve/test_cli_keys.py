"""What `genserve keys` writes, keeps and refuses, and what it shows."""

import os
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from common.errors import SettingsError
from common.keys import read_key, read_peers
from common.messages import KeyView
from common.peers import PeerEntry
from genserve.__main__ import app
from genserve.key_pages import keys_page
from genserve.keys import Store, host_name
from tests.keyring import Keyring

NOW = 1_790_000_000.0
CREATED = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)


@pytest.fixture
def keys(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path)


def names(keys: Keyring, *, valid: bool = True) -> dict[str, str]:
    return {entry.name: entry.role for entry in keys.store.entries() if entry.valid is valid}


def test_init_makes_this_hosts_keys_once(keys: Keyring) -> None:
    assert names(keys) == {"here-gateway": "gateway", "here": "daemon", "here-admin": "admin"}
    server = keys.key("server.key")
    assert server.role == "server"
    for file in ("gateway.key", "daemon.key", "client.key"):
        assert keys.key(file).router_public_key == server.public_key
        assert keys.path(file).stat().st_mode & 0o777 == 0o600
    assert keys.store.keys_folder.stat().st_mode & 0o777 == 0o700
    assert keys.store.peers_file.stat().st_mode & 0o777 == 0o644
    before = {path: path.read_bytes() for path in [*keys.store.keys_folder.iterdir(), keys.store.peers_file]}
    again = keys.store.init("another-name")
    assert [made.new for made in again] == [False] * 4
    assert {path: path.read_bytes() for path in before} == before


def test_init_mends_what_is_missing(keys: Keyring) -> None:
    keys.store.peers_file.unlink()
    keys.path("gateway.key").unlink()
    assert [made.new for made in keys.store.init("here")] == [False, True, False, False]
    assert names(keys) == {"here-gateway": "gateway", "here": "daemon", "here-admin": "admin"}


def test_init_does_not_mix_two_routers(keys: Keyring, tmp_path: Path) -> None:
    other = Keyring(tmp_path / "other")
    keys.path("server.key").write_bytes(other.path("server.key").read_bytes())
    with pytest.raises(SettingsError, match=r"gateway\.key is for a router with another key"):
        keys.store.init("here")


def test_a_new_key_is_written_and_let_in(keys: Keyring) -> None:
    key = keys.new("host-b", "daemon")
    assert (key.role, key.router_public_key) == ("daemon", keys.key("server.key").public_key)
    assert names(keys)["host-b"] == "daemon"
    assert keys.store.entries()[-1].public_key == key.public_key
    assert keys.path("host-b.key").stat().st_mode & 0o777 == 0o600


def test_a_name_is_given_once_until_it_is_revoked(keys: Keyring) -> None:
    first = keys.new("lab", "client")
    with pytest.raises(SettingsError, match="--replace"):
        keys.new("lab", "client")
    assert keys.key("lab.key") == first
    keys.revoke("lab")
    second = keys.new("lab", "client")
    assert names(keys)["lab"] == "client"
    assert [entry.public_key for entry in keys.store.entries() if entry.name == "lab"] == [
        first.public_key,
        second.public_key,
    ]


def test_replacing_revokes_the_former_key(keys: Keyring) -> None:
    first = keys.new("lab", "client")
    second = keys.store.new("lab", "admin", keys.path("lab.key"), again=True).key
    assert keys.key("lab.key") == second
    former, present = (entry for entry in keys.store.entries() if entry.name == "lab")
    assert (former.public_key, former.valid) == (first.public_key, False)
    assert (present.public_key, present.valid, present.role) == (second.public_key, True, "admin")


def test_a_file_with_a_key_in_force_is_never_written_over(keys: Keyring, tmp_path: Path) -> None:
    before = keys.path("gateway.key").read_bytes()
    with pytest.raises(SettingsError, match="in force"):
        keys.store.new("lab", "client", keys.path("gateway.key"))
    assert keys.path("gateway.key").read_bytes() == before
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    with pytest.raises(SettingsError, match=r"notes\.txt"):
        keys.store.new("lab", "client", other)
    assert other.read_text() == "mine"
    assert "lab" not in names(keys)


def test_revoking_is_said_once_and_again(keys: Keyring) -> None:
    keys.new("lab", "client")
    entry, was_valid = keys.store.revoke("lab")
    assert was_valid
    again, was_valid = keys.store.revoke("lab")
    assert (again, was_valid) == (entry, False)
    with pytest.raises(SettingsError, match="did you mean here-admin"):
        keys.store.revoke("here-admim")


@pytest.mark.parametrize("name", ["local", "a/b", "-x"])
def test_some_names_are_refused(keys: Keyring, name: str) -> None:
    with pytest.raises(SettingsError, match="name"):
        keys.store.new(name, "client", None)


def test_without_init_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="genserve keys init"):
        Store(tmp_path / "keys", tmp_path / "peers.toml").new("lab", "client", None)
    with pytest.raises(SettingsError, match="genserve keys init"):
        Store(tmp_path / "keys", tmp_path / "peers.toml").entries()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_says_sudo(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SettingsError, match="sudo"):
        Store(tmp_path / "keys", tmp_path / "peers.toml").init("here")


def test_a_hosts_name_is_a_keys_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, name in (
        ("gpu1", "gpu1"),
        ("gpu 1.example.org", "gpu-1.example.org"),
        ("-ä-", "host"),
        ("x" * 80, "x" * 50),
    ):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        assert host_name() == name


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cli = CliRunner()

    def said(*arguments: str, status: int = 0) -> str:
        result = cli.invoke(app, ["keys", *arguments, "--folder", "k"])
        assert result.exit_code == status, result.output
        return result.output

    made = said("init", "--host", "here")
    assert 'server_key_file = "' in made
    assert "genserve keys new HOST --role daemon --folder k\n" in made
    assert "was there" in said("init")
    piped = cli.invoke(app, ["keys", "new", "host-b", "--role", "daemon", "-o", "-", "--folder", "k"])
    (tmp_path / "copied.key").write_text(piped.stdout)
    (tmp_path / "copied.key").chmod(0o600)
    assert read_key(tmp_path / "copied.key").name == "host-b"
    assert not (tmp_path / "k/keys/host-b.key").exists()
    assert "gpu_daemon.key_file" in said("new", "host-c", "--role", "daemon")
    again = said("new", "host-c", "--role", "daemon", status=1)
    assert "genserve keys new host-c --role daemon --replace --folder k\n" in again
    nowhere = said("new", "host-d", "--role", "daemon", "-o", "no/x.key", status=1)
    assert "there is no folder no: create it first" in nowhere
    assert "is revoked" in said("revoke", "host-c")
    assert "there is no key 'nobody'" in said("revoke", "nobody", status=1)
    listed = said("list", "--router", "tcp://127.0.0.1:1", "--key-file", "k/keys/client.key")
    assert "who is connected is not known" in listed
    assert "'boss'" in said("new", "x", "--role", "boss", status=2)
    assert len(read_peers(tmp_path / "k/peers.toml")) == 5


ENTRIES = [
    PeerEntry(name="a-host-with-a-rather-long-name.example.org", role="daemon", public_key="0" * 40, created=CREATED),
    PeerEntry(name="front", role="gateway", public_key="1" * 40, created=CREATED),
    PeerEntry(name="lab", role="client", public_key="2" * 40, created=CREATED),
    PeerEntry(name="lost", role="admin", public_key="3" * 40, created=CREATED, revoked=CREATED),
]
HEARD = {
    view.name: view
    for view in (
        KeyView(name=ENTRIES[0].name, role="daemon", connections=8, seen_at=NOW - 0.4),
        KeyView(name="front", role="gateway", connections=1, seen_at=NOW - 300.0),
        KeyView(name="lost", role="admin", connections=0, seen_at=NOW - 300.0),
    )
}


def shown(width: int = 120, why_not: str = "") -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(keys_page(ENTRIES, {} if why_not else HEARD, why_not, now=NOW))
    return console.export_text()


def test_the_list_shows_who_is_there() -> None:
    text = shown()
    assert "● 8 connections" in text
    assert "● connected, quiet for 5 m 0 s" in text
    assert "not seen yet" in text
    assert "revoked 2026-03-01" in text
    assert max(map(len, shown(width=80).splitlines())) <= 80
    assert "no router answers" in shown(why_not="no router answers")
