"""The session against a small model of the router and of the engine, by seeded chance, checked after each event."""

import random
from collections import deque

import msgspec
import pytest

from common.messages import (
    Bye,
    CancelToken,
    Credit,
    DeviceInfo,
    DeviceLoad,
    Dispatch,
    Done,
    ErrorReply,
    Fail,
    Fenced,
    Message,
    Picture,
    Register,
    ResultAck,
    Resync,
    Returned,
    Timings,
    Token,
    Welcome,
    WorkerMessage,
)
from common.models import ModelCard
from common.settings import GpuDaemonSettings
from gpu_daemon.engine_messages import Begun, Broken, Draw, Drawn, Quit, Ready, Step, Stop, Undrawn
from gpu_daemon.events import (
    DrainAsked,
    EngineDied,
    EngineSaid,
    EngineStarted,
    Event,
    KillEngine,
    Leave,
    RouterSaid,
    Tick,
    ToEngine,
    ToRouter,
)
from gpu_daemon.hand import CAPACITY_JOBS
from gpu_daemon.session import Session
from tests.gpu_daemon.fake_router import job_order, token

CARD = ModelCard(name="noop")
DEVICE = DeviceInfo(device="cpu", kind="cpu")
SETTINGS = GpuDaemonSettings(job_timeout_s=30.0, job_stop_grace_s=4.0, drain_s=20.0)
INTRODUCTION = Register(worker_id="w", boot_id="b", nonce="", host="h", device=DEVICE, models=(CARD,))
PICTURE = Picture(format="png", width=1, height=1, drawn_width=1, drawn_height=1, bytes=1, sha256="0" * 64)
STEPS_A_SEED = 3000


class World:
    """A router that keeps the books and an engine that keeps its word, both as chance has it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.session = Session(INTRODUCTION, SETTINGS)
        self.now = 0.0
        self.left = False
        # the router's books
        self.nonce = ""
        self.listed: tuple[Token, ...] = ()
        self.epoch = 0
        self.bound = False
        self.granted = 0
        self.dispatched = 0
        self.open: set[Token] = set()  # dispatched or kept, and no end heard of
        self.unanswered: list[Token] = []  # ends that were heard and not answered
        self.jobs = 0
        self.pictures = 0
        # the engine
        self.alive = False
        self.ready = False
        self.drawing: Token | None = None
        self.stopping = False
        self.killed = False

    def do(self, event: Event) -> None:
        todo = deque(self.session.handle(event, self.now))
        self.session.check_invariants()
        for command in todo:
            match command:
                case ToRouter():
                    self.hear(command.message)
                case ToEngine():
                    self.order(command.message)
                case KillEngine():
                    assert self.alive
                    assert not self.killed, "killed twice"
                    self.killed = True
                case Leave():
                    self.left = True

    def hear(self, message: Message) -> None:
        """The router's side of the grammar."""
        if isinstance(message, Register):
            self.nonce, self.bound = message.nonce, False
            self.listed = tuple(held.token for held in message.tokens)
            assert len(self.listed) <= CAPACITY_JOBS
            return
        assert isinstance(message, WorkerMessage)
        assert self.bound, f"{message} without a WELCOME"
        assert message.epoch == self.epoch
        if isinstance(message, Credit):
            assert message.granted_total > self.granted
            self.granted = message.granted_total
            assert self.granted - self.dispatched <= CAPACITY_JOBS
        elif isinstance(message, Returned):
            self.open.discard(message.token)
        elif isinstance(message, Done | Fail):
            self.pictures += isinstance(message, Done)
            self.open.discard(message.token)
            if message.token not in self.unanswered:
                self.unanswered.append(message.token)
        elif isinstance(message, Bye):
            assert not self.session.work.hand.running()

    def order(self, message: Message) -> None:
        """The engine's side."""
        if isinstance(message, Draw):
            assert self.ready
            assert self.drawing is None, "a second job for a busy engine"
            self.drawing, self.stopping = message.token, False
        elif isinstance(message, Stop):
            assert message.token == self.drawing
            self.stopping = True
        elif isinstance(message, Quit):
            self.killed = True

    # --- what chance may bring -----------------------------------------------------------------

    def pass_time(self) -> None:
        self.now += self.chance.choice([0.0, 0.01, 0.1, 0.5, 2.0, 9.0])
        self.do(Tick())

    def say(self, message: Message) -> None:
        self.do(RouterSaid(message))

    def welcome(self) -> None:
        if not self.nonce or self.bound:
            return
        keep = tuple(t for t in self.listed if self.chance.random() < 0.8)
        drop = tuple(t for t in self.listed if t not in keep)
        self.epoch += 1
        self.bound, self.granted, self.dispatched = True, 0, 0
        self.open, self.unanswered = set(keep), []
        self.say(
            Welcome(
                nonce=self.nonce, epoch=self.epoch, heartbeat_interval_s=1.0, dead_after_s=10.0, keep=keep, drop=drop
            )
        )

    def dispatch(self) -> None:
        if self.bound and self.granted > self.dispatched:
            self.jobs += 1
            self.dispatched += 1
            one = token(self.jobs)
            self.open.add(one)
            remaining_s = self.chance.choice([600.0, 600.0, 5.0, 0.0])
            self.say(Dispatch(epoch=self.epoch, token=one, job=job_order(), remaining_s=remaining_s))

    def answer(self) -> None:
        if self.bound and self.unanswered:
            self.say(self.chance.choice([ResultAck, Fenced])(token=self.unanswered.pop()))

    def cancel(self) -> None:
        if self.bound and self.open:
            one = self.chance.choice(sorted(self.open, key=lambda t: t.job_id))
            self.open.discard(one)
            self.say(CancelToken(token=one))

    def nonsense(self) -> None:
        stray = token(self.chance.randrange(1, self.jobs + 2), self.chance.choice([1, 2]))
        stale = Dispatch(epoch=self.epoch + 7, token=stray, job=job_order(), remaining_s=1.0)
        never = token(9_999_999)
        self.say(self.chance.choice([ResultAck(token=never), Fenced(token=never), CancelToken(token=never), stale]))
        self.say(Welcome(nonce="not ours", epoch=99, heartbeat_interval_s=1.0, dead_after_s=10.0))
        self.say(ErrorReply(code="internal", message="?"))

    def resync(self) -> None:
        if self.bound and self.chance.random() < 0.3:
            self.bound = False
            self.nonce = ""
            self.say(Resync())

    def engine_lives(self) -> None:
        if not self.alive:
            self.alive, self.ready, self.killed, self.drawing = True, False, False, None
            self.do(EngineStarted(1))
        elif self.killed:
            self.die()
        elif not self.ready:
            self.ready = True
            self.do(EngineSaid(Ready(card=CARD, device=DEVICE, load=DeviceLoad(), load_s=0.0, offloaded=False)))

    def die(self) -> None:
        self.alive = self.ready = self.killed = False
        self.drawing = None
        self.do(EngineDied("was killed by SIGKILL"))

    def engine_fails(self) -> None:
        chance = self.chance.random()
        if self.alive and chance < 0.15:
            self.die()
        elif self.ready and chance < 0.2 and not self.killed:
            self.ready = False
            self.do(EngineSaid(Broken(code="engine_died", message="CUDA")))

    def engine_draws(self) -> None:
        if self.drawing is None or self.killed:
            return
        one, said = self.drawing, self.chance.random()
        if said < 0.3:
            self.do(EngineSaid(Begun(token=one)))
        elif said < 0.6:
            self.do(EngineSaid(Step(token=one, step=1, steps=2, step_s=0.1, load=DeviceLoad())))
        else:
            self.drawing = None
            code = "cancelled" if self.stopping else "out_of_memory"
            undrawn = Undrawn(token=one, code=code, message="")
            drawn = Drawn(token=one, picture=PICTURE, parts=(1,), timings=Timings())
            self.do(EngineSaid(undrawn) if self.stopping or said > 0.9 else EngineSaid(drawn, (b"x",)))

    def step(self) -> None:
        likely = [self.dispatch, self.engine_draws, self.engine_lives, self.answer, self.pass_time, self.welcome]
        seldom = [self.cancel, self.resync, self.engine_fails, self.nonsense]
        self.chance.choice(likely * 4 + seldom)()

    def settle(self) -> None:
        """Everybody keeps their word until nothing is left to do."""
        for _ in range(400):
            self.now += 0.5
            for act in (self.engine_lives, self.welcome, self.engine_draws, self.answer):
                act()
            self.do(Tick())


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_events_keeps_the_books(seed: int) -> None:
    world = World(seed)
    for _ in range(STEPS_A_SEED):
        world.step()
    world.settle()
    assert world.pictures > 20, "chance must have let some jobs through"
    assert not world.open, "every job that the router counts here has come to an end"
    assert len(world.session.work.hand) == 0
    assert world.granted - world.dispatched == CAPACITY_JOBS


@pytest.mark.parametrize("seed", range(12))
def test_a_drain_at_any_moment_ends_in_leaving(seed: int) -> None:
    world = World(seed)
    for _ in range(world.chance.randrange(20, 400)):
        world.step()
    world.do(DrainAsked())
    for _ in range(200):
        if world.left:
            break
        world.step()
    world.settle()
    assert world.left
    assert world.session.left


def test_the_same_seed_gives_the_same_story() -> None:
    stories = []
    for _ in range(2):
        world = World(5)
        for _ in range(300):
            world.step()
        stories.append((world.jobs, world.pictures, world.epoch, msgspec.structs.astuple(INTRODUCTION), world.now))
    assert stories[0] == stories[1]
