"""A rolling restart of everything under load: SIGTERM and a new start, one part after another.

It is a trouble that must not be felt: no job may fail, none may be tried again, no request of a client that
repeats itself may stay without its picture.
"""

import asyncio

from bench.chaos.faults import Fault
from bench.chaos.fleet import Fleet
from bench.chaos.parts import Kept, until
from common.clock import monotonic_s, wall_s

PAUSE_S = 1.0  # between two parts, as a careful operator would wait


class Rolling:
    """Rounds over all parts."""

    rounds = 0

    def __init__(self, fleet: Fleet) -> None:
        self.faults: list[Fault] = []
        self.times_s: dict[str, list[float]] = {}
        self._fleet = fleet

    async def run(self, for_s: float) -> None:
        """Daemons, router, gateway, and again until so many seconds have passed; the last round is completed."""
        until_now = monotonic_s() + for_s
        while monotonic_s() < until_now:
            self.rounds += 1
            for part in (*self._fleet.daemons, self._fleet.parts["router"], self._fleet.parts["gateway"]):
                await self._restart(part)
                await asyncio.sleep(PAUSE_S)

    async def _restart(self, part: Kept) -> None:
        what = "daemon" if part in self._fleet.daemons else part.name
        fault, began = Fault(f"restart {what}", part.name, wall_s()), monotonic_s()
        self.faults.append(fault)
        lives = part.lives
        part.terminate()
        async with asyncio.timeout(part.part.stop_s):
            await until(lambda: part.lives > lives)
        await self._fleet.ready()
        fault.ended_at = wall_s()
        self.times_s.setdefault(f"restart {what}: from SIGTERM until all is ready", []).append(monotonic_s() - began)
