"""Who listens on a TCP port of this machine: told by the kernel, and by how whoever listens speaks.

Processes of other users are seen by root alone.
"""

import http.client
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENING = "0A"
ANSWERS_WITHIN_S = 1.0
GREETING_BYTES = 10
GREETING = b"\xff" + bytes(7) + b"\x01\x7f"  # ZMTP's signature
BODY_BYTES_MAX = 65536


@dataclass(frozen=True)
class Listener:
    """A socket that listens; `pid` 0 where its process is not to be seen."""

    address: str
    port: int
    pid: int
    command: str

    def __str__(self) -> str:
        who = f"{self.command} (pid {self.pid})" if self.pid else "a process that is not yours"
        return f"{who} on {self.address}:{self.port}"

    @property
    def ours(self) -> bool:
        """Is it surely a part of GenServe?"""
        return self.command.startswith("genserve ")


def listeners(port: int) -> list[Listener]:
    """All that listen on this port, on whatever address."""
    found = [(address, inode) for address, there, inode in _sockets() if there == port]
    owners = _owners({inode for _, inode in found}) if found else {}
    return [Listener(address, port, *owners.get(inode, (0, ""))) for address, inode in found]


def _sockets() -> Iterator[tuple[str, int, str]]:
    for table in TABLES:
        with suppress(OSError):  # a kernel without IPv6 has no such table
            for line in table.read_text("ascii").splitlines()[1:]:
                words = line.split()
                if words[3] == LISTENING:
                    address, _, port = words[1].partition(":")
                    yield _address(address), int(port, 16), words[9]


def _address(text: str) -> str:
    raw = bytes.fromhex(text)
    words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return str(ipaddress.ip_address(words))


def _owners(inodes: set[str]) -> dict[str, tuple[int, str]]:
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners: dict[str, tuple[int, str]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        for descriptor in _descriptors(process):
            with suppress(OSError):  # it is closed by now
                if inode := wanted.get(str(descriptor.readlink())):
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                    owners[inode] = (int(process.name), _short(command) or (process / "comm").read_text().strip())
    return owners


def _descriptors(process: Path) -> list[Path]:
    try:
        return list((process / "fd").iterdir())
    except OSError:  # it has ended, or is another user's
        return []


def _short(command: str) -> str:
    words = command.split()
    if "genserve" in words[1:4] and "-m" in words:  # python -P -m genserve router …
        words = words[words.index("genserve") :]
    return " ".join([Path(words[0]).name, *words[1 : 3 if words[1:2] == ["-m"] else 2]]) if words else ""


def speaks_zeromq(host: str, port: int) -> bool:
    """Does it greet as ZeroMQ does?"""
    with suppress(OSError), socket.create_connection((host, port), ANSWERS_WITHIN_S) as connection:
        connection.settimeout(ANSWERS_WITHIN_S)
        greeting = connection.recv(GREETING_BYTES)
        return greeting[:1] == b"\xff" and (len(greeting) < GREETING_BYTES or greeting[9:10] == b"\x7f")
    return False


def speaks_otherwise(host: str, port: int) -> bool:
    """Does it answer ZeroMQ's greeting with what is none? False where nobody listens, or nothing is said."""
    try:
        with socket.create_connection((host, port), ANSWERS_WITHIN_S) as connection:
            connection.settimeout(ANSWERS_WITHIN_S)
            connection.sendall(GREETING)
            return connection.recv(1) != GREETING[:1]
    except ConnectionResetError:
        return True
    except OSError:
        return False


def get(host: str, port: int, path: str) -> str:
    """The body of what a GET gives, whatever its status; '' where nobody answers in HTTP."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWERS_WITHIN_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read(BODY_BYTES_MAX).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
