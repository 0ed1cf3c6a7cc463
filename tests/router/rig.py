"""A broker under test: events by name, a clock that is moved by hand, every invariant checked after each event."""

from __future__ import annotations

import hashlib
import random
from typing import Any, TypeVar

from common.messages import (
    Bye,
    Credit,
    DeviceInfo,
    Dispatch,
    Done,
    Draining,
    Fail,
    Heartbeat,
    HeldToken,
    JobSpec,
    Message,
    Note,
    Picture,
    Register,
    Requeue,
    Returned,
    Started,
    Submit,
    Timings,
    Token,
    Welcome,
    WorkerProgress,
)
from common.models import ModelCard
from common.settings import RouterSettings
from router.broker import Broker
from router.commands import Append, Command, DropInputs, DropResult, Log, StoreResult, ToClient, ToWorker
from router.events import (
    ClientSaid,
    Event,
    InputsStored,
    Replayed,
    ResultStored,
    SendFailed,
    StorageChanged,
    Submitted,
    Tick,
    WorkerSaid,
)
from router.jobs import Job
from router.records import Record

M = TypeVar("M", bound=Message)
WALL = 1_700_000_000.0
CARD = ModelCard(name="m", width=64, height=64, side_min=16, side_max=1024, steps=4, steps_max=50)
PNG = b"picture"


def card(name: str = "m", **more: Any) -> ModelCard:
    """A model's card."""
    return ModelCard(name=name, width=64, height=64, side_min=16, side_max=1024, steps=4, steps_max=50, **more)


class Rig:
    """One broker and everything it has said."""

    def __init__(
        self,
        *,
        first_epoch: int = 1,
        records: list[Record] | None = None,
        wall: float = WALL,
        durable: bool = False,
        **settings: Any,
    ) -> None:
        self.settings = RouterSettings(**settings)
        self.broker = Broker(self.settings, first_epoch=first_epoch, durable=durable)
        self.now = 1000.0
        self._wall_ahead = wall - self.now
        self.random = random.Random(first_epoch)
        self.records: list[Record] = list(records or [])
        self.out: list[Command] = []  # of the last event
        self.all: list[Command] = []
        self.stores: list[StoreResult] = []
        self.workers: list[FakeWorker] = []
        if records is not None:
            self.event(Replayed(wall=self.wall, records=records))

    @property
    def wall(self) -> float:
        return self._wall_ahead + self.now

    def event(self, event: Event) -> list[Command]:
        self.out = self.broker.handle(event, self.now)
        self.all += self.out
        self.records += [c.record for c in self.out if isinstance(c, Append)]
        self.stores += [c for c in self.out if isinstance(c, StoreResult)]
        self.broker.check_invariants()
        return self.out

    def tick(self, seconds: float = 0.0, step: float = 0.1) -> list[Command]:
        """Let time go by, ticking as the loop does; all that came of it."""
        end, seen = self.now + seconds, []
        while True:
            self.now = min(end, self.now + step)
            seen += self.event(Tick(wall=self.wall))
            if self.now >= end:
                return seen

    # --- clients -------------------------------------------------------------------------------

    def submit(
        self,
        prompt: str = "x",
        *,
        peer: bytes = b"c",
        rid: str = "1",
        key: str = "",
        digest: str = "",
        files: tuple[bytes, ...] = (),
        **spec: Any,
    ) -> str:
        """SUBMIT, with the files of its inputs; the id that the job has if it is accepted."""
        parts = tuple(len(data) for data in files)
        submit = Submit(rid=rid, key=key, digest=digest, job=JobSpec(prompt=prompt, **spec), parts=parts)
        return self.submit_message(submit, peer, files)

    def submit_message(self, message: Submit | Requeue, peer: bytes = b"c", payload: Any = ()) -> str:
        """The same, or REQUEUE."""
        job_id = f"{self.random.getrandbits(128):032x}"
        seed = self.random.getrandbits(32)
        self.event(Submitted(wall=self.wall, peer=peer, message=message, job_id=job_id, seed=seed, payload=payload))
        return job_id

    def say(self, message: Message, peer: bytes = b"c") -> list[Message]:
        """Any other message of a client; what that client is answered."""
        self.event(ClientSaid(wall=self.wall, peer=peer, message=message))
        return self.to_client(peer)

    def send_failed(self, side: Any, peer: bytes, name: bytes, *, gone: bool) -> None:
        self.event(SendFailed(wall=self.wall, side=side, peer=peer, name=name, gone=gone))

    def to_client(self, peer: bytes = b"c") -> list[Message]:
        return [c.message for c in self.out if isinstance(c, ToClient) and c.peer == peer]

    def to_worker(self, peer: bytes) -> list[Message]:
        return [c.message for c in self.out if isinstance(c, ToWorker) and c.peer == peer]

    def told(self, kind: type[M]) -> list[M]:
        """What anybody was sent of one kind by the last event."""
        return [c.message for c in self.out if isinstance(c, ToClient | ToWorker) and isinstance(c.message, kind)]

    def logged(self, event: str) -> list[Log]:
        return [c for c in self.all if isinstance(c, Log) and c.event == event]

    def job(self, job_id: str) -> Job:
        return self.broker.state.jobs[job_id]

    def state(self, job_id: str) -> str:
        return self.job(job_id).state.value

    # --- workers -------------------------------------------------------------------------------

    def worker(self, name: str = "w", *, ready: bool = True, credit: int = 2, **more: Any) -> FakeWorker:
        """A daemon that has registered."""
        worker = FakeWorker(self, name, **more)
        self.workers.append(worker)
        worker.register()
        if ready:
            worker.ready(credit)
        return worker

    def stored(self, refusal: str = "") -> list[Command]:
        """The oldest picture not yet stored is stored, or refused."""
        store = self.stores.pop(0)
        return self.event(ResultStored(wall=self.wall, token=store.token, refusal=refusal))

    def deferred(self) -> list[Command]:
        """There is no room for the oldest picture not yet stored."""
        store = self.stores.pop(0)
        return self.event(ResultStored(wall=self.wall, token=store.token, refusal="no room", deferred=True))

    def storage(self, *, full: bool) -> list[Command]:
        """The disk has become full, or free again."""
        return self.event(StorageChanged(wall=self.wall, full=full, detail="1 MiB is free"))

    def inputs_stored(self, job_id: str, refusal: str = "", *, deferred: bool = False) -> list[Command]:
        """What a SUBMIT has brought is stored, or is not."""
        return self.event(InputsStored(wall=self.wall, job_id=job_id, refusal=refusal, deferred=deferred))

    def dropped_inputs(self) -> list[str]:
        return [c.job_id for c in self.out if isinstance(c, DropInputs)]

    def dropped(self) -> list[str]:
        return [c.job_id for c in self.out if isinstance(c, DropResult)]


class FakeWorker:
    """A daemon played by hand: it says what the test wants, in its present epoch."""

    def __init__(self, rig: Rig, name: str, *, cards: tuple[ModelCard, ...] = (CARD,), boot_id: str = "b") -> None:
        self.rig = rig
        self.name = name
        self.peer = f"peer-{name}".encode()
        self.boot_id = boot_id
        self.cards = cards
        self.epoch = 0
        self.granted = 0
        self.nonces = 0

    def register(self, *tokens: HeldToken, peer: bytes | None = None, nonce: str = "") -> list[Message]:
        self.peer = peer or self.peer
        self.nonces += 1
        answers = self.say(
            Register(
                worker_id=self.name,
                boot_id=self.boot_id,
                nonce=nonce or str(self.nonces),
                host="host",
                device=DeviceInfo(device=f"cuda:{self.name}", kind="cuda"),
                models=self.cards,
                tokens=tokens,
            )
        )
        for answer in answers:
            if isinstance(answer, Welcome):
                self.epoch, self.granted = answer.epoch, 0
        return answers

    def say(self, message: Message, payload: Any = ()) -> list[Message]:
        self.rig.event(WorkerSaid(wall=self.rig.wall, peer=self.peer, message=message, payload=payload))
        return self.rig.to_worker(self.peer)

    def ready(self, credit: int = 2) -> list[Message]:
        self.heartbeat()
        return self.grant(credit)

    def heartbeat(self, state: str = "ready") -> list[Message]:
        return self.say(Heartbeat(epoch=self.epoch, state=state))

    def grant(self, more: int = 1) -> list[Message]:
        self.granted += more
        return self.say(Credit(epoch=self.epoch, granted_total=self.granted))

    def started(self, token: Token) -> list[Message]:
        return self.say(Started(epoch=self.epoch, token=token))

    def progress(self, token: Token, step: int, *, steps: int = 4, step_s: float = 0.0) -> list[Message]:
        return self.say(WorkerProgress(epoch=self.epoch, token=token, step=step, steps=steps, step_s=step_s))

    def done(
        self, token: Token, *, size: int = len(PNG), notes: tuple[Note, ...] = (), **timings: float
    ) -> list[Message]:
        picture = Picture(
            format="png",
            width=64,
            height=64,
            drawn_width=64,
            drawn_height=64,
            bytes=size,
            sha256=hashlib.sha256(PNG).hexdigest(),
        )
        message = Done(
            epoch=self.epoch,
            token=token,
            picture=picture,
            parts=(len(PNG),),
            timings=Timings(**timings),
            notes=notes,
        )
        return self.say(message, [PNG])

    def fail(
        self, token: Token, code: str = "engine_error", *, started: bool = True, message: str = ""
    ) -> list[Message]:
        told = message or f"it was {code}"
        return self.say(Fail(epoch=self.epoch, token=token, code=code, message=told, started=started))

    def returned(self, token: Token) -> list[Message]:
        return self.say(Returned(epoch=self.epoch, token=token, reason="loading"))

    def draining(self) -> list[Message]:
        return self.say(Draining(epoch=self.epoch))

    def bye(self) -> list[Message]:
        return self.say(Bye(epoch=self.epoch))

    def dispatched(self) -> list[Token]:
        """What the last event sent here."""
        return [m.token for m in self.rig.to_worker(self.peer) if isinstance(m, Dispatch)]

    def draw(self, token: Token) -> list[Message]:
        """Start, draw, have it stored, take the acknowledgement, free the slot."""
        self.started(token)
        self.done(token)
        self.rig.stored()
        answers = self.rig.to_worker(self.peer)
        self.grant()
        return answers

    @property
    def believed(self) -> Any:
        """The broker's own book about it."""
        return self.rig.broker.state.fleet.workers[self.name]
