"""Tells systemd how this process stands: READY, STATUS, WATCHDOG, EXTEND_TIMEOUT_USEC, STOPPING (sd_notify(3)).

One datagram socket for the process's life. It never waits and never raises: a service does its work whether or not
anybody listens. What could not be told is told at the next turn, and that it could not be is logged once.
"""

import os
import socket
from collections.abc import Callable, Mapping

from common.health import Check, Standing, Watchdog
from common.log import get_logger

LOOK_INTERVAL_S = 1.0  # between two looks at how the process stands


class Systemd:
    """The process's word to whoever started it. Does nothing where that was not systemd."""

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self._log = get_logger()
        address = env.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_UNIX, kind)
        self._watchdog = Watchdog(_watchdog_s(env) if address else 0.0)
        self._complaint = ""  # of the watchdog's checks, while it is not fed
        self._look_now = float("-inf")
        self._told: dict[str, str | int] = {}
        self._deaf = self._faulty = False

    def watch(self, checks: Mapping[str, Check]) -> None:
        """Add, by name, what must be well for the watchdog to be fed."""
        self._watchdog.watch(checks)

    def tend(self, now: float, standing: Callable[[], Standing]) -> None:
        """Say what is new: to be called from the process's own loop, once a second or oftener."""
        if self._socket is None:
            return
        fields: dict[str, str | int] = {}
        complaint = self._watchdog.look(now)
        if complaint == "":
            fields["WATCHDOG"] = 1
        if complaint is not None:
            self._notice(complaint)
        if now >= self._look_now:
            self._look_now = now + LOOK_INTERVAL_S
            fields |= self._news(standing)
        if fields:
            self.tell(**fields)

    def tell(self, **fields: str | int) -> bool:
        """Send fields such as READY=1, STATUS='two GPUs ready'; False where nobody listens."""
        if self._socket is None:
            return False
        text = "\n".join(f"{name}={str(value).replace(chr(10), ' ')}" for name, value in fields.items())
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:
            if not self._deaf:
                self._log.warning("systemd.deaf", address=self._address, cause=error.strerror, unsaid=list(fields))
            self._deaf = True
            return False
        self._deaf = False
        self._told |= fields
        return True

    def end(self) -> None:
        """This process ends now, which is said where it has not been said before."""
        if "STOPPING" not in self._told:
            self.tell(STOPPING=1)
        self.close()

    def close(self) -> None:
        """Nothing more is to be said."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _notice(self, complaint: str) -> None:
        """Log where a check begins to complain; what it says may change with each turn."""
        if complaint and complaint.partition(":")[0] != self._complaint.partition(":")[0]:
            self._log.error("watchdog.withheld", cause=complaint)
        self._complaint = complaint

    def _news(self, standing: Callable[[], Standing]) -> dict[str, str | int]:
        """What systemd has not been told yet."""
        try:
            stands = standing()
        except Exception:  # a fault in telling must not end what is told of
            if not self._faulty:
                self._log.exception("status.fault")
            self._faulty = True
            return {}
        news: dict[str, str | int] = {}
        if stands.stopping:
            news["STOPPING"] = 1
        elif stands.usable:
            news["READY"] = 1
        news["STATUS"] = f"stuck: {self._complaint}" if self._complaint else stands.text
        news = {name: value for name, value in news.items() if self._told.get(name) != value}
        if stands.needs_s and ("STOPPING" in news if stands.stopping else "READY" not in self._told):
            news["EXTEND_TIMEOUT_USEC"] = int(stands.needs_s * 1_000_000)
        return news


def _watchdog_s(env: Mapping[str, str]) -> float:
    """The timeout of the watchdog that this very process must feed, 0 where there is none (sd_watchdog_enabled(3))."""
    usec, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 1_000_000
