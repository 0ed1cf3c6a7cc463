"""Where HTTP is listened on, on a host whose gateway's socket systemd holds: what the settings say, and whether it can.

An address that others can reach needs keys first, as `genserve up --host` does. Looks and reports; changes nothing.
"""

import ipaddress
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

from common.errors import SettingsError
from common.keys import need_http_keys
from common.settings import DEFAULT_FILE, GatewaySettings, load_settings
from gateway.listener import needs_keys
from genserve.diagnose.listeners import Listener, listeners
from genserve.installation import checks, systemd
from genserve.installation.layout import GATEWAY, GATEWAY_SOCKET, KEYS
from genserve.parts import listening

GATEWAY_USER = "genserve-gateway"
INIT = 1


def gateway_settings(host: str | None) -> GatewaySettings:
    """The gateway's, with `host` where it is given; defaults where they are faulty, which `need_settings` tells of."""
    try:
        return load_settings(GatewaySettings, env={}, flags={"host": host}).settings
    except SettingsError:
        return GatewaySettings()


def http_address(settings: GatewaySettings) -> str:
    """As a socket unit names it: '127.0.0.1:12411', '[::]:12411'. Raises SettingsError for what it cannot hold."""
    said = settings.host
    try:
        address = ipaddress.ip_address("127.0.0.1" if said == "localhost" else said.strip("[]"))
    except ValueError:
        raise SettingsError(
            f"gateway.host = {said!r} is no address, and systemd does not look names up: say an address of this host, "
            "or 0.0.0.0 for all of them"
        ) from None
    if settings.port == 0:
        raise SettingsError("gateway.port = 0: a service is found at a port of its own, e.g. 12411")
    return f"[{address}]:{settings.port}" if address.version == 6 else f"{address}:{settings.port}"


def need_one_host(given: str | None) -> Iterator[str]:
    """A flag does not stand against the operator's file, which no command writes over."""
    if given is None or not DEFAULT_FILE.exists():
        return
    if (set_to := gateway_settings(None).host) != given:
        yield (
            f"{DEFAULT_FILE} says gateway.host = {set_to!r}, not {given!r}: change it there, then `sudo genserve "
            "upgrade` where GenServe is installed already"
        )


def need_door(settings: GatewaySettings) -> Iterator[str]:
    """The address is this host's and free, and who may use it is said. Raises SettingsError for what is no address."""
    yield from _need_address(http_address(settings))
    if needs_keys(settings):
        yield from _need_keys(settings, Path(settings.http_keys_file))


def moved() -> bool:
    """Does the socket, which is up, listen elsewhere than its unit says since it was read again?"""
    (unit,) = systemd.look_at([GATEWAY_SOCKET])
    return unit.wanted_up and not all(map(_is_listened_on, systemd.listens(GATEWAY_SOCKET)))


def _need_address(wanted: str) -> Iterator[str]:
    host, _, port = wanted.rpartition(":")
    there = listeners(int(port))
    ours = [listener for listener in there if _is_the_gateways(listener)]
    if _bare(host) in {listener.address for listener in ours}:
        return
    try:
        listening(host, 0).close()
    except OSError as error:
        yield f"gateway.host = {host} cannot be listened on ({error.strerror}): say an address of this host, or 0.0.0.0"
        return
    if ours or (os.geteuid() != 0 and any(not listener.pid for listener in there)):  # whose it is, root alone sees
        return
    yield from checks.need_free({"gateway.port": wanted})


def _is_the_gateways(listener: Listener) -> bool:
    """Is it held by the installed gateway, or by systemd for it?"""
    try:
        return listener.pid == INIT or f"/{GATEWAY}\n" in Path(f"/proc/{listener.pid}/cgroup").read_text("utf-8")
    except OSError:  # it has ended
        return False


def _is_listened_on(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return any(listener.address == _bare(host) for listener in listeners(int(port)))


def _bare(host: str) -> str:
    return str(ipaddress.ip_address(host.strip("[]")))


def _need_keys(settings: GatewaySettings, path: Path) -> Iterator[str]:
    why = f"gateway.host = {settings.host!r} with gateway.auth = {settings.auth!r} asks everybody for a key"
    faults = [*checks.told(lambda: need_http_keys(path))]
    yield from (f"{why}: {fault}" for fault in faults)
    if faults:
        return
    hidden = (*checks.HIDDEN, str(KEYS))
    if (top := next((top for top in hidden if path.resolve().is_relative_to(top)), None)) is not None:
        yield f"gateway.http_keys_file = {path} lies in {top}, which the gateway does not see: move it to /etc/genserve"
    elif os.geteuid() == 0 and not _gateway_reads(path):
        yield f"{GATEWAY_USER} cannot read {path}: chmod 644 {path}, in a folder that others may enter"


def _gateway_reads(path: Path) -> bool:
    try:
        user = pwd.getpwnam(GATEWAY_USER)
        uid, gid, groups = user.pw_uid, user.pw_gid, os.getgrouplist(GATEWAY_USER, user.pw_gid)
    except KeyError:  # it is made by this installation
        uid, gid, groups = checks.NOBODY, checks.NOBODY, []
    words = ("test", "-r", str(path))
    return subprocess.run(words, user=uid, group=gid, extra_groups=groups, check=False).returncode == 0  # noqa: S603  # fixed words, no shell
