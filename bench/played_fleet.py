"""The real router's decisions over played GPUs: a clock that jumps, engines that only take time.

What the broker decides is real; daemons, engines and the network are played, and answer at once. So hours of
drawing are over in seconds, and a seed gives the same run again.
"""

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from common.messages import (
    Accepted,
    Credit,
    DeviceInfo,
    Dispatch,
    Done,
    Heartbeat,
    JobOrder,
    JobSpec,
    Message,
    Picture,
    Register,
    Rejected,
    ResultAck,
    Started,
    Submit,
    Terms,
    Timings,
    Token,
    Welcome,
    WorkerProgress,
)
from common.models import ModelCard
from common.settings import RouterSettings
from router.broker import Broker
from router.commands import StoreResult, ToClient, ToWorker
from router.events import Event, ResultStored, Submitted, Tick, WorkerSaid

CARD = ModelCard(name="m", width=1024, height=1024, side_min=16, side_max=2048, steps=20, steps_max=100)
TICK_S = 0.1
WALL_AHEAD_S = 1.7e9
PNG = b"picture"
HEAD_S, TAIL_S = 0.05, 0.2  # of every job, on every GPU
CAPACITY = 2


def order_s(pass_s_per_mpixel: float, order: JobOrder | JobSpec) -> float:
    """How long a job truly takes on a GPU of this speed."""
    return HEAD_S + order.steps * step_s(pass_s_per_mpixel, order) + TAIL_S


def step_s(pass_s_per_mpixel: float, order: JobOrder | JobSpec) -> float:
    """One step of it."""
    return pass_s_per_mpixel * order.width * order.height / 1e6


@dataclass
class Drawn:
    """One job that a GPU has drawn, in seconds of the played clock."""

    job_id: str
    worker_id: str
    started: float
    ended: float


@dataclass
class PlayedGpu:
    """One daemon and its engine: draws what it has in hand, one after the other."""

    fleet: "PlayedFleet"
    name: str
    pass_s_per_mpixel: float
    epoch: int = 0
    granted: int = 0
    hand: list[Dispatch] = field(default_factory=list)
    drawing: bool = False

    def say(self, message: Message, payload: tuple[bytes, ...] = ()) -> None:
        """To the router."""
        fleet = self.fleet
        fleet.handle(WorkerSaid(wall=fleet.wall, peer=self.name.encode(), message=message, payload=payload))

    def begin(self) -> None:
        """Register, and grant what it can hold."""
        device = DeviceInfo(device="cuda:0", kind="cuda")
        self.say(Register(worker_id=self.name, boot_id="b", nonce="1", host="h", device=device, models=(CARD,)))
        self.beat()
        self.grant(CAPACITY)

    def beat(self) -> None:
        """A sign of life, every second."""
        self.say(Heartbeat(epoch=self.epoch, state="ready"))
        self.fleet.after(1.0, self.beat)

    def grant(self, more: int) -> None:
        """A slot is free."""
        self.granted += more
        self.say(Credit(epoch=self.epoch, granted_total=self.granted))

    def hear(self, message: Message) -> None:
        """From the router."""
        match message:
            case Welcome():
                self.epoch = message.epoch
            case Dispatch():
                self.hand.append(message)
                self._draw_next()
            case ResultAck():
                self.grant(1)

    def _draw_next(self) -> None:
        if self.drawing or not self.hand:
            return
        self.drawing = True
        self.fleet.started.append((self.fleet.now, self.name, self.hand[0].token.job_id))
        order, token, started = self.hand[0].job, self.hand[0].token, self.fleet.now
        self.say(Started(epoch=self.epoch, token=token))
        one_s = step_s(self.pass_s_per_mpixel, order)
        self.fleet.after(HEAD_S + one_s, lambda: self._step(order, token, 1, one_s, started))

    def _step(self, order: JobOrder, token: Token, step: int, one_s: float, started: float) -> None:
        self.say(WorkerProgress(epoch=self.epoch, token=token, step=step, steps=order.steps, step_s=one_s))
        if step < order.steps:
            self.fleet.after(one_s, lambda: self._step(order, token, step + 1, one_s, started))
        else:
            self.fleet.after(TAIL_S, lambda: self._done(order, token, started))

    def _done(self, order: JobOrder, token: Token, started: float) -> None:
        self.hand.pop(0)
        self.drawing = False
        self.fleet.drawn.append(Drawn(token.job_id, self.name, started, self.fleet.now))
        picture = Picture(
            format="png",
            width=order.width,
            height=order.height,
            drawn_width=order.drawn_width,
            drawn_height=order.drawn_height,
            bytes=len(PNG),
            sha256=hashlib.sha256(PNG).hexdigest(),
        )
        timings = Timings(encode_s=HEAD_S, denoise_s=self.fleet.now - started - HEAD_S - TAIL_S, decode_s=TAIL_S)
        self.say(Done(epoch=self.epoch, token=token, picture=picture, parts=(len(PNG),), timings=timings), (PNG,))
        self._draw_next()


class PlayedFleet:
    """A real broker, played GPUs, and a clock that jumps from event to event."""

    def __init__(self, speeds: list[float], *, seed: int = 0, check: bool = False, **settings: Any) -> None:
        """`speeds`: of each GPU, seconds a step and megapixel. `check`: every invariant after every event."""
        self.now = 1000.0
        self.random = random.Random(seed)
        self.broker = Broker(RouterSettings(**settings))
        self.started: list[tuple[float, str, str]] = []  # when, on which GPU, which job
        self.drawn: list[Drawn] = []
        self.answers: list[Message] = []  # to the last SUBMIT
        self.check = check
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._inbox: list[Event] = []
        self._handling = False
        self.gpus = {f"g{i}": PlayedGpu(self, f"g{i}", speed) for i, speed in enumerate(speeds)}
        for gpu in self.gpus.values():
            gpu.begin()
        self._tick()

    @property
    def wall(self) -> float:
        """Seconds since 1970."""
        return self.now + WALL_AHEAD_S

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call in a while."""
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, call))

    def run(self, done: Callable[[], bool], within_s: float = 1e6) -> None:
        """Play until `done`."""
        end = self.now + within_s
        while not done():
            self.now, _, call = heapq.heappop(self._events)
            if self.now > end:
                raise AssertionError(f"not done within {within_s} s of played time")
            call()

    def handle(self, event: Event) -> None:
        """One event after the other, as the loop takes them."""
        self._inbox.append(event)
        if self._handling:
            return
        self._handling = True
        while self._inbox:
            commands = self.broker.handle(self._inbox.pop(0), self.now)
            if self.check:
                self.broker.check_invariants()
            for command in commands:
                match command:
                    case ToWorker():
                        self.gpus[bytes(command.peer).decode()].hear(command.message)
                    case ToClient(message=Accepted() | Rejected()):
                        self.answers.append(command.message)
                    case StoreResult():
                        self._inbox.append(ResultStored(wall=self.wall, token=command.token))
        self._handling = False

    def _tick(self) -> None:
        self.handle(Tick(wall=self.wall))
        self.after(TICK_S, self._tick)

    def submit(self, spec: JobSpec, *, owner: str = "", terms: Terms | None = None) -> Accepted | Rejected:
        """Ask for one picture, for that owner on those terms."""
        job_id = f"{self.random.getrandbits(128):032x}"
        self.answers.clear()
        submit = Submit(rid="1", job=spec, owner=owner, terms=terms)
        self.handle(Submitted(wall=self.wall, peer=b"c", message=submit, job_id=job_id, seed=1))
        (answer,) = self.answers
        assert isinstance(answer, Accepted | Rejected)
        return answer
