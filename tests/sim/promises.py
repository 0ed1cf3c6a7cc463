"""What GenServe promises, held against what the disk holds, what is said, and what was really drawn.

It sees every committed record and every message before it leaves, in all lives of the router, and remembers
more than any part of the system may.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from common.messages import (
    Accepted,
    Cancelled,
    Dispatch,
    Failed,
    Fenced,
    Message,
    Result,
    ResultAck,
    Token,
)
from router.records import (
    JobAccepted,
    JobCancelled,
    JobDispatched,
    JobDone,
    JobFailed,
    JobForgotten,
    JobRecord,
    JobRequeued,
    JobRevived,
    JobStarted,
    KeyForgotten,
    KeyTaken,
    Record,
)

END_OF = {JobDone: Result.NAME, JobFailed: Failed.NAME, JobCancelled: Cancelled.NAME}


@dataclass(slots=True)
class Life:
    """One job, as the disk has had it."""

    accepted: JobAccepted
    end: bytes = b""
    dispatch: int = 0
    worker_id: str = ""
    begun: bool = False
    lost: bool = False
    attempts: int = 0
    attempts_if_found: int = 0  # should the GPU that was lost come back with it
    attempts_top: int = 0
    memory_failures: int = 0
    ended_commit: int = 0
    dispatches: set[int] = field(default_factory=set)
    settled: set[int] = field(default_factory=set)
    forgotten: bool = False
    revived_as: str = ""
    history: list[JobRecord] = field(default_factory=list)


class Promises:
    """All lives of all jobs."""

    def __init__(self, attempts_max: int) -> None:
        self.attempts_max = attempts_max
        self.commits = 0
        self.lives: dict[str, Life] = {}
        self.keys: dict[str, str] = {}
        self.drawn: dict[Token, str] = {}  # sha256 of what an engine drew under a token
        self.sent: dict[Token, str] = {}  # who was sent each token
        self.told: dict[str, bytes] = {}  # how each job's clients were told that it ended
        self.counts: defaultdict[str, int] = defaultdict(int)

    # --- the disk ------------------------------------------------------------------------------

    def committed(self, record: Record) -> None:
        """One record more is kept for good."""
        self.counts[type(record).__name__] += 1
        match record:
            case JobAccepted():
                assert record.job_id not in self.lives, f"accepted twice: {record}"
                self.lives[record.job_id] = Life(record)
                self.counts["JobAccepted with inputs"] += bool(record.inputs_of)
                self.counts["JobAccepted with another's inputs"] += record.inputs_of not in ("", record.job_id)
            case KeyTaken():
                assert record.key not in self.keys, f"a key stands for two jobs: {record}"
                assert record.job_id in self.lives, f"a key without its job: {record}"
                self.keys[record.key] = record.job_id
            case KeyForgotten():
                del self.keys[record.key]
        if isinstance(record, JobRecord):
            life = self.lives[record.job_id]
            life.history.append(record)
            self._of_a_job(life, record)

    def _of_a_job(self, life: Life, record: JobRecord) -> None:
        assert not life.forgotten, f"after it was forgotten: {record}"
        if isinstance(record, JobForgotten):
            assert life.end, f"forgotten before its end: {record}"
            life.forgotten = True
            return
        if isinstance(record, JobRevived):
            self._revived(life, record)
            return
        assert not life.end, f"after its end: {record}"
        match record:
            case JobDispatched():
                self._dispatched(life, record)
            case JobStarted():
                assert life.worker_id, f"begun without a GPU: {record}"
                life.begun = True
            case JobRequeued():
                self._requeued(life, record)
            case JobDone():
                token = Token(job_id=record.job_id, dispatch=life.dispatch)
                assert life.dispatch not in life.settled, f"done by a settled token: {record}"
                assert self.drawn.get(token) == record.picture.sha256, f"not what {token} drew: {record}"
                life.settled.add(life.dispatch)
            case JobFailed():
                if record.settled:
                    life.settled.add(record.settled)
        life.end, life.ended_commit = END_OF.get(type(record), b""), self.commits

    def _revived(self, life: Life, record: JobRevived) -> None:
        end = life.history[-2]  # the one before this record
        assert isinstance(end, JobFailed), f"revived after {end}: {record}"
        assert end.error.code == "poison", f"revived although it was no poison: {record}"
        anew = self.lives[record.as_job_id]
        assert anew.accepted.order == life.accepted.order, f"revived as another job: {record}"
        life.revived_as = record.as_job_id

    def _dispatched(self, life: Life, record: JobDispatched) -> None:
        if record.dispatch == life.dispatch:  # adopted: its GPU came back
            assert life.lost, f"dispatched twice under one number: {record}"
            assert record.worker_id == life.worker_id, f"adopted by another GPU: {record}"
            life.attempts = life.attempts_if_found
        else:
            assert record.dispatch == life.dispatch + 1, f"a dispatch is missing: {record} after {life.dispatch}"
        life.dispatches.add(record.dispatch)
        life.dispatch, life.worker_id = record.dispatch, record.worker_id
        life.begun = life.lost = False

    def _requeued(self, life: Life, record: JobRequeued) -> None:
        if record.settled:
            assert record.settled <= life.dispatch, f"settled what was never dispatched: {record}"
            life.settled.add(record.settled)
        assert record.lost or record.settled == life.dispatch, f"back in the queue with its token current: {record}"
        before = life.attempts
        assert before <= record.attempts <= before + 1, f"attempts went from {before} to {record.attempts}: {record}"
        cap = self.attempts_max + record.memory_failures - 1
        assert record.attempts <= cap, f"{record.attempts} attempts and still queued: {record}"
        life.lost, life.attempts_if_found, life.attempts = record.lost, before, record.attempts

    # --- what is said --------------------------------------------------------------------------

    def to_client(self, message: Message) -> None:
        """About to leave for a client."""
        self.counts[message.NAME.decode()] += 1
        match message:
            case Accepted():
                assert message.job_id in self.lives, f"said before written: {message}"
            case Result() | Failed() | Cancelled():
                life = self.lives[message.job_id]
                assert life.end == message.NAME, f"{message.NAME!r} is said, {life.end!r} is written: {message}"
                before = self.told.setdefault(message.job_id, message.NAME)
                assert before == message.NAME, f"first {before!r}, then {message.NAME!r} is said: {message}"

    def to_worker(self, worker_id: str, message: Message) -> None:
        """About to leave for a daemon."""
        self.counts[message.NAME.decode()] += 1
        match message:
            case Dispatch():
                life = self.lives[message.token.job_id]
                assert not life.end or life.ended_commit == self.commits, f"sent although it has ended: {message}"
                assert message.token.dispatch in life.dispatches, f"a dispatch that is not written: {message}"
                assert message.token not in self.sent, f"one token sent twice: {message}"
                self.sent[message.token] = worker_id
            case ResultAck():
                settled = self.lives[message.token.job_id].settled
                assert message.token.dispatch in settled, f"acknowledged before it is written: {message}"
            case Fenced():
                known = self.lives.get(message.token.job_id)
                if known is not None and not known.end:
                    current = message.token.dispatch == known.dispatch not in known.settled
                    assert not current, f"the current token is fenced: {message}"

    # --- what is drawn -------------------------------------------------------------------------

    def drew(self, worker_id: str, token: Token, sha256: str) -> None:
        """An engine has drawn a picture."""
        assert token not in self.drawn, f"drawn twice under one token: {token}"
        assert self.sent[token] == worker_id, f"drawn by another than was asked: {token}"
        self.drawn[token] = sha256

    def ended(self) -> bool:
        """Has every accepted job ended?"""
        return all(life.end for life in self.lives.values())

    def tell(self, job_id: str) -> str:
        """A job's history, for people."""
        life = self.lives.get(job_id)
        return "" if life is None else "\n".join(f"  {record}" for record in life.history)
