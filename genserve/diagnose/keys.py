"""Keys: the folder of secrets, each key file, and the public list of who may connect.

They are read as those read them who use them (common/keys.py). Secrets are never told.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.errors import SettingsError
from common.keys import KeyFile, read_http_keys, read_key, read_peers
from common.peers import PeerEntry
from gateway.listener import needs_keys
from genserve.diagnose.finding import Note, check, fail, ok, quoted, warn
from genserve.diagnose.host import Host, NotChecked

SETTINGS = (
    ("router", "server_key_file", "server"),
    ("gateway", "key_file", "gateway"),
    ("gpu_daemon", "key_file", "daemon"),
    ("client", "key_file", ""),
)
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
    if not path.exists():
        return fail(f"{path} is named by the settings and not there", _anew(path, "", role))
    if not os.access(path, os.R_OK):
        return warn(
            f"{path} cannot be read by this user, so nothing is known of it", "sudo genserve diagnose --only keys"
        )
    try:
        key = read_key(path, roles=(role,) if role else ())
    except SettingsError as error:
        if path.stat().st_mode & OPEN_TO_OTHERS:
            return fail(error.message, f"sudo chmod 600 {quoted(path)}")
        its = _readable(path)
        return fail(error.message, _anew(path, its.name if its else "", role or (its.role if its else "")))
    return ok(f"{path.name}: {key.role} {key.name}")


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
        if any(path.name == "server.key" for path in _in_folder(host)):
            yield fail(
                f"there is a server key and no {path}: the router would let nobody in", "sudo genserve keys init"
            )
            return
        raise NotChecked(NONE if not _in_folder(host) else f"there is no {path}")
    try:
        entries = read_peers(path)
    except SettingsError as error:
        yield fail(error.message, f"sudo ${{EDITOR:-nano}} {quoted(path)}; sudo chmod 644 {quoted(path)}")
        return
    known = {entry.public_key: entry for entry in entries}
    for own in {*_in_folder(host), *_named(host)}:
        yield from _known(own, known, path)
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield fail(f"others may change {path}, and so let in whom they like", f"sudo chmod 644 {quoted(path)}")
    yield ok(f"{len(known)} keys, {sum(not entry.valid for entry in entries)} of them revoked")


def _known(own: Path, known: Mapping[str, PeerEntry], peers_file: Path) -> Iterator[Note]:
    key = _readable(own)
    if key is None or key.role == "server":
        return
    entry = known.get(key.public_key)
    if entry is None:
        yield fail(f"{own} ({key.name}) is not in {peers_file}: the router refuses it", _anew(own, key.name, key.role))
    elif not entry.valid:
        yield fail(f"{own} ({key.name}) is revoked: the router refuses it", _anew(own, key.name, key.role))


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
