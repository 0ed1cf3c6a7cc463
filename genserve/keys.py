"""`genserve keys`: makes, lists and revokes the keys of a router's peers.

Works on two places of the router's host: the folder of key files (secrets, mode 0700) and the peers file (public keys,
which the router reads again by itself). One of these commands at a time: the folder is locked meanwhile.
"""

import fcntl
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from msgspec.structs import replace

from common.clock import wall_s
from common.errors import GenServeError, SettingsError
from common.keys import (
    CLIENT_FILE,
    DAEMON_FILE,
    GATEWAY_FILE,
    SERVER_FILE,
    KeyFile,
    new_key,
    read_key,
    read_peers,
    render_key,
    write_key,
)
from common.peers import PEERS_MAX, PeerEntry, active, check_name, render_peers
from common.roles import Role
from genserve.files import write_atomically

PEERS_MODE = 0o644
NAME_CHARS_MAX = 50  # of a host's name in its keys' names: something is added to it
HOST_KEYS: tuple[tuple[str, Role, str], ...] = (  # what init makes for the router's own host
    (GATEWAY_FILE, "gateway", "-gateway"),
    (DAEMON_FILE, "daemon", ""),
    (CLIENT_FILE, "admin", "-admin"),
)


@dataclass(frozen=True)
class Made:
    """A key that was made, or was there before."""

    path: Path
    key: KeyFile
    new: bool


class Store:
    """The keys of one router."""

    def __init__(self, keys_folder: Path, peers_file: Path, folder: Path | None = None) -> None:
        """`folder`: the one that --folder named; commands that are proposed name it as well."""
        self.keys_folder = keys_folder
        self.peers_file = peers_file
        self._place = ["--folder", str(folder)] if folder is not None else []

    def command(self, *words: str) -> str:
        """`genserve keys …` for these keys, as a shell takes it."""
        return shlex.join(["genserve", "keys", *words, *self._place])

    # --- what the commands do ------------------------------------------------------------------

    def init(self, host: str = "") -> list[Made]:
        """The router's key and those of its own host; what is there already stays. Raises GenServeError."""
        host = host or host_name()
        check_name(host)
        with self._writing(create=True):
            entries = list(read_peers(self.peers_file)) if self.peers_file.exists() else []
            path = self.keys_folder / SERVER_FILE
            made = [self._there_or_new(path, "router", "server", "")]
            for name, role, suffix in HOST_KEYS:
                one = self._there_or_new(self.keys_folder / name, host + suffix, role, made[0].key.public_key)
                self._check_router(one, made[0].key)
                made.append(one)
                self._enter(entries, one.key)
            self._write(entries)
        return made

    def new(self, name: str, role: Role, output: Path | None, *, again: bool = False) -> Made:
        """A key for another host or program, in `output`; None: nowhere but in what is returned.

        `again`: the present key of that name is revoked by the same stroke. Raises GenServeError.
        """
        check_name(name)
        with self._writing():
            server = read_key(self.keys_folder / SERVER_FILE, roles=("server",))
            entries = list(read_peers(self.peers_file))
            present = active(entries, name)
            if present is not None and not again:
                raise SettingsError(
                    f"there is a {present.role} key {name!r} already: choose another name, or replace it, which puts "
                    f"its peer out: {self.command('new', name, '--role', role, '--replace')}"
                )
            key = new_key(name, role, server.public_key)
            if output is not None:
                _check_folder(output)
                self._clear(output, entries, present)
                _write_new(output, key)
            entries = [_revoked(entry) if entry is present else entry for entry in entries]
            self._enter(entries, key)
            self._write(entries)
        return Made(output or Path("-"), key, new=True)

    def revoke(self, name: str) -> tuple[PeerEntry, bool]:
        """The entry, and whether it was valid until now. Raises GenServeError not_found for a name that never was."""
        with self._writing():
            entries = list(read_peers(self.peers_file))
            present = active(entries, name)
            if present is None:
                former = [entry for entry in entries if entry.name == name]
                if not former:
                    close = get_close_matches(name, {entry.name for entry in entries if entry.valid}, n=1)
                    hint = f"; did you mean {close[0]}?" if close else f"; `{self.command('list')}` shows them all"
                    raise SettingsError(f"there is no key {name!r} in {self.peers_file}{hint}")
                return former[-1], False
            revoked = _revoked(present)
            self._write([revoked if entry is present else entry for entry in entries])
        return revoked, True

    def entries(self) -> tuple[PeerEntry, ...]:
        """All keys, oldest first. Raises GenServeError."""
        return read_peers(self.peers_file)

    # --- how -----------------------------------------------------------------------------------

    def _there_or_new(self, path: Path, name: str, role: Role | str, router_public_key: str) -> Made:
        if path.exists():
            return Made(path, read_key(path, roles=(role,)), new=False)
        key = new_key(name, role, router_public_key)  # type: ignore[arg-type]  # a role, or the router's own
        _write_new(path, key)
        return Made(path, key, new=True)

    @staticmethod
    def _check_router(made: Made, server: KeyFile) -> None:
        if made.key.router_public_key != server.public_key:
            raise SettingsError(
                f"{made.path} is for a router with another key than {SERVER_FILE}: move it away, and a new one is made"
            )

    def _enter(self, entries: list[PeerEntry], key: KeyFile) -> None:
        """Into the peers file, where it is not there."""
        if any(entry.public_key == key.public_key for entry in entries):
            return
        if active(entries, key.name) is not None:
            raise SettingsError(
                f"{self.peers_file} knows {key.name!r} by another public key: revoke that one first: "
                f"{self.command('revoke', key.name)}"
            )
        assert key.role != "server"
        if len(entries) >= PEERS_MAX:
            raise SettingsError(f"{self.peers_file} has {PEERS_MAX} entries: take out revoked ones")
        entries.append(PeerEntry(name=key.name, role=key.role, public_key=key.public_key, created=_now()))

    @staticmethod
    def _clear(output: Path, entries: Sequence[PeerEntry], replaced: PeerEntry | None) -> None:
        """Make room for a new file where an old one holds a key that counts no more, and only there."""
        if not output.exists():
            return
        public = read_key(output).public_key
        dead = {entry.public_key for entry in entries if not entry.valid or entry is replaced}
        if public not in dead:
            raise SettingsError(f"{output} holds a key that is in force: name another file with --output")
        output.unlink()

    def _write(self, entries: Sequence[PeerEntry]) -> None:
        write_atomically(self.peers_file, render_peers(entries).encode(), mode=PEERS_MODE)

    @contextmanager
    def _writing(self, *, create: bool = False) -> Iterator[None]:
        try:
            if create:
                self.peers_file.parent.mkdir(parents=True, exist_ok=True)
                self.keys_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.keys_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._cannot(error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise self._cannot(error) from None
        finally:
            os.close(lock)

    def _cannot(self, error: OSError) -> GenServeError:
        where = error.filename or self.keys_folder
        if isinstance(error, FileNotFoundError):
            return SettingsError(f"{where} is not there: `{self.command('init')}` makes it, on the router's host")
        hint = "; run it as root (sudo), or name a folder of your own with --folder"
        return SettingsError(f"{where}: {error.strerror}{hint if isinstance(error, PermissionError) else ''}")


def host_name() -> str:
    """This host's name, as a key's."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip(".-_")[:NAME_CHARS_MAX]
    return name or "host"


def write_out(key: KeyFile) -> None:
    """The text of a key file to stdout, for a pipe to another host."""
    sys.stdout.write(render_key(key))


def _check_folder(output: Path) -> None:
    if not output.parent.is_dir():
        raise SettingsError(f"there is no folder {output.parent}: create it first")


def _write_new(path: Path, key: KeyFile) -> None:
    try:
        write_key(path, key)
    except FileExistsError:
        raise SettingsError(f"{path} is there already: name another file with --output") from None


def _revoked(entry: PeerEntry) -> PeerEntry:
    return replace(entry, revoked=_now())


def _now() -> datetime:
    return datetime.fromtimestamp(int(wall_s()), UTC)
