"""Under which names this service answers browsers where it asks for no keys.

Whoever owns a name may have it mean this machine's address, and a page that came under that name then speaks to this
service as to its own site (DNS rebinding). Names that nobody else can own are safe: IP addresses, localhost, this
machine's own; others the operator tells. Where keys are asked for a page gains nothing, and any name will do.
"""

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from common.sockets import is_loopback

ANY = "*"
LOOPBACK = "localhost, 127.0.0.1, [::1]"


class HostNames:
    """Decides for one gateway. Pure once it is made."""

    def __init__(self, bound: str, allowed: Iterable[str], machine: str = "") -> None:
        """`bound`: what it listens on; `allowed`: gateway.allowed_hosts; `machine`: its name, as it calls itself."""
        machine = (machine or socket.gethostname()).lower()
        label = machine.partition(".")[0]
        self._loopback_only = is_loopback(bound)
        self._names = frozenset(name.lower().rstrip(".") for name in allowed)
        self._own = frozenset() if self._loopback_only else frozenset({machine, label, f"{label}.local"})

    def answers(self, host: str) -> bool:
        """Is `host`, as in the header, one of them? A port in it says nothing."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if ANY in self._names or name in self._names or name in self._own or is_loopback(name):
            return True
        return not self._loopback_only and _is_address(name)

    def told(self) -> str:
        """The names, for a person."""
        more = [] if self._loopback_only else ["this machine's addresses", *sorted(self._own)]
        return ", ".join([LOOPBACK, *more, *sorted(self._names)])


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
