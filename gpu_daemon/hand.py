"""The jobs in a daemon's hand: what runs, what comes next, and ends that nobody has acknowledged yet.

Pure. It knows how far each job has come, not whom to tell about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from common.codec import Buffer
from common.messages import Done, Fail, HeldToken, JobOrder, Token

CAPACITY_JOBS = 2  # what runs and what comes next
PROGRESS_INTERVAL_S = 0.05  # least time between two PROGRESS of a job, its last two steps apart

Stage = Literal["waiting", "running", "ended"]
StopCode = Literal["", "cancelled", "deadline_exceeded", "job_timeout", "draining"]


@dataclass(slots=True)
class Held:
    """One job in hand. Times are monotonic seconds."""

    token: Token
    job: JobOrder
    deadline_at: float
    traceparent: str = ""  # of the job, for the log
    inputs: Sequence[Buffer] = ()  # the files that the job starts from, until it has ended
    stage: Stage = "waiting"
    handed_at: float = 0.0  # to the engine; meaningful from 'running' on
    begun: bool = False  # the engine says that it draws
    step: int = 0  # the last one that is done
    progress_at: float = float("-inf")  # of the last PROGRESS
    stop_code: StopCode = ""  # why the engine was asked to stop it
    kill_at: float = float("inf")  # when the engine is killed if it has not stopped by then
    end: Done | Fail | None = None  # kept until acknowledged
    payload: Sequence[Buffer] = ()
    told_at: float = 0.0  # when the end was last sent


class Hand:
    """At most CAPACITY_JOBS jobs by token, in the order in which they came."""

    def __init__(self) -> None:
        self._held: dict[Token, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, token: Token) -> bool:
        return token in self._held

    def get(self, token: Token) -> Held | None:
        """The job with this token."""
        return self._held.get(token)

    def all(self) -> list[Held]:
        """Every job in hand."""
        return list(self._held.values())

    def running(self) -> Held | None:
        """The job that the engine has; it cannot have two."""
        return next((held for held in self._held.values() if held.stage == "running"), None)

    def waiting(self) -> list[Held]:
        """What the engine has not been given."""
        return [held for held in self._held.values() if held.stage == "waiting"]

    def ended(self) -> list[Held]:
        """Ends without acknowledgement."""
        return [held for held in self._held.values() if held.stage == "ended"]

    def add(self, held: Held) -> None:
        """Take one more."""
        self._held[held.token] = held

    def drop(self, token: Token) -> None:
        """Forget one."""
        del self._held[token]

    def tokens(self) -> tuple[HeldToken, ...]:
        """What a registration lists: everything but what nobody wants any more."""
        return tuple(
            HeldToken(token=held.token, stage=held.stage)
            for held in self._held.values()
            if held.stop_code != "cancelled"
        )

    def check(self) -> None:
        """Raise AssertionError, showing the hand, where it could not have come to be."""
        story = [(held.token.job_id[:8], held.token.dispatch, held.stage, held.stop_code) for held in self.all()]
        assert len(self) <= CAPACITY_JOBS, story
        assert sum(held.stage == "running" for held in self.all()) <= 1, story
        for held in self.all():
            assert (held.end is not None) == (held.stage == "ended"), story
            assert not held.begun or held.stage != "waiting", story
            assert not held.stop_code or held.stage == "running", story
            assert held.end is None or held.end.token == held.token, story
