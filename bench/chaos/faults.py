"""The trouble: every kind of it, at random moments, by seed; each written down with its target and its time.

No two troubles of one process overlap, but those of several do, as they please. What is stopped goes on,
what is filled is freed, what is killed is started again by its keeper: nothing is left broken on purpose.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from bench.chaos.fleet import Fleet
from bench.chaos.parts import Kept
from bench.chaos.proxy import Connection, Proxy, Way
from common.clock import monotonic_s, wall_s
from common.messages import WorkerView

DISK_FULL = "disk full"
AT_ONCE_MAX = 6  # troubles at one time
HALF_OPEN_S = (2.0, 12.0)
SLOW_S = (3.0, 12.0)
DISK_FULL_S = (3.0, 8.0)
AFTER_KILL_S = (0.0, 3.0)  # before the next trouble of the same part
BACK_WITHIN_S = 60.0
POISON_ENGINES = 2
POISON_WITHIN_S = 10.0
LOOK_S = 0.02


@dataclass(slots=True)
class Fault:
    """One trouble. Times are wall seconds."""

    kind: str
    target: str  # a part, a proxy or 'disk'
    began_at: float
    ended_at: float = float("inf")


Cause = Callable[[], Awaitable[None]]


class Storm:
    """All troubles of one run."""

    def __init__(self, fleet: Fleet, *, stops_s: Sequence[float], seed: int) -> None:
        self.faults: list[Fault] = []
        self.router_back_s: list[float] = []  # from kill -9 until a new client is answered
        self.went_wrong: list[str] = []
        self._fleet = fleet
        self._rng = random.Random(f"faults {seed}")
        self._room = asyncio.Semaphore(AT_ONCE_MAX)
        self._links = {name: asyncio.Lock() for name in (*fleet.proxies, "disk")}
        self.kinds: dict[str, Cause] = {
            "kill -9 router": self._kill_router,
            "kill -9 daemon": lambda: self._kill("kill -9 daemon", self._daemon()),
            "kill -9 engine": self._kill_engine,
            "kill -9 engines of a job": self._poison,
            "kill -9 gateway": lambda: self._kill("kill -9 gateway", fleet.parts["gateway"]),
            DISK_FULL: self._fill_disk,
            "SIGTERM router": lambda: self._terminate("SIGTERM router", fleet.parts["router"]),
            "SIGTERM daemon": lambda: self._terminate("SIGTERM daemon", self._daemon()),
            "SIGTERM gateway": lambda: self._terminate("SIGTERM gateway", fleet.parts["gateway"]),
        }
        for seconds in stops_s:
            for what in ("router", "daemon", "engine", "gateway"):
                self.kinds[f"SIGSTOP {seconds:g} s {what}"] = self._stopping(what, seconds)
        for who in ("daemon", "gateway", "raw clients"):
            self.kinds[f"TCP cut {who}"] = self._on_link(f"TCP cut {who}", who, self._cut)
            self.kinds[f"half-open {who}"] = self._on_link(f"half-open {who}", who, self._half_open)
            self.kinds[f"slow reader {who}"] = self._on_link(f"slow reader {who}", who, self._slow)

    async def rage(self, count: int, over_s: float) -> None:
        """`count` troubles spread over `over_s` or, where they last long, a little more; until they are over."""
        began, moments = monotonic_s(), sorted(self._rng.uniform(0, over_s) for _ in range(count))
        async with asyncio.TaskGroup() as group:
            for kind, at_s in zip(self._deck(count), moments, strict=True):
                await asyncio.sleep(max(0.0, began + at_s - monotonic_s()))
                await self._room.acquire()
                group.create_task(self._one(kind))

    def _deck(self, count: int) -> list[str]:
        """Every kind as often as any other, in a random order."""
        deck: list[str] = []
        while len(deck) < count:
            deck += self._rng.sample(list(self.kinds), len(self.kinds))
        return deck[:count]

    async def _one(self, kind: str) -> None:
        try:
            await self.kinds[kind]()
        except (TimeoutError, ProcessLookupError, psutil.NoSuchProcess) as error:
            self.went_wrong.append(f"{kind}: {type(error).__name__} {error}")
        finally:
            self._room.release()

    # --- processes -----------------------------------------------------------------------------

    def _daemon(self) -> Kept:
        return self._rng.choice(self._fleet.daemons)

    def _begin(self, kind: str, target: str) -> Fault:
        fault = Fault(kind, target, wall_s())
        self.faults.append(fault)
        return fault

    async def _kill(self, kind: str, part: Kept) -> None:
        async with part.lock:
            await part.alive()
            fault = self._begin(kind, part.name)
            part.kill()
            await asyncio.sleep(self._rng.uniform(*AFTER_KILL_S))
            await part.alive()
            fault.ended_at = wall_s()

    async def _kill_router(self) -> None:
        router = self._fleet.parts["router"]
        async with router.lock:
            await router.alive()
            await self._fleet.serving_after_s(monotonic_s())  # it is not just starting
            fault, began = self._begin("kill -9 router", router.name), monotonic_s()
            router.kill()
            await router.ended()
            self.router_back_s.append(await self._fleet.serving_after_s(began, BACK_WITHIN_S))
            fault.ended_at = wall_s()

    async def _kill_engine(self) -> None:
        part = self._daemon()
        async with part.engine_lock:
            engine = await part.living_engine()
            fault = self._begin("kill -9 engine", part.name)
            engine.kill()
            fault.ended_at = wall_s()

    async def _poison(self) -> None:
        """The engine that draws a job, and then the one that draws it again."""
        job_id, killed = "", 0
        for _ in range(POISON_ENGINES):
            try:
                async with asyncio.timeout(POISON_WITHIN_S):
                    worker = await self._drawing(job_id, killed)
            except TimeoutError:  # nobody draws it, or no router tells who
                return
            job_id, killed, part = worker.job_id, worker.pid, self._fleet.parts[worker.worker_id]
            engine = part.engine()
            if engine is None or engine.pid != killed:  # another trouble was quicker
                return
            fault = self._begin("kill -9 engines of a job", part.name)
            engine.kill()
            fault.ended_at = wall_s()

    async def _drawing(self, job_id: str, killed: int) -> WorkerView:
        """Who draws this job in a living engine; where it is '', the one that still has most to do."""
        while True:
            busy = [w for w in (await self._fleet.status()).workers if w.busy and w.pid not in (0, killed)]
            found = [w for w in busy if job_id in ("", w.job_id)]
            if found:
                return max(found, key=lambda w: w.steps - w.step)
            await asyncio.sleep(LOOK_S)

    async def _terminate(self, kind: str, part: Kept) -> None:
        async with part.lock:
            await part.alive()
            fault = self._begin(kind, part.name)
            part.terminate()
            async with asyncio.timeout(part.part.stop_s + BACK_WITHIN_S):
                await part.ended()
                await part.alive()
            fault.ended_at = wall_s()

    def _stopping(self, what: str, seconds: float) -> Cause:
        async def stop() -> None:
            part = self._daemon() if what in ("daemon", "engine") else self._fleet.parts[what]
            async with part.engine_lock if what == "engine" else part.lock:
                process = await part.living_engine() if what == "engine" else psutil.Process(await part.alive())
                fault = self._begin(f"SIGSTOP {seconds:g} s {what}", part.name)
                process.suspend()
                try:
                    await asyncio.sleep(seconds)
                finally:
                    with suppress(psutil.NoSuchProcess):  # its daemon was killed meanwhile
                        process.resume()
                    fault.ended_at = wall_s()

        return stop

    async def _fill_disk(self) -> None:
        router = self._fleet.parts["router"]
        async with self._links["disk"]:
            pid = await router.alive()
            fault = self._begin(DISK_FULL, "disk")
            self._fleet.disk.fill(pid)
            try:
                await asyncio.sleep(self._rng.uniform(*DISK_FULL_S))
            finally:
                self._fleet.disk.free(pid)
                fault.ended_at = wall_s()

    # --- connections ---------------------------------------------------------------------------

    def _on_link(self, kind: str, who: str, what: Callable[[list[Connection]], Awaitable[None]]) -> Cause:
        async def trouble() -> None:
            name = self._daemon().name if who == "daemon" else who
            async with self._links[name]:
                fault = self._begin(kind, name)
                await what(self._some(self._fleet.proxies[name]))
                fault.ended_at = wall_s()

        return trouble

    def _some(self, proxy: Proxy) -> list[Connection]:
        """All connections, or a few of them."""
        found = list(proxy.connections)
        return self._rng.sample(found, self._rng.randint(1, len(found))) if found else []

    async def _cut(self, connections: list[Connection]) -> None:
        for connection in connections:
            connection.cut()

    async def _half_open(self, connections: list[Connection]) -> None:
        ways: Sequence[Way] = self._rng.choice((("up",), ("down",), ("up", "down")))
        for connection in connections:
            connection.swallowed = frozenset(ways)
        await asyncio.sleep(self._rng.uniform(*HALF_OPEN_S))
        await self._cut(connections)  # what was swallowed is gone: this connection cannot go on

    async def _slow(self, connections: list[Connection]) -> None:
        way: Way = self._rng.choice(("up", "down"))
        for connection in connections:
            connection.slow = frozenset((way,))
        await asyncio.sleep(self._rng.uniform(*SLOW_S))
        for connection in connections:
            connection.slow = frozenset()
