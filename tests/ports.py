"""Ports for what the tests start. Each test process has a range of its own, and none is handed out twice in a row.

All lie below those that the system gives to connections (ip_local_port_range begins at 32768): a port that is free
when it is chosen is still free when a process listens on it, or listens on it again.
"""

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache

FIRST, END = 20_000, 32_000
RANGE = 400  # ports of one process


@cache
def _mine() -> tuple[socket.socket, Iterator[int]]:
    """The lock of this process's range, an abstract Unix address that goes with the process, and its ports."""
    for base in range(FIRST, END, RANGE):
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0genserve-tests-ports-{base}")
        except OSError:
            lock.close()
            continue
        return lock, itertools.cycle(range(base, base + RANGE))
    raise AssertionError(f"more than {(END - FIRST) // RANGE} test processes at one time")


def free_ports(count: int = 3) -> int:
    """The first of `count` neighbouring ports of 127.0.0.1 that nobody listens on."""
    _, ports = _mine()
    for _ in range(RANGE):
        base = next(ports)
        with ExitStack() as held:
            try:
                for port in range(base, base + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        for _ in range(count - 1):
            next(ports)
        return base
    raise AssertionError("no free ports")


def free_endpoint() -> str:
    """A ZeroMQ endpoint that nobody is bound to, and that may be bound to again."""
    return f"tcp://127.0.0.1:{free_ports(1)}"
