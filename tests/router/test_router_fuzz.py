"""Thousands of random events, sensible and not, in an order that nobody would think of; every invariant after each.

The daemons here remember what they were sent, so that much of what they say is true; the rest is lies: other
epochs, others' tokens, repeated ends, lists of what they never had.
"""

import random
from typing import Any

import pytest

from common.messages import (
    Bye,
    CancelJob,
    Credit,
    DeviceInfo,
    Dispatch,
    Done,
    Draining,
    ErrorReply,
    Fail,
    Failed,
    Fenced,
    Fetch,
    Heartbeat,
    HeldToken,
    JobQuery,
    JobSpec,
    Message,
    Picture,
    Ping,
    Register,
    Rejected,
    Result,
    ResultAck,
    Resync,
    Returned,
    Started,
    StatusQuery,
    Submit,
    Timings,
    Token,
    Watch,
    Welcome,
    WorkerProgress,
)
from common.settings import RouterSettings
from router.broker import Broker
from router.commands import Append, Command, DropResult, Log, Stop, StoreResult, ToClient, ToWorker
from router.events import (
    ClientSaid,
    DrainAsked,
    Event,
    ResultStored,
    SendFailed,
    Submitted,
    Tick,
    Unreadable,
    WorkerSaid,
)
from router.memory_journal import MemoryJournal
from tests.router.rig import card

PICTURE = Picture(format="png", width=1, height=1, drawn_width=1, drawn_height=1, bytes=9_000_000, sha256="0" * 64)
CODES = ("engine_error", "engine_died", "out_of_memory", "invalid_request", "job_timeout", "nonsense", "worker_lost")
CARDS = (card("a"), card("b"), card("c", guided=False))
SETTINGS = RouterSettings(
    gpu_queue_size=2, global_queue_size=5, job_deadline_s=30.0, result_ttl_s=30.0, ended_jobs_max=20,
    results_mb_max=64, key_ttl_s=40.0, retry_backoff_s=0.5, watches_per_job_max=3,
)  # fmt: skip


class Chaos:
    """Draws events; remembers just enough to draw plausible ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.broker = Broker(SETTINGS, first_epoch=5)
        self.journal = MemoryJournal()
        self.now = 100.0
        self.jobs: list[str] = ["0" * 32]
        self.tokens: list[Token] = [Token(job_id="0" * 32, dispatch=1)]
        self.stores: list[Token] = []
        self.peers = [b"w%d" % n for n in range(6)]
        self.epochs: dict[bytes, int] = {}
        self.granted: dict[bytes, int] = {}
        self.accepted: set[str] = set()
        self.ends: dict[str, set[str]] = {}
        self.sent: dict[Token, int] = {}
        self.theirs: dict[bytes, list[Token]] = {}

    def pick(self, *options: Any) -> Any:
        return self.random.choice(options)

    def draw(self) -> Event:
        wall = 1e9 + self.now
        client = self.pick(b"c", b"d", b"e")
        chance = self.random.random()
        if chance < 0.2:
            job_id = f"{self.random.getrandbits(128):032x}"
            self.jobs.append(job_id)
            return Submitted(wall=wall, peer=client, message=self._submit(), job_id=job_id, seed=1)
        if chance < 0.30:
            return ClientSaid(wall=wall, peer=client, message=self._client())
        if chance < 0.83:
            peer = self.pick(*self.peers)
            return WorkerSaid(wall=wall, peer=peer, message=self._worker(peer), payload=[b"x"])
        if chance < 0.92 and self.stores:
            token = self.stores.pop(self.random.randrange(len(self.stores)))
            return ResultStored(wall=wall, token=token, refusal=self.pick(*[""] * 7, "broken"))
        if chance < 0.93:
            return SendFailed(
                wall=wall, side=self.pick("client", "worker"), peer=self.pick(client, *self.peers), name=b"PROGRESS",
                gone=self.pick(True, False),
            )  # fmt: skip
        if chance < 0.94:
            return Unreadable(wall=wall, side=self.pick("client", "worker"), peer=client, rid="", reason="?")
        self.now += self.pick(0.0, 0.1, 0.1, 0.1, 0.5, 1.0, self.pick(0.1, 0.1, 0.1, 4.0, 11.0))
        return Tick(wall=1e9 + self.now)

    def _submit(self) -> Submit:
        spec = JobSpec(
            prompt=self.pick(*"xxxxxxxxxxxxxy "), model=self.pick(*"aabc", *[""] * 6, "nope"),
            steps=self.pick(0, 1, 4, 4, 4, 4, 4, 60), priority=self.pick(-1, 0, 0, 1),
            width=self.pick(*[0] * 18, 64, 65), height=self.pick(*[0] * 18, 64),
            negative_prompt=self.pick("", "", "n"), true_cfg_scale=self.pick(*[None] * 9, 2.0),
            guidance_scale=self.pick(*[None] * 5, 1.0),
        )  # fmt: skip
        return Submit(rid=self.pick("1", "2", "3"), job=spec, key=self.pick(*[""] * 9, "k1", "k2", "k3"))

    def _client(self) -> Message:
        job_id, rid = self.pick(*self.jobs[-30:]), self.pick("1", "2", "3")
        message: Message = self.pick(
            CancelJob(rid=rid, job_id=self.pick(*self.jobs)), Watch(rid=rid, job_id=job_id),
            Watch(rid=rid, job_id=job_id), JobQuery(rid=rid, job_id=job_id), Fetch(rid=rid, job_id=job_id),
            StatusQuery(rid=rid, workers_from=1), Ping(rid=rid), ErrorReply(code="protocol_error", message="?"),
        )  # fmt: skip
        return message

    def _worker(self, peer: bytes) -> Message:
        epoch = self.epochs.get(peer, 0) + self.pick(0, 0, 0, 0, 0, 0, -1, 1)
        token = self.pick(*self.tokens[-12:], *self.theirs.get(peer, [])[-3:] * 8)
        if self.random.random() < 0.05:
            token = Token(job_id=token.job_id, dispatch=self.random.randrange(1, 5))
        kinds = ["credit"] * 5 + ["started"] * 4 + ["progress"] * 4 + ["done"] * 8 + ["heartbeat"] * 8 + ["fail"] * 2
        rare = ("register", "returned", "draining", "bye", "error")
        kind = self.pick(*kinds) if self.random.random() < 0.93 else self.pick(*rare)
        if peer not in self.epochs or kind == "register":
            return self._register(peer)
        match kind:
            case "credit":
                self.granted[peer] = self.granted.get(peer, 0) + 1
                return Credit(epoch=epoch, granted_total=self.pick(self.granted[peer], 0, 1))
            case "started":
                return Started(epoch=epoch, token=token)
            case "progress":
                return WorkerProgress(
                    epoch=epoch, token=token, step=self.pick(0, 1, 3, 4, 1000), steps=4, step_s=self.pick(0.0, 0.2, 5.0)
                )
            case "done":
                return Done(epoch=epoch, token=token, picture=PICTURE, parts=(1,), timings=Timings(decode_s=0.1))
            case "fail":
                code = self.pick(*CODES)
                return Fail(epoch=epoch, token=token, code=code, message="m", started=self.pick(True, False))
            case "returned":
                return Returned(epoch=epoch, token=token)
            case "heartbeat":
                return Heartbeat(epoch=epoch, state=self.pick("ready", "ready", "ready", "loading", "broken"))
            case "draining":
                return Draining(epoch=epoch)
            case "bye":
                return Bye(epoch=epoch)
            case _:
                return ErrorReply(code="protocol_error", message="?")

    def _register(self, peer: bytes) -> Register:
        listed = {
            self.pick(*self.tokens[-12:], *self.theirs.get(peer, [])[-3:] * 4) for _ in range(self.pick(0, 1, 2, 3))
        }
        tokens = tuple(HeldToken(token=t, stage=self.pick("waiting", "running", "ended")) for t in listed)
        return Register(
            worker_id=self.pick(*[peer[:2].decode()] * 9, "w0", "w1"), boot_id=self.pick(*"bbbbbbbbc"),
            nonce=self.pick("1", "2"), host="h", device=DeviceInfo(device="cpu", kind="cpu"),
            models=(self.pick(*CARDS), self.pick(*CARDS)), tokens=tokens,
        )  # fmt: skip

    def take(self, command: Command) -> None:
        """Play the loop and the peers: remember what was said; whatever breaks a promise fails here."""
        match command:
            case Append():
                self.journal.append(command.record)
                if type(command.record).__name__ == "JobAccepted":
                    self.accepted.add(command.record.job_id)  # type: ignore[attr-defined]  # it has one
            case StoreResult():
                self.stores.append(command.token)
            case ToWorker():
                self._take_worker(command.peer, command.message)
            case ToClient():
                self._take_client(command.message)
            case DropResult() | Log() | Stop():
                pass

    def _take_worker(self, peer: bytes, message: Message) -> None:
        match message:
            case Welcome():
                if message.epoch != self.epochs.get(peer):
                    self.granted[peer] = 0
                self.epochs[peer] = message.epoch
            case Dispatch():
                assert message.epoch == self.epochs[peer]
                assert message.token not in self.sent, "a token was given out twice"
                assert message.remaining_s > 0
                self.sent[message.token] = message.epoch
                self.theirs.setdefault(peer, []).append(message.token)
                self.tokens.append(message.token)
            case Resync():
                self.epochs.pop(peer, None)
            case ResultAck() | Fenced():
                pass

    def _take_client(self, message: Message) -> None:
        match message:
            case Result():
                self.ends.setdefault(message.job_id, set()).add("done")
            case Failed():
                self.ends.setdefault(message.job_id, set()).add("failed")
            case Rejected():
                assert message.code in {
                    "invalid_request", "unsupported", "unknown_model", "key_conflict", "queue_full", "unavailable",
                    "not_found",
                }  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_nothing_that_peers_say_breaks_the_books(seed: int) -> None:
    chaos = Chaos(seed)
    for _ in range(2000):
        event = chaos.draw()
        for command in chaos.broker.handle(event, chaos.now):
            chaos.take(command)
        chaos.journal.commit()
        chaos.broker.check_invariants()
    totals = chaos.broker.state.totals
    assert totals.submitted == len(chaos.accepted)
    assert totals.submitted == totals.done + totals.failed + totals.cancelled + len(chaos.broker.state.live)
    assert min(totals.done, totals.failed, totals.cancelled, totals.rejected, totals.retried) > 0
    assert all(len(ends) == 1 for ends in chaos.ends.values()), "a job ended in two ways"
    _ends_in_the_end(chaos)
    chaos.journal.close()


def _ends_in_the_end(chaos: Chaos) -> None:
    """Left alone, every job ends, the router drains, and the books are empty."""
    for token in chaos.stores:
        chaos.broker.handle(ResultStored(wall=1e9 + chaos.now, token=token), chaos.now)
    seen: list[Command] = chaos.broker.handle(DrainAsked(wall=1e9 + chaos.now), chaos.now)
    for _ in range(200):
        chaos.now += 1.0
        seen += chaos.broker.handle(Tick(wall=1e9 + chaos.now), chaos.now)
        chaos.broker.check_invariants()
    state = chaos.broker.state
    assert [type(c) for c in seen].count(Stop) == 1
    assert (state.live, state.ended, state.jobs, state.orphans, state.delayed) == ({}, {}, {}, {}, {})
    assert (len(state.queue), state.result_bytes, state.watches.jobs()) == (0, 0, [])
    assert not state.room.needing


@pytest.mark.parametrize("seed", range(100, 104))
def test_the_same_events_give_the_same_commands(seed: int) -> None:
    first, second = Chaos(seed), Chaos(seed)
    for _ in range(400):
        event = first.draw()
        assert second.draw() == event
        ours = first.broker.handle(event, first.now)
        assert second.broker.handle(event, second.now) == ours
        for chaos in (first, second):
            for command in ours:
                chaos.take(command)
    first.journal.close()
    second.journal.close()
