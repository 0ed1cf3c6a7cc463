"""Keys of HTTP: their text, what each may do and how much, and the file that lists them. Holds no secret.

Pure. A key's text is shown once, when it is made; the file has its SHA-256. One fast hash is enough: a key is 160
random bits, so there is nothing to guess, and a slow hash would only make each request slow. One [[key]] table a key,
oldest first; a name may stand several times, but only one of these is not revoked.
"""

import hashlib
import re
import tomllib
import zlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from common.errors import SettingsError
from common.messages import Terms
from common.peers import check_name, render_table

Right: TypeAlias = Literal["generate", "read", "admin"]

RIGHTS: dict[Right, str] = {
    "generate": "ask for pictures; see and cancel its own jobs",
    "read": "see how the service stands: GPUs, queue, settings",
    "admin": "all of this, and see and cancel everybody's jobs",
}
PREFIX = "gs-"
SECRET_BYTES = 20
SECRET_CHARS, SUM_CHARS = 27, 6  # 62 ** 27 > 2 ** 160; 62 ** 6 > 2 ** 32
KEY_CHARS = len(PREFIX) + SECRET_CHARS + SUM_CHARS
HTTP_KEYS_MAX = 10_000
OWNER_PREFIX = "http/"  # no key of the router's peers has a slash in its name, so none passes for an owner over HTTP
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HEAD = """\
# Who may use GenServe over HTTP: hashes of keys, no secrets. `genserve keys` writes this file, and gateways read it
# again within a second of a change. What is revoked or taken out is let in no more, and what it has open is cut.
"""


class HttpKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key that may be used, or no longer may. A limit that is None is none."""

    name: str
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    rights: Annotated[tuple[Right, ...], Meta(min_length=1)]
    created: datetime
    revoked: datetime | None = None
    requests_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None  # of those that ask for pictures
    gpu_seconds_per_minute: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    jobs_max: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None  # waiting and running at one time
    weight: Annotated[float, Meta(ge=0.01, le=100)] = 1.0  # of its fair share

    @property
    def valid(self) -> bool:
        """Is it let in?"""
        return self.revoked is None

    @property
    def owner(self) -> str:
        """To whom its jobs belong."""
        return f"{OWNER_PREFIX}{self.name}"

    @property
    def terms(self) -> Terms:
        """What the router is to hold its jobs to."""
        return Terms(
            weight=self.weight, jobs_max=self.jobs_max or 0, gpu_seconds_per_minute=self.gpu_seconds_per_minute or 0.0
        )


class _File(Struct, forbid_unknown_fields=True):
    key: list[HttpKey] = []


# --- texts -------------------------------------------------------------------------------------


def key_text(secret: bytes) -> str:
    """The text of a key of SECRET_BYTES random bytes: prefix, secret, checksum."""
    assert len(secret) == SECRET_BYTES
    said = _digits(int.from_bytes(secret), SECRET_CHARS)
    return f"{PREFIX}{said}{_checksum(said)}"


def what_is_wrong(text: str) -> str:
    """Why this cannot be a key, in words that do not repeat it; '' where it can."""
    if not text.startswith(PREFIX):
        return f"it does not begin with {PREFIX}, as keys of GenServe do"
    if len(text) != KEY_CHARS:
        return f"it has {len(text)} characters and a key has {KEY_CHARS}: it was not copied whole"
    said, checksum = text[len(PREFIX) : -SUM_CHARS], text[-SUM_CHARS:]
    if any(char not in _DIGITS for char in said) or _checksum(said) != checksum:
        return "its checksum does not fit: a character is mistyped"
    return ""


def hash_of(text: str) -> str:
    """What the file has of a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _checksum(said: str) -> str:
    return _digits(zlib.crc32(said.encode()), SUM_CHARS)


def _digits(number: int, count: int) -> str:
    digits = ""
    for _ in range(count):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


# --- the file ----------------------------------------------------------------------------------


def parse_http_keys(text: str, where: str) -> tuple[HttpKey, ...]:
    """The entries of the file `where`. Raises SettingsError that says what is wrong, and in which entry."""
    try:
        entries = msgspec.convert(tomllib.loads(text), _File).key
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{where} is no TOML: {error}") from None
    except msgspec.ValidationError as error:
        said = re.sub(r"\$\.key\[(\d+)\]", lambda found: f"entry {int(found[1]) + 1}", str(error))
        raise SettingsError(f"{where}: {said}") from None
    if len(entries) > HTTP_KEYS_MAX:
        raise SettingsError(f"{where} has {len(entries)} keys; at most {HTTP_KEYS_MAX} are read: take out revoked ones")
    for number, entry in enumerate(entries, start=1):
        try:
            check_name(entry.name)
        except SettingsError as error:
            raise SettingsError(f"{where}, entry {number}: {error.message}") from None
    for what, counts in (
        ("name", Counter(entry.name for entry in entries if entry.valid)),
        ("sha256", Counter(entry.sha256 for entry in entries)),
    ):
        double = next((value for value, times in counts.items() if times > 1), None)
        if double is not None:
            raise SettingsError(f"{where}: the {what} {double} stands twice: take out or revoke all entries but one")
    return tuple(entries)


def render_http_keys(entries: Sequence[HttpKey]) -> str:
    """The text of the file."""
    return HEAD + "".join(f"\n[[key]]\n{render_table(msgspec.structs.asdict(entry))}" for entry in entries)
