"""The router: its real loop and its real broker, between played sockets and a played disk.

A turn of the loop takes what has come, handles it, commits once and sends. It may end in the middle of that:
each step passes a named point where a crash may have been planned.
"""

import random
import sys
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from common import clock as real_clock
from common.messages import Message
from common.settings import RouterSettings
from router.broker import Broker
from router.commands import Command, Log, ToClient, ToWorker
from router.events import Event, Replayed, SendFailed, Submitted
from router.journal import Journal
from router.loop import TICK_S, Loop
from router.outgoing import Outgoing
from tests.sim.compare import differences
from tests.sim.disk import Disk
from tests.sim.network import HEARTBEAT_S, Clock, Network, ServerSocket
from tests.sim.promises import Promises
from tests.sim.trace import Trace

WALL_AHEAD_S = 1.7e9
THINK_S = (0.0, 0.0, 0.0, 0.001, 0.02)  # between the first message and the turn that takes it
AGAIN_CHANCE = 0.02  # that a commit is followed by a comparison with a replay
CRASH_POINTS = (
    "before commit",
    "in commit, lost",
    "in commit, kept",
    "after commit",
    "before send",
    "before rename",
    "after rename",
    "before drop",
    "in a write",
)


class Crashed(BaseException):
    """The process is gone. No `except Exception` may survive it."""


class PlayedLogger:
    """Takes what the loop logs; what it calls a bug is one."""

    def exception(self, event: str, **fields: Any) -> None:
        raise AssertionError(f"{event} {fields}: {sys.exc_info()[1]}")

    def log(self, level: int, event: str, **fields: Any) -> None:
        """Noted already, as a command."""


class WatchedBroker(Broker):
    """Every invariant after each event."""

    def __init__(self, settings: RouterSettings, trace: Trace, *, first_epoch: int, live_max: int) -> None:
        super().__init__(settings, first_epoch=first_epoch, durable=True)
        self._trace = trace
        self.live_max = live_max  # that its settings and the GPUs admit

    def handle(self, event: Event, now: float) -> list[Command]:
        note = self._trace.note
        note("event", type(event).__name__, event.wall, told="" if isinstance(event, Replayed) else event)
        commands = super().handle(event, now)
        self.check_invariants()
        assert len(self.state.live) <= self.live_max, f"{len(self.state.live)} jobs at once"
        for command in commands:  # messages and records are noted once more, byte for byte, where they leave
            if isinstance(command, Log):
                note("log", command.event, command.fields)
            else:
                note("command", type(command).__name__, getattr(command, "peer", b""), told=command)
        return commands


class PlayedLoop(Loop):
    """The real loop; what it would draw from the machine's randomness comes from the seed."""

    node: "RouterNode"

    def _event(self, *args: Any) -> Event:
        event = super()._event(*args)
        if isinstance(event, Submitted):
            number = self.node.random.getrandbits(128)
            event = msgspec.structs.replace(event, job_id=uuid.UUID(int=number).hex)
        return event


class PlayedOutgoing(Outgoing):
    """The real sender; what it is about to say is held against what was promised."""

    node: "RouterNode"

    def send(self, command: ToClient | ToWorker, wall: float) -> SendFailed | None:
        self.node.saying("client" if isinstance(command, ToClient) else "worker", command.peer, command.message)
        return super().send(command, wall)


class RouterNode:
    """One router over all its lives."""

    def __init__(
        self, clock: Clock, network: Network, trace: Trace, promises: Promises, disk: Disk, settings: RouterSettings,
        *, live_max: int,
    ) -> None:  # fmt: skip
        self.clock, self.network, self.trace, self.promises, self.disk = clock, network, trace, promises, disk
        self.settings = settings
        self.live_max = live_max
        self.random = random.Random(clock.random.getrandbits(64))
        self.tick_s = clock.random.choice([TICK_S, 3 * TICK_S, 3 * TICK_S])  # a busy host wakes it late
        self.life = 0
        self.loop: PlayedLoop | None = None
        self.journal: Journal | None = None
        self.crashes: dict[str, int] = {}
        self.frozen_until = 0.0
        self.down_s = 0.0  # how long it stays away after the next crash
        self.late = False  # dealers will notice the next crash late
        self._fuse: tuple[frozenset[str], int] | None = None
        self._turn = 0
        self._turn_at = 0.0
        self._now_ahead = 0.0
        self._sockets: dict[str, ServerSocket] = {}

    @property
    def up(self) -> bool:
        return self.loop is not None

    @property
    def broker(self) -> Broker:
        assert self.loop is not None
        return self.loop._broker

    # --- its lives -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, with what a former life has written down."""
        if self.up:
            return
        self.life += 1
        self.frozen_until = 0.0
        self._now_ahead = self.random.uniform(0.0, 1e6)  # monotonic time of another boot
        self.trace.note("start", "router", self.life)
        sockets = {side: ServerSocket(self.network, side, self.wake) for side in ("client", "worker")}
        self._guarded(lambda: self._begin(sockets))

    def _begin(self, sockets: dict[str, ServerSocket]) -> None:
        self._use_clock()
        self.journal = self.disk.open(self)
        first_epoch = self.life * 1_000_000
        broker = WatchedBroker(self.settings, self.trace, first_epoch=first_epoch, live_max=self.live_max)
        logger: Any = PlayedLogger()
        played: Any = sockets
        self.loop = loop = PlayedLoop(
            broker, self.journal, played["client"], played["worker"], logger=logger, level="error"
        )
        outgoing = loop._outgoing = PlayedOutgoing(loop._sockets, self.journal, logger)
        loop.node, loop._random, outgoing.node = self, self.random, self
        loop._events.append(Replayed(wall=loop._wall, records=self.journal.replay()))
        loop._look_at_storage()
        self.network.open(sockets)
        self._sockets = sockets
        loop._work_off()
        self._plan_turn(self.clock.now + self.tick_s)

    def crash_at(self, points: tuple[str, ...], count: int, down_s: float, *, late: bool = False) -> None:
        """Crash when one of these points is passed for the `count`-th time from now."""
        self._fuse, self.down_s, self.late = (frozenset(points), count), down_s, late

    def disarm(self) -> None:
        """No crash is planned any more."""
        self._fuse = None

    def crash(self, down_s: float, *, late: bool = False) -> None:
        """Now, between two turns."""
        self.down_s, self.late = down_s, late
        self._died("between turns")

    def freeze(self, seconds: float) -> None:
        """SIGSTOP: it does nothing, its clock goes on. Dealers that hear nothing for too long give up."""
        self.frozen_until = self.clock.now + seconds
        self.trace.note("freeze", "router", seconds)
        if seconds >= HEARTBEAT_S:
            self.clock.after(HEARTBEAT_S, self._given_up, self.life)

    def drain(self) -> None:
        """SIGTERM; another one starts when it is done."""
        if self.loop is not None:
            self.trace.note("drain", "router")
            self._use_clock()
            self.loop.drain(patient=self.random.random() < 0.3)

    def _given_up(self, life: int) -> None:
        if life == self.life and self.clock.now < self.frozen_until:
            self.network.accepting = False
            for dealer in list(self.network.dealers):
                dealer.cut()

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Crashed as crashed:
            self._died(str(crashed))

    def _died(self, where: str) -> None:
        self.crashes[where] = self.crashes.get(where, 0) + 1
        self.trace.note("crash", "router", where)
        self.loop, self._fuse = None, None
        self.life += 1
        self.disk.died()
        self.network.close(late=self.late)
        self.clock.after(self.down_s, self.start)

    def _stopped(self) -> None:
        assert self.journal is not None
        self.trace.note("stopped", "router")
        try:
            self.journal.close()
        except Crashed as crashed:
            self._died(str(crashed))
            return
        self.loop, self._fuse = None, None
        self.life += 1
        self.network.close(late=False, orderly=True)
        self.clock.after(self.random.uniform(0.1, 2.0), self.start)

    # --- a turn --------------------------------------------------------------------------------

    def wake(self) -> None:
        """There is something to read."""
        at = self.clock.now + self.random.choice(THINK_S)
        if at < self._turn_at:
            self._plan_turn(at)

    def _plan_turn(self, at: float) -> None:
        self._turn += 1
        self._turn_at = at
        self.clock.at(at, self._take_turn, self._turn, self.life)

    def _take_turn(self, turn: int, life: int) -> None:
        if turn != self._turn or life != self.life or self.loop is None:
            return
        if self.clock.now < self.frozen_until:
            self._plan_turn(self.frozen_until)
            return
        self.network.accepting = True
        self._guarded(self._turn_of_the_loop)
        if self.loop is None:
            return
        if not self.loop._running:
            self._stopped()
            return
        due = max(self.clock.now, self.loop._ticked_now - self._now_ahead + self.tick_s + 0.001)
        self._plan_turn(self.clock.now if any(self._sockets.values()) else due)

    def _turn_of_the_loop(self) -> None:
        self._use_clock()
        loop: Any = self.loop
        loop._wall = real_clock.wall_s()
        for side, socket in self._sockets.items():
            if socket:
                loop._receive(side, socket)
        loop._take_stored()
        loop._take_time()
        loop._work_off()

    def _use_clock(self) -> None:
        now = self.clock.now
        Now.monotonic, Now.wall = now + self._now_ahead, now + WALL_AHEAD_S

    # --- host of its journal -------------------------------------------------------------------

    def point(self, name: str) -> None:
        """It may end here."""
        if name == "after commit" and self.loop is not None and self.random.random() < AGAIN_CHANCE:
            self.compare()
        if self._fuse is None or name not in self._fuse[0]:
            return
        points, count = self._fuse
        self._fuse = (points, count - 1)
        if count <= 1:
            raise Crashed(name)

    def later(self, seconds: float, name: str, call: Callable[[], None]) -> None:
        """What a thread of this process will have done by then."""
        self.clock.after(seconds, self._thread, self.life, name, call)

    def _thread(self, life: int, name: str, call: Callable[[], None]) -> None:
        def work() -> None:
            self.point(name)
            call()

        if life != self.life:
            return
        if self.clock.now < self.frozen_until:
            self.clock.at(self.frozen_until, self._thread, life, name, call)
            return
        self._guarded(work)

    def saying(self, side: str, peer: bytes, message: Message) -> None:
        """About to be sent."""
        self.point("before send")
        if side == "client":
            self.promises.to_client(message)
        else:
            self.promises.to_worker(peer.decode().partition(".")[0], message)

    def compare(self) -> None:
        """A broker made from the disk knows what the living one knows."""
        again = Broker(self.settings)
        state = self.broker.state
        again.handle(Replayed(wall=state.wall, records=self.disk.records()), state.now)
        again.check_invariants()
        found = differences(state, again.state)
        assert not found, "the journal tells another story:\n" + "\n".join(found)
        self.promises.counts["compared"] += 1


class Now:
    """What common.clock reads while a run is played."""

    monotonic = 0.0
    wall = WALL_AHEAD_S
