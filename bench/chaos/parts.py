"""The processes under test, kept running as systemd or `genserve up` would keep them, and the signals they get.

A part that ends is started again after RESTART_S. What it ended with is held against what was done to it: an
end that nobody asked for is a fault of the product.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil

from common.clock import monotonic_s, wall_s
from common.process import EXIT_CONFIG, EXIT_OK
from genserve.parts import Part, command_line

RESTART_S = 0.2
LOOK_S = 0.02
GONE_WITHIN_S = 5.0  # an engine, after its daemon was killed

T = TypeVar("T")


class Kept:
    """One part: its present process, its past ones, and how each of them ended."""

    def __init__(self, part: Part, env: Mapping[str, str], folder: Path) -> None:
        self.part = part
        self.name = part.name
        self.lock = asyncio.Lock()  # one trouble of this process at a time
        self.engine_lock = asyncio.Lock()  # and one of its engine, where it has one
        self.lives = 0
        self.surprises: list[tuple[int, float]] = []  # ends that nobody asked for: (status, wall seconds)
        self.log_path = folder / f"{part.name}.log"
        self._env = dict(env)
        self._process: asyncio.subprocess.Process | None = None
        self._expected: set[int] = set()  # statuses that the present process may end with
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._stopping = False
        self._engines: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        """Of the present process; 0 while there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def keep(self) -> None:
        """Start it, and start it again whenever it has ended, until `end`."""
        while not self._stopping:
            await self._may_run.wait()
            with self.log_path.open("ab") as log:
                self._expected = set()
                self._process = await asyncio.create_subprocess_exec(
                    *command_line(self.part, os.getpid()),
                    env=self._env,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
            self.lives += 1
            status = await self._process.wait()
            if status not in self._expected:
                self.surprises.append((status, wall_s()))
            if status == EXIT_CONFIG:  # a person must mend something first
                return
            await asyncio.sleep(RESTART_S)

    async def alive(self) -> int:
        """Its process id, as soon as there is one."""
        return await until(lambda: self.pid)

    def hold(self) -> None:
        """Start it no more when it ends, as if its host were gone."""
        self._may_run.clear()

    def release(self) -> None:
        """It may run again."""
        self._may_run.set()

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL, may_end_with={-signal.SIGKILL})

    def terminate(self) -> None:
        """SIGTERM: it is to drain, and to end well. One that is just starting has no handler yet."""
        self._signal(signal.SIGTERM, may_end_with={EXIT_OK, -signal.SIGTERM})

    def may_end_with(self, status: int) -> None:
        """What is done to the present process may make it end so."""
        self._expected.add(status)

    async def ended(self) -> None:
        """Until the present process has ended, if there is one."""
        if self._process is not None:
            await self._process.wait()

    async def end(self) -> None:
        """Stop it for good, in order."""
        self._stopping = True
        self._may_run.set()
        if self.pid:
            self.terminate()
            await self.ended()

    def end_at_once(self) -> None:
        """Leave nothing running, whatever happened."""
        self._stopping = True
        for engine in self._engines.values():
            with suppress(psutil.NoSuchProcess):
                engine.kill()
        if self.pid:
            self.kill()

    def log_lines(self, *words: str) -> list[str]:
        """Lines of its log that hold one of `words`."""
        text = self.log_path.read_text("utf-8", errors="replace") if self.log_path.exists() else ""
        return [line for line in text.splitlines() if any(word in line for word in words)]

    # --- of a GPU daemon -----------------------------------------------------------------------

    def engine(self) -> psutil.Process | None:
        """The engine process of this daemon, if there is one just now."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children() if self.pid else ():
                if child.status() != psutil.STATUS_ZOMBIE:  # a daemon has no other children
                    self._engines[child.pid] = child
                    return child
        return None

    async def living_engine(self) -> psutil.Process:
        """Its engine, as soon as there is one."""
        return await until(self.engine)

    async def left_behind(self) -> list[int]:
        """Engines of it that still run, although it has ended."""
        give_up = monotonic_s() + GONE_WITHIN_S
        while left := [pid for pid, engine in self._engines.items() if _lives(engine)]:
            if monotonic_s() > give_up:
                break
            await asyncio.sleep(LOOK_S)
        return left

    def _signal(self, signal_: signal.Signals, *, may_end_with: set[int]) -> None:
        if self._process is not None and self._process.returncode is None:
            self._expected |= may_end_with
            with suppress(ProcessLookupError):
                self._process.send_signal(signal_)


async def until(found: Callable[[], T | None]) -> T:
    """The first true value that is found."""
    while True:
        if value := found():
            return value
        await asyncio.sleep(LOOK_S)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
