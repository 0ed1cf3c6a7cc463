"""Where an installed GenServe lies on a host, and what its units are called.

Pure names; nothing is read or written here.
"""

from pathlib import Path

from common.errors import SettingsError

UNITS = Path("/etc/systemd/system")
SYSUSERS = Path("/etc/sysusers.d")
TMPFILES = Path("/etc/tmpfiles.d")
CONFIG = Path("/etc/genserve")
SETTINGS = CONFIG / "genserve.toml"
SETTINGS_NEW = CONFIG / "genserve.toml.new"
KEYS = CONFIG / "keys"
DAEMON_KEY = KEYS / "daemon.key"
STATE = Path("/var/lib/genserve")
KEPT = (CONFIG, STATE, Path("/var/lib/genserve-gpu"), Path("/var/cache/genserve-gpu"))  # of the operator, or grown
CREDENTIALS = tuple(Path("/etc/credstore") / f"genserve.{name}.key" for name in ("server", "gateway", "daemon"))

TARGET = "genserve.target"
SLICE = "genserve.slice"
ROUTER = "genserve-router.service"
GATEWAY = "genserve-gateway.service"
GATEWAY_SOCKET = "genserve-gateway.socket"
_GPU, _SERVICE = "genserve-gpu@", ".service"

USERS = ("genserve-router", "genserve-gateway", "genserve-gpu")
GROUP = "genserve"

WANTS = (UNITS / "genserve.target.wants", UNITS / "sockets.target.wants", UNITS / "multi-user.target.wants")


def gpu_unit(device: str) -> str:
    """The unit of the daemon of 'cuda:0', 'cpu' or 'cpu:1'."""
    return f"{_GPU}{device}{_SERVICE}"


def device_of(unit: str) -> str:
    """The device of a GPU daemon's unit; '' for any other unit."""
    return unit.removeprefix(_GPU).removesuffix(_SERVICE) if unit.startswith(_GPU) else ""


def place_of(name: str) -> Path:
    """Where a file of the shipped folder `systemd` goes on a host."""
    if name.endswith((".service", ".socket", ".target", ".slice")):
        return UNITS / name
    if "sysusers" in name:
        return SYSUSERS / "genserve.conf"
    if "tmpfiles" in name:
        return TMPFILES / "genserve.conf"
    raise SettingsError(f"the package holds systemd/{name}, which has no place on a host: install it anew")
