"""Key files and the peers file: what is written is read, and what is wrong is said."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.errors import SettingsError
from common.keys import CREDENTIALS, find_key, load_key, new_key, raw_key, read_key, read_peers, show_key, write_key
from common.peers import PEERS_BYTES_MAX, PeerEntry, active, check_name, parse_peers, render_peers

SERVER = new_key("server", "server")
KEY = new_key("host-b", "daemon", SERVER.public_key)
CREATED = datetime(2026, 11, 25, 12, 0, 1, tzinfo=UTC)


def entry(name: str = "host-b", role: str = "daemon", *, revoked: bool = False, public_key: str = "") -> PeerEntry:
    key = public_key or new_key(name, "client").public_key
    return PeerEntry(name=name, role=role, public_key=key, created=CREATED, revoked=CREATED if revoked else None)  # type: ignore[arg-type]  # roles as texts


@pytest.mark.parametrize("key", [SERVER, KEY], ids=lambda key: key.role)
def test_a_key_file_is_read_as_it_was_written_and_by_its_owner_alone(tmp_path: Path, key: object) -> None:
    path = tmp_path / "a.key"
    mask = os.umask(0)
    try:
        write_key(path, key)  # type: ignore[arg-type]  # of both kinds
    finally:
        os.umask(mask)
    assert read_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_key(path, key)  # type: ignore[arg-type]  # of both kinds
    assert read_key(path) == key


def test_a_secret_is_never_shown() -> None:
    assert KEY.secret_key not in f"{KEY!r} {KEY} {KEY.__rich_repr__()}"
    assert "host-b" in repr(KEY)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('role = "daemon"', 'role = "boss"'), "no key file"),
        (lambda text: text.replace("name", "nome"), "no key file"),
        (lambda text: text.replace(KEY.public_key, SERVER.public_key), "damaged"),
        (lambda text: text.replace(KEY.secret_key, KEY.secret_key[:-1]), "damaged"),
        (lambda text: text.replace(KEY.secret_key, "x" * 40), "damaged"),
        (lambda text: text.replace(SERVER.public_key, "short"), "damaged"),
        (lambda text: text[: len(text) // 2], "no key file"),
        (lambda _: "\0", "no key file"),
    ],
)
def test_a_wrong_key_file_is_refused(tmp_path: Path, change: object, said: str) -> None:
    path = tmp_path / "a.key"
    write_key(path, KEY)
    path.write_text(change(path.read_text()))  # type: ignore[operator]  # a function of the text
    with pytest.raises(SettingsError, match=said) as caught:
        read_key(path)
    assert str(path) in caught.value.message
    assert KEY.secret_key not in caught.value.message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_read_is_refused_unless_systemd_guards_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "daemon.key"
    write_key(path, KEY)
    path.chmod(mode)
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        load_key(str(path), {}, "daemon.key")
    assert load_key("", {CREDENTIALS: str(tmp_path)}, "daemon.key") == KEY
    assert load_key(str(path), {CREDENTIALS: str(tmp_path)}, "daemon.key") == KEY


def test_where_a_key_comes_from(tmp_path: Path) -> None:
    here = {CREDENTIALS: str(tmp_path)}
    assert find_key("", {}, "server.key") is None
    assert find_key("", here, "server.key") is None
    write_key(tmp_path / "server.key", SERVER)
    assert find_key("", here, "server.key") == (tmp_path / "server.key", True)
    assert find_key("elsewhere/server.key", here, "server.key") == (Path("elsewhere/server.key"), False)
    assert load_key("", here, "server.key", "server") == SERVER
    with pytest.raises(SettingsError, match=r"is a server key .* a key of the role daemon is needed"):
        load_key("", here, "server.key", "daemon")
    with pytest.raises(SettingsError, match=r"nowhere\.key cannot be read: No such file"):
        load_key(str(tmp_path / "nowhere.key"), {}, "server.key")
    with pytest.raises(SettingsError, match=r"is no file|Is a directory"):
        load_key(str(tmp_path), {}, "server.key")


def test_a_key_is_32_bytes_in_40_characters() -> None:
    assert show_key(raw_key(KEY.public_key)) == KEY.public_key
    for text in ("", "x", KEY.public_key[:-1], KEY.public_key + "0", "#" * 40, "ä" * 40):
        with pytest.raises(ValueError, match="Z85"):
            raw_key(text)


def test_the_peers_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    entries = (entry(revoked=True), entry(), entry("lab", "client"), entry("x.y_z-1", "admin"))
    path = tmp_path / "peers.toml"
    path.write_text(render_peers(entries))
    assert read_peers(path) == entries
    assert active(entries, "host-b") == entries[1]
    assert active(entries, "nobody") is None
    path.write_text("")
    assert read_peers(path) == ()
    path.write_bytes(b"#" * (PEERS_BYTES_MAX + 1))
    with pytest.raises(SettingsError, match="more than"):
        read_peers(path)
    path.write_text(render_peers([entry(public_key="#" * 40)]))
    with pytest.raises(SettingsError, match="public_key of 'host-b' is no key"):
        read_peers(path)
    path.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="is no text"):
        read_peers(path)
    path.unlink()
    with pytest.raises(SettingsError, match="genserve keys init"):
        read_peers(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[peer]\n", "is no TOML"),
        ("[[pear]]\n", "unknown field `pear`"),
        ('[[peer]]\nname = "a"\n', "missing required field `role` - at `entry 1`"),
        (render_peers([entry(role="boss")]), "Invalid enum value 'boss' - at `entry 1.role`"),
        (render_peers([entry(), entry("-x")]), "entry 2: '-x' cannot be a key's name"),
        (render_peers([entry("local")]), "a name of GenServe's own"),
        (render_peers([entry(public_key="x" * 39)]), "entry 1 (host-b): public_key is no key"),
        (render_peers([entry(), entry()]), "the name host-b stands twice"),
        (render_peers([entry(public_key="0" * 40), entry("c", public_key="0" * 40)]), "the public_key 0000"),
        (render_peers([entry(public_key="0" * 40), entry("c", public_key="0" * 40, revoked=True)]), "stands twice"),
    ],
)
def test_a_wrong_peers_file_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_peers(text, "peers.toml")
    assert said in caught.value.message
    assert caught.value.message.startswith("peers.toml")


@pytest.mark.parametrize("name", ["", "a/b", "a b", ".a", "-a", "ä", "x" * 64, "local", "server", 'a"', "a\n"])
def test_some_names_are_no_keys(name: str) -> None:
    with pytest.raises(SettingsError, match="name"):
        check_name(name)
