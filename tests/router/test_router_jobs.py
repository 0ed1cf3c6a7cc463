"""The table of a job's states: complete, final at its ends, and an impossible step tells the story."""

import itertools

import pytest

from router.jobs import ENDED, TABLE, ImpossibleTransition, Job, JobEvent, JobState, advance
from tests.common.samples import ORDER

POSSIBLE = {
    "queued": {"dispatch": "dispatched", "adopt": "dispatched", "fail": "failed", "cancel": "cancelled"},
    "dispatched": {"start": "running", "requeue": "queued", "fail": "failed", "cancel": "cancelled"},
    "running": {"requeue": "queued", "store": "storing", "fail": "failed", "cancel": "cancelled"},
    "storing": {
        "not_stored": "running",
        "stored": "done",
        "requeue": "queued",
        "fail": "failed",
        "cancel": "cancelled",
    },
    "done": {},
    "failed": {},
    "cancelled": {},
}  # fmt: skip


def _job(state: JobState = JobState.QUEUED) -> Job:
    job = Job(
        job_id="0" * 32,
        owner="local",
        order=ORDER,
        notes=(),
        sequence=1,
        created_at=0,
        created_now=0,
        deadline_at=9,
        deadline_now=9,
    )
    job.state = state
    return job


@pytest.mark.parametrize(("state", "event"), list(itertools.product(JobState, JobEvent)))
def test_every_step_is_possible_or_changes_nothing(state: JobState, event: JobEvent) -> None:
    job = _job(state)
    after = POSSIBLE[state.value].get(event.value)
    if after is None:
        with pytest.raises(ImpossibleTransition, match=event.value):
            advance(job, event, 1.0)
        assert job.state is state
        assert not job.story
    else:
        advance(job, event, 1.0)
        assert job.state.value == after


def test_nothing_follows_an_end() -> None:
    assert not [pair for pair in TABLE if pair[0] in ENDED]


def test_an_impossible_step_tells_the_story() -> None:
    job = _job()
    advance(job, JobEvent.DISPATCH, 10.0, "host/cuda:0")
    advance(job, JobEvent.START, 10.5)
    with pytest.raises(ImpossibleTransition) as raised:
        advance(job, JobEvent.STORED, 11.0)
    text = str(raised.value)
    assert "stored cannot happen" in text
    assert "in state running" in text
    assert text.index("10.000 dispatch #0 host/cuda:0") < text.index("10.500 start")


@pytest.mark.parametrize(
    ("dispatch", "settled", "asked", "state", "holds"),
    [
        (2, 1, 2, JobState.RUNNING, True),
        (2, 1, 1, JobState.RUNNING, False),
        (2, 1, 3, JobState.RUNNING, False),
        (2, 2, 2, JobState.QUEUED, False),
        (2, 1, 2, JobState.QUEUED, True),
        (2, 1, 2, JobState.STORING, True),
        (2, 1, 2, JobState.CANCELLED, False),
        (0, 0, 0, JobState.QUEUED, False),
    ],
)
def test_only_the_unsettled_last_dispatch_is_current(
    dispatch: int, settled: int, asked: int, state: JobState, holds: bool
) -> None:
    job = _job(state)
    job.dispatch, job.settled = dispatch, settled
    assert job.holds(asked) is holds
