"""Two hosts on one machine: network namespaces joined by a wire that can be cut. Needs root and `ip`."""

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
ADDRESSES = ("10.77.0.1", "10.77.0.2")


def why_not() -> str:
    """Why two hosts cannot be played here; '' where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no ip command (Debian, Ubuntu: apt install iproute2)"
    probe = f"gs-{os.getpid()}-probe"
    tried = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces cannot be made here: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return ""


class TwoHosts:
    """Host 0 and host 1, at ADDRESSES."""

    def __init__(self) -> None:
        self.names = tuple(f"gs-{os.getpid()}-{number}" for number in (0, 1))
        self.wires = tuple(f"gs{os.getpid() % 1_000_000}w{number}" for number in (0, 1))

    def open(self) -> None:
        for name in self.names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", self.wires[0], "type", "veth", "peer", "name", self.wires[1])
        for name, wire, address in zip(self.names, self.wires, ADDRESSES, strict=True):
            _ip("link", "set", wire, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", wire)
            _ip("-n", name, "link", "set", wire, "up")

    def close(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def command(self, host: int, command: Sequence[str]) -> list[str]:
        """The same command, run on that host."""
        return ["ip", "netns", "exec", self.names[host], *command]

    def cut(self) -> None:
        """Nothing goes through any more, and nobody is told."""
        _ip("-n", self.names[1], "link", "set", self.wires[1], "down")

    def heal(self) -> None:
        _ip("-n", self.names[1], "link", "set", self.wires[1], "up")

    def on(self, host: int, call: Callable[[], T]) -> T:
        """What `call` returns in a thread of its own on that host. Sockets made there, and theirs, stay there."""
        outcome: list[Any] = []

        def run() -> None:
            try:
                _enter(self.names[host])
                outcome.extend((True, call()))
            except BaseException as error:
                outcome.extend((False, error))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if not outcome[0]:
            raise outcome[1]
        return outcome[1]


def _enter(name: str) -> None:
    """This thread, and those that it starts, are in that namespace from here on."""
    with Path("/run/netns", name).open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    """Both of them, gone afterwards."""
    hosts = TwoHosts()
    try:
        hosts.open()
        yield hosts
    finally:
        hosts.close()
