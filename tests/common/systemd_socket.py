"""What systemd would be told: a NOTIFY_SOCKET that is read by tests."""

import socket
from pathlib import Path
from typing import Self

from tests.service import wait_for


class NotifySocket:
    """Bound in `folder`; `env` makes a process tell it, with a watchdog of `watchdog_s`."""

    def __init__(self, folder: Path, watchdog_s: float = 0.0, *, pid: int | None = None) -> None:
        self.path = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self.env = {"NOTIFY_SOCKET": self.path}
        if watchdog_s:
            self.env["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        if pid is not None:
            self.env["WATCHDOG_PID"] = str(pid)
        self.heard: list[dict[str, str]] = []  # each datagram, ever

    def read(self) -> list[dict[str, str]]:
        """The datagrams since the last call."""
        fresh = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                break
            fresh.append(dict(line.split("=", 1) for line in data.decode().split("\n")))
        self.heard += fresh
        return fresh

    def values(self, name: str) -> list[str]:
        """What was said of one field until now, in order."""
        self.read()
        return [fields[name] for fields in self.heard if name in fields]

    def wait(self, name: str, text: str = "", within_s: float = 30.0) -> str:
        """The first value of `name` with `text` in it."""
        found: list[str] = wait_for(
            f"{name} with {text!r}", lambda: [value for value in self.values(name) if text in value], within_s
        )
        return found[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        Path(self.path).unlink()
