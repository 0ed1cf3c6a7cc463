"""Key files: one small TOML text a peer, with its name, its role, its CURVE key pair and the router's public key.

Here they are made, written (mode 0600), found and read. A file that others may read is refused: its secret is one no
more. Files under $CREDENTIALS_DIRECTORY are guarded by systemd, which sets their modes. A secret is never shown.
"""

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import zmq
from msgspec import Struct
from zmq.utils import z85

from common.errors import SettingsError
from common.http_keys import HttpKey, parse_http_keys
from common.peers import PEERS_BYTES_MAX, PeerEntry, parse_peers, render_table
from common.roles import Role

KEY_BYTES_MAX = 4096
CREDENTIALS = "CREDENTIALS_DIRECTORY"
DEFAULT_FOLDER = Path("/etc/genserve/keys")
SERVER_FILE, GATEWAY_FILE, DAEMON_FILE, CLIENT_FILE = "server.key", "gateway.key", "daemon.key", "client.key"


class KeyFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key with its secret. `router_public_key` is whom its owner connects to; '' in the router's own."""

    name: str
    role: Role | Literal["server"]
    public_key: str
    secret_key: str
    router_public_key: str = ""

    def __repr__(self) -> str:
        """Without the secret, wherever it may be shown."""
        return f"<{self.role} key {self.name!r} {self.public_key}>"

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Likewise, on a terminal."""
        return [("name", self.name), ("role", self.role)]


def new_key(name: str, role: Role | Literal["server"], router_public_key: str = "") -> KeyFile:
    """A key that never was before."""
    public, secret = zmq.curve_keypair()
    return KeyFile(
        name=name,
        role=role,
        public_key=public.decode(),
        secret_key=secret.decode(),
        router_public_key=router_public_key,
    )


def render_key(key: KeyFile) -> str:
    """The text of a key file."""
    whose = "The router's own key" if key.role == "server" else f"The {key.role} key {key.name!r}"
    head = f"# {whose}. Whoever reads this file can pass for it: keep it secret (chmod 600).\n"
    values = {name: value for name, value in msgspec.structs.asdict(key).items() if value}
    return head + render_table(values)


def write_key(path: Path, key: KeyFile) -> None:
    """Make the file, for its owner's eyes alone. Raises FileExistsError, OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(render_key(key).encode())
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def read_key(path: Path, *, roles: tuple[str, ...] = (), guarded: bool = False) -> KeyFile:
    """The key in `path`. `guarded`: systemd sees to who may read it.

    Raises SettingsError for a file that is missing, readable by others, damaged, or of none of `roles`.
    """
    text = _read_secret(path, guarded=guarded)
    try:
        key = msgspec.convert(tomllib.loads(text), KeyFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SettingsError(f"{path} is no key file as `genserve keys` writes them: {error}") from None
    try:
        matches = zmq.curve_public(key.secret_key.encode()).decode() == key.public_key
        if key.role != "server":
            raw_key(key.router_public_key)
    except (ValueError, zmq.ZMQError):
        matches = False
    if not matches:
        raise SettingsError(f"{path} is damaged: its keys do not belong together; copy it again or make a new one")
    if roles and key.role not in roles:
        raise SettingsError(
            f"{path} is a {key.role} key ({key.name}); here a key of the role {' or '.join(roles)} is needed"
        )
    return key


def _read_secret(path: Path, *, guarded: bool) -> str:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise SettingsError(f"{path} is no file")
            if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) and not guarded:
                raise SettingsError(
                    f"others may read {path} (mode {stat.S_IMODE(found.st_mode):04o}), so it may be known already: "
                    f"chmod 600 {path}; if it lay so on a shared machine, revoke the key and make a new one"
                )
            data = file.read(KEY_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError(f"the key file {path} cannot be read: {error.strerror}") from None
    try:
        return data[:KEY_BYTES_MAX].decode()
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is no key file: it is no text") from None


def raw_key(text: str) -> bytes:
    """The 32 bytes of a key. Raises ValueError where it is none."""
    try:
        raw: bytes = z85.decode(text.encode("ascii"))
    except Exception as error:  # Z85 has no error of its own
        raise ValueError("no Z85 text of 40 characters") from error
    if len(raw) != 32:
        raise ValueError("no Z85 text of 40 characters")
    return raw


def show_key(raw: bytes) -> str:
    """The text of a key's 32 bytes."""
    text: bytes = z85.encode(raw)
    return text.decode()


def find_key(setting: str, env: Mapping[str, str], name: str) -> tuple[Path, bool] | None:
    """Where the key of this process lies, and whether systemd guards it; None: there is none.

    The file that the setting names, else `name` among systemd's credentials where it is there.
    """
    folder = env.get(CREDENTIALS, "")
    if setting:
        return Path(setting), bool(folder) and Path(setting).parent == Path(folder)
    if folder and (path := Path(folder, name)).exists():
        return path, True
    return None


def load_key(setting: str, env: Mapping[str, str], name: str, *roles: str) -> KeyFile | None:
    """The key of this process; None: it has none, and speaks without CURVE. Raises SettingsError."""
    found = find_key(setting, env, name)
    return None if found is None else read_key(found[0], roles=roles, guarded=found[1])


def load_client_key(setting: str, env: Mapping[str, str]) -> KeyFile | None:
    """The key of the operator's commands: as load_key, else this host's own, where the caller may read it."""
    default = DEFAULT_FOLDER / CLIENT_FILE
    if not setting and find_key("", env, CLIENT_FILE) is None and os.access(default, os.R_OK):
        setting = str(default)
    return load_key(setting, env, CLIENT_FILE, "client", "gateway", "admin")


def read_peers(path: Path) -> tuple[PeerEntry, ...]:
    """The peers file. Raises SettingsError where it is missing or wrong."""
    try:
        text = _read_list(path)
    except OSError as error:
        raise SettingsError(
            f"the peers file {path} cannot be read: {error.strerror}; `genserve keys init` makes it, "
            "and router.peers_file says where it is"
        ) from None
    entries = parse_peers(text, str(path))
    for entry in entries:
        try:
            raw_key(entry.public_key)
        except ValueError:
            raise SettingsError(f"{path}: the public_key of {entry.name!r} is no key: it is damaged") from None
    return entries


def read_http_keys(path: Path) -> tuple[HttpKey, ...]:
    """The keys of HTTP. Raises SettingsError where the file is missing, wrong, or others may write it."""
    try:
        found = path.stat()
        text = _read_list(path)
    except OSError as error:
        raise SettingsError(
            f"the keys of HTTP, {path}, cannot be read: {error.strerror}; `genserve keys add-http NAME` makes the "
            "first one, and gateway.http_keys_file says where they are"
        ) from None
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError(
            f"others may write {path} (mode {stat.S_IMODE(found.st_mode):04o}), and so let in whom they like: "
            f"look through it, then chmod 644 {path}"
        )
    return parse_http_keys(text, str(path))


def need_http_keys(path: Path) -> tuple[HttpKey, ...]:
    """The same where somebody must be let in. Raises SettingsError where nobody is."""
    entries = read_http_keys(path)
    if not any(entry.valid for entry in entries):
        raise SettingsError(f"{path} lets nobody in: `genserve keys add-http NAME` makes a key")
    return entries


def _read_list(path: Path) -> str:
    """The text of a public list. Raises OSError, and SettingsError where it is none."""
    with path.open("rb") as file:
        data = file.read(PEERS_BYTES_MAX + 1)
    if len(data) > PEERS_BYTES_MAX:
        raise SettingsError(f"{path} has more than {PEERS_BYTES_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is no text") from None
