"""A job, its states, and the ONE table that says how they follow each other.

Pure. It knows nothing of GPUs, queues or the wire. `advance` is the only place where a job's state changes;
a transition that is not in the table raises, changes nothing and shows the job's story. Whatever a peer may
send is judged before (by its token), so such an error is a bug of ours.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from common.messages import ErrorInfo, JobMoment, JobOrder, Note, Picture, Timings, Token

STORY_LINES_MAX = 64
MOMENTS_MAX = 64  # of a longer history the first half and the newest are kept


class JobState(StrEnum):
    """Where a job stands. Clients see 'dispatched' as queued and 'storing' as running."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"  # sent to a GPU, not begun
    RUNNING = "running"
    STORING = "storing"  # drawn; the picture is being written
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobEvent(StrEnum):
    """What may happen to a job."""

    DISPATCH = "dispatch"
    ADOPT = "adopt"  # the GPU that was thought lost comes back with it
    START = "start"
    REQUEUE = "requeue"
    STORE = "store"
    STORED = "stored"
    NOT_STORED = "not_stored"  # no room: its daemon keeps the picture
    FAIL = "fail"
    CANCEL = "cancel"


_S, _E = JobState, JobEvent
TABLE: dict[tuple[JobState, JobEvent], JobState] = {
    (_S.QUEUED, _E.DISPATCH): _S.DISPATCHED,
    (_S.QUEUED, _E.ADOPT): _S.DISPATCHED,
    (_S.QUEUED, _E.FAIL): _S.FAILED,
    (_S.QUEUED, _E.CANCEL): _S.CANCELLED,
    (_S.DISPATCHED, _E.START): _S.RUNNING,
    (_S.DISPATCHED, _E.REQUEUE): _S.QUEUED,
    (_S.DISPATCHED, _E.FAIL): _S.FAILED,
    (_S.DISPATCHED, _E.CANCEL): _S.CANCELLED,
    (_S.RUNNING, _E.REQUEUE): _S.QUEUED,
    (_S.RUNNING, _E.STORE): _S.STORING,
    (_S.RUNNING, _E.FAIL): _S.FAILED,
    (_S.RUNNING, _E.CANCEL): _S.CANCELLED,
    (_S.STORING, _E.STORED): _S.DONE,
    (_S.STORING, _E.NOT_STORED): _S.RUNNING,
    (_S.STORING, _E.REQUEUE): _S.QUEUED,  # the bytes were not those that were announced
    (_S.STORING, _E.FAIL): _S.FAILED,
    (_S.STORING, _E.CANCEL): _S.CANCELLED,
}
ENDED = frozenset((JobState.DONE, JobState.FAILED, JobState.CANCELLED))
IN_HAND = frozenset((JobState.DISPATCHED, JobState.RUNNING))
NEEDS_A_GPU = frozenset((JobState.QUEUED, JobState.DISPATCHED, JobState.RUNNING))


class ImpossibleTransition(Exception):  # noqa: N818  # says what it is
    """A bug: an event that cannot happen in this state. Its text holds the job's story."""


@dataclass(slots=True)
class Job:
    """One picture on its way. Times ending in `_at` are wall seconds, those ending in `_now` monotonic."""

    job_id: str
    owner: str
    order: JobOrder
    notes: tuple[Note, ...]
    sequence: int
    created_at: float
    created_now: float
    deadline_at: float
    deadline_now: float
    inputs_of: str = ""  # the id under which what it starts from is kept; '' where it owns nothing
    weight: float = 0.0  # of its owner's share; 0: none was said, and its client has a share of its own
    charged_s: float = 0.0  # of its owner's GPU seconds, when it was accepted
    state: JobState = JobState.QUEUED
    dispatch: int = 0  # number of the last dispatch
    settled: int = 0  # the last dispatch whose end was taken
    lost: bool = False  # its last dispatch was ended by the loss of its GPU, and counted so
    lost_running: bool = False  # it had begun there
    worker_id: str = ""  # of the last dispatch
    device: str = ""
    starts: int = 0  # dispatches that began
    attempts: int = 0  # of these, ended by failure or loss
    failures: int = 0  # failures and losses in all, for the backoff
    returns: int = 0  # given back without having begun, since the last start
    engine_deaths: int = 0
    memory_failures: int = 0
    avoid: str = ""  # the GPU that is asked last
    barred: frozenset[str] = frozenset()  # GPUs that are asked only where no other serves the model
    not_before_now: float = 0.0
    step: int = 0
    step_now: float = 0.0  # when that step, or the start, was told
    started_at: float = 0.0
    ended_at: float = 0.0
    ended_now: float = 0.0
    picture: Picture | None = None
    parts: tuple[int, ...] = ()
    timings: Timings | None = None
    drawn_notes: tuple[Note, ...] = ()  # that come with this picture
    error: ErrorInfo | None = None
    traceparent: str = ""  # the span that it is part of, as its client said
    steps_at: list[tuple[int, float]] = field(default_factory=list)  # of this start, for its trace: (step, wall)
    revived_as: str = ""  # the job that draws it anew, after it ended as poison
    moments: list[JobMoment] = field(default_factory=list)  # its history, as the journal tells it
    story: deque[str] = field(default_factory=lambda: deque(maxlen=STORY_LINES_MAX))

    @property
    def token(self) -> Token:
        """The token of the last dispatch."""
        return Token(job_id=self.job_id, dispatch=self.dispatch)

    @property
    def ended(self) -> bool:
        """Will nothing more happen to it?"""
        return self.state in ENDED

    def undraw(self) -> None:
        """Whatever was drawn is not its picture."""
        self.picture, self.parts, self.timings, self.drawn_notes = None, (), None, ()

    def mark(self, step: int, wall: float) -> None:
        """A step was heard of, for its trace; again or out of order it is none."""
        if not self.steps_at or step > self.steps_at[-1][0]:
            self.steps_at.append((step, wall))

    def remember(self, moment: JobMoment) -> None:
        """Add to its history."""
        self.moments.append(moment)
        if len(self.moments) > MOMENTS_MAX:
            del self.moments[MOMENTS_MAX // 2]

    def holds(self, dispatch: int) -> bool:
        """Is (job_id, dispatch) the token that may still end this job?"""
        return dispatch == self.dispatch != self.settled and self.state not in ENDED


def advance(job: Job, event: JobEvent, now: float, detail: str = "") -> None:
    """Move `job` along the table. Raises ImpossibleTransition, having changed nothing."""
    state = TABLE.get((job.state, event))
    if state is None:
        raise ImpossibleTransition(f"{event.value} cannot happen to {tell(job)}")
    job.story.append(f"{now:.3f} {event.value} #{job.dispatch} {detail}".rstrip())
    job.state = state


def found_again(job: Job) -> None:
    """The GPU that was counted as lost came back with it: nothing was lost, whatever had been counted before stays."""
    if job.lost:
        job.failures -= 1
        job.attempts -= job.lost_running
        job.starts -= job.lost_running  # it begins there once, however often that is told
    job.lost = job.lost_running = False


def tell(job: Job) -> str:
    """The job's story, one line an event."""
    lines = "".join(f"\n  {line}" for line in job.story)
    return f"job {job.job_id} in state {job.state.value} (dispatch {job.dispatch}, settled {job.settled}):{lines}"
