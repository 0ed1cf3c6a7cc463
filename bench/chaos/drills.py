"""How fast the service recovers, measured in calm: one trouble at a time, with other GPUs idle.

Each drill gives the fleet one job, takes away what it runs on, and reads from the job's history when an engine
began it again. The router's drill asks until a new client is answered.
"""

import asyncio
import signal
from collections import defaultdict
from contextlib import suppress

import psutil

from bench.chaos.fleet import Fleet
from bench.chaos.parts import Kept
from common.clock import monotonic_s, wall_s
from common.messages import Accepted, JobMoment, JobQuery, JobReply, JobSpec, Submit

ROUTER_BACK, ENGINE_KILLED, HOST_KILLED, HOST_FROZEN = (
    "router serving again after kill -9",
    "job of a killed engine running again",
    "job of a killed host running elsewhere",
    "job of a frozen host running elsewhere",
)
LIMITS_S = {ROUTER_BACK: 5.0, ENGINE_KILLED: 3.0, HOST_KILLED: 12.0, HOST_FROZEN: 12.0}
JOB_STEPS = 30  # some seconds on any GPU: it still runs when its engine is taken away
ENDED_WITHIN_S = 60.0
LOOK_S = 0.05


class Drills:
    """Runs drills and keeps their times."""

    def __init__(self, fleet: Fleet) -> None:
        self.times_s: defaultdict[str, list[float]] = defaultdict(list)
        self.job_ids: set[str] = set()
        self.faults = 0
        self._fleet = fleet

    async def run(self, rounds: int) -> None:
        """All kinds, `rounds` times each."""
        for _ in range(rounds):
            await self._router()
            await self._engine()
            await self._host(HOST_KILLED)
            await self._host(HOST_FROZEN)

    async def _router(self) -> None:
        await self._fleet.ready()
        router, began = self._fleet.parts["router"], monotonic_s()
        router.kill()
        await router.ended()
        self._note(ROUTER_BACK, await self._fleet.serving_after_s(began))

    async def _engine(self) -> None:
        job_id, part = await self._running_job()
        engine = await part.living_engine()
        at = wall_s()
        engine.kill()
        self._note(ENGINE_KILLED, await self._begun_again(job_id, at) - at)
        await self._end_of(job_id)

    async def _host(self, what: str) -> None:
        """A daemon and its engine are taken away together, and stay away until the job runs elsewhere."""
        job_id, part = await self._running_job()
        processes = [psutil.Process(part.pid), await part.living_engine()]
        at = wall_s()
        part.hold()
        part.may_end_with(-signal.SIGKILL)
        try:
            for process in processes:
                with suppress(psutil.NoSuchProcess):  # an engine goes with its daemon
                    process.kill() if what == HOST_KILLED else process.suspend()
            self._note(what, await self._begun_again(job_id, at) - at)
        finally:
            part.release()
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        await self._end_of(job_id)

    # --- the job -------------------------------------------------------------------------------

    async def _running_job(self) -> tuple[str, Kept]:
        """A job that an engine has begun, on a fleet that has nothing else to do; and who draws it."""
        await self._fleet.ready()
        spec = JobSpec(prompt="drill", width=64, height=64, steps=JOB_STEPS, client="drill")
        key = f"drill-{len(self.job_ids)}"
        answer, _ = await self._fleet.ask(Submit(rid=key, key=key, job=spec))
        assert isinstance(answer, Accepted), answer
        self.job_ids.add(answer.job_id)
        async with asyncio.timeout(ENDED_WITHIN_S):
            while True:
                reply = await self._job(answer.job_id)
                if reply.job.state == "running":
                    return answer.job_id, self._fleet.parts[reply.job.worker_id]
                await asyncio.sleep(LOOK_S)

    async def _begun_again(self, job_id: str, after: float) -> float:
        """When, in wall seconds."""

        def found(history: tuple[JobMoment, ...]) -> float | None:
            return next((each.at for each in history if each.event == "started" and each.at > after), None)

        async with asyncio.timeout(ENDED_WITHIN_S):
            while True:
                if at := found((await self._job(job_id)).history):
                    return at
                await asyncio.sleep(LOOK_S)

    async def _end_of(self, job_id: str) -> None:
        async with asyncio.timeout(ENDED_WITHIN_S):
            while True:
                if (await self._job(job_id)).job.state in ("done", "failed"):
                    return
                await asyncio.sleep(LOOK_S)

    async def _job(self, job_id: str) -> JobReply:
        answer, _ = await self._fleet.ask(JobQuery(rid="drill", job_id=job_id))
        assert isinstance(answer, JobReply), answer
        return answer

    def _note(self, what: str, seconds: float) -> None:
        self.faults += 1
        self.times_s[what].append(seconds)
