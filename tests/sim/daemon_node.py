"""A GPU daemon: its real session and outbox, and an engine that is played.

It does what control.py does between them. While it is frozen it handles nothing; its engine, a process of its
own, goes on, and then everything is handled at once.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from common.codec import TO_WORKER, divide, part_sizes, split_payload
from common.messages import DeviceInfo, Heartbeat, JobOrder, Message, Note, Picture, Register, Timings, Token
from common.models import ModelCard
from common.settings import GpuDaemonSettings
from gpu_daemon.engine_messages import Begun, Draw, Drawn, Loading, Quit, Ready, Step, Stop, Undrawn
from gpu_daemon.events import (
    Command,
    DrainAsked,
    EngineDied,
    EngineSaid,
    EngineStarted,
    Event,
    KillEngine,
    Leave,
    Reconnect,
    RouterSaid,
    Tick,
    ToEngine,
    ToRouter,
)
from gpu_daemon.hand import CAPACITY_JOBS
from gpu_daemon.outbox import Outbox
from gpu_daemon.session import Session
from tests.sim.network import HEARTBEAT_S, Clock, Dealer, Frames, Network
from tests.sim.promises import Promises

TICK_S = 0.1
LOAD_S = (0.5, 3.0)
LINGER_S = 0.5  # for its last words, when it leaves
AWAY_S = 3.0  # until another one starts
OUTBOX_MAX = 16
DEVICE = DeviceInfo(device="cpu", kind="cpu")
LOAD = Heartbeat(epoch=0, state="ready").load
FAILURES = ("engine_error", "engine_error", "out_of_memory", "invalid_request")


def card(name: str) -> ModelCard:
    return ModelCard(name=name, width=64, height=64, side_min=16, side_max=1024, steps=4, steps_max=50, edits=True)


def picture_of(prompt: str, seed: int, steps: int, files: Sequence[bytes]) -> bytes:
    """How every picture of such a job begins: nothing else may reach its client."""
    started_from = hashlib.sha256(b"".join(files)).hexdigest() if files else "nothing"
    return f"{prompt}/{seed}/{steps}/{started_from}/".encode()


class DaemonNode:
    """One device over all the lives of its daemon."""

    def __init__(
        self, clock: Clock, network: Network, promises: Promises, name: str, model: str, step_s: float,
        settings: GpuDaemonSettings, deadly: dict[str, int], *, failures: float = 0.0,
    ) -> None:  # fmt: skip
        """`deadly`: how many engines each of these prompts is still to end, whichever daemon's."""
        self.clock, self.network, self.promises = clock, network, promises
        self.name, self.card, self.step_s, self.settings = name, card(model), step_s, settings
        self.tick_s = clock.random.choice([TICK_S, 3 * TICK_S, 3 * TICK_S])  # a busy host wakes it late
        self.deadly = deadly
        self.failures = failures  # how often a picture does not come to be
        self.lives = 0
        self.left = True
        self.gone = False  # for good
        self.frozen = False
        self.hangs = False  # the engine: it takes no further step
        self.engine_life = 0
        self.engine_runs = False
        self.drawing: Token | None = None
        self.files: list[bytes] = []  # that it is drawn from
        self.stop_asked: Token | None = None
        self._backlog: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    # --- its lives -----------------------------------------------------------------------------

    def start(self) -> None:
        """A new control process with a new engine."""
        if not self.left or self.gone:
            return
        self.lives += 1
        self.left, self.frozen, self._backlog = False, False, []
        introduction = Register(
            worker_id=self.name, boot_id=f"{self.name}-{self.lives}", nonce="", host="h", device=DEVICE,
            models=(self.card,),
        )  # fmt: skip
        self.session = Session(introduction, self.settings)
        self.dealer = Dealer(self.network, "worker", self.name, self._heard)
        self.outbox = Outbox(self.dealer.send)
        self.dealer.on_connect = self._connected
        self._start_engine(self.lives)
        self._tick(self.lives)

    def crash(self, down_s: float) -> None:
        """Control and engine are gone; back in a while."""
        if self.left:
            return
        self.network.trace.note("crash", self.name, down_s)
        self._end()
        self.dealer.close()
        self.clock.after(down_s, self.start)

    def _end(self) -> None:
        self.lives += 1
        self.engine_life += 1
        self.drawing, self.engine_runs, self.left = None, False, True

    def freeze(self, seconds: float) -> None:
        """SIGSTOP of control; the router gives a connection up that is silent for too long."""
        if self.left or self.frozen:
            return
        self.network.trace.note("freeze", self.name, seconds)
        self.frozen = self.dealer.paused = True
        life, connection = self.lives, self.dealer.connection
        self.clock.after(seconds, self._thaw, life)
        if seconds >= HEARTBEAT_S and connection is not None:
            self.clock.after(HEARTBEAT_S, connection.cut, "router")

    def _thaw(self, life: int) -> None:
        if life != self.lives:
            return
        self.network.trace.note("thaw", self.name)
        self.frozen = self.dealer.paused = False
        self.outbox.flush()
        self.dealer.read()
        backlog, self._backlog = self._backlog, []
        for call, args in backlog:
            call(*args)

    def drain(self) -> None:
        """SIGTERM."""
        if not self.left:
            self.network.trace.note("drain", self.name)
            self._awake(self.handle, DrainAsked())

    # --- its loop ------------------------------------------------------------------------------

    def _awake(self, call: Callable[..., None], *args: Any) -> None:
        if self.frozen:
            self._backlog.append((call, args))
        else:
            call(*args)

    def handle(self, event: Event) -> None:
        if self.left:
            return
        commands = self.session.handle(event, self.clock.now)
        if not self.session.left:
            self.session.check_invariants()
        for command in commands:
            self._carry_out(command)
        assert len(self.outbox) <= OUTBOX_MAX, f"{self.name} hoards what it has to say"

    def _carry_out(self, command: Command) -> None:
        match command:
            case ToRouter():
                self.outbox.say(command.message, command.payload)
            case ToEngine():
                self._to_engine(command.message, command.payload)
            case KillEngine():
                self.clock.after(0.0, self.kill_engine, "was killed by its daemon")
            case Reconnect():
                self.dealer.cut()
            case Leave():
                self._end()
                self.clock.after(LINGER_S, self.dealer.close)
                self.clock.after(AWAY_S, self.start)

    def _connected(self) -> None:
        if not self.frozen:
            self.outbox.flush()

    def _heard(self, frames: Frames) -> None:
        if not self.left:
            self.handle(RouterSaid(TO_WORKER.decode(frames), frames[3:]))

    def _tick(self, life: int) -> None:
        if life == self.lives:
            if not self.frozen:
                self.outbox.flush()
                self.handle(Tick())
            self.clock.after(self.tick_s, self._tick, life)

    # --- the engine ----------------------------------------------------------------------------

    def kill_engine(self, how: str = "was killed by SIGKILL") -> None:
        """The engine process dies; another one starts."""
        if self.left or not self.engine_runs:
            return
        self.network.trace.note("killed", self.name, how)
        self.engine_runs = False
        self.engine_life += 1
        self.drawing, self.hangs = None, False
        self._awake(self._reap, self.lives, how)

    def _reap(self, life: int, how: str) -> None:
        if life == self.lives:
            self.handle(EngineDied(how))
            self.clock.after(0.01, self._awake, self._start_engine, life)

    def _start_engine(self, life: int) -> None:
        if life != self.lives:
            return
        self.engine_life += 1
        self.engine_runs, self.hangs = True, False
        self.handle(EngineStarted(self.engine_life))
        ready = Ready(card=self.card, device=DEVICE, load=LOAD, load_s=1.0, offloaded=False)
        self._from_engine(0.05, Loading(stage="loading", fraction=0.5))
        self._from_engine(self.clock.between(LOAD_S), ready)

    def _from_engine(self, in_s: float, message: Message, data: bytes = b"") -> None:
        said = EngineSaid(message, split_payload(data) if data else ())
        self.clock.after(in_s, self._awake, self._engine_said, self.lives, self.engine_life, said)

    def _engine_said(self, life: int, engine: int, said: EngineSaid) -> None:
        if (life, engine) == (self.lives, self.engine_life):
            self.handle(said)

    def _to_engine(self, message: Message, payload: Sequence[Any] = ()) -> None:
        if not self.engine_runs:
            return  # deaf: it is dead, and that will be noticed
        match message:
            case Draw():
                assert self.drawing is None, "an engine is given a second picture"
                self.drawing, self.stop_asked = message.token, None
                self.files = [b"".join(map(bytes, f)) for f in divide(payload, [i.bytes for i in message.job.inputs])]
                self._from_engine(0.0, Begun(token=message.token))
                self.clock.after(self.step_s, self._step, self.engine_life, message, 1)
            case Stop():
                self.stop_asked = message.token
            case Quit():
                pass

    def _step(self, engine: int, order: Draw, step: int) -> None:
        if engine != self.engine_life or self.hangs:
            return
        token, steps = order.token, order.job.drawn_steps
        if self.deadly.get(order.job.prompt):
            self.deadly[order.job.prompt] -= 1
            self.kill_engine("died of what it drew")
            return
        code = ""
        if self.stop_asked == token:
            code = "cancelled"
        elif step == 1 and self.clock.chance(self.failures):
            code = self.clock.random.choice(FAILURES)
        if code:
            self.drawing = None
            self._from_engine(0.0, Undrawn(token=token, code=code, message="as the seed wills"))
            return
        self._from_engine(0.0, Step(token=token, step=step, steps=steps, step_s=self.step_s, load=LOAD))
        if step < steps:
            self.clock.after(self.step_s, self._step, engine, order, step + 1)
        else:
            self.drawing = None
            self._drawn(token, order.job)

    def _drawn(self, token: Token, job: JobOrder) -> None:
        data = picture_of(job.prompt, job.seed, job.steps, self.files) + f"{token.dispatch}".encode()
        sha256 = hashlib.sha256(data).hexdigest()
        self.promises.drew(self.name, token, sha256)
        picture = Picture(
            format="png", width=job.width, height=job.height, drawn_width=job.drawn_width,
            drawn_height=job.drawn_height, bytes=len(data), sha256=sha256,
        )  # fmt: skip
        parts, timings = part_sizes(split_payload(data)), Timings(denoise_s=self.step_s * job.steps)
        notes = (Note(code="note", message=self.name),) if token.dispatch > 1 else ()
        self._from_engine(0.001, Drawn(token=token, picture=picture, parts=parts, timings=timings, notes=notes), data)

    @property
    def serves(self) -> bool:
        """Could it draw, as far as it knows?"""
        return not (self.left or self.frozen or self.session.draining) and self.session.work.state == "ready"

    # --- when all is quiet ---------------------------------------------------------------------

    def credit(self) -> tuple[int | None, int, int, int]:
        """Epoch, granted, received, in hand: this side of the books."""
        session = self.session
        return session._epoch, session._granted, session._received, len(session.work.hand)

    def check_quiet(self) -> None:
        epoch, granted, received, held = self.credit()
        assert epoch is not None, f"{self.name} is not registered"
        assert granted - received + held == CAPACITY_JOBS, f"{self.name} leaked credit: {self.credit()}"
        assert not held, f"{self.name} still holds {self.session.work.hand.tokens()}"
        assert not len(self.outbox), f"{self.name} has not said everything"
