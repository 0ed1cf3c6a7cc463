"""A clock and a network that are played: what arrives, in which order and how late comes from one seed.

As TCP and ZeroMQ behave: messages of one connection arrive in order; a cut loses a suffix of what is under
way in each direction; what was under way before may arrive after the next connection's first messages; the
router learns late, or by a failed send, that a peer is gone; a dealer without a connection sends nothing.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from common.codec import Buffer

Frames = list[Buffer]
DELAY_S = (0.0002, 0.005)
STALL_S = (0.2, 3.0)  # now and then, a connection stands still
STALL_CHANCE = 0.01
RECONNECT_S = (0.15, 2.0)
NOTICE_S = (0.0, 4.0)  # until the router knows of a cut


class Clock:
    """Calls functions at their times."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at a time; what is due at one moment is called in the order of asking."""
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call in a while."""
        self.at(self.now + seconds, call)

    def between(self, bounds: tuple[float, float]) -> float:
        """A duration."""
        return self.random.uniform(*bounds)

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Until that time, or until `done`."""
        while self._heap and self._heap[0][0] <= until and not done():
            self.now, _, call = heapq.heappop(self._heap)
            self.events += 1
            call()


class Server(Protocol):
    """The router's end."""

    def arrived(self, side: str, peer: bytes, frames: Frames) -> None:
        """A message came."""


class Connection:
    """One connection of one dealer; the router knows it by `peer`."""

    def __init__(self, clock: Clock, peer: bytes) -> None:
        self.clock, self.peer = clock, peer
        self.alive = True  # as it really is
        self.known = True  # to the router
        self._flights: dict[str, list[list[Any]]] = {"up": [], "down": []}  # [arrives at, deliver or None]
        self._clear_at = {"up": 0.0, "down": 0.0}

    def send(self, way: str, deliver: Callable[[], None]) -> None:
        """Put one message on its way."""
        if not self.alive:
            return
        clock = self.clock
        delay = clock.between(STALL_S) if clock.random.random() < STALL_CHANCE else clock.between(DELAY_S)
        self._clear_at[way] = max(self._clear_at[way], clock.now + delay)
        flight: list[Any] = [self._clear_at[way], deliver]
        self._flights[way].append(flight)
        clock.at(flight[0], lambda: self._arrive(way, flight))

    def _arrive(self, way: str, flight: list[Any]) -> None:
        if flight in self._flights[way]:
            self._flights[way].remove(flight)
            flight[1]()

    def cut(self) -> None:
        """Lose a suffix in each direction; the rest still arrives."""
        self.alive = False
        for flights in self._flights.values():
            del flights[self.clock.random.randint(0, len(flights)) :]
        self.clock.after(self.clock.between(NOTICE_S), self._noticed)

    def _noticed(self) -> None:
        self.known = False


class Network:
    """Every connection to the router."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.server: Server | None = None  # None while the router is down
        self.connections: dict[tuple[str, bytes], Connection] = {}
        self.dealers: list[Dealer] = []
        self._peers = 0

    def connect(self, side: str) -> Connection:
        """A new connection, with a routing id of its own."""
        self._peers += 1
        connection = Connection(self.clock, f"{side}{self._peers}".encode())
        self.connections[side, connection.peer] = connection
        return connection

    def to_server(self, side: str, peer: bytes, frames: Frames) -> None:
        """Hand over what arrives, if somebody is there."""
        if self.server is not None:
            self.server.arrived(side, peer, frames)

    def to_peer(self, side: str, peer: bytes, frames: Frames) -> bool:
        """Send from the router; False where it knows that the peer is gone."""
        connection = self.connections.get((side, peer))
        if connection is None or not connection.known:
            return False
        dealer = next((d for d in self.dealers if d.connection is connection), None)
        if dealer is not None:
            connection.send("down", lambda: dealer.receive(frames))
        return True

    def drop_all(self) -> None:
        """The router is gone, and with it every connection."""
        for dealer in self.dealers:
            dealer.cut()
        for connection in self.connections.values():
            connection.known = False


class Dealer:
    """A DEALER socket that reconnects by itself; what it cannot send now is refused (EAGAIN)."""

    def __init__(self, network: Network, side: str, receive: Callable[[Frames], None]) -> None:
        self.network, self.side = network, side
        self._receive = receive
        self.connection: Connection | None = None
        self.closed = False
        self.on_connect: Callable[[], object] = lambda: None
        network.dealers.append(self)
        self._reconnect()

    def send(self, frames: Sequence[Buffer]) -> bool:
        """False where there is no connection."""
        connection = self.connection
        if connection is None:
            return False
        copied = [bytes(frame) for frame in frames]
        connection.send("up", lambda: self.network.to_server(self.side, connection.peer, copied))
        return True

    def receive(self, frames: Frames) -> None:
        """A message from the router."""
        if not self.closed:
            self._receive([bytes(frame) for frame in frames])

    def cut(self) -> None:
        """The connection breaks; another one comes."""
        if self.connection is not None:
            self.connection.cut()
            self.connection = None
            self.network.clock.after(self.network.clock.between(RECONNECT_S), self._reconnect)

    def close(self) -> None:
        """For good."""
        self.closed = True
        if self.connection is not None:
            self.connection.cut()
            self.connection = None
        self.network.dealers.remove(self)

    def _reconnect(self) -> None:
        if self.closed:
            return
        if self.network.server is None:
            self.network.clock.after(self.network.clock.between(RECONNECT_S), self._reconnect)
            return
        self.connection = self.network.connect(self.side)
        self.on_connect()
