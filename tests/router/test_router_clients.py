"""What clients ask, and everything they are answered."""

from collections.abc import Callable
from typing import Any

import pytest

from common.messages import (
    Accepted,
    CancelJob,
    Cancelled,
    CancelToken,
    ErrorReply,
    Failed,
    Fetch,
    JobProgress,
    JobQuery,
    JobReply,
    JobSpec,
    Ping,
    Pong,
    Rejected,
    Result,
    StatusQuery,
    StatusReply,
    Submit,
    Watch,
)
from router import keys
from router.commands import ToClient, ToWorker
from router.events import Unreadable
from tests.router.rig import FakeWorker, Rig


def _done(rig: Rig, worker: FakeWorker, size: int = 7) -> str:
    job = rig.submit()
    token = rig.job(job).token
    worker.started(token)
    worker.done(token, size=size)
    rig.stored()
    return job


def test_submit_is_accepted_in_writing_then_followed_to_its_result(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit(rid="r7")
    (accepted,) = rig.to_client()
    assert isinstance(accepted, Accepted)
    assert (accepted.rid, accepted.job_id, accepted.repeated, accepted.job.state) == ("r7", job, False, "queued")
    assert [type(record).__name__ for record in rig.records if getattr(record, "job_id", "") == job] == [
        "JobAccepted",
        "JobDispatched",
    ]
    token = rig.job(job).token
    worker.started(token)
    (running,) = rig.to_client()
    assert isinstance(running, JobProgress)
    assert (running.rid, running.state, running.step, running.steps) == ("r7", "running", 0, 4)
    worker.done(token)
    assert rig.to_client() == []
    rig.stored()
    (result,) = rig.to_client()
    assert isinstance(result, Result)
    assert (result.rid, result.parts, result.job.state, result.job.attempts) == ("r7", (7,), "done", 1)
    assert [c.picture_of for c in rig.out if isinstance(c, ToClient)] == [job]


def test_the_last_step_is_always_told_and_others_at_most_four_a_second(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit(steps=10)
    token = rig.job(job).token
    worker.started(token)
    told = []
    for step in range(1, 11):
        rig.now += 0.1
        worker.progress(token, step, steps=10)
        told += [m.step for m in rig.told(JobProgress)]
    assert told == [3, 6, 9, 10]


def test_positions_in_the_queue_are_told_as_they_change(rig: Rig) -> None:
    worker = rig.worker("w", credit=1)
    running = rig.submit(peer=b"other")
    rig.submit(peer=b"other")
    waiting = rig.submit()
    rig.tick(1.1)
    told = [c.message for c in rig.all if isinstance(c, ToClient) and isinstance(c.message, JobProgress)]
    assert (told[-1].job_id, told[-1].position) == (waiting, 2)
    rig.tick(2.0)
    assert rig.told(JobProgress) == []
    worker.draw(rig.job(running).token)
    rig.tick(1.1)
    told = [c.message for c in rig.all if isinstance(c, ToClient) and isinstance(c.message, JobProgress)]
    assert (told[-1].job_id, told[-1].position, told[-1].state) == (waiting, 1, "queued")


def test_the_same_key_and_job_is_the_same_job(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit("a", key="k")
    rig.submit("a", key="k", peer=b"d", rid="2")
    (again,) = rig.to_client(b"d")
    assert isinstance(again, Accepted)
    assert (again.job_id, again.repeated) == (job, True)
    assert len(rig.broker.state.jobs) == 1
    worker.started(rig.job(job).token)
    assert len(rig.told(JobProgress)) == 2
    worker.done(rig.job(job).token)
    rig.stored()
    assert {c.peer for c in rig.out if isinstance(c, ToClient)} == {b"c", b"d"}
    rig.submit("a", key="k")
    accepted, result = rig.to_client()
    assert isinstance(accepted, Accepted)
    assert isinstance(result, Result)


def test_the_same_key_with_another_job_is_refused(rig: Rig) -> None:
    rig.worker("w")
    rig.submit("a", key="k")
    rig.submit("b", key="k")
    (answer,) = rig.to_client()
    assert isinstance(answer, Rejected)
    assert answer.code == "key_conflict"


def test_the_digest_of_a_job_is_what_journals_hold_of_it() -> None:
    job = JobSpec(prompt="a red fox", width=64, height=64, seed=7, client="me")
    assert keys.digest(Submit(rid="1", key="k", job=job)).hex() == "892c191c3823a15db738ed0651e31b8c"


def test_a_digest_of_the_clients_own_says_what_is_the_same(rig: Rig) -> None:
    rig.worker("w")
    job = rig.submit("a", key="k", digest="1")
    rig.submit("b", key="k", digest="1")
    (answer,) = rig.to_client()
    assert isinstance(answer, Accepted)
    assert (answer.job_id, answer.repeated) == (job, True)
    for digest in ("2", ""):
        rig.submit("a", key="k", digest=digest)
        (answer,) = rig.to_client()
        assert isinstance(answer, Rejected)
        assert answer.code == "key_conflict"


def test_a_key_outlives_its_result_and_then_its_time(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(result_ttl_s=5.0, key_ttl_s=100.0)
    worker = rig.worker("w")
    rig.submit("a", key="k")
    worker.draw(rig.job(next(iter(rig.broker.state.jobs))).token)
    rig.tick(6.0)
    rig.submit("a", key="k")
    (answer,) = rig.to_client()
    assert isinstance(answer, Rejected)
    assert answer.code == "not_found"
    rig.tick(100.0, step=1.0)
    rig.worker("v")
    rig.submit("a", key="k")
    assert isinstance(rig.to_client()[0], Accepted)


def test_a_refused_submission_takes_no_key(rig: Rig) -> None:
    rig.worker("w")
    rig.submit("a", key="k", model="nope")
    rig.submit("a", key="k")
    assert isinstance(rig.to_client()[0], Accepted)


@pytest.mark.parametrize("message", [Watch, JobQuery, Fetch, CancelJob])
def test_unknown_jobs_are_not_found(rig: Rig, message: Any) -> None:
    (answer,) = rig.say(message(rid="9", job_id="0" * 32))
    assert isinstance(answer, ErrorReply)
    assert (answer.rid, answer.code) == ("9", "not_found")


def test_ping_and_status(rig: Rig) -> None:
    assert rig.say(Ping(rid="p")) == [Pong(rid="p")]
    (status,) = rig.say(StatusQuery(rid="s"))
    assert isinstance(status, StatusReply)
    assert (status.rid, status.workers, status.default_model) == ("s", (), "")


def test_status_counts_what_happened(rig: Rig) -> None:
    worker = rig.worker("w")
    _done(rig, worker)
    worker.grant()
    rig.say(CancelJob(rid="x", job_id=rig.submit()))
    worker.grant()
    for code in ("invalid_request", "job_timeout"):
        failing = rig.submit()
        worker.fail(rig.job(failing).token, code)
        worker.grant()
    rig.submit(model="nope")
    rig.submit()
    rig.now += 5
    (status,) = rig.say(StatusQuery(rid="s"))
    assert isinstance(status, StatusReply)
    stats = status.stats
    assert (stats.submitted_total, stats.done_total, stats.failed_total, stats.cancelled_total) == (5, 1, 2, 1)
    assert (stats.rejected_total, stats.queue_full_total, stats.queued, stats.running) == (1, 0, 1, 0)
    assert stats.uptime_s == 5.0
    assert (status.workers[0].done_total, status.workers[0].failed_total) == (1, 1)
    assert [failure.code for failure in status.failures] == ["job_timeout"], (
        "what a client got wrong is no failure of ours"
    )
    assert [(m.card.name, m.workers) for m in status.models] == [("m", 1)]


def test_watch_answers_at_once_and_then_follows(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    (reply,) = rig.say(Watch(rid="2", job_id=job), b"d")
    assert isinstance(reply, JobReply)
    worker.started(rig.job(job).token)
    worker.done(rig.job(job).token)
    rig.stored()
    (result,) = rig.to_client(b"d")
    assert isinstance(result, Result)
    assert result.rid == "2"
    (again,) = rig.say(Watch(rid="3", job_id=job), b"d")
    assert isinstance(again, Result)


def test_a_result_goes_once_to_each_watch(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit(rid="1")
    rig.say(Watch(rid="1", job_id=job))
    rig.say(Watch(rid="2", job_id=job))
    worker.started(rig.job(job).token)
    worker.done(rig.job(job).token)
    rig.stored()
    assert sorted(m.rid for m in rig.told(Result)) == ["1", "2"]


def test_a_watch_lapses_unless_it_is_repeated(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    rig.say(Watch(rid="keep", job_id=job), b"keen")
    for _ in range(4):
        rig.tick(5.0, step=1.0)
        worker.heartbeat()
        rig.say(Watch(rid="keep", job_id=job), b"keen")
    worker.done(rig.job(job).token)
    rig.stored()
    assert [c.peer for c in rig.out if isinstance(c, ToClient)] == [b"keen"]


def test_watchers_of_a_job_are_bounded(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(watches_per_job_max=2)
    rig.worker("w")
    job = rig.submit()
    for peer in (b"d", b"e"):
        rig.now += 1
        rig.say(Watch(rid="1", job_id=job), peer)
    rig.say(CancelJob(rid="x", job_id=job), b"f")
    assert sorted(c.peer for c in rig.out if isinstance(c, ToClient)) == [b"d", b"e", b"f"]


def test_fetch_repeats_the_end_and_before_it_says_how_the_job_stands(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    assert isinstance(rig.say(Fetch(rid="f", job_id=job))[0], JobReply)
    worker.done(rig.job(job).token)
    rig.stored()
    for _ in range(2):
        assert isinstance(rig.say(Fetch(rid="f", job_id=job))[0], Result)


def test_cancel_ends_a_job_at_once_wherever_it_is(rig: Rig) -> None:
    worker = rig.worker("w")
    running, queued = rig.submit(rid="1"), rig.submit(rid="2")
    worker.started(rig.job(running).token)
    for job in (queued, running):
        answers = rig.say(CancelJob(rid="x", job_id=job))
        assert [type(a).__name__ for a in answers] == ["Cancelled", "Cancelled"]
        assert rig.state(job) == "cancelled"
    assert rig.to_worker(worker.peer) == [CancelToken(token=rig.job(running).token)]
    assert worker.believed.hand == {}
    (again,) = rig.say(CancelJob(rid="y", job_id=running))
    assert isinstance(again, Cancelled)


def test_cancel_after_the_end_says_how_it_ended(rig: Rig) -> None:
    worker = rig.worker("w")
    job = _done(rig, worker)
    (reply,) = rig.say(CancelJob(rid="x", job_id=job))
    assert isinstance(reply, JobReply)
    assert reply.job.state == "done"


def test_a_cancel_wins_while_the_picture_is_being_stored(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    worker.started(rig.job(job).token)
    worker.done(rig.job(job).token)
    rig.say(CancelJob(rid="x", job_id=job))
    rig.stored()
    assert rig.state(job) == "cancelled"
    assert rig.dropped() == [job]


def test_a_deadline_ends_waiting_and_running_jobs(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(job_deadline_s=5.0)
    worker = rig.worker("w")
    running, waiting = rig.submit(rid="1"), rig.submit(rid="2")
    worker.started(rig.job(running).token)
    rig.tick(2.5)
    worker.heartbeat()
    rig.tick(2.6)
    for job in (running, waiting):
        error = rig.job(job).error
        assert error is not None
        assert (error.code, error.retryable, error.fault) == ("deadline_exceeded", True, "capacity")
    ends = [c.message for c in rig.all if isinstance(c, ToClient) and isinstance(c.message, Failed)]
    assert sorted(m.rid for m in ends) == ["1", "2"]
    cancels = [c.message for c in rig.all if isinstance(c, ToWorker) and isinstance(c.message, CancelToken)]
    assert cancels == [CancelToken(token=rig.job(running).token)]


def test_a_deadline_does_nothing_to_what_is_being_stored(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(job_deadline_s=5.0)
    worker = rig.worker("w")
    job = rig.submit()
    worker.done(rig.job(job).token)
    rig.tick(6.0)
    rig.stored()
    assert rig.state(job) == "done"


def test_a_client_that_is_gone_is_told_nothing_more(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    rig.submit(peer=b"c", rid="other")
    rig.send_failed("client", b"c", b"PROGRESS", gone=True)
    worker.started(rig.job(job).token)
    worker.done(rig.job(job).token)
    rig.stored()
    assert not [c for c in rig.out if isinstance(c, ToClient)]
    (found,) = rig.say(Watch(rid="new", job_id=job), b"reconnected")
    assert isinstance(found, Result)


def test_a_client_that_does_not_read_is_owed_the_end_until_it_watches_again(rig: Rig) -> None:
    worker = rig.worker("w")
    job = _done(rig, worker)
    rig.send_failed("client", b"c", b"RESULT", gone=False)
    assert rig.logged("client.unreachable")[0].fields["lost"] == "RESULT"
    assert isinstance(rig.say(Watch(rid="1", job_id=job))[0], Result)


def test_unreadable_frames_are_answered_and_counted(rig: Rig) -> None:
    rig.event(Unreadable(wall=rig.wall, side="client", peer=b"c", rid="7", reason="what?"))
    assert rig.to_client() == [ErrorReply(rid="7", code="protocol_error", message="what?")]
    rig.event(Unreadable(wall=rig.wall, side="worker", peer=b"w", rid="", reason="what?"))
    assert rig.to_worker(b"w") == [ErrorReply(code="protocol_error", message="what?")]
    assert rig.broker.state.totals.protocol_errors == 2
    assert len(rig.logged("frames.refused")) == 1  # a line a second at most
