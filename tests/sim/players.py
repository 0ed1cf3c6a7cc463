"""The parts of a played GenServe: the real broker, real sessions with played engines, and clients.

The network and the clock are network.py's. Every message passes the real codec in both directions.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

from common.codec import FROM_CLIENT, FROM_WORKER, TO_CLIENT, TO_WORKER, Buffer, encode, part_sizes, split_payload
from common.messages import (
    Accepted,
    CancelJob,
    Cancelled,
    DeviceInfo,
    ErrorReply,
    Failed,
    Heartbeat,
    JobOrder,
    JobReply,
    JobSpec,
    Message,
    Picture,
    Register,
    Rejected,
    Result,
    Submit,
    Timings,
    Token,
    Watch,
)
from common.models import ModelCard
from common.settings import GpuDaemonSettings, RouterSettings
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
from gpu_daemon.outbox import Outbox
from gpu_daemon.session import Session
from router import commands as ask
from router import events as seen
from router.broker import Broker
from router.records import JobAccepted, JobCancelled, JobDone, JobFailed, JobRecord, Record
from tests.sim.network import Clock, Dealer, Frames, Network

CARD = ModelCard(name="m", width=64, height=64, side_min=16, side_max=1024, steps=4, steps_max=50)
TICK_S = 0.1
WALL_AHEAD_S = 1.7e9
LOAD_S = (0.5, 3.0)
STORE_S = (0.0005, 0.02)
ENDS = (JobDone, JobFailed, JobCancelled)


def picture_of(order: JobOrder) -> bytes:
    """What an engine draws for an order: nothing else than this may reach its client."""
    return f"{order.prompt}/{order.seed}/{order.steps}".encode() * 3


class RouterNode:
    """The real broker, its journal as a list, and the socket side of its loop."""

    def __init__(self, clock: Clock, network: Network, **settings: float) -> None:
        self.clock, self.network = clock, network
        self.settings = RouterSettings(**settings)
        self.records: list[Record] = []
        self.accepted: set[str] = set()
        self.ends: Counter[str] = Counter()
        self.pictures: dict[str, bytes] = {}  # what the journal keeps, also over a restart
        self.lives = 0
        self.broker: Broker | None = None
        self.start()

    def start(self) -> None:
        """Begin, with what a former life has written down."""
        self.lives += 1
        self.broker = Broker(self.settings, first_epoch=self.lives * 1_000_000)
        self.network.server = self
        self.handle(seen.Replayed(wall=self.wall, records=list(self.records)))
        self._tick(self.lives)

    def crash(self, down_s: float) -> None:
        """All but the journal is gone; back in a while."""
        self.broker, self.network.server = None, None
        self.lives += 1
        self.network.drop_all()
        self.clock.after(down_s, self.start)

    @property
    def wall(self) -> float:
        return self.clock.now + WALL_AHEAD_S

    def arrived(self, side: str, peer: bytes, frames: Frames) -> None:
        if side == "worker":
            said = FROM_WORKER.decode(frames)
            self.handle(seen.WorkerSaid(wall=self.wall, peer=peer, message=said, payload=frames[3:]))
            return
        message = FROM_CLIENT.decode(frames)
        if isinstance(message, Submit):
            job_id, number = f"{self.clock.random.getrandbits(128):032x}", self.clock.random.getrandbits(32)
            self.handle(seen.Submitted(wall=self.wall, peer=peer, message=message, job_id=job_id, seed=number))
        else:
            self.handle(seen.ClientSaid(wall=self.wall, peer=peer, message=message))

    def handle(self, event: seen.Event) -> None:
        """Handle, write down, then say, as the loop does."""
        if self.broker is None:
            return
        commands = self.broker.handle(event, self.clock.now)
        self.broker.check_invariants()
        for command in commands:
            if isinstance(command, ask.Append):
                self._write(command.record)
        for command in commands:
            match command:
                case ask.StoreResult():
                    self._store(command)
                case ask.DropResult():
                    self.pictures.pop(command.job_id, None)
                case ask.ToClient():
                    self._send("client", command.peer, command.message, command.picture_of)
                case ask.ToWorker():
                    self._send("worker", command.peer, command.message)

    def _write(self, record: Record) -> None:
        self.records.append(record)
        if isinstance(record, JobAccepted):
            self.accepted.add(record.job_id)
        elif isinstance(record, ENDS):
            self.ends[record.job_id] += 1
            assert self.ends[record.job_id] == 1, f"ended twice: {[r for r in self.records if _of(r, record.job_id)]}"

    def _store(self, command: ask.StoreResult) -> None:
        data, life = b"".join(command.payload), self.lives
        assert hashlib.sha256(data).hexdigest() == command.picture.sha256

        def stored() -> None:
            if life == self.lives:
                self.pictures[command.token.job_id] = data
                self.handle(seen.ResultStored(wall=self.wall, token=command.token))

        self.clock.after(self.clock.between(STORE_S), stored)

    def _send(self, side: str, peer: bytes, message: Message, picture: str = "") -> None:
        if isinstance(message, Accepted):
            assert message.job_id in self.accepted, "said before written"
        payload: Sequence[Buffer] = split_payload(self.pictures[picture]) if picture else ()
        if not self.network.to_peer(side, peer, encode(message, payload)):
            life = self.lives

            def failed() -> None:
                if life == self.lives:
                    where: seen.Side = "worker" if side == "worker" else "client"
                    self.handle(seen.SendFailed(wall=self.wall, side=where, peer=peer, name=message.NAME, gone=True))

            self.clock.after(0.0, failed)

    def _tick(self, life: int) -> None:
        if life == self.lives and self.broker is not None:
            self.handle(seen.Tick(wall=self.wall))
            self.clock.after(TICK_S, lambda: self._tick(life))


def _of(record: Record, job_id: str) -> bool:
    return isinstance(record, JobRecord) and record.job_id == job_id


class DaemonNode:
    """A real session with its real outbox, and an engine that is played."""

    def __init__(self, clock: Clock, network: Network, name: str, step_s: float, **settings: float) -> None:
        self.clock, self.network, self.name, self.step_s = clock, network, name, step_s
        self.settings = GpuDaemonSettings(**settings)
        self.lives = 0
        self.left = False
        self.drawn: Counter[str] = Counter()
        self.start()

    def start(self) -> None:
        """A new control process with a new engine."""
        self.lives += 1
        self.left = False
        card, name = CARD, self.name
        device = DeviceInfo(device="cpu", kind="cpu")
        introduction = Register(
            worker_id=name, boot_id=f"{name}-{self.lives}", nonce="", host="h", device=device, models=(card,)
        )
        self.session = Session(introduction, self.settings)
        self.dealer = Dealer(self.network, "worker", self._heard)
        self.outbox = Outbox(self.dealer.send)
        self.dealer.on_connect = self.outbox.flush
        self.engine_life = 0
        self.drawing: tuple[Token, Callable[[], None]] | None = None
        self.stop_asked: Token | None = None
        self._start_engine(self.lives)
        self._tick(self.lives)

    def crash(self, down_s: float) -> None:
        """Control and engine are gone; back in a while."""
        self.lives += 1
        self.dealer.close()
        self.left = True
        self.clock.after(down_s, self.start)

    def kill_engine(self, how: str = "was killed by SIGKILL") -> None:
        """The engine process dies; another one starts."""
        self.engine_life += 1
        self.drawing = None
        life = self.lives
        self.handle(EngineDied(how))
        self.clock.after(0.01, lambda: self._start_engine(life))

    def drain(self) -> None:
        """SIGTERM."""
        self.handle(DrainAsked())

    def handle(self, event: Event) -> None:
        commands = self.session.handle(event, self.clock.now)
        if not self.session.left:
            self.session.check_invariants()
        for command in commands:
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case ToRouter():
                self.outbox.say(command.message, command.payload)
            case ToEngine():
                self._to_engine(command.message)
            case KillEngine():
                self.clock.after(0.0, self.kill_engine)
            case Reconnect():
                self.dealer.cut()
            case Leave():
                self.left = True
                self.lives += 1
                self.clock.after(0.5, self.dealer.close)

    def _heard(self, frames: Frames) -> None:
        if not self.left:
            self.handle(RouterSaid(TO_WORKER.decode(frames)))

    def _tick(self, life: int) -> None:
        if life == self.lives:
            self.handle(Tick())
            self.clock.after(TICK_S, lambda: self._tick(life))

    # --- the engine ------------------------------------------------------------------------------

    def _start_engine(self, life: int) -> None:
        if life != self.lives:
            return
        self.engine_life += 1
        engine = self.engine_life
        self.handle(EngineStarted(engine))
        self._from_engine(life, engine, 0.05, Loading(stage="loading", fraction=0.5))
        ready = Ready(
            card=CARD, device=DeviceInfo(device="cpu", kind="cpu"), load=Heartbeat(epoch=0, state="ready").load,
            load_s=1.0, offloaded=False,
        )  # fmt: skip
        self._from_engine(life, engine, self.clock.between(LOAD_S), ready)

    def _from_engine(self, life: int, engine: int, in_s: float, message: Message, data: bytes = b"") -> None:
        def arrive() -> None:
            if (life, engine) == (self.lives, self.engine_life) and not self.left:
                self.handle(EngineSaid(message, split_payload(data) if data else ()))

        self.clock.after(in_s, arrive)

    def _to_engine(self, message: Message) -> None:
        match message:
            case Draw():
                assert self.drawing is None, "an engine is given a second picture"
                self.drawing, self.stop_asked = (message.token, lambda: None), None
                life, engine = self.lives, self.engine_life
                self._from_engine(life, engine, 0.0, Begun(token=message.token))
                self.clock.after(self.step_s, lambda: self._step(life, engine, message, 1))
            case Stop():
                self.stop_asked = message.token
            case Quit():
                pass

    def _step(self, life: int, engine: int, order: Draw, step: int) -> None:
        if (life, engine) != (self.lives, self.engine_life):
            return
        token, job = order.token, order.job
        if self.stop_asked == token:
            self.drawing = None
            self._from_engine(life, engine, 0.0, Undrawn(token=token, code="cancelled", message="stopped"))
            return
        load = Heartbeat(epoch=0, state="ready").load
        said = Step(token=token, step=step, steps=job.steps, step_s=self.step_s, load=load)
        self._from_engine(life, engine, 0.0, said)
        if step < job.steps:
            self.clock.after(self.step_s, lambda: self._step(life, engine, order, step + 1))
            return
        data = picture_of(job)
        self.drawing = None
        self.drawn[token.job_id] += 1
        picture = Picture(
            format="png", width=job.width, height=job.height, drawn_width=job.drawn_width,
            drawn_height=job.drawn_height, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(),
        )  # fmt: skip
        done = Drawn(token=token, picture=picture, parts=part_sizes(split_payload(data)), timings=Timings(total_s=1.0))
        self._from_engine(life, engine, 0.001, done, data)


class ClientNode:
    """Submits jobs under keys, repeats itself until answered, watches to the end, and sometimes cancels."""

    def __init__(self, clock: Clock, network: Network, name: str) -> None:
        self.clock, self.name = clock, name
        self.dealer = Dealer(network, "client", self._heard)
        self.specs: dict[str, JobSpec] = {}  # by key
        self.job_ids: dict[str, str] = {}  # key -> job
        self.keys: dict[str, str] = {}  # job -> key
        self.ends: dict[str, bytes] = {}  # key -> how it ended
        self.to_cancel: set[str] = set()  # keys
        self._tick()

    def submit(self, number: int, *, steps: int, cancel_after_s: float | None) -> None:
        """Ask for one picture."""
        key = f"{self.name}-{number}"
        self.specs[key] = JobSpec(prompt=key, model="m", seed=number, steps=steps)
        self._send(Submit(rid=key, key=key, job=self.specs[key]))
        if cancel_after_s is not None:
            self.clock.after(cancel_after_s, lambda: self.cancel(key))

    def cancel(self, key: str) -> None:
        """Want it no more."""
        self.to_cancel.add(key)
        if key in self.job_ids and key not in self.ends:
            self._send(CancelJob(rid=f"c{key}", job_id=self.job_ids[key]))

    @property
    def finished(self) -> bool:
        """Has every job of mine ended?"""
        return self.ends.keys() == self.specs.keys()

    def _send(self, message: Message) -> None:
        self.dealer.send(encode(message))

    def _heard(self, frames: Frames) -> None:
        message = TO_CLIENT.decode(frames)
        match message:
            case Accepted():
                key = message.rid
                assert self.job_ids.setdefault(key, message.job_id) == message.job_id, "one key, two jobs"
                self.keys[message.job_id] = key
                if key in self.to_cancel:
                    self.cancel(key)
            case Rejected():
                assert message.code in ("queue_full", "unavailable"), message
            case Result() | Failed() | Cancelled():
                self._ended(message, b"".join(frames[3:]))
            case JobReply():  # a CANCEL that came too late: ask how it ended
                if message.job.state in ("done", "failed"):
                    self._send(Watch(rid=message.rid, job_id=message.job_id))
            case ErrorReply():
                raise AssertionError(message)

    def _ended(self, message: Result | Failed | Cancelled, data: bytes) -> None:
        key = self.keys.get(message.job_id)
        if key is None:
            return  # the ACCEPTED was lost; SUBMIT is repeated
        assert self.ends.setdefault(key, message.NAME) == message.NAME, f"{key} ended twice, differently"
        if isinstance(message, Result):
            spec = self.specs[key]
            assert data == f"{spec.prompt}/{spec.seed}/{spec.steps}".encode() * 3, "the picture of another job"
        elif isinstance(message, Failed):
            assert message.error.code in ("engine_died", "worker_lost", "poison", "deadline_exceeded"), message.error
        else:
            assert key in self.to_cancel, "cancelled by nobody"

    def _tick(self) -> None:
        for key, spec in self.specs.items():
            if key in self.ends:
                continue
            if key not in self.job_ids:
                self._send(Submit(rid=key, key=key, job=spec))
            elif key in self.to_cancel:
                self._send(CancelJob(rid=f"c{key}", job_id=self.job_ids[key]))
            else:
                self._send(Watch(rid=key, job_id=self.job_ids[key]))
        self.clock.after(5.0, self._tick)
