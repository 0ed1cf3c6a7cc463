"""Keys: the folder of secrets, each key file, and the public list of who may connect.

They are read as those read them who use them (common/keys.py). Secrets are never told.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common.errors import SettingsError
from common.keys import (
    CLIENT_FILE,
    DAEMON_FILE,
    GATEWAY_FILE,
    SERVER_FILE,
    KeyFile,
    read_http_keys,
    read_key,
    read_peers,
)
from common.peers import PeerEntry
from common.sockets import is_loopback
from gateway.listener import needs_keys
from genserve.diagnose.finding import Note, check, fail, ok, quoted, warn
from genserve.diagnose.host import Host, NotChecked
from genserve.diagnose.mend import root, setting
from genserve.keys import HOST_KEYS, host_name

ROLES: Mapping[str, tuple[str, ...]] = {  # that each setting takes, as those do who read it
    "router.server_key_file": ("server",),
    "gateway.key_file": ("gateway",),
    "gpu_daemon.key_file": ("daemon",),
    "client.key_file": ("client", "gateway", "admin"),
}
FILES = {  # that are taken where the setting is empty, by units and by `genserve up`
    "router.server_key_file": SERVER_FILE,
    "gateway.key_file": GATEWAY_FILE,
    "gpu_daemon.key_file": DAEMON_FILE,
    "client.key_file": CLIENT_FILE,
}
NONE = "there are no keys: everything listens on loopback addresses only"
ADD_HTTP = "sudo genserve keys add-http NAME"
OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@check("keys.folder", "The folder of secret keys: for root's eyes alone")
def folder(host: Host) -> Iterator[Note]:
    """Absent on a machine that speaks to itself only."""
    path = _folder(host)
    if not path.exists():
        raise NotChecked(NONE)
    found = path.stat()
    if found.st_mode & OPEN_TO_OTHERS:
        told = fail if path.is_relative_to(host.etc) else warn  # elsewhere the files' own modes may be all there is
        mend = f"{_sudo(host, path)}chmod 700 {quoted(path)}"
        yield told(f"others may look into {path} (mode {stat.S_IMODE(found.st_mode):04o})", mend)
    elif found.st_uid != 0 and path.is_relative_to("/etc"):
        yield fail(f"{path} does not belong to root", f"sudo chown -R root:root {quoted(path)}")
    else:
        yield ok(f"{path}, mode {stat.S_IMODE(found.st_mode):04o}")


@check(
    "keys.files",
    "Each key file: who may read it, that it is whole, of the role that is needed, and for this machine's router",
)
def files(host: Host) -> Iterator[Note]:
    """Those that settings name, and those in the folder."""
    taken = {path: [name for name, file in FILES.items() if path.name == file] for path in _in_folder(host)}
    named = _named(host)
    if not taken and not named:
        raise NotChecked(NONE)
    server = _readable(_server_file(host))
    if server is not None and server.role != "server":
        server = None
    for path, settings in (taken | named).items():
        yield from _key(host, path, settings, server)


def _key(host: Host, path: Path, settings: Sequence[str], server: KeyFile | None) -> Iterator[Note]:
    """All that is to be said of one key file. `settings`: those that name it, or would take it if they were empty."""
    role = ROLES[settings[0]][0] if settings else ""
    if not _exists(path):
        yield fail(f"{path} is named by {' and '.join(settings)} and not there", _anew(host, path, "", role))
        return
    if not os.access(path, os.R_OK):
        yield warn(
            f"{path} cannot be read by this user, so nothing is known of it", "sudo genserve diagnose --only keys"
        )
        return
    try:
        key = read_key(path)
    except SettingsError as error:
        its = _readable(path)
        mend = f"{_sudo(host, path)}chmod 600 {quoted(path)}"
        if not path.stat().st_mode & OPEN_TO_OTHERS:
            mend = _anew(host, path, its.name if its else "", role or (its.role if its else ""))
        yield fail(error.message, mend)
        return
    misplaced = [name for name in settings if key.role not in ROLES[name]]
    for name in misplaced:
        wanted = " or ".join(ROLES[name])
        yield fail(
            f"{path} is a {key.role} key ({key.name}); {name} takes one of the role {wanted}",
            _another(host, name, path),
        )
    apart = server is not None and key.role != "server" and key.router_public_key != server.public_key
    if apart and not _serves_elsewhere(host, key.role):
        yield fail(
            f"{path} ({key.name}) is for another router than that of {_server_file(host)}: neither lets the other in",
            _anew(host, path, key.name, key.role),
        )
    elif not misplaced:
        yield ok(f"{path.name}: {key.role} {key.name}")


def _serves_elsewhere(host: Host, role: str) -> bool:
    """Is a key of this role for the router of another host?"""
    if role == "daemon":
        return bool(host.router_elsewhere)
    return not is_loopback(host.gateway.router_endpoint.removeprefix("tcp://").rpartition(":")[0])


def _anew(host: Host, path: Path, name: str, role: str) -> str:
    """The commands that make a key again; `genserve keys` overwrites none."""
    sudo = _sudo(host, path)
    aside = f"{sudo}mv {quoted(path)} {quoted(f'{path}.old')} && " if _exists(path) else ""
    if role == "server" or path.name == SERVER_FILE:
        return f"{aside}{_init(host)}   # then every other key must be made anew"
    usual = next((host_name() + suffix for file, _, suffix in HOST_KEYS if file == path.name), path.stem)
    made = ["genserve", "keys", "new", name or usual, "--role", role or "client", "--replace", "-o", str(path)]
    return f"{aside}{sudo}{quoted(*made, *_place(host))}   # on the router's host"


def _another(host: Host, name: str, path: Path) -> str:
    """The command that has the setting `name` take a key of its own, not `path`, which others may need as it is."""
    beside = path.with_name(FILES[name])
    if name == "router.server_key_file":
        return _anew(host, path, "", "server") if beside == path else setting(host, name, str(beside))
    role, suffix = next((role, suffix) for file, role, suffix in HOST_KEYS if file == FILES[name])
    if beside == path:
        return _anew(host, path, host_name() + suffix, role)
    other = _readable(beside)
    if other is not None and other.role in ROLES[name]:
        return setting(host, name, str(beside))
    words: list[str | Path] = ["genserve", "keys", "new", host_name() + suffix, "--role", role, "-o", beside]
    return f"{_sudo(host, path)}{quoted(*words, *_place(host))} && {setting(host, name, str(beside))}"


def _init(host: Host) -> str:
    return f"{_sudo(host, _folder(host))}{quoted('genserve', 'keys', 'init', *_place(host))}"


def _place(host: Host) -> list[str]:
    """The words that tell `genserve keys` where this machine's lie, where that is not the usual place."""
    keys = _folder(host)
    return [] if keys.is_relative_to(host.etc) or keys.name != "keys" else ["--folder", str(keys.parent)]


def _sudo(host: Host, path: Path) -> str:
    return "sudo " if path.is_relative_to(host.etc) else root(str(path))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # in a folder that only root sees, which is how it should be
        return True


def _server_file(host: Host) -> Path:
    return Path(host.router.server_key_file).absolute() if host.router.server_key_file else _folder(host) / SERVER_FILE


def _readable(path: Path) -> KeyFile | None:
    """The key in `path`, if it is whole, whoever may read it; what is wrong with it is told by keys.files."""
    try:
        return read_key(path, guarded=True)
    except SettingsError:
        return None


@check("keys.peers", "peers.toml: readable, whole, and whether this machine's own keys are in it and not revoked")
def peers(host: Host) -> Iterator[Note]:
    """The router reads it again whenever it changes."""
    path = host.etc / "genserve" / "peers.toml"
    if host.settings.sources.get("router.peers_file", "default") != "default":
        path = Path(host.router.peers_file)
    if not path.exists():
        if _exists(_server_file(host)):
            yield fail(f"there is a server key and no {path}: the router would let nobody in", _init(host))
            return
        raise NotChecked(NONE if not _in_folder(host) else f"there is no {path}")
    try:
        entries = read_peers(path)
    except SettingsError as error:
        yield fail(error.message, f"sudo ${{EDITOR:-nano}} {quoted(path)}; sudo chmod 644 {quoted(path)}")
        return
    known = {entry.public_key: entry for entry in entries}
    for own in dict.fromkeys([*_in_folder(host), *_named(host)]):
        yield from _known(host, own, known, path)
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield fail(f"others may change {path}, and so let in whom they like", f"sudo chmod 644 {quoted(path)}")
    yield ok(f"{len(known)} keys, {sum(not entry.valid for entry in entries)} of them revoked")


def _known(host: Host, own: Path, known: Mapping[str, PeerEntry], peers_file: Path) -> Iterator[Note]:
    key = _readable(own)
    if key is None or key.role == "server":
        return
    entry = known.get(key.public_key)
    if entry is None:
        yield fail(
            f"{own} ({key.name}) is not in {peers_file}: the router refuses it", _anew(host, own, key.name, key.role)
        )
    elif not entry.valid:
        yield fail(f"{own} ({key.name}) is revoked: the router refuses it", _anew(host, own, key.name, key.role))


def _folder(host: Host) -> Path:
    """As `genserve keys` finds it."""
    named = host.router.server_key_file
    return Path(named).absolute().parent if named else host.etc / "genserve" / "keys"


def _in_folder(host: Host) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(_folder(host)) if entry.name.endswith(".key"))
    except OSError:
        return []


def _named(host: Host) -> dict[Path, list[str]]:
    """The key files that settings name, each with all of these."""
    named: dict[Path, list[str]] = {}
    for name in ROLES:
        section, _, key = name.partition(".")
        if given := getattr(host.settings.sections[section], key):
            named.setdefault(Path(given).absolute(), []).append(name)
    return named


@check("keys.http", "The keys of HTTP: readable, whole, that others may not write them, and that somebody is let in")
def http(host: Host) -> Iterator[Note]:
    """Looked at where HTTP asks for keys, or where there are some."""
    path, needed = http_keys_path(host), needs_keys(host.gateway)
    if not path.exists():
        if needed:
            yield fail(f"HTTP asks for keys and there is no {path}: the gateway does not start", ADD_HTTP)
            return
        raise NotChecked("HTTP asks for no keys here")
    try:
        entries = read_http_keys(path)
    except SettingsError as error:
        shut = f"sudo chmod 644 {quoted(path)}"
        others_write = path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        yield fail(error.message, shut if others_write else f"sudo ${{EDITOR:-nano}} {quoted(path)}")
        return
    valid = sum(entry.valid for entry in entries)
    if needed and not valid:
        yield fail(f"{path} lets nobody in: the gateway does not start", ADD_HTTP)
        return
    yield ok(f"{valid} keys{'' if needed else ', which nobody is asked for here'}, {len(entries) - valid} revoked")


def http_keys_path(host: Host) -> Path:
    """Where the keys of HTTP are."""
    if host.source("gateway.http_keys_file") == "default":
        return host.etc / "genserve" / Path(host.gateway.http_keys_file).name
    return Path(host.gateway.http_keys_file)


CHECKS = (folder, files, peers, http)
