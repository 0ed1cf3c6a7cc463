"""A broker under whatever sequence of events Hypothesis thinks of, shrunk to the shortest that breaks it.

After each rule every invariant holds, every promise is kept, and a broker made from the journal knows the same.
"""

import hashlib
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.messages import CancelJob, DeadLettersQuery, Fetch, HeldToken, JobQuery, Requeue, Token, Watch
from router.broker import Broker
from router.commands import ToClient, ToWorker
from router.events import Replayed, ResultStored, StorageChanged, Submitted
from router.records import AnyRecord, Record
from tests.router.rig import PNG, FakeWorker, Rig
from tests.sim.compare import differences
from tests.sim.promises import Promises

WORKERS = ("w0", "w1", "w2")
CODES = ("engine_error", "engine_died", "out_of_memory", "invalid_request", "job_timeout")
SETTINGS: dict[str, Any] = {
    "gpu_queue_size": 1, "global_queue_size": 3, "job_deadline_s": 60.0, "result_ttl_s": 20.0, "ended_jobs_max": 4,
    "dead_letters_max": 2, "key_ttl_s": 30.0, "retry_backoff_s": 0.5, "attempts_max": 2, "watches_per_job_max": 2,
}  # fmt: skip
SHA256 = hashlib.sha256(PNG).hexdigest()
number = st.integers(0, 999)
_encode = msgspec.msgpack.Encoder().encode
_decode: Any = msgspec.msgpack.Decoder(AnyRecord).decode


class BrokerMachine(RuleBasedStateMachine):
    """Three daemons that may hold any token they were ever sent, and clients that know every job."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(**SETTINGS)
        self.promises = Promises(attempts_max=2)
        self.jobs: list[str] = []
        self.tokens: dict[str, list[Token]] = {name: [] for name in WORKERS}
        self.starts = 0
        self._start([])

    def _start(self, records: list[Record]) -> None:
        self.starts += 1
        wall = self.rig.wall + 1.0 if records else 1_700_000_000.0
        self.rig = Rig(first_epoch=self.starts * 10_000, records=records or None, wall=wall, **SETTINGS)
        self.heard, self.written = len(self.rig.all), len(records)
        self.workers = {name: FakeWorker(self.rig, name, boot_id=f"b{self.starts}") for name in WORKERS}

    def _settle(self) -> None:
        """Hold what the last events led to against the promises, records first."""
        self.promises.commits += 1
        for record in self.rig.records[self.written :]:
            self.promises.committed(record)
        self.written = len(self.rig.records)
        for command in self.rig.all[self.heard :]:
            if isinstance(command, ToWorker):
                name = command.peer.decode().removeprefix("peer-")
                self.promises.to_worker(name, command.message)
                token = getattr(command.message, "token", None)
                if command.message.NAME == b"DISPATCH" and token is not None:
                    self.tokens[name].append(token)
                    self.workers[name].granted = max(self.workers[name].granted, 1)
            elif isinstance(command, ToClient):
                self.promises.to_client(command.message)
        self.heard = len(self.rig.all)

    def _job(self, at: int) -> str:
        return self.jobs[-1 - at % len(self.jobs)] if self.jobs else "0" * 32

    def _token(self, name: str, at: int) -> Token:
        """One that it was sent, most often the newest."""
        theirs = self.tokens[name] or [Token(job_id="0" * 32, dispatch=1)]
        return theirs[-1 - (at % 4 // 2) % len(theirs)]

    def _worker(self, name: str, *tokens: Token) -> FakeWorker:
        """A daemon that the router knows, ready, with credit; `tokens` are what it says that it runs, if it has to."""
        worker = self.workers[name]
        if worker.peer not in self.rig.broker.state.fleet.by_peer:
            worker.register(*(HeldToken(token=token, stage="running") for token in tokens[:1]))
            worker.ready(2)
        return worker

    # --- clients -------------------------------------------------------------------------------

    @rule(key=st.sampled_from(["", "", "", "k1", "k2"]), priority=st.integers(-1, 1), prompt=st.sampled_from("xxy"))
    def submit(self, key: str, priority: int, prompt: str) -> None:
        self.jobs.append(self.rig.submit(prompt, key=key, priority=priority, model="m"))

    @rule(at=number, kind=st.sampled_from([CancelJob, CancelJob, Watch, JobQuery, Fetch]))
    def ask(self, at: int, kind: Any) -> None:
        self.rig.say(kind(rid="1", job_id=self._job(at)))

    @rule()
    def revive(self) -> None:
        self.rig.say(DeadLettersQuery(rid="1"))
        for job_id in list(self.rig.broker.state.dead)[:1]:
            new_id = f"{self.rig.random.getrandbits(128):032x}"
            message = Requeue(rid="1", job_id=job_id)
            self.rig.event(Submitted(wall=self.rig.wall, peer=b"c", message=message, job_id=new_id, seed=1))
            self.jobs.append(new_id)

    # --- daemons -------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(WORKERS), listed=st.lists(number, max_size=2), stage=st.sampled_from(["waiting", "ended"])
    )
    def register(self, name: str, listed: list[int], stage: Any) -> None:
        tokens = dict.fromkeys(self._token(name, at) for at in listed if self.tokens[name])
        begun: Any = [stage if n else "running" for n in range(len(tokens))]
        held = (HeldToken(token=t, stage=s) for t, s in zip(tokens, begun, strict=True))
        self.workers[name].register(*held)
        self.workers[name].ready(2)

    @rule(name=st.sampled_from(WORKERS))
    def ready(self, name: str) -> None:
        self._worker(name).ready(1)

    @rule(name=st.sampled_from(WORKERS), state=st.sampled_from(["ready", "ready", "loading", "broken"]))
    def heartbeat(self, name: str, state: str) -> None:
        self.workers[name].heartbeat(state)

    @rule(name=st.sampled_from(WORKERS), at=number)
    def started(self, name: str, at: int) -> None:
        token = self._token(name, at)
        self._worker(name, token).started(token)

    @rule(name=st.sampled_from(WORKERS), at=number)
    def done(self, name: str, at: int) -> None:
        token = self._token(name, at)
        self.promises.drawn[token] = SHA256
        self._worker(name, token).done(token)

    @rule(name=st.sampled_from(WORKERS), at=number)
    def draw(self, name: str, at: int) -> None:
        """From its beginning until it is kept, where the router lets it."""
        self.started(name, at)
        self.done(name, at)
        if self.rig.stores:
            self.stored("kept")

    @rule(name=st.sampled_from(WORKERS), at=number, code=st.sampled_from(CODES), begun=st.booleans())
    def fail(self, name: str, at: int, code: str, begun: bool) -> None:
        token = self._token(name, at)
        self._worker(name, token).fail(token, code, started=begun)
        self.workers[name].ready(1)

    @rule(name=st.sampled_from(WORKERS), at=number)
    def returned(self, name: str, at: int) -> None:
        token = self._token(name, at)
        self._worker(name, token).returned(token)

    @rule(name=st.sampled_from(WORKERS))
    def leave(self, name: str) -> None:
        self.workers[name].bye()

    @rule(name=st.sampled_from(WORKERS), gone=st.booleans())
    def unreachable(self, name: str, gone: bool) -> None:
        self.rig.send_failed("worker", self.workers[name].peer, b"DISPATCH", gone=gone)

    # --- the journal and time ------------------------------------------------------------------

    @precondition(lambda self: bool(self.rig.stores))
    @rule(how=st.sampled_from(["kept", "kept", "kept", "refused", "deferred"]))
    def stored(self, how: str) -> None:
        token = self.rig.stores.pop(0).token
        refusal = "its bytes are others" if how == "refused" else ""
        self.rig.event(ResultStored(wall=self.rig.wall, token=token, refusal=refusal, deferred=how == "deferred"))

    @rule(full=st.sampled_from([False, False, True]))
    def storage(self, full: bool) -> None:
        self.rig.event(StorageChanged(wall=self.rig.wall, full=full, detail="full" if full else ""))

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0, 4.0, 11.0, 25.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.rig.tick(seconds, step=1.0)

    @rule()
    def crash_and_replay(self) -> None:
        """What was handled was committed; what was being stored is lost."""
        self._settle()
        self._start([_decode(_encode(record)) for record in self.rig.records])

    @invariant()
    def promises_are_kept(self) -> None:
        self._settle()

    @invariant()
    def a_replay_knows_the_same(self) -> None:
        state = self.rig.broker.state
        again = Broker(self.rig.settings)
        records = [_decode(_encode(record)) for record in self.rig.records]
        again.handle(Replayed(wall=state.wall or self.rig.wall, records=records), state.now)
        again.check_invariants()
        found = differences(state, again.state)
        assert not found, "\n".join(found)


BrokerMachine.TestCase.settings = settings(
    max_examples=250,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestBroker = BrokerMachine.TestCase
