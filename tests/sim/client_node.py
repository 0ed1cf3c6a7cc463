"""A client: it submits with keys and without, repeats itself until answered, watches, cancels, asks again.

It believes nothing that contradicts what it was told before.
"""

from dataclasses import dataclass, field

from common.codec import TO_CLIENT, encode
from common.messages import (
    Accepted,
    CancelJob,
    Cancelled,
    DeadLettersQuery,
    DeadLettersReply,
    ErrorReply,
    Failed,
    Fetch,
    JobQuery,
    JobReply,
    JobSpec,
    Message,
    Rejected,
    Requeue,
    Result,
    StatusQuery,
    Submit,
    Watch,
)
from tests.sim.daemon_node import picture_of
from tests.sim.network import Clock, Dealer, Frames, Network
from tests.sim.promises import Promises

REPEAT_S = (1.0, 5.0)
END_STATES = {Result.NAME: "done", Failed.NAME: "failed", Cancelled.NAME: "cancelled"}
# Why a job may fail here: whatever was done to it on purpose.
FAILURES = {
    "engine_died", "engine_error", "worker_lost", "poison", "deadline_exceeded", "job_timeout", "out_of_memory",
    "invalid_request",
}  # fmt: skip
REFUSALS = {"queue_full", "unavailable", "storage_full", "unknown_model", "deadline_unreachable"}


@dataclass(slots=True)
class Wish:
    """One picture that it wants."""

    number: int
    spec: JobSpec
    key: str
    files: tuple[bytes, ...] = ()  # that it starts from
    again_of: str = ""  # the dead letter that it revives
    rids: list[str] = field(default_factory=list)  # of its SUBMITs
    job_id: str = ""
    end: bytes = b""
    end_on: bytes = b""  # the connection that told it
    cancelled: bool = False  # it asked for that
    given_up: bool = False


class ClientNode:
    """One client, over all its connections."""

    def __init__(self, clock: Clock, network: Network, promises: Promises, name: str, *, forgetful: bool) -> None:
        """`forgetful`: the router keeps so little that an end may be gone before it is heard."""
        self.clock, self.network, self.promises, self.name = clock, network, promises, name
        self.forgetful = forgetful
        self.wishes: list[Wish] = []
        self.by_job: dict[str, Wish] = {}
        self.by_rid: dict[str, Wish] = {}
        self.unknown: dict[str, bytes] = {}  # ends of jobs whose ACCEPTED has not come
        self._rids = 0
        self._connect()
        self._tick()

    def _connect(self) -> None:
        self.dealer = Dealer(self.network, "client", self.name, self._heard)

    # --- what it does --------------------------------------------------------------------------

    def want(self, spec: JobSpec, key: str, files: tuple[bytes, ...]) -> None:
        """Ask for one picture."""
        wish = Wish(len(self.wishes), spec, key, files)
        self.wishes.append(wish)
        self._submit(wish)

    def twice(self, spec: JobSpec, key: str, files: tuple[bytes, ...]) -> None:
        """The same key, sent twice at once."""
        self.want(spec, key, files)
        self._submit(self.wishes[-1])

    def _submit(self, wish: Wish) -> None:
        rid = self._rid("s")
        self.by_rid[rid] = wish
        wish.rids.append(rid)
        if wish.again_of:
            self._send(Requeue(rid=rid, job_id=wish.again_of))
        else:
            parts = tuple(len(data) for data in wish.files)
            self.dealer.send(encode(Submit(rid=rid, key=wish.key, job=wish.spec, parts=parts), wish.files))

    def cancel(self, wish: Wish) -> None:
        """Want it no more."""
        wish.cancelled = True
        if wish.job_id and not wish.end:
            self._send(CancelJob(rid=self._rid("c"), job_id=wish.job_id))

    def ask_again(self, wish: Wish) -> None:
        """After the end, or before: whatever is answered must fit."""
        kind = self.clock.random.randrange(4)
        if kind == 0 and wish.key:
            self._submit(wish)
        elif kind == 1 and wish.job_id:
            self._send(Fetch(rid=self._rid("f"), job_id=wish.job_id))
        elif kind == 2 and wish.job_id:
            self._send(JobQuery(rid=self._rid("j"), job_id=wish.job_id))
        else:
            self._send(StatusQuery(rid=self._rid("t")))

    def revive(self) -> None:
        """Ask what is poison, and for its picture all the same."""
        self._send(DeadLettersQuery(rid=self._rid("d")))

    def hang_up(self, away_s: float) -> None:
        """Come back under a new connection, which no watch knows."""
        if not self.dealer.closed:
            self.dealer.close()
            self.clock.after(away_s, self._connect)

    def stop_reading(self, seconds: float) -> None:
        self.dealer.paused = True
        self.clock.after(seconds, self._read_on, self.dealer)

    def _read_on(self, dealer: Dealer) -> None:
        dealer.paused = False
        dealer.read()

    def _rid(self, kind: str) -> str:
        self._rids += 1
        return f"{kind}{self._rids}"

    def _send(self, message: Message) -> None:
        self.dealer.send(encode(message))

    def _tick(self) -> None:
        for wish in self.wishes:
            if wish.end or wish.given_up:
                continue
            if not wish.job_id:
                if wish.key or wish.again_of or not wish.rids or self.clock.chance(0.5):
                    self._submit(wish)
            elif wish.cancelled:
                self._send(CancelJob(rid=self._rid("c"), job_id=wish.job_id))
            else:
                self._send(Watch(rid=f"w{wish.number}", job_id=wish.job_id))
        self.clock.after(self.clock.between(REPEAT_S), self._tick)

    # --- what it hears -------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Has every job of mine ended?"""
        return all(wish.end or wish.given_up for wish in self.wishes)

    def _heard(self, frames: Frames) -> None:
        message = TO_CLIENT.decode(frames)
        match message:
            case Accepted():
                self._accepted(message)
            case Rejected():
                self._rejected(message)
            case Result() | Failed() | Cancelled():
                self._ended(message, b"".join(frames[3:]))
            case JobReply():
                self._told(message)
            case DeadLettersReply():
                for view in message.letters[:1]:
                    if view.job_id in self.by_job:
                        former = self.by_job[view.job_id]
                        wish = Wish(len(self.wishes), former.spec, "", former.files, again_of=view.job_id)
                        self.wishes.append(wish)
                        self._submit(wish)
            case ErrorReply():
                self._refused(message)

    def _accepted(self, message: Accepted) -> None:
        wish = self.by_rid[message.rid]
        if wish.key:
            assert wish.job_id in ("", message.job_id), f"one key, two jobs: {wish}, {message}"
            assert self.promises.keys.get(wish.key) == message.job_id, f"not the job of this key: {wish}, {message}"
        if wish.job_id and wish.job_id != message.job_id:
            return  # keyless and repeated: the second one is nobody's
        assert self.by_job.setdefault(message.job_id, wish) is wish, f"one job for two wishes: {message}"
        wish.job_id = message.job_id
        if message.job_id in self.unknown:
            wish.end = self.unknown.pop(message.job_id)
        if wish.cancelled and not wish.end:
            self.cancel(wish)
        if wish.again_of:  # the job of then stays what it was
            self.clock.after(self.clock.between(REPEAT_S), self.ask_again, self.by_job[wish.again_of])

    def _rejected(self, message: Rejected) -> None:
        wish = self.by_rid[message.rid]
        if message.code == "not_found":  # a dead letter that is gone, or a key whose job is no longer kept
            former = wish.again_of or self.promises.keys[wish.key]
            anew = self.promises.lives[former].revived_as if wish.again_of else ""
            assert self._may_be_gone(former) or (anew and anew in message.message), message
            wish.given_up = True
            return
        assert message.code in REFUSALS, message
        if not wish.job_id and message.code == "deadline_unreachable":
            wish.given_up = True

    def _refused(self, message: ErrorReply) -> None:
        assert message.code == "not_found", message
        for wish in self.wishes:
            if wish.job_id and wish.job_id in message.message:
                assert self._may_be_gone(wish.job_id), message
            if not wish.end and wish.job_id and self.promises.lives[wish.job_id].forgotten:
                assert self._may_be_gone(wish.job_id), message
                wish.given_up = True

    def _may_be_gone(self, job_id: str) -> bool:
        return self.promises.lives[job_id].forgotten and self.forgetful

    def _told(self, message: JobReply) -> None:
        wish = self.by_job[message.job_id]
        state = message.job.state
        if wish.end and self.dealer.heard_on != wish.end_on:
            pass  # what an old connection still had to tell may be older
        elif wish.end:
            assert state == END_STATES[wish.end], f"{wish} is told {state}"
        elif state in ("done", "failed"):  # a CANCEL that came too late: ask how it ended
            self._send(Watch(rid=f"w{wish.number}", job_id=message.job_id))
        if message.history:
            events = [moment.event for moment in message.history]
            ends = [event for event in events if event in END_STATES.values()]
            assert events[0] == "accepted", message.history
            assert ends == ([state] if state in END_STATES.values() else []), message.history
            times = [moment.at for moment in message.history]
            assert times == sorted(times), message.history

    def _ended(self, message: Result | Failed | Cancelled, data: bytes) -> None:
        wish = self.by_job.get(message.job_id)
        if wish is None:
            self.unknown[message.job_id] = message.NAME  # the ACCEPTED was lost; SUBMIT is repeated
            return
        assert wish.end in (b"", message.NAME), f"two ends: {wish}, then {message}"
        wish.end = message.NAME
        wish.end_on = wish.end_on or self.dealer.heard_on
        if isinstance(message, Result):
            spec = wish.spec
            picture = picture_of(spec.prompt, spec.seed or 0, spec.steps, wish.files)
            assert data.startswith(picture), f"not its picture: {wish}"
        elif isinstance(message, Failed):
            assert message.error.code in FAILURES, message.error
            if message.error.code == "poison":
                self.clock.after(self.clock.between(REPEAT_S), self.revive)
        else:
            assert wish.cancelled, f"cancelled by nobody: {wish}"
