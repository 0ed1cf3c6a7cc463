"""The secret that signs links to pictures: given, or made once and kept, so that links outlive the gateway.

It lies in a file that its owner alone may read. Where none can be kept the gateway still serves, and says so.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex

from common.errors import SettingsError
from common.log import get_logger

NAME = "link.secret"
DIGITS = 64
_SECRET = re.compile(rf"[0-9a-fA-F]{{{DIGITS}}}\s*")


def link_secret(setting: str, env: Mapping[str, str]) -> bytes:
    """The secret of the file that `setting` names, else of systemd's credential, else one that is kept; b'' is none.

    Raises SettingsError for a file that is named and does not serve.
    """
    credential = Path(env.get("CREDENTIALS_DIRECTORY", ""), NAME)
    if setting:
        return _read(Path(setting), guarded=bool(credential.parent.name) and credential.parent == Path(setting).parent)
    if env.get("CREDENTIALS_DIRECTORY") and credential.exists():
        return _read(credential, guarded=True)
    path = _folder(env) / NAME
    try:
        if not path.exists():
            _make(path)
        return _read(path, guarded=False)
    except OSError as error:
        get_logger().warning("links.not_kept", path=str(path), cause=error.strerror or str(error))
        return b""


def _folder(env: Mapping[str, str]) -> Path:
    if given := env.get("STATE_DIRECTORY", ""):
        return Path(given.split(":")[0])
    base = env.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path("~/.local/state").expanduser()) / "genserve"


def _make(path: Path) -> None:
    """Write it whole, or leave the one that another gateway has made meanwhile."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mine = path.with_name(f"{NAME}.{token_hex(8)}")
    descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token_hex(DIGITS // 2)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(mine)
        except FileExistsError:
            return
    finally:
        mine.unlink()


def _read(path: Path, *, guarded: bool) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(2 * DIGITS).decode("ascii", errors="replace")
    except OSError as error:
        raise SettingsError(f"the secret for links {path} cannot be read: {error.strerror}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and not guarded:
        raise SettingsError(
            f"others may read {path} (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}, or remove it for a new one, "
            "which ends the links that there are"
        )
    if not _SECRET.fullmatch(text):
        raise SettingsError(f"{path} is no secret for links: it must hold {DIGITS} hexadecimal digits")
    return bytes.fromhex(text.strip())
