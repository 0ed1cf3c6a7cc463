"""The socket that HTTP is listened on: our own, or the one that systemd holds for us (sd_listen_fds(3)).

One that systemd holds is listened on while no gateway runs: who connects then waits for the next one. So only our
own copy of it is ever closed.
"""

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from common.errors import GenServeError, SettingsError
from common.keys import need_http_keys
from common.log import get_logger
from common.settings import GatewaySettings, Loaded
from common.sockets import is_loopback

LISTEN_BACKLOG = 1024
HELD_DESCRIPTOR = 3  # the first one that systemd hands over
WHO_MAY = (
    "say who may use it: `genserve keys add-http NAME` makes a key, and from the first one on every request needs one; "
    'or gateway.auth = "none" (--no-auth) lets in whoever reaches it'
)


def held_descriptor(env: Mapping[str, str]) -> int | None:
    """Of the socket that systemd holds and hands to this process; None where it does not."""
    if env.get("LISTEN_PID") != str(os.getpid()):
        return None
    if env.get("LISTEN_FDS") != "1":
        raise SettingsError(
            f"systemd hands over {env.get('LISTEN_FDS', 'no')} sockets, and the gateway listens on one: "
            "leave one ListenStream= in genserve-gateway.socket"
        )
    return HELD_DESCRIPTOR


def held_listener(loaded: Loaded[GatewaySettings], descriptor: int) -> socket.socket:
    """The socket behind it. Raises SettingsError where HTTP cannot be listened on there."""
    os.set_inheritable(descriptor, False)
    listener = socket.socket(fileno=descriptor)
    if (
        listener.family not in (socket.AF_INET, socket.AF_INET6)
        or listener.type != socket.SOCK_STREAM
        or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        raise SettingsError(
            "what systemd hands over is no TCP socket that is listened on: "
            "name an address and a port in genserve-gateway.socket, e.g. ListenStream=127.0.0.1:12411"
        )
    host, port = listener.getsockname()[:2]
    check_reach(loaded.settings, host, f"ListenStream={host}:{port} of genserve-gateway.socket")
    _warn_of_another(loaded, host, port)
    return listener


def needs_keys(settings: GatewaySettings) -> bool:
    """Does every request need a key?"""
    return settings.auth == "keys" or (settings.auth == "auto" and not is_loopback(settings.host))


def check_reach(settings: GatewaySettings, host: str, where: str) -> None:
    """Raise SettingsError for an address that others can reach where nobody said who may use it."""
    if is_loopback(host) or settings.auth == "none":
        return
    if not Path(settings.http_keys_file).exists():
        raise SettingsError(f"{where} could be reached from other machines, and there are no keys; {WHO_MAY}")
    if settings.auth == "auto" and is_loopback(settings.host):  # a socket that systemd holds
        raise SettingsError(
            f"{where} could be reached from other machines, and gateway.host = {settings.host!r} asks for no keys: "
            'set gateway.auth = "keys", or "none"'
        )
    need_http_keys(Path(settings.http_keys_file))


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises GenServeError for an address that is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        why = "is in use by another process" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise GenServeError("address_in_use", f"gateway.port = {port}: {host}:{port} {why}") from None
    return listener


def _warn_of_another(loaded: Loaded[GatewaySettings], host: str, port: int) -> None:
    """Settings that somebody made and that have no effect here are not passed over in silence."""
    named = {"localhost": "127.0.0.1"}.get(loaded.settings.host, loaded.settings.host.strip("[]"))
    for key, set_to, value in (("host", named, host), ("port", loaded.settings.port, port)):
        if loaded.sources.get(f"gateway.{key}", "default") != "default" and set_to != value:
            get_logger().warning(
                "gateway.address_ignored",
                message=f"gateway.{key} = {set_to} has no effect: systemd holds {host}:{port}; "
                "`sudo genserve upgrade` moves it, unless your own ListenStream= stands in the way (systemctl edit "
                "genserve-gateway.socket)",
            )
