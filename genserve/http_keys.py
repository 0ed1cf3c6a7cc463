"""`genserve keys add-http`, `list-http`, `revoke-http`: the keys with which programs use HTTP.

Works on one file, of hashes; a key's text is shown when it is made, and never again. The gateway reads the file again
by itself. One of these commands at a time: its folder is locked meanwhile.
"""

import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from secrets import token_bytes
from typing import get_type_hints

import msgspec
from msgspec.structs import replace
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from common.clock import wall_s
from common.errors import GenServeError, SettingsError
from common.http_keys import HTTP_KEYS_MAX, RIGHTS, SECRET_BYTES, HttpKey, hash_of, key_text, render_http_keys
from common.keys import read_http_keys
from common.peers import check_name
from common.settings.words import right
from genserve.files import write_atomically
from genserve.paper import paper
from genserve.status import seconds

MODE = 0o644  # as the list of peers: a hash of so much chance tells nothing


class HttpStore:
    """The keys of HTTP in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, name: str, rights: Sequence[str], **limits: object) -> tuple[HttpKey, str]:
        """A new key with these limits, and its text. Raises GenServeError."""
        check_name(name)
        if unknown := [right for right in rights if right not in RIGHTS]:
            raise SettingsError(f"there is no right {unknown[0]!r}: {', '.join(RIGHTS)}")
        text = key_text(token_bytes(SECRET_BYTES))
        fields = {**limits, "name": name, "rights": rights, "sha256": hash_of(text), "created": _now()}
        try:
            key = msgspec.convert(fields, HttpKey)
        except msgspec.ValidationError as error:
            field = str(error).rpartition("$.")[2].rstrip("`")
            words = right(get_type_hints(HttpKey, include_extras=True)[field])
            raise SettingsError(f"--{field.replace('_', '-')} {fields[field]} is not right: say {words}") from None
        with self._writing(create=True):
            entries = self._there()
            if any(entry.name == key.name and entry.valid for entry in entries):
                raise SettingsError(
                    f"there is a key {key.name!r} already: choose another name, or revoke it first: "
                    f"genserve keys revoke-http {key.name}"
                )
            if len(entries) >= HTTP_KEYS_MAX:
                raise SettingsError(f"{self.path} has {HTTP_KEYS_MAX} keys: take out revoked ones")
            self._write([*entries, key])
        return key, text

    def revoke(self, name: str) -> tuple[HttpKey, bool]:
        """The key, and whether it was valid until now. Raises GenServeError for a name that never was."""
        with self._writing():
            entries = self._there()
            found = [entry for entry in entries if entry.name == name]
            if not found:
                close = get_close_matches(name, {entry.name for entry in entries if entry.valid}, n=1)
                hint = f"; did you mean {close[0]}?" if close else "; `genserve keys list-http` shows them all"
                raise SettingsError(f"there is no key {name!r} in {self.path}{hint}")
            if not found[-1].valid:
                return found[-1], False
            revoked = replace(found[-1], revoked=_now())
            self._write([revoked if entry is found[-1] else entry for entry in entries])
        return revoked, True

    def entries(self) -> tuple[HttpKey, ...]:
        """All keys, oldest first. Raises GenServeError."""
        return read_http_keys(self.path)

    def _there(self) -> list[HttpKey]:
        return list(read_http_keys(self.path)) if self.path.exists() else []

    def _write(self, entries: Sequence[HttpKey]) -> None:
        write_atomically(self.path, render_http_keys(entries).encode(), mode=MODE)

    @contextmanager
    def _writing(self, *, create: bool = False) -> Iterator[None]:
        folder = self.path.parent
        try:
            if create:
                folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
        hint = "; run it as root (sudo), or name a file of your own with --file"
        return SettingsError(f"{error.filename or self.path}: {error.strerror}{hint}")


def show_added(key: HttpKey, text: str, path: Path) -> None:
    """The key alone on stdout, and what to know of it."""
    console = Console(stderr=True)
    console.print(f"[bold green]✔[/] made: the key [bold]{escape(key.name)}[/] in {escape(str(path))}", soft_wrap=True)
    console.print(f"  it may: {'; '.join(RIGHTS[right] for right in key.rights)}", highlight=False, soft_wrap=True)
    if limits := _limits(key):
        console.print(f"  at most {limits}", highlight=False, soft_wrap=True)
    console.print("  Send it as Authorization: Bearer KEY. It is shown this once:", highlight=False, soft_wrap=True)
    sys.stdout.write(f"{text}\n")


def show_list(entries: Sequence[HttpKey], *, as_json: bool) -> None:
    """All keys, without what nobody has."""
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(entries), indent=2).decode() + "\n")
    else:
        paper().print(list_page(entries, now=wall_s()))


def list_page(entries: Sequence[HttpKey], *, now: float) -> RenderableType:
    """A line each, for a terminal. `now`: wall seconds."""
    if not entries:
        return Text(" There are no keys of HTTP: genserve keys add-http NAME makes one.")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for heading in ("key", "may", "at most", "weight", "made"):
        table.add_column(heading, overflow="fold")
    for key in entries:
        made = f"{seconds(max(0.0, now - key.created.timestamp()))} ago"
        state = made if key.valid else "revoked"
        style = "" if key.valid else "dim"
        table.add_row(key.name, ", ".join(key.rights), _limits(key) or "—", f"{key.weight:g}", state, style=style)
    return table


def show_revoked(key: HttpKey, now: bool) -> None:
    """What has become of it."""
    words = "is revoked: gateways let it in no more within two seconds" if now else "was revoked before"
    Console().print(f"[bold green]✔[/] the key [bold]{escape(key.name)}[/] {words}", highlight=False, soft_wrap=True)


def _limits(key: HttpKey) -> str:
    said = (
        (key.requests_per_minute, "requests", "a minute"),
        (key.gpu_seconds_per_minute, "GPU seconds", "a minute"),
        (key.jobs_max, "jobs", "at one time"),
    )
    return ", ".join(
        f"{value:g} {what.removesuffix('s') if value == 1 else what} {when}"
        for value, what, when in said
        if value is not None
    )


def _now() -> datetime:
    return datetime.fromtimestamp(int(wall_s()), UTC)
