"""The router's codec and broker in one process, without sockets: mutated frames by the ten thousand a second.

After each frame everything that is answered must fit the wire, and nothing may raise. What is answered ERROR or
REJECTED changes nothing: no command but the answer and its line, and (of a sample) no attribute of the whole state.
The invariants are asked every few frames. An episode is played again from its seed, byte for byte.
"""

import random
from collections import Counter
from typing import Any

import msgspec

from common.codec import FROM_CLIENT, FROM_WORKER, encode
from common.errors import ProtocolError
from common.messages import Dispatch, ErrorReply, Message, Rejected, Requeue, Submit
from common.settings import RouterSettings
from router.broker import Broker
from router.commands import (
    Append,
    Command,
    DropInputs,
    DropResult,
    Log,
    StoreInputs,
    StoreResult,
    ToClient,
    ToWorker,
)
from router.events import (
    ClientSaid,
    Event,
    InputsLost,
    InputsStored,
    Replayed,
    ResultStored,
    SendFailed,
    StorageChanged,
    Submitted,
    Tick,
    Unreadable,
    WorkerSaid,
)
from tests.fuzz.failure import FuzzError
from tests.fuzz.freeze import difference, freeze
from tests.fuzz.grammar import LONG, Known, register
from tests.fuzz.mutate import Frames, frames_of
from tests.fuzz.voices import Voice

EPISODE_FRAMES = 2000
INVARIANTS_EVERY = 16  # events
LOOKED_AT_SHARE = 0.03  # of frames: the whole state is compared, should they be refused
SETTINGS = RouterSettings(
    gpu_queue_size=2, global_queue_size=12, job_deadline_s=60.0, result_ttl_s=30.0, ended_jobs_max=20,
    dead_letters_max=12, results_mb_max=64, key_ttl_s=40.0, retry_backoff_s=0.5, watches_per_job_max=3,
    inputs_mb_max=16,
)  # fmt: skip
MAY_CHANGE = {  # by a frame that is refused: clocks, counts of refusals, what is worked out anew whenever it is asked
    ("RouterState", "now"), ("RouterState", "wall"), ("RouterState", "settings"), ("RouterState", "_plan"),
    ("RouterState", "_touched"), ("Totals", "protocol_errors"), ("Totals", "rejected"), ("Totals", "queue_full"),
    ("Measures", "rejected"),
    ("_Flow", "end"),  # lifted to its line's clock, which is what counts where it lies behind
    ("JobQueue", "changes"), ("Room", "_promised_now"), ("Line", "_sweep_at"), ("Planner", "_cache"),
}  # fmt: skip


class RouterEpisode:
    """One router's life among peers who lie."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.broker = Broker(SETTINGS, first_epoch=5, durable=True)
        self.now = 100.0
        self.stores: list[StoreResult | StoreInputs] = []
        self.inputs: set[str] = set()  # that are kept
        self.lost: list[InputsLost] = []  # to be told next
        long, many = self.chance.choice((0.0, 0.05, 0.9)), self.chance.random() < 0.1
        names = tuple(LONG * 100 * (long > 0.5) + f"fuzz-{n}" for n in range(60 if many else 6))
        self.voices = {b"c%d" % n: Voice("client", Known()) for n in range(3)}
        for n, name in enumerate(names):
            self.voices[b"w%d" % n] = Voice("worker", Known(name=name, workers=names[:6], long=long))
        self.peers = {side: [p for p, v in self.voices.items() if v.side == side] for side in ("client", "worker")}
        self.done = Counter[str]()
        self.heard = 0  # events
        self._handle(Replayed(wall=self._wall(), records=()))
        for peer in self.peers["worker"]:
            self._said("worker", peer, frames_of(register(self.chance, self.voices[peer].known)))

    def run(self, frames: int) -> None:
        """Say so many mutated frames; what is said between them is true."""
        while self.done["mutated"] < frames:
            self._step()
        self.broker.check_invariants()

    def _step(self) -> None:
        chance = self.chance
        kind = chance.random()
        if kind < 0.02:
            self.now += chance.choice((0.1, 0.1, 0.1, 0.5, 1.0, 4.0, 11.0))
            self._handle(Tick(wall=self._wall()))
        elif kind < 0.06 and self.stores:
            self._stored(self.stores.pop(chance.randrange(len(self.stores))))
        elif kind < 0.065:
            peer = chance.choice(list(self.voices))
            side = self.voices[peer].side
            self._handle(SendFailed(wall=self._wall(), side=side, peer=peer, name=b"PONG", gone=chance.random() < 0.5))
        elif kind < 0.067:
            self._handle(StorageChanged(wall=self._wall(), full=chance.random() < 0.3, detail="why"))
        else:
            side = "worker" if chance.random() < 0.6 else "client"
            peer = chance.choice(self.peers[side])
            frames, wrong = self.voices[peer].says(chance)
            self.done["mutated"] += wrong
            self._said(side, peer, frames)

    def _stored(self, store: StoreResult | StoreInputs) -> None:
        refusal = self.chance.choice((*[""] * 7, "its bytes are others"))
        deferred = not refusal and self.chance.random() < 0.05
        if isinstance(store, StoreResult):
            self._handle(ResultStored(wall=self._wall(), token=store.token, refusal=refusal, deferred=deferred))
            return
        if not refusal and not deferred:
            self.inputs.add(store.job_id)
            self.done["inputs kept"] += 1
        self._handle(InputsStored(wall=self._wall(), job_id=store.job_id, refusal=refusal, deferred=deferred))

    def _said(self, side: str, peer: bytes, frames: Frames) -> None:
        look = self.chance.random() < LOOKED_AT_SHARE
        before = freeze(self.broker.state, leave_out=MAY_CHANGE) if look else None
        try:
            answers = self._handle(self._event(side, peer, frames))
            if frames[1:2] == [b"ERROR"]:
                answered = [c for c in answers if isinstance(c, ToClient | ToWorker) and c.peer == peer]
                assert not answered, f"an ERROR was answered {answered}"
            refused = self._check_refusal(peer, answers)
            if refused and look:
                self.done["compared"] += 1
                changed = difference(before, freeze(self.broker.state, leave_out=MAY_CHANGE))
                assert not changed, f"a frame that was refused changed {changed}"
            if self.heard % INVARIANTS_EVERY == 0:
                self.broker.check_invariants()
                owned = {job.inputs_of for job in self.broker.state.jobs.values() if job.inputs_of}
                assert owned == self.inputs, f"kept inputs are not those of jobs: {owned ^ self.inputs}"
        except Exception as error:
            what = f"{type(error).__name__} in {self.seed}, after {self.done['mutated']} mutated frames: {error}"
            raise FuzzError(what, again=self._again(), frames=frames, side=side) from error

    def _event(self, side: str, peer: bytes, frames: Frames) -> Event:
        wall = self._wall()
        try:
            message = (FROM_CLIENT if side == "client" else FROM_WORKER).decode(frames)
        except ProtocolError as error:
            self.done["unreadable"] += 1
            answered = frames[1:2] != [b"ERROR"]
            return Unreadable(wall=wall, side=side, peer=peer, rid=error.rid, reason=error.message, answered=answered)
        self.done["readable"] += 1
        if side == "worker":
            return WorkerSaid(wall=wall, peer=peer, message=message, payload=[memoryview(f) for f in frames[3:]])
        if isinstance(message, Submit | Requeue):
            job_id = f"{self.chance.getrandbits(128):032x}"
            seed, payload = self.chance.getrandbits(32), [memoryview(f) for f in frames[3:]]
            return Submitted(wall=wall, peer=peer, message=message, job_id=job_id, seed=seed, payload=payload)
        return ClientSaid(wall=wall, peer=peer, message=message)

    def _handle(self, event: Event) -> list[Command]:
        self.heard += 1
        commands = self.broker.handle(event, self.now)
        for command in commands:
            self._carry_out(command)
        while self.lost:
            self._handle(self.lost.pop())
        return commands

    def _carry_out(self, command: Command) -> None:
        match command:
            case ToClient():
                self._fits(command.message, payload=bool(command.picture_of or command.payload))
                self._told(command.peer, command.message)
            case ToWorker() if command.inputs_of and self.chance.random() < 0.05:
                assert isinstance(command.message, Dispatch)
                token = command.message.token
                self.lost.append(InputsLost(wall=self._wall(), peer=command.peer, token=token, message="damaged"))
            case ToWorker():
                assert not command.inputs_of or command.inputs_of in self.inputs, "inputs are sent that are not kept"
                self._fits(command.message, payload=bool(command.inputs_of))
                self._told(command.peer, command.message)
            case StoreResult() | StoreInputs():
                self.stores.append(command)
            case DropInputs():
                self.inputs.discard(command.job_id)
            case Append():
                msgspec.json.encode(command.record)
            case Log():
                msgspec.json.encode(command.fields)
                self.done[command.event] += 1

    def _fits(self, message: Message, *, payload: bool = False) -> None:
        """As the loop would send it."""
        parts: Any = [range(size) for size in getattr(message, "parts", ())] if payload else ()
        encode(message, parts)

    def _told(self, peer: bytes, message: Message) -> None:
        voice = self.voices.get(peer)
        if voice is not None:
            voice.hears(message, self.chance, list(self.voices.values()))

    def _check_refusal(self, peer: bytes, answers: list[Command]) -> bool:
        """Was it refused? Then there is its answer, and nothing else but lines for the log."""
        said = [c for c in answers if isinstance(c, ToClient | ToWorker)]
        if not any(c.peer == peer and isinstance(c.message, ErrorReply | Rejected) for c in said):
            return False
        others = [c for c in answers if isinstance(c, Append | StoreResult | DropResult | StoreInputs | DropInputs)]
        assert len(said) == 1, f"a refusal is not all that is said: {said}"
        assert not others, f"a frame that was refused led to {others}"
        self.done["refused"] += 1
        return True

    def _wall(self) -> float:
        return 1e9 + self.now

    def _again(self) -> str:
        return f"python -m tests.fuzz --part broker --episode {self.seed}"
