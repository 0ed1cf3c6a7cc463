"""One gateway follows another on the same socket: systemctl reload, at SIGHUP.

The old one starts the next from its own command line, hence with the code and the settings that are installed now.
When that one listens, systemd is told whom to watch from now on, and the old one drains. So nobody waits and nobody is
lost; and a next one that cannot start changes nothing. It is no child of the old one, so that systemd hears of its end.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

from common.log import get_logger
from common.notify import Systemd

VARIABLE = (
    "GATEWAY_HANDOVER"  # the descriptors of the socket that is listened on, and of the one to speak with the old one
)
START_S_MAX = 45.0
GO_S_MAX = 5.0
WORD_BYTES_MAX = 32
GO = b"go"
_NOT_HANDED_ON = frozenset({"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "RUNTIME_DIRECTORY"})
_LAUNCH = "import os, sys\nif os.fork(): os._exit(0)\nos.execv(sys.argv[1], sys.argv[1:])"


async def hand_over(listener: socket.socket, systemd: Systemd, stop: asyncio.Event) -> bool:
    """Start the next gateway on `listener`; has it taken over? False as well where `stop` comes first."""
    log = get_logger()
    log.info("gateway.handing_over")
    systemd.tell(RELOADING=1, STATUS="starting the next gateway")
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        starting = asyncio.ensure_future(_start(listener, ours, theirs))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        starting.cancel()
        (pid, _) = await asyncio.gather(starting, stopping, return_exceptions=True)
        if stop.is_set():
            return False
        if not isinstance(pid, int) or not pid:
            log.error("gateway.handover_failed", cause=_cause(pid))
            systemd.tell(READY=1, STATUS="the next gateway could not start: see the journal; this one goes on")
            return False
        systemd.tell(MAINPID=pid, READY=1)
        with suppress(OSError):  # it has taken over even if it is gone already: systemd will see to that
            await asyncio.get_running_loop().sock_sendall(ours, GO)
    log.info("gateway.handed_over", pid=pid)
    return True


def _cause(outcome: object) -> str:
    if isinstance(outcome, TimeoutError):
        return f"the next gateway did not listen within {START_S_MAX:g} s"
    if isinstance(outcome, Exception):
        return f"the next gateway could not be started: {outcome}"
    return "the next gateway ended before it listened; its last lines say why"


async def _start(listener: socket.socket, ours: socket.socket, theirs: socket.socket) -> int:
    """The process id of the next gateway once it listens; 0 where it has ended before. Raises TimeoutError."""
    env = {name: value for name, value in os.environ.items() if name not in _NOT_HANDED_ON}
    env[VARIABLE] = f"{listener.fileno()}:{theirs.fileno()}"
    command = [sys.executable, *sys.orig_argv[1:]]
    with theirs:
        launcher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LAUNCH, *command),
            env=env,
            pass_fds=(listener.fileno(), theirs.fileno()),
            stdin=subprocess.DEVNULL,
        )
        await launcher.wait()
    async with asyncio.timeout(START_S_MAX):
        said = await asyncio.get_running_loop().sock_recv(ours, WORD_BYTES_MAX)
    return int(said or 0)


class Predecessor:
    """The gateway that this one follows."""

    def __init__(self, listening: int, speaking: int) -> None:
        self.listening = listening  # the descriptor of the socket
        self._socket = socket.socket(fileno=speaking)

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self | None:
        """None where this one follows nobody."""
        listening, _, speaking = env.get(VARIABLE, "").partition(":")
        return cls(int(listening), int(speaking)) if speaking else None

    async def relieve(self) -> bool:
        """Say that we listen, and wait until systemd knows; False where the old one has given up on us."""
        loop = asyncio.get_running_loop()
        self._socket.setblocking(False)
        with self._socket:
            try:
                async with asyncio.timeout(GO_S_MAX):
                    await loop.sock_sendall(self._socket, str(os.getpid()).encode())
                    return await loop.sock_recv(self._socket, WORD_BYTES_MAX) == GO
            except OSError:
                return False
