"""Whom the router lets in: the peers file, as text and as entries. Public keys only; it holds no secret.

Pure. One [[peer]] table a key, oldest first. A name may stand several times (a lost key, and its successor), but
only one of these is not revoked; a public key stands once.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec
from msgspec import Struct

from common.errors import SettingsError
from common.roles import NAME_PATTERN, RESERVED_NAMES, ROLES, Role

TomlValue: TypeAlias = str | int | float | datetime | tuple[str, ...]

PEERS_MAX = 10_000
PEERS_BYTES_MAX = 4 * 1024 * 1024
Z85_PATTERN = r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$"  # 32 bytes, as ZeroMQ writes keys
HEAD = """\
# Who may connect to this router: public keys, no secrets. `genserve keys` writes this file, and the router reads it
# again within a second of a change. A peer that is revoked, or taken out, is put out at once.
"""


class PeerEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key that may connect, or no longer may."""

    name: str
    role: Role
    public_key: str
    created: datetime
    revoked: datetime | None = None

    @property
    def valid(self) -> bool:
        """Is it let in?"""
        return self.revoked is None


class _File(Struct, forbid_unknown_fields=True):
    peer: list[PeerEntry] = []


def check_name(name: str) -> None:
    """Raise SettingsError where `name` cannot be a key's."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise SettingsError(
            f"{name!r} cannot be a key's name: 1 to 63 letters, digits, dots, dashes, underscores; no dash or dot first"
        )
    if name in RESERVED_NAMES:
        raise SettingsError(f"{name!r} is a name of GenServe's own: choose another one")


def parse_peers(text: str, where: str) -> tuple[PeerEntry, ...]:
    """The entries of a peers file. Raises SettingsError that says what is wrong, and in which entry of `where`."""
    try:
        entries = msgspec.convert(tomllib.loads(text), _File).peer
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{where} is no TOML: {error}") from None
    except msgspec.ValidationError as error:
        said = re.sub(r"\$\.peer\[(\d+)\]", lambda found: f"entry {int(found[1]) + 1}", str(error))
        raise SettingsError(f"{where}: {said}") from None
    if len(entries) > PEERS_MAX:
        raise SettingsError(f"{where} has {len(entries)} entries; at most {PEERS_MAX} are read: take out revoked ones")
    for number, entry in enumerate(entries, start=1):
        try:
            check_name(entry.name)
        except SettingsError as error:
            raise SettingsError(f"{where}, entry {number}: {error.message}") from None
        if not re.fullmatch(Z85_PATTERN, entry.public_key):
            raise SettingsError(f"{where}, entry {number} ({entry.name}): public_key is no key of 40 Z85 characters")
    for what, counts in (
        ("name", Counter(entry.name for entry in entries if entry.valid)),
        ("public_key", Counter(entry.public_key for entry in entries)),
    ):
        double = next((value for value, times in counts.items() if times > 1), None)
        if double is not None:
            raise SettingsError(f"{where}: the {what} {double} stands twice: take out or revoke all entries but one")
    return tuple(entries)


def render_peers(entries: Sequence[PeerEntry]) -> str:
    """The text of a peers file."""
    return HEAD + "".join(f"\n[[peer]]\n{render_table(msgspec.structs.asdict(entry))}" for entry in entries)


def render_table(values: Mapping[str, TomlValue | None]) -> str:
    """`key = value` lines of TOML; what is None is left out. Texts must need no escapes."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items() if value is not None)


def _toml(value: TomlValue) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        assert not re.search(r'["\\\x00-\x1f\x7f]', value), value
        return f'"{value}"'
    return repr(value)


def active(entries: Sequence[PeerEntry], name: str) -> PeerEntry | None:
    """The entry of this name that is let in, if any."""
    return next((entry for entry in entries if entry.name == name and entry.valid), None)


def role_words(role: str) -> str:
    """What a role may do."""
    return ROLES[role].may
