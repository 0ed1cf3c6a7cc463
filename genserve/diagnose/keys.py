"""Keys: the folder of secrets, each key file, and the public list of who may connect.

A key file is one small TOML text: name, role, public_key, secret_key and, but for the router's own,
router_public_key. Secrets are never told.
"""

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zmq

from genserve.diagnose.finding import Note, check, fail, ok, quoted, warn
from genserve.diagnose.host import Host, NotChecked

SETTINGS = (
    ("router", "server_key_file", "server"),
    ("gateway", "key_file", "gateway"),
    ("gpu_daemon", "key_file", "daemon"),
    ("client", "key_file", ""),
)
ROLES = ("server", "gateway", "daemon", "client", "admin")
NONE = "there are no keys: everything listens on loopback addresses only"
KEY_BYTES_MAX = 4096
PEERS_BYTES_MAX = 4 * 1024 * 1024
KEY_CHARS = 40  # of Z85


@check("keys.folder", "The folder of secret keys: for root's eyes alone")
def folder(host: Host) -> Iterator[Note]:
    """Absent on a machine that speaks to itself only."""
    path = _folder(host)
    if not path.exists():
        raise NotChecked(NONE)
    found = path.stat()
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield fail(
            f"others may look into {path} (mode {stat.S_IMODE(found.st_mode):04o})", f"sudo chmod 700 {quoted(path)}"
        )
    elif found.st_uid != 0 and path.is_relative_to("/etc"):
        yield fail(f"{path} does not belong to root", f"sudo chown -R root:root {quoted(path)}")
    else:
        yield ok(f"{path}, mode {stat.S_IMODE(found.st_mode):04o}")


@check(
    "keys.files",
    "Each key file: who may read it, that it is whole, its name and role, and that its two keys belong together",
)
def files(host: Host) -> Iterator[Note]:
    """Those that settings name, and those in the folder."""
    named = _named(host)
    paths = dict.fromkeys(_in_folder(host), "") | named
    if not paths:
        raise NotChecked(NONE)
    for path, role in paths.items():
        yield _key(path, role)


def _anew(path: Path, name: str, role: str) -> str:
    """The commands that make a key again; `genserve keys` overwrites none."""
    aside = f"sudo mv {quoted(path)} {quoted(f'{path}.old')} && " if path.exists() else ""
    if role == "server" or path.name == "server.key":
        return f"{aside}sudo genserve keys init   # then every other key must be made anew"
    words = quoted("genserve", "keys", "new", name or path.stem, "--role", role or "client", "--replace", "-o", path)
    return f"{aside}sudo {words}   # on the router's host"


def _key(path: Path, role: str) -> Note:
    again = _anew(path, "", role)
    try:
        mode = path.stat().st_mode
        key = _read(path, KEY_BYTES_MAX)
    except FileNotFoundError:
        return fail(f"{path} is named by the settings and not there", again)
    except PermissionError:
        return warn(
            f"{path} cannot be read by this user, so nothing is known of it", "sudo genserve diagnose --only keys"
        )
    except (OSError, ValueError) as error:
        return fail(f"{path} is no key file: {error}", again)
    if stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO):
        return fail(
            f"others may read {path} (mode {stat.S_IMODE(mode):04o}), so it may be known already; if this is a shared "
            "machine, revoke it and make a new one",
            f"sudo chmod 600 {quoted(path)}",
        )
    name, its = str(key.get("name", "")), str(key.get("role", ""))
    again = _anew(path, name, role or its)
    if not name or its not in ROLES:
        return fail(f"{path} has the name {name!r} and the role {its!r}; roles are {', '.join(ROLES)}", again)
    if role and its != role:
        return fail(f"{path} is a {its} key ({name}), where a {role} key is needed", again)
    if not _belong(key) or (its != "server" and len(str(key.get("router_public_key", ""))) != KEY_CHARS):
        return fail(f"{path} ({name}) is damaged: its keys do not belong together, or the router's is missing", again)
    return ok(f"{path.name}: {its} {name}")


@check("keys.peers", "peers.toml: readable, whole, and whether this machine's own keys are in it and not revoked")
def peers(host: Host) -> Iterator[Note]:
    """The router reads it again whenever it changes."""
    path = host.etc / "genserve" / "peers.toml"
    if host.settings.sources.get("router.peers_file", "default") != "default":
        path = Path(host.router.peers_file)
    try:
        table = _read(path, PEERS_BYTES_MAX)
    except FileNotFoundError:
        if any(path.name == "server.key" for path in _in_folder(host)):
            yield fail(
                f"there is a server key and no {path}: the router would let nobody in", "sudo genserve keys init"
            )
            return
        raise NotChecked(NONE if not _in_folder(host) else f"there is no {path}") from None
    except (OSError, ValueError) as error:
        yield fail(
            f"{path} cannot be read: {error}", f"sudo ${{EDITOR:-nano}} {quoted(path)}; sudo chmod 644 {quoted(path)}"
        )
        return
    entries = table.get("peer", [])
    entries = entries if isinstance(entries, list) else []
    known = {str(entry.get("public_key")): entry for entry in entries if isinstance(entry, dict)}
    for own in {*_in_folder(host), *_named(host)}:
        yield from _known(own, known, path)
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield fail(f"others may change {path}, and so let in whom they like", f"sudo chmod 644 {quoted(path)}")
    yield ok(f"{len(known)} keys, {sum('revoked' in entry for entry in known.values())} of them revoked")


def _known(own: Path, known: Mapping[str, Mapping[str, Any]], peers_file: Path) -> Iterator[Note]:
    try:
        key = _read(own, KEY_BYTES_MAX)
    except (OSError, ValueError):
        return  # told by keys.files
    name, role = str(key.get("name", own.name)), str(key.get("role", ""))
    if role == "server":
        return
    entry = known.get(str(key.get("public_key")))
    if entry is None:
        yield fail(f"{own} ({name}) is not in {peers_file}: the router refuses it", _anew(own, name, role))
    elif "revoked" in entry:
        yield fail(f"{own} ({name}) is revoked: the router refuses it", _anew(own, name, role))


def _folder(host: Host) -> Path:
    return host.etc / "genserve" / "keys"


def _in_folder(host: Host) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(_folder(host)) if entry.name.endswith(".key"))
    except OSError:
        return []


def _named(host: Host) -> dict[Path, str]:
    """The key files that settings name, and the role that each needs ('' for any)."""
    sections = host.settings.sections
    given = {Path(str(getattr(sections.get(name), key, "") or "")): role for name, key, role in SETTINGS}
    return {path: role for path, role in given.items() if path != Path()}


def _read(path: Path, bytes_max: int) -> dict[str, Any]:
    """A TOML file. Raises OSError, ValueError."""
    with path.open("rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise ValueError(f"it has more than {bytes_max} bytes")
    return tomllib.loads(data.decode())


def _belong(key: Mapping[str, Any]) -> bool:
    """Is the public key that of the secret one?"""
    try:
        public = zmq.curve_public(str(key["secret_key"]).encode()).decode()
        return bool(public == key["public_key"])
    except (KeyError, ValueError, zmq.ZMQError):
        return False


CHECKS = (folder, files, peers)
