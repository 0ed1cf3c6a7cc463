"""Clients, the real broker and real sessions on a played network: whatever breaks, every job ends once.

A seed plays the same run again: `pytest tests/sim --sim-seed N` runs one, `--sim-seeds N` that many.
"""

import pytest

from common.messages import Cancelled, Failed, Result
from tests.sim.network import Clock, Network
from tests.sim.players import ClientNode, DaemonNode, RouterNode

JOBS_PER_CLIENT = 12
TROUBLE_S = 40.0
QUIET_S = 600.0  # within which everything must have ended once the trouble is over
ENDS = {Result.NAME, Failed.NAME, Cancelled.NAME}


class World:
    """One run."""

    def __init__(self, seed: int, *, daemons: int = 3, clients: int = 3, router_crashes: bool = True) -> None:
        self.clock = clock = Clock(seed)
        self.network = Network(clock)
        self.router = RouterNode(clock, self.network, retry_backoff_s=0.5)
        speeds = [clock.random.choice([0.02, 0.1, 0.5]) for _ in range(daemons)]
        self.daemons = [
            DaemonNode(clock, self.network, f"w{i}", step_s, drain_s=5.0, job_stop_grace_s=2.0)
            for i, step_s in enumerate(speeds)
        ]
        self.clients = [ClientNode(clock, self.network, f"c{i}") for i in range(clients)]
        self._router_crashes = router_crashes
        for client in self.clients:
            for number in range(JOBS_PER_CLIENT):
                self._plan_job(client, number)

    def _plan_job(self, client: ClientNode, number: int) -> None:
        steps = self.clock.random.choice([1, 4, 10, 30])
        cancel_after_s = self.clock.between((0.0, 10.0)) if self.clock.random.random() < 0.15 else None
        self.clock.after(
            self.clock.between((0.0, TROUBLE_S / 2)),
            lambda: client.submit(number, steps=steps, cancel_after_s=cancel_after_s),
        )

    def plan_trouble(self, faults: int) -> None:
        """Faults at random moments."""
        for _ in range(faults):
            self.clock.after(self.clock.between((0.0, TROUBLE_S)), self._fault)

    def _fault(self) -> None:
        choose = self.clock.random
        daemon, client = choose.choice(self.daemons), choose.choice(self.clients)
        kind = choose.choice(["engine", "engine", "cut", "cut", "client", "daemon", "drain", "router"])
        if kind == "client":
            client.dealer.cut()
        elif kind == "router" and self._router_crashes and self.router.broker is not None:
            self.router.crash(self.clock.between((0.05, 3.0)))
        elif daemon.left:
            return
        elif kind == "engine":
            daemon.kill_engine()
        elif kind == "cut":
            daemon.dealer.cut()
        elif kind == "daemon":
            daemon.crash(self.clock.between((0.5, 15.0)))
        elif kind == "drain":
            daemon.drain()
            self.clock.after(8.0, lambda: daemon.start() if daemon.session.left else None)

    def settled(self) -> bool:
        """Has every job of every client ended?"""
        return all(len(c.specs) == JOBS_PER_CLIENT and c.finished for c in self.clients)

    def run(self) -> None:
        """To the end, and a little longer: ends may still be repeated and credit be granted."""
        self.clock.run(self.clock.now + TROUBLE_S + QUIET_S, self.settled)
        assert self.settled(), {c.name: sorted(c.specs.keys() - c.ends.keys()) for c in self.clients}
        self.clock.run(self.clock.now + 30.0)
        self._check_the_end()

    def _check_the_end(self) -> None:
        broker = self.router.broker
        assert broker is not None
        assert not broker.state.live
        assert set(self.router.ends) == self.router.accepted, "accepted and not ended"
        for client in self.clients:
            assert set(client.ends.values()) <= ENDS
        for worker in broker.state.fleet.workers.values():
            assert not worker.hand
            if worker.state == "ready":
                assert worker.credit == 2, "credit leaked"


def _run(seed: int, *, faults: int, router_crashes: bool = True) -> World:
    world = World(seed, router_crashes=router_crashes)
    world.plan_trouble(faults)
    world.run()
    return world


@pytest.mark.parametrize("seed", range(5))
def test_without_trouble_every_picture_is_drawn_once(seed: int) -> None:
    world = _run(seed, faults=0)
    drawn = sum(sum(daemon.drawn.values()) for daemon in world.daemons)
    cancelled = sum(end == Cancelled.NAME for client in world.clients for end in client.ends.values())
    assert all(count == 1 for daemon in world.daemons for count in daemon.drawn.values())
    assert drawn >= 3 * JOBS_PER_CLIENT - cancelled
    assert not [end for client in world.clients for end in client.ends.values() if end == Failed.NAME]


def test_whatever_breaks_every_job_ends_exactly_once(sim_seed: int) -> None:
    _run(sim_seed, faults=25)


def test_a_seed_plays_the_same_run_again() -> None:
    first, second = (_run(7, faults=25) for _ in range(2))
    assert first.clock.events == second.clock.events
    assert first.router.records == second.router.records
