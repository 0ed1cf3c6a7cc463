"""What cannot be ready in time is refused at once; what no longer can is failed, not drawn."""

from collections.abc import Callable

import pytest

from common.messages import Accepted, Failed, Rejected
from router.deadlines import STALE_MIN, Deadlines
from router.jobs import Job
from router.speeds import JOBS_TO_COMPARE
from tests.router.rig import FakeWorker, Rig
from tests.router.test_router_parts import _job


def _draw(worker: FakeWorker, *, step_s: float, jobs: int = JOBS_TO_COMPARE, **spec: int) -> None:
    """Teach the router how fast this worker is; all other ones must be busy or not ready."""
    for _ in range(jobs):
        token = worker.rig.job(worker.rig.submit(**spec)).token
        worker.started(token)
        worker.progress(token, 1, step_s=step_s)
        worker.done(token)
        worker.rig.stored()
        worker.grant()


def _answer(rig: Rig, **spec: object) -> Accepted | Rejected:
    rig.submit(**spec)
    (answer,) = [m for m in rig.to_client() if isinstance(m, Accepted | Rejected)]
    return answer


def _refused(answer: Accepted | Rejected) -> str:
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.param, answer.retry_after_s) == ("deadline_unreachable", "deadline_s", None)
    return answer.message


def test_a_deadline_that_cannot_be_met_is_refused_with_an_estimate(rig: Rig) -> None:
    worker = rig.worker()
    _draw(worker, step_s=1.0)
    for _ in range(3):
        rig.submit(steps=10)
    before = list(rig.broker.state.queue.ordered(["m"]))
    text = _refused(_answer(rig, steps=12, deadline_s=40.0))
    assert text == "it would end in about 42 s; deadline_s is 40"
    assert _refused(_answer(rig, steps=2, deadline_s=0.5)) == "it would end in about 32 s; deadline_s is 0.5"
    assert list(rig.broker.state.queue.ordered(["m"])) == before  # nothing is kept of it
    assert isinstance(_answer(rig, steps=12, deadline_s=43.0), Accepted)


def test_the_estimate_is_by_the_jobs_own_fair_place(rig: Rig) -> None:
    worker = rig.worker()
    _draw(worker, step_s=1.0)
    for _ in range(20):
        rig.submit(steps=10, client="flood")
    assert "would end in about 210 s" in _refused(_answer(rig, steps=10, client="flood", deadline_s=30.0))
    assert isinstance(_answer(rig, steps=10, client="other", deadline_s=30.0), Accepted)
    assert isinstance(_answer(rig, steps=10, client="flood", priority=1, deadline_s=30.0), Accepted)


def test_where_no_speed_is_known_it_is_admitted(rig: Rig) -> None:
    rig.worker()
    rig.submit()
    assert isinstance(_answer(rig, deadline_s=0.001), Accepted)


def test_a_guess_from_another_size_refuses_nothing(rig: Rig) -> None:
    worker = rig.worker()
    _draw(worker, step_s=1.0, width=64, height=64)
    answer = _answer(rig, width=128, height=128, deadline_s=1.0)
    assert isinstance(answer, Accepted)
    assert answer.job.eta_s == 16.0  # four times the pixels


def test_a_speed_of_few_jobs_refuses_only_what_is_far_too_late(rig: Rig) -> None:
    worker = rig.worker()
    _draw(worker, step_s=1.0, jobs=1)
    assert isinstance(_answer(rig, steps=10, deadline_s=6.0), Accepted)
    assert "about 20 s" in _refused(_answer(rig, steps=10, deadline_s=9.0))


def test_a_gpu_of_unknown_speed_may_be_fast(rig: Rig) -> None:
    worker = rig.worker("w")
    _draw(worker, step_s=1.0)
    rig.worker("v")
    rig.submit(steps=10)
    rig.submit(steps=10)
    assert isinstance(_answer(rig, steps=10, deadline_s=3.0), Accepted)


def test_more_than_the_router_allows_is_cut(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(job_deadline_s=5.0)
    worker = rig.worker()
    _draw(worker, step_s=1.0)
    assert _refused(_answer(rig, steps=10, deadline_s=100.0)).endswith("deadline_s is 5")


def test_a_waiting_job_that_can_no_longer_make_it_is_failed_before_its_deadline(rig: Rig) -> None:
    worker = rig.worker(credit=1)
    _draw(worker, step_s=1.0)
    running = rig.submit(steps=4)
    worker.started(rig.job(running).token)
    job_id = rig.submit(steps=10, deadline_s=20.0)
    rig.tick(9.8, step=0.5)
    worker.heartbeat()  # the running one takes longer than thought
    assert rig.state(job_id) == "queued"
    rig.tick(1.0)
    assert rig.state(job_id) == "failed"
    error = rig.job(job_id).error
    assert error is not None
    assert (error.code, rig.now < rig.job(job_id).deadline_now) == ("deadline_exceeded", True)
    assert "it takes 10.0 s on the fastest GPU; so it was not drawn" in error.message
    assert [m.job_id for m in [c.message for c in rig.all if hasattr(c, "message")] if isinstance(m, Failed)] == [
        job_id
    ]


def test_an_idle_gpu_too_slow_for_its_deadline_is_not_sent_a_job(rig: Rig) -> None:
    slow = rig.worker("slow", credit=1)
    _draw(slow, step_s=10.0)
    slow.heartbeat("loading")
    fast = rig.worker("fast")
    _draw(fast, step_s=2.0)
    fast.started(rig.job(rig.submit(steps=50)).token)  # 100 s
    slow.heartbeat()
    before = rig.submit(steps=1)  # 10 s
    slow.started(rig.job(before).token)
    urgent = rig.submit(steps=4, deadline_s=55.0)  # 40 s on the slow one, 8 s on the fast one
    for _ in range(20):
        rig.tick(1.0, step=0.5)
        slow.heartbeat()
        fast.heartbeat()
    slow.done(rig.job(before).token)  # later than was thought
    rig.stored()
    slow.grant()
    assert (slow.believed.hand, rig.state(urgent)) == ({}, "queued")
    later = rig.submit(steps=4)
    assert rig.job(later).worker_id == "slow"  # it goes by
    for _ in range(28):
        rig.tick(1.0, step=0.5)
        slow.heartbeat()
        fast.heartbeat()
    assert rig.state(urgent) == "failed"


def test_a_started_job_is_stopped_at_its_deadline(rig: Rig) -> None:
    worker = rig.worker()
    job_id = rig.submit(deadline_s=5.0)
    worker.started(rig.job(job_id).token)
    rig.tick(4.9)
    assert rig.state(job_id) == "running"
    rig.tick(0.3)
    assert rig.state(job_id) == "failed"


@pytest.mark.parametrize("stored", [True, False])
def test_a_picture_being_stored_has_no_deadline_until_it_must_be_sent_again(rig: Rig, stored: bool) -> None:
    worker = rig.worker()
    job_id = rig.submit(deadline_s=5.0)
    token = rig.job(job_id).token
    worker.started(token)
    worker.done(token)
    rig.tick(7.0)
    worker.heartbeat()
    assert rig.state(job_id) == "storing"
    rig.stored("" if stored else "it is another one")
    rig.tick(2.0)
    assert rig.state(job_id) == ("done" if stored else "failed")


def test_a_heap_of_deadlines_stays_small() -> None:
    live: dict[str, Job] = {}
    deadlines = Deadlines(live)
    for number in range(1000):
        job = _job(number)
        live[job.job_id] = job
        deadlines.look(job, float(number))
        if number >= 10:
            del live[f"{number - 10:032x}"]
    assert len(deadlines._heap) <= 2 * len(live) + STALE_MIN
    deadlines.check()
    assert [job.sequence for job in deadlines.due(995.0)] == [990, 991, 992, 993, 994, 995]
    assert [job.sequence for job in deadlines.due(2000.0)] == [996, 997, 998, 999]


def test_a_deadline_beyond_the_longest_is_cut_and_said_so(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(job_deadline_s=60.0)
    rig.worker()
    job = rig.job(rig.submit(deadline_s=1000.0))
    assert job.deadline_at == pytest.approx(job.created_at + 60.0)
    assert [note.code for note in job.notes] == ["deadline_cut"]
