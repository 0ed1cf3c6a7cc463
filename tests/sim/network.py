"""A clock and a network that are played: what arrives, in which order and how late comes from one seed.

As TCP and ZeroMQ behave: messages of one connection arrive in order; a cut loses a suffix of what is under
way in each direction; what was under way before may be read after the next connection's first messages; each
end learns of a cut in its own time, or by a failed send; a pipe that nobody reads fills up and then refuses;
a dealer without a connection sends nothing; whoever is silent for HEARTBEAT_S is cut off by the other end.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from common.codec import Buffer
from tests.sim.trace import Trace

Frames = list[bytes]
DELAY_S = (0.0002, 0.005)
STALL_S = (0.2, 3.0)  # now and then, a message takes this long, and all behind it
STALL_CHANCE = 0.01
RECONNECT_S = (0.15, 2.0)
NOTICE_S = (0.0, 8.0)  # until an end knows of a cut that the other end saw at once
HEARTBEAT_S = 6.0  # of silence, after which ZeroMQ gives a connection up
_SNDMORE = int(zmq.SNDMORE)


class Clock:
    """Calls functions at their times."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Call at a time; what is due at one moment is called in the order of asking."""
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, call, args))

    def after(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Call in a while."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + seconds, self._count, call, args))

    def between(self, bounds: tuple[float, float]) -> float:
        """A duration."""
        return self.random.uniform(*bounds)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Until that time, or until `done`."""
        heap = self._heap
        while heap and heap[0][0] <= until and not done():
            self.now, _, call, args = heapq.heappop(heap)
            self.events += 1
            call(*args)
        self.now = max(self.now, until) if not done() else self.now


class Connection:
    """One connection of one dealer. Messages under way stand in `up` (to the router) and `down`."""

    def __init__(self, network: "Network", dealer: "Dealer", server: "ServerSocket", peer: bytes) -> None:
        self.network, self.dealer, self.server, self.peer = network, dealer, server, peer
        self.dead = False  # as it really is
        self.known = True  # to the router
        self.up: deque[tuple[Frames, bool]] = deque()
        self.down: deque[tuple[Frames, bool]] = deque()
        self.unread = {"up": 0, "down": 0}
        self._clear_at = {"up": 0.0, "down": 0.0}

    def put(self, way: str, frames: Frames) -> None:
        """On its way; into the void where the connection is dead already."""
        if self.dead:
            return
        clock = self.network.clock
        delay = clock.between(STALL_S if clock.chance(STALL_CHANCE) else DELAY_S)
        at = self._clear_at[way] = max(self._clear_at[way], clock.now + delay)
        flights: deque[Any] = self.up if way == "up" else self.down
        flight = [frames]
        flights.append(flight)
        clock.at(at, self._arrive, way, flights, flight)

    def full(self, way: str) -> bool:
        """Does it take no more, because the other end does not read?"""
        flights = self.up if way == "up" else self.down
        return len(flights) + self.unread[way] >= self.network.high_water

    def _arrive(self, way: str, flights: deque[Any], flight: list[Frames]) -> None:
        if not flights or flights[0] is not flight:
            return  # lost in a cut
        flights.popleft()
        if way == "up":
            self.server.arrive(self, flight[0])
        else:
            self.dealer.arrive(self, flight[0])

    def stall(self, way: str, seconds: float) -> None:
        """Nothing gets through that way for a while; where that is too long, the connection is given up."""
        clock = self.network.clock
        self._clear_at[way] = max(self._clear_at[way], clock.now + seconds)
        if seconds >= HEARTBEAT_S:
            clock.after(HEARTBEAT_S, self.cut, "router" if way == "up" else "dealer")

    def cut(self, noticed_by: str = "dealer") -> None:
        """Lose a suffix each way. One end, or both, see it at once; the other later."""
        if self.dead:
            return
        self.dead = True
        clock = self.network.clock
        for flights in (self.up, self.down):
            for _ in range(clock.random.randint(0, len(flights))):
                flights.pop()
        late = clock.between(NOTICE_S)
        self.network.trace.note("cut", self.peer, noticed_by)
        if noticed_by == "dealer":
            self.dealer.lost(self)
            clock.after(late, self.forget)
        else:
            self.forget()
            clock.after(late if noticed_by == "router" else 0.0, self.dealer.lost, self)

    def forget(self) -> None:
        """The router knows."""
        self.known = False


class Frame:
    """What of zmq.Frame the loop and the journals touch."""

    __slots__ = ("bytes", "more")

    def __init__(self, data: bytes, *, more: bool) -> None:
        self.bytes, self.more = data, more

    def __len__(self) -> int:
        return len(self.bytes)

    @property
    def buffer(self) -> memoryview:
        return memoryview(self.bytes)


class ServerSocket:
    """The router's ROUTER socket of one side, in one life of the router."""

    def __init__(self, network: "Network", side: str, wake: Callable[[], None]) -> None:
        self.network, self.side = network, side
        self.closed = False
        self._wake = wake
        self._inbox: deque[tuple[Connection, Frames]] = deque()
        self._rest: deque[bytes] = deque()
        self._to: Connection | None = None
        self._parts: Frames = []

    def __bool__(self) -> bool:
        return bool(self._inbox)

    def arrive(self, connection: Connection, frames: Frames) -> None:
        if not self.closed:
            connection.unread["up"] += 1
            self._inbox.append((connection, frames))
            self._wake()

    def recv(self, flags: int = 0, copy: bool = True, track: bool = False) -> Any:
        if self._rest:
            data = self._rest.popleft()
            return Frame(data, more=bool(self._rest))
        if not self._inbox:
            raise zmq.Again
        connection, frames = self._inbox.popleft()
        connection.unread["up"] -= 1
        self._rest.extend(frames)
        self.network.trace.frames("got", connection.peer, frames)
        return connection.peer

    def send(self, data: Any, flags: int = 0, copy: bool = True, track: bool = False) -> None:
        if self._to is None:
            connection = self.network.connections.get(bytes(data))
            if connection is None or not connection.known or connection.server is not self:
                raise zmq.ZMQError(zmq.EHOSTUNREACH)
            if connection.full("down"):
                raise zmq.Again
            self._to = connection
            return
        self._parts.append(bytes(data))
        if not flags & _SNDMORE:
            connection, self._to, frames, self._parts = self._to, None, self._parts, []
            self.network.trace.frames("sent", connection.peer, frames)
            connection.put("down", frames)


class Network:
    """Every connection to the router."""

    def __init__(self, clock: Clock, trace: Trace, *, high_water: int = 1000) -> None:
        self.clock, self.trace, self.high_water = clock, trace, high_water
        self.servers: dict[str, ServerSocket] = {}  # none while the router is down
        self.accepting = True  # not while it is frozen
        self.connections: dict[bytes, Connection] = {}
        self.dealers: list[Dealer] = []
        self._peers = 0

    def connect(self, dealer: "Dealer") -> Connection | None:
        """A new connection, with a routing id of its own; None where nobody answers."""
        server = self.servers.get(dealer.side)
        if server is None or not self.accepting:
            return None
        self._peers += 1
        connection = Connection(self, dealer, server, f"{dealer.name}.{self._peers}".encode())
        self.connections[connection.peer] = connection
        return connection

    def open(self, sockets: dict[str, ServerSocket]) -> None:
        """The router listens."""
        self.servers, self.accepting = sockets, True

    def close(self, *, late: bool, orderly: bool = False) -> None:
        """The router is gone, and with it every connection. `late`: its host died, so that dealers notice late."""
        for server in self.servers.values():
            server.closed = True
        self.servers = {}
        for connection in list(self.connections.values()):
            if orderly:  # it lingered: all that it had said arrives
                connection.dead = True
                connection.known = False
                self.clock.after(0.1, connection.dealer.lost, connection)
            else:
                connection.cut("router" if late else "both")
        self.connections.clear()


class Dealer:
    """A DEALER socket that reconnects by itself; what it cannot send now is refused (EAGAIN)."""

    def __init__(self, network: Network, side: str, name: str, receive: Callable[[Frames], None]) -> None:
        self.network, self.side, self.name = network, side, name
        self._receive = receive
        self.connection: Connection | None = None
        self.closed = False
        self.paused = False  # it reads nothing
        self.heard_on: bytes = b""  # the connection of the message that is being read
        self.on_connect: Callable[[], object] = lambda: None
        self._inbox: deque[tuple[Connection, Frames]] = deque()
        network.dealers.append(self)
        network.clock.after(0.0, self._reconnect)

    def send(self, frames: Sequence[Buffer]) -> bool:
        """False where there is no connection, or it takes no more."""
        connection = self.connection
        if connection is None or connection.full("up"):
            return False
        copied = [bytes(frame) for frame in frames]
        self.network.trace.frames("up", connection.peer, copied)
        connection.put("up", copied)
        return True

    def arrive(self, connection: Connection, frames: Frames) -> None:
        """A message from the router."""
        if self.closed:
            return
        connection.unread["down"] += 1
        self._inbox.append((connection, frames))
        self.read()

    def read(self) -> None:
        """All that has come, unless paused."""
        while self._inbox and not self.paused and not self.closed:
            connection, frames = self._inbox.popleft()
            connection.unread["down"] -= 1
            self.network.trace.frames("down", connection.peer, frames)
            self.heard_on = connection.peer
            self._receive(frames)

    def cut(self, noticed_by: str = "dealer") -> None:
        """The connection breaks; another one comes."""
        if self.connection is not None:
            self.connection.cut(noticed_by)

    def lost(self, connection: Connection) -> None:
        """This end knows."""
        if self.connection is connection:
            self.connection = None
            self.network.clock.after(self.network.clock.between(RECONNECT_S), self._reconnect)

    def close(self) -> None:
        """For good."""
        self.closed = True
        self.cut()
        self.connection = None
        if self in self.network.dealers:
            self.network.dealers.remove(self)

    def _reconnect(self) -> None:
        if self.closed or self.connection is not None:
            return
        self.connection = self.network.connect(self)
        if self.connection is None:
            self.network.clock.after(self.network.clock.between(RECONNECT_S), self._reconnect)
            return
        self.on_connect()
