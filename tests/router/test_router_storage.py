"""No room on the router's disk: what is refused, what waits with its daemon, and how it comes back."""

from collections.abc import Callable
from pathlib import Path

from common.messages import (
    CancelJob,
    Cancelled,
    Failed,
    HeldToken,
    Rejected,
    Requeue,
    Result,
    ResultAck,
    Resync,
    Token,
    Welcome,
)
from router.commands import StoreResult
from router.lifecycle import MESSAGE_CHARS_MAX
from router.records import JobFailed
from tests.router.journals import opened
from tests.router.rig import FakeWorker, Rig


def _running(rig: Rig, worker: FakeWorker) -> tuple[str, Token]:
    job = rig.submit()
    token = rig.job(job).token
    worker.started(token)
    return job, token


def _keeps(worker: FakeWorker, *held: HeldToken) -> tuple[Token, ...]:
    (welcome,) = (answer for answer in worker.register(*held) if isinstance(answer, Welcome))
    return welcome.keep


def _ended(token: Token) -> HeldToken:
    return HeldToken(token=token, stage="ended")


def test_new_jobs_are_refused_and_known_ones_are_not(rig: Rig) -> None:
    rig.worker("w", credit=0)
    known = rig.submit(key="k")
    rig.storage(full=True)
    rig.submit()
    (refusal,) = rig.to_client()
    assert isinstance(refusal, Rejected)
    assert (refusal.code, refusal.retry_after_s) == ("storage_full", 30.0)
    assert "1 MiB is free" in refusal.message
    rig.submit(key="k")
    assert [type(m).__name__ for m in rig.to_client()] == ["Accepted"]
    assert list(rig.broker.state.jobs) == [known]
    rig.storage(full=False)
    rig.submit()
    assert len(rig.broker.state.jobs) == 2
    assert [len(rig.logged(name)) for name in ("storage.full", "storage.free")] == [1, 1]


def test_a_dead_letter_is_not_revived_without_room(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    for _ in range(2):
        worker.started(rig.job(job).token)
        worker.fail(rig.job(job).token, "engine_died")
        worker.ready(1)
    assert job in rig.broker.state.dead
    rig.storage(full=True)
    rig.submit_message(Requeue(rid="r", job_id=job))
    (refusal,) = rig.to_client()
    assert isinstance(refusal, Rejected)
    assert refusal.code == "storage_full"
    assert job in rig.broker.state.dead


def test_ends_and_cancels_go_on(rig: Rig) -> None:
    worker = rig.worker("w")
    failing, token = _running(rig, worker)
    waiting = rig.submit()
    rig.storage(full=True)
    (answer,) = rig.say(CancelJob(rid="x", job_id=waiting))[-1:]
    assert isinstance(answer, Cancelled)
    worker.fail(token, "invalid_request")
    assert [m.job_id for m in rig.told(Failed)] == [failing]
    assert rig.told(ResultAck) == [ResultAck(token=token)]


def test_a_picture_waits_with_its_daemon_and_is_asked_for_when_there_is_room(rig: Rig) -> None:
    worker, other = rig.worker("w"), rig.worker("v", credit=0)
    job, token = _running(rig, worker)
    rig.storage(full=True)
    assert worker.done(token) == []
    assert rig.stores == []
    assert rig.state(job) == "running"
    rig.storage(full=False)
    assert rig.to_worker(worker.peer) == [Resync()]
    assert rig.to_worker(other.peer) == []
    assert _keeps(worker, _ended(token)) == (token,)
    worker.done(token)
    rig.stored()
    assert [m.job_id for m in rig.told(Result)] == [job]
    assert (rig.job(job).dispatch, rig.job(job).attempts) == (1, 0)
    rig.storage(full=True)
    rig.storage(full=False)
    assert rig.told(Resync) == []


def test_a_daemon_that_has_gone_is_not_asked(rig: Rig) -> None:
    worker = rig.worker("w")
    job, token = _running(rig, worker)
    rig.storage(full=True)
    worker.done(token)
    rig.tick(10.1)
    assert "w" not in rig.broker.state.fleet.workers
    rig.storage(full=False)
    assert rig.told(Resync) == []
    assert rig.state(job) == "queued"


def test_a_picture_that_found_no_room_is_reconciled_with_its_daemon_and_stored_later(rig: Rig) -> None:
    worker = rig.worker("w")
    job, token = _running(rig, worker)
    worker.done(token)
    assert rig.state(job) == "storing"
    rig.storage(full=True)
    rig.deferred()
    assert rig.to_worker(worker.peer) == [Resync()]
    assert (rig.state(job), rig.job(job).picture) == ("running", None)
    assert _keeps(worker, _ended(token)) == (token,)
    assert worker.done(token) == []
    rig.storage(full=False)
    assert rig.to_worker(worker.peer) == [Resync()]
    _keeps(worker, _ended(token))
    worker.done(token)
    rig.stored()
    assert rig.told(ResultAck) == [ResultAck(token=token)]
    assert (rig.state(job), rig.job(job).dispatch) == ("done", 1)


def test_a_daemon_that_began_anew_while_its_picture_found_no_room_is_not_believed_to_have_it(rig: Rig) -> None:
    """Its former life had the picture; the new one knows nothing of it, and must not be waited for."""
    worker = rig.worker("w")
    job, token = _running(rig, worker)
    worker.done(token)
    rig.tick(3.1)
    worker.boot_id = "another"
    assert _keeps(worker) == ()
    worker.ready()
    rig.storage(full=True)
    rig.deferred()
    assert rig.to_worker(worker.peer) == [Resync()]
    assert _keeps(worker) == ()
    assert rig.state(job) == "queued"
    worker.ready()
    assert rig.job(job).dispatch == 2
    worker.done(rig.job(job).token)


def test_a_picture_whose_daemon_has_died_when_it_found_no_room_is_drawn_again(rig: Rig) -> None:
    worker = rig.worker("w")
    job, token = _running(rig, worker)
    worker.done(token)
    rig.tick(10.1)
    rig.deferred()
    assert rig.state(job) == "running"
    rig.tick(10.1)
    assert rig.state(job) == "queued"


def test_a_cancel_while_the_picture_finds_no_room_stands(rig: Rig) -> None:
    worker = rig.worker("w")
    job, token = _running(rig, worker)
    worker.done(token)
    rig.say(CancelJob(rid="x", job_id=job))
    rig.deferred()
    assert rig.state(job) == "cancelled"
    assert rig.told(Resync) == []


def test_what_is_kept_back_fails_at_its_deadline(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(job_deadline_s=5.0)
    worker = rig.worker("w")
    job, token = _running(rig, worker)
    rig.storage(full=True)
    worker.done(token)
    for _ in range(6):
        worker.heartbeat()
        rig.tick(1.0)
    assert rig.state(job) == "failed"
    rig.storage(full=False)
    assert not [c for c in rig.all if isinstance(c, StoreResult)]


def test_whatever_is_written_down_can_be_read_again(rig: Rig, tmp_path: Path) -> None:
    """A daemon's message may be as long as the wire takes; something is added to it."""
    worker = rig.worker("w")
    job = rig.submit()
    for _ in range(3):
        rig.tick(3.0, step=0.5)  # its second retry waits
        worker.ready(1)
        token = rig.job(job).token
        worker.started(token)
        worker.fail(token, message="ü" * MESSAGE_CHARS_MAX)
    (failed,) = (record for record in rig.records if isinstance(record, JobFailed))
    assert len(failed.error.message) == MESSAGE_CHARS_MAX
    with opened(tmp_path) as journal:
        for record in rig.records:
            journal.append(record)
        journal.commit()
    with opened(tmp_path) as journal:
        assert failed in journal.replay()
