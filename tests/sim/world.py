"""One run: who takes part, what is asked, what breaks and when. All of it comes from the seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import structs

from common import clock as real_clock
from common.messages import InputSpec, JobSpec
from common.settings import GpuDaemonSettings, RouterSettings
from gpu_daemon.hand import CAPACITY_JOBS
from router.retry import ENGINE_DEATHS_MAX
from tests.router.journals import inputs as inputs_of
from tests.router.journals import png
from tests.sim.client_node import ClientNode
from tests.sim.daemon_node import DaemonNode
from tests.sim.disk import Disk
from tests.sim.network import Clock, Network
from tests.sim.promises import Promises
from tests.sim.router_node import CRASH_POINTS, Now, RouterNode
from tests.sim.sqlite_disk import SqliteDisk
from tests.sim.trace import Trace

CLIENTS = 3
DAEMONS = 3
JOBS_PER_CLIENT = 8
ASKING_S = 20.0
TROUBLE_S = 25.0
HEAL_S = 10.0  # after the trouble everybody is back
QUIET_S = 400.0  # within which everything must then have ended
AFTERWARDS_S = 15.0
DEADLY = 0.03  # of all pictures end the engines that begin them, until they are given up as poison
SQLITE_EVERY = 10  # seeds: one of these has the production journal
FAULTS = (
    "engine", "engine", "engine hangs", "cut", "cut", "half-open", "stall", "daemon crash", "daemon freeze",
    "daemon drain", "daemon gone", "router crash", "router crash", "router crash", "router crash", "router freeze",
    "router drain", "client hangs up", "client stops reading", "client cut", "disk full", "letters",
)  # fmt: skip


class World:
    """Everybody in one run."""

    def __init__(self, seed: int, *, faults: int | None = None) -> None:
        """`faults`: how many, where the seed is not to say."""
        self.clock = clock = Clock(seed)
        self.trace = Trace()
        self.trace.now = lambda: clock.now
        choose = clock.random.choice
        self.tight = clock.chance(0.3)  # the router keeps and takes little
        self.peaceful = faults == 0
        settings = self._router_settings()
        self.network = Network(clock, self.trace, high_water=choose([6, 20, 1000]))
        self.promises = Promises(settings.attempts_max)
        self.sqlite = seed % SQLITE_EVERY == 0
        parts = (clock, self.trace, self.promises)
        self.disk = SqliteDisk(*parts, seed=seed) if self.sqlite else Disk(*parts)
        waiting_max = settings.global_queue_size + settings.global_queue_reserve + DAEMONS * settings.gpu_queue_size
        self.router = RouterNode(
            clock, self.network, self.trace, self.promises, self.disk, settings,
            live_max=waiting_max + DAEMONS * (1 + CAPACITY_JOBS),  # that run, or are being stored
        )  # fmt: skip
        failures = 0.0 if self.peaceful else choose([0.0, 0.02, 0.1])
        drain = GpuDaemonSettings(drain_s=5.0, job_stop_grace_s=2.0, job_timeout_s=20.0)
        self.deadly: dict[str, int] = {}
        self.daemons = [
            DaemonNode(
                clock, self.network, self.promises, f"w{i}", "m" if i < 2 else choose(["m", "n"]),
                choose([0.02, 0.1, 0.5]), drain, self.deadly, failures=failures,
            )
            for i in range(DAEMONS)
        ]  # fmt: skip
        self.clients = [
            ClientNode(clock, self.network, self.promises, f"c{i}", forgetful=self.tight) for i in range(CLIENTS)
        ]
        self.counts: dict[str, int] = {}
        self.asked = 0
        self.router.start()
        for daemon in self.daemons:
            daemon.start()
        for client in self.clients:
            for number in range(JOBS_PER_CLIENT):
                clock.after(clock.between((0.0, ASKING_S)), self._ask, client, number)
        for _ in range(choose([4, 10, 20, 30]) if faults is None else faults):
            clock.after(clock.between((0.0, TROUBLE_S)), self._fault)

    def _router_settings(self) -> RouterSettings:
        choose = self.clock.random.choice
        kept: dict[str, Any] = {}
        if self.tight:
            kept = {
                "result_ttl_s": choose([5.0, 20.0]), "ended_jobs_max": choose([3, 10]), "dead_letters_max": 1,
                "gpu_queue_size": choose([0, 2]), "global_queue_size": choose([1, 8]), "watches_per_job_max": 2,
            }  # fmt: skip
        return RouterSettings(
            retry_backoff_s=0.5, attempts_max=choose([1, 3, 3]), drain_s=choose([2.0, 10.0]),
            prefetch_s=choose([0.0, 0.5]), **kept,
        )  # fmt: skip

    # --- what is asked -------------------------------------------------------------------------

    def _ask(self, client: ClientNode, number: int) -> None:
        clock = self.clock
        self.asked += 1
        deadline_s = clock.between((5.0, 60.0)) if not self.peaceful and clock.chance(0.1) else None
        spec = JobSpec(
            prompt=f"{client.name}-{number}", model=self.clock.random.choice(self.daemons).card.name, seed=number,
            steps=clock.random.choice([1, 1, 4, 12]), priority=clock.random.choice([0, 0, 0, 5, -5]),
            deadline_s=deadline_s, client=clock.random.choice(["", "x", "y"]),
        )  # fmt: skip
        files = self._files(spec.prompt) if clock.chance(0.3) else ()
        if files:
            inputs = [structs.asdict(each) for each in inputs_of(*files)]
            kinds = ("image", "mask")[: len(files)]
            told = tuple(InputSpec(**{**each, "kind": kind}) for each, kind in zip(inputs, kinds, strict=True))
            spec = structs.replace(spec, inputs=told, strength=clock.random.choice([None, 0.1, 0.5, 1.0]))
        if not self.peaceful and clock.chance(DEADLY):
            self.deadly[spec.prompt] = ENGINE_DEATHS_MAX
            self.counts["deadly picture"] = self.counts.get("deadly picture", 0) + 1
        key = "" if clock.chance(0.15) else spec.prompt
        (client.twice if clock.chance(0.1) else client.want)(spec, key, files)
        wish = client.wishes[-1]
        if clock.chance(0.2):
            clock.after(clock.between((0.0, 10.0)), client.cancel, wish)
        if clock.chance(0.3):
            clock.after(clock.between((0.0, 40.0)), client.ask_again, wish)

    def _files(self, name: str) -> tuple[bytes, ...]:
        """An image, perhaps with a mask."""
        image, mask = png(3, name.encode()), png(3, f"mask {name}".encode())
        return (image, mask) if self.clock.chance(0.5) else (image,)

    # --- what breaks ---------------------------------------------------------------------------

    def _fault(self) -> None:
        clock, router = self.clock, self.router
        choose, between = clock.random.choice, clock.between
        daemon, client, kind = choose(self.daemons), choose(self.clients), choose(FAULTS)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.trace.note("fault", kind)
        match kind:
            case "engine":
                daemon.kill_engine()
            case "engine hangs":
                daemon.hangs = True
            case "cut":
                self._cut(daemon, choose(["dealer", "router", "both"]))
            case "half-open":
                self._stall(daemon, choose(["up", "down"]), between((6.0, 15.0)))
            case "stall":
                self._stall(daemon, choose(["up", "down"]), between((0.5, 6.0)))
            case "daemon crash":
                daemon.crash(between((0.5, 15.0)))
            case "daemon freeze":
                daemon.freeze(choose([1.0, 5.0, 7.0, 15.0, 30.0]))
            case "daemon drain":
                daemon.drain()
            case "daemon gone":
                self._leave_for_good()
            case "router freeze":
                router.freeze(choose([1.0, 5.0, 12.0]))
            case "router drain":
                router.drain()
            case "client hangs up":
                client.hang_up(between((0.0, 5.0)))
            case "client stops reading":
                client.stop_reading(between((1.0, 20.0)))
            case "client cut":
                client.dealer.cut(choose(["dealer", "router", "both"]))
            case "letters":
                client.revive()
            case "disk full":
                self.disk.full = True
                clock.after(between((1.0, 15.0)), self._free)
            case "router crash":
                self._crash_router()

    def _leave_for_good(self) -> None:
        """One of the two that serve the first model; the other must do."""
        if not any(daemon.gone for daemon in self.daemons):
            daemon = self.clock.random.choice(self.daemons[:2])
            daemon.gone = True
            daemon.crash(0.0)

    @staticmethod
    def _cut(daemon: DaemonNode, noticed_by: str) -> None:
        if not daemon.left:
            daemon.dealer.cut(noticed_by)

    @staticmethod
    def _stall(daemon: DaemonNode, way: str, seconds: float) -> None:
        if not daemon.left and daemon.dealer.connection is not None:
            daemon.dealer.connection.stall(way, seconds)

    def _crash_router(self) -> None:
        clock, router = self.clock, self.router
        if not router.up:
            return
        down_s, late = clock.between((0.05, 3.0)), clock.chance(0.2)
        if clock.chance(0.3):
            router.crash(down_s, late=late)
        else:
            points = CRASH_POINTS if clock.chance(0.3) else (clock.random.choice(CRASH_POINTS),)
            router.crash_at(points, clock.random.randint(1, 8), down_s, late=late)
        if clock.chance(0.3):  # and once more soon after it is back
            clock.after(down_s + clock.between((0.0, 3.0)), self._crash_again)

    def _crash_again(self) -> None:
        self.router.crash_at(CRASH_POINTS, self.clock.random.randint(1, 20), self.clock.between((0.05, 1.0)))

    def _free(self) -> None:
        self.disk.full = False

    def _heal(self) -> None:
        """Nothing breaks from here on."""
        self.router.disarm()
        self.disk.full = False
        for daemon in self.daemons:
            daemon.failures = 0.0
            if daemon.hangs:
                daemon.kill_engine()
            daemon.start()

    # --- the run -------------------------------------------------------------------------------

    def settled(self) -> bool:
        """Has every job ended, does everybody know, and is everybody back?"""
        return (
            self.promises.ended()
            and all(client.finished for client in self.clients)
            and all(daemon.gone or daemon.serves for daemon in self.daemons)
        )

    def run(self) -> None:
        """To the end, and a little longer: ends may still be repeated and credit be granted."""
        clock = self.clock
        with played_time():
            clock.run(clock.now + TROUBLE_S + HEAL_S)
            self._heal()
            clock.run(clock.now + QUIET_S, self.settled)
            assert self.settled(), f"not ended: {self._unended()}"
            clock.run(clock.now + AFTERWARDS_S)
            self._check_the_end()

    def _unended(self) -> list[Any]:
        jobs = [job_id for job_id, life in self.promises.lives.items() if not life.end]
        return [*jobs, *(wish for client in self.clients for wish in client.wishes if not (wish.end or wish.given_up))]

    def _check_the_end(self) -> None:
        router = self.router
        assert router.up, "the router is not back"
        state = router.broker.state
        assert self.asked == CLIENTS * JOBS_PER_CLIENT
        assert not state.live, sorted(state.live)
        self.router.compare()
        kept = {job.inputs_of for job in state.jobs.values() if job.inputs_of}
        assert self.disk.inputs() == kept, f"inputs of {kept} are wanted, of {self.disk.inputs()} kept"
        for daemon in self.daemons:
            if daemon.gone:
                assert daemon.name not in state.fleet.workers, f"{daemon.name} is gone and still believed in"
                continue
            daemon.check_quiet()
            worker = state.fleet.workers[daemon.name]
            epoch, granted, received, _ = daemon.credit()
            ours = (worker.epoch, worker.granted_total, worker.dispatched_total, len(worker.hand))
            assert ours == (epoch, granted, received, 0), f"{daemon.name}: {ours} here, {daemon.credit()} there"

    def story(self) -> str:
        """What happened last."""
        return self.trace.story(_shown)


def _shown(detail: list[Any]) -> str:
    if len(detail) >= 3 and all(isinstance(part, bytes) for part in detail[:3]):
        return f"{detail[1].decode()} {detail[2][:200]!r} +{len(detail) - 3}"
    return repr(detail)


@contextmanager
def played_time() -> Iterator[None]:
    """common.clock reads what the run's router is to read."""
    before = real_clock.monotonic_s, real_clock.wall_s
    real_clock.monotonic_s, real_clock.wall_s = lambda: Now.monotonic, lambda: Now.wall
    try:
        yield
    finally:
        real_clock.monotonic_s, real_clock.wall_s = before


def play(seed: int, *, faults: int | None = None) -> World:
    """One run from its beginning to its end."""
    with played_time():
        world = World(seed, faults=faults)
        try:
            world.run()
        finally:
            world.disk.close()
    return world
