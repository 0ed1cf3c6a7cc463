"""The daemon's codec, session and outbox in one process, without sockets: mutated frames of a router.

After each frame the session's invariants hold, everything it says fits the wire, and what its codec refuses reaches it
not at all. The engine here keeps its word, and now and then dies. An episode is played again from its seed.
"""

import hashlib
import random
from collections import Counter, deque

from msgspec.structs import replace

from common.codec import FROM_WORKER, TO_WORKER, encode
from common.errors import ProtocolError
from common.messages import DeviceInfo, DeviceLoad, Done, Drain, Fail, Message, Picture, Register, Timings, Token
from common.models import ModelCard
from common.settings import GpuDaemonSettings
from gpu_daemon.engine_messages import Begun, Draw, Drawn, Quit, Ready, Step, Stop, Undrawn
from gpu_daemon.events import (
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
from gpu_daemon.session import Session
from tests.fuzz.failure import FuzzError
from tests.fuzz.grammar import Known, Said, router_message
from tests.fuzz.mutate import Frames, frames_of, mutated

EPISODE_FRAMES = 2000
VALID_SHARE = 0.25
CARD = ModelCard(name="noop")
DEVICE = DeviceInfo(device="cpu", kind="cpu")
SETTINGS = GpuDaemonSettings(job_timeout_s=30.0, job_stop_grace_s=4.0)
INTRODUCTION = Register(worker_id="w", boot_id="b", nonce="", host="h", device=DEVICE, models=(CARD,))
PNG = b"picture"
PICTURE = Picture(
    format="png", width=64, height=48, drawn_width=64, drawn_height=48, bytes=len(PNG),
    sha256=hashlib.sha256(PNG).hexdigest(),
)  # fmt: skip


class DaemonEpisode:
    """One daemon's life under a router that lies."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.session = Session(INTRODUCTION, SETTINGS)
        self.known = Known(long=self.chance.choice((0.0, 0.05, 0.9)))
        self.now = 0.0
        self.done = Counter[str]()
        self.todo: deque[Said] = deque()  # what the router says to get work done, unless it lies in between
        self.engine_alive = self.ready = self.stopping = False
        self.drawing: Draw | None = None

    def run(self, frames: int) -> None:
        """Say so many mutated frames; what is said between them is true."""
        while self.done["mutated"] < frames:
            self._step()

    def _step(self) -> None:
        kind = self.chance.random()
        if kind < 0.1:
            self.now += self.chance.choice((0.1, 0.1, 0.1, 0.5, 1.0, self.chance.choice((0.1, 4.0, 11.0))))
            self._handle(Tick())
        elif kind < 0.35:
            self._engine_lives()
        elif self.todo and kind < 0.6:
            self._said(frames_of(self.todo.popleft()))
        else:
            said = router_message(self.chance, self.known)
            if self.chance.random() < VALID_SHARE:
                self._said(frames_of(said))
            else:
                self.done["mutated"] += 1
                self._said(mutated(self.chance, said))

    def _said(self, frames: Frames) -> None:
        try:
            try:
                message = TO_WORKER.decode(frames)
            except ProtocolError:
                self.done["unreadable"] += 1
                return
            if isinstance(message, Drain):  # it would be obeyed
                return
            self.done["readable"] += 1
            self._handle(RouterSaid(message, frames[3:]))
        except Exception as error:
            what = f"{type(error).__name__} in {self.seed}, after {self.done['mutated']} mutated frames: {error}"
            again = f"python -m tests.fuzz --part session --episode {self.seed}"
            raise FuzzError(what, again=again, frames=frames, side="router") from error

    def _handle(self, event: Event) -> None:
        commands = self.session.handle(event, self.now)
        self.session.check_invariants()
        for command in commands:
            match command:
                case ToRouter():
                    FROM_WORKER.decode(encode(command.message, command.payload))  # as the router will read it
                    self._heard(command.message)
                case ToEngine():
                    encode(command.message, command.payload)
                    self._ordered(command.message)
                case KillEngine():
                    self._engine_dies()
                case Leave():
                    raise AssertionError("it leaves, though nobody asked it to")

    # --- the router that keeps its word ----------------------------------------------------------

    def _heard(self, message: Message) -> None:
        known = self.known
        self.done[message.NAME.decode()] += 1
        if isinstance(message, Register):
            known.nonce = message.nonce
            known.epochs.append(known.epoch)
            known.epoch += 1
            welcome = {"nonce": known.nonce, "epoch": known.epoch, "heartbeat_interval_s": 0.2, "dead_after_s": 3.0}
            keep = [{"job_id": h.token.job_id, "dispatch": h.token.dispatch} for h in message.tokens]
            self.todo.append(Said(b"WELCOME", welcome | {"keep": keep}))
        elif isinstance(message, Done | Fail):
            token = {"job_id": message.token.job_id, "dispatch": message.token.dispatch}
            self.todo.append(Said(b"RESULT_ACK", {"token": token}))

    # --- the engine ------------------------------------------------------------------------------

    def _ordered(self, message: Message) -> None:
        if isinstance(message, Draw):
            token: Token = message.token
            assert self.drawing is None, "the engine is given two jobs"
            self.drawing, self.stopping = message, False
            self.known.own.append({"job_id": token.job_id, "dispatch": token.dispatch})
        elif isinstance(message, Stop):
            self.stopping = self.drawing is not None and message.token == self.drawing.token
        elif isinstance(message, Quit):
            self._engine_dies()

    def _engine_dies(self) -> None:
        if self.engine_alive:
            self.engine_alive, self.ready, self.drawing = False, False, None
            self._handle(EngineDied("was killed by SIGKILL"))

    def _engine_lives(self) -> None:
        """Whatever an engine does next."""
        if not self.engine_alive:
            self.engine_alive = True
            self._handle(EngineStarted(7))
        elif not self.ready:
            self.ready = True
            self._handle(EngineSaid(Ready(card=CARD, device=DEVICE, load=DeviceLoad(), load_s=1.0, offloaded=False)))
        elif self.chance.random() < 0.01:
            self._engine_dies()
        elif self.drawing is not None:
            self._draw(self.drawing)

    def _draw(self, draw: Draw) -> None:
        token, steps = draw.token, draw.job.steps
        self._handle(EngineSaid(Begun(token=token)))
        if self.drawing is draw and not self.stopping:
            step = Step(token=token, step=1, steps=steps, step_s=0.1, load=DeviceLoad())
            self._handle(EngineSaid(step))
            if self.drawing is draw and draw.job.previews:
                seen = {"preview": PICTURE, "preview_index": draw.job.previews - 1, "parts": (len(PNG),)}
                self._handle(EngineSaid(replace(step, **seen), (PNG,)))
        if self.drawing is not draw:
            return
        self.drawing = None
        if self.stopping:
            undrawn = Undrawn(token=token, code="cancelled", message="stopped", load=DeviceLoad())
            self._handle(EngineSaid(undrawn))
            return
        drawn = Drawn(token=token, picture=PICTURE, parts=(len(PNG),), timings=Timings(), notes=(), load=DeviceLoad())
        self._handle(EngineSaid(drawn, (PNG,)))
