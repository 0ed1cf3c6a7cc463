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
KEPT = (  # of the operator, or grown
    CONFIG,
    STATE,
    Path("/var/lib/genserve-gateway"),
    Path("/var/lib/genserve-gpu"),
    Path("/var/cache/genserve-gpu"),
)
CREDENTIALS = tuple(Path("/etc/credstore") / f"genserve.{name}.key" for name in ("server", "gateway", "daemon"))

TARGET = "genserve.target"
SLICE = "genserve.slice"
ROUTER = "genserve-router.service"
GATEWAY = "genserve-gateway.service"
GATEWAY_SOCKET = "genserve-gateway.socket"
_GPU, _SERVICE, _CUDA = "genserve-gpu@", ".service", "cuda:"
GPU_TEMPLATE = f"{_GPU}{_SERVICE}"

USERS = ("genserve-router", "genserve-gateway", "genserve-gpu")
GROUP = "genserve"

WANTS = (UNITS / "genserve.target.wants", UNITS / "sockets.target.wants", UNITS / "multi-user.target.wants")


def gpu_unit(device: str) -> str:
    """The unit of a device's daemon: 'genserve-gpu@0.service' of 'cuda:0', 'genserve-gpu@cpu:1.service' of 'cpu:1'."""
    return f"{_GPU}{device.removeprefix(_CUDA)}{_SERVICE}"


def device_of(unit: str) -> str:
    """The device of a GPU daemon's unit; '' for any other unit."""
    if not unit.startswith(_GPU):
        return ""
    instance = unit.removeprefix(_GPU).removesuffix(_SERVICE)
    return f"{_CUDA}{instance}" if instance.isdecimal() else instance


def by_number(device: str) -> tuple[str, int]:
    """Devices in the order in which people count them, e.g. cuda:2 before cuda:10."""
    kind, _, number = device.partition(":")
    return kind, int(number or 0)


def place_of(name: str) -> Path:
    """Where a file of the shipped folder `systemd` goes on a host."""
    if name.endswith((".service", ".socket", ".target", ".slice")):
        return UNITS / name
    if "sysusers" in name:
        return SYSUSERS / "genserve.conf"
    if "tmpfiles" in name:
        return TMPFILES / "genserve.conf"
    raise SettingsError(f"the package holds systemd/{name}, which has no place on a host: install it anew")
