"""A new router takes up the journal of the one before."""

from common.messages import (
    CancelJob,
    Cancelled,
    Failed,
    Fetch,
    HeldToken,
    JobReply,
    Note,
    Result,
    ResultAck,
    StatusQuery,
    StatusReply,
    Watch,
    Welcome,
)
from router.memory_journal import MemoryJournal
from tests.router.rig import FakeWorker, Rig, card


def _restart(old: Rig, *, seconds: float = 1.0) -> Rig:
    """The same journal, another process: another monotonic clock, later on the wall."""
    journal = MemoryJournal()
    for record in old.records:
        journal.append(record)
    journal.commit()
    new = Rig(first_epoch=10_000, records=list(journal.replay()), wall=old.wall + seconds)
    journal.close()
    return new


def _again(worker: FakeWorker, rig: Rig) -> FakeWorker:
    """The same daemon, talking to the new router."""
    again = FakeWorker(rig, worker.name, boot_id=worker.boot_id)
    again.nonces = worker.nonces
    return again


def test_running_work_is_adopted_and_not_drawn_again() -> None:
    old = Rig()
    worker = old.worker("w")
    job = old.submit()
    token = old.job(job).token
    worker.started(token)
    new = _restart(old)
    assert new.state(job) == "running"
    worker = _again(worker, new)
    (welcome,) = worker.register(HeldToken(token=token, stage="running"))
    assert isinstance(welcome, Welcome)
    assert welcome.keep == (token,)
    assert welcome.epoch >= 10_000
    worker.done(token)
    new.stored()
    assert new.to_worker(worker.peer) == [ResultAck(token=token)]
    assert (new.state(job), new.job(job).starts) == ("done", 1)


def test_what_its_daemon_no_longer_holds_is_requeued_when_it_registers() -> None:
    old = Rig()
    worker = old.worker("w")
    job = old.submit()
    worker.started(old.job(job).token)
    new = _restart(old)
    worker = _again(worker, new)
    worker.register()
    assert (new.state(job), new.job(job).attempts) == ("queued", 1)


def test_a_router_that_sleeps_right_after_its_start_gives_daemons_their_ten_seconds_anew() -> None:
    old = Rig()
    worker = old.worker("w")
    job = old.submit()
    token = old.job(job).token
    worker.started(token)
    for before in (0.0, 5.0):  # the very first tick comes late, or a later one
        new = _restart(old)
        if before:
            new.tick(before)
        new.tick(30.0, step=30.0)
        assert new.state(job) == "running"
        new.tick(9.5)
        assert new.state(job) == "running"
        (welcome,) = _again(worker, new).register(HeldToken(token=token, stage="running"))
        assert isinstance(welcome, Welcome)
        assert welcome.keep == (token,)
        assert new.job(job).attempts == 0


def test_a_daemon_that_does_not_come_back_is_given_ten_seconds() -> None:
    old = Rig()
    worker = old.worker("w")
    job = old.submit()
    worker.started(old.job(job).token)
    new = _restart(old)
    other = new.worker("v")
    for _ in range(99):
        new.tick(0.1)
        other.heartbeat()
    assert new.state(job) == "running"
    new.tick(0.3)
    assert (new.job(job).worker_id, new.job(job).dispatch) == ("v", 2)


def test_the_queue_keeps_its_order_its_keys_and_its_models() -> None:
    old = Rig()
    old.worker("w", cards=(card("m"), card("n"))).bye()
    jobs = [old.submit(str(n), key=str(n), priority=n % 2) for n in range(4)]
    new = _restart(old)
    (status,) = new.say(StatusQuery(rid="s"))
    assert isinstance(status, StatusReply)
    assert ([m.card.name for m in status.models], status.stats.queued) == (["m", "n"], 4)
    new.submit("2", key="2")
    assert len(new.broker.state.jobs) == 4
    assert list(new.broker.state.queue.ordered(["m"])) == [jobs[1], jobs[3], jobs[0], jobs[2]]
    later = new.submit("later")
    assert new.job(later).sequence > max(new.job(j).sequence for j in jobs)


def test_ends_can_still_be_asked_for() -> None:
    old = Rig()
    worker = old.worker("w")
    done = old.submit()
    worker.draw(old.job(done).token)
    failed = old.submit()
    worker.fail(old.job(failed).token, "invalid_request")
    cancelled = old.submit()
    old.say(CancelJob(rid="x", job_id=cancelled))
    new = _restart(old)
    answers = [new.say(Fetch(rid="f", job_id=job))[0] for job in (done, failed, cancelled)]
    assert [type(a) for a in answers] == [Result, Failed, Cancelled]
    assert new.broker.state.result_bytes == 7
    worker = _again(worker, new)
    worker.register()
    assert worker.done(new.job(done).token) == [ResultAck(token=new.job(done).token)]


def test_deadlines_and_waits_go_on_by_the_wall_clock() -> None:
    old = Rig()
    worker = old.worker("w")
    job = old.submit()
    old.tick(100.0, step=2.0)
    worker.register()
    worker.ready()
    for _ in range(2):
        worker.started(old.job(job).token)
        worker.fail(old.job(job).token)
        worker.grant()
    assert old.state(job) == "queued"
    new = _restart(old, seconds=0.5)
    before, after = old.job(job), new.job(job)
    assert new.broker.state.delayed == {job: after}
    assert abs((after.deadline_now - new.now) - (before.deadline_now - old.now - 0.5)) < 1e-3
    assert abs((after.not_before_now - new.now) - (before.not_before_now - old.now - 0.5)) < 1e-3
    assert (after.attempts, after.failures, after.avoid) == (before.attempts, before.failures, "w")


def test_forgotten_jobs_leave_nothing_in_the_journal() -> None:
    old = Rig(result_ttl_s=5.0, key_ttl_s=5.0)
    worker = old.worker("w")
    worker.draw(old.job(old.submit(key="k")).token)
    old.tick(6.0)
    assert _restart(old).broker.state.jobs == {}
    journal = MemoryJournal()
    for record in old.records:
        journal.append(record)
    journal.commit()
    assert [type(r).__name__ for r in journal.replay()] == ["ModelKnown"]
    journal.close()


def test_nothing_counts_before_it_is_committed() -> None:
    old = Rig()
    old.worker("w")
    old.submit()
    journal = MemoryJournal()
    for record in old.records:
        journal.append(record)
    assert journal.replay() == []
    journal.close()


def test_a_watcher_finds_its_job_again() -> None:
    old = Rig()
    old.worker("w")
    job = old.submit()
    new = _restart(old)
    assert isinstance(new.say(Watch(rid="1", job_id=job))[0], JobReply)


def _lost_after(rig: Rig, worker: FakeWorker, job: str) -> None:
    """Its daemon falls silent for good, for all the router knows."""
    rig.tick(11.0)
    assert (rig.state(job), rig.job(job).lost) == ("queued", True)
    assert worker.name not in rig.broker.state.fleet.workers


def test_a_loss_that_was_none_is_not_counted_and_what_was_counted_before_stays() -> None:
    rig = Rig()
    worker = rig.worker("w")
    job = rig.submit()
    worker.started(rig.job(job).token)
    worker.fail(rig.job(job).token)
    worker.grant()
    assert (rig.job(job).dispatch, rig.job(job).attempts, rig.job(job).failures) == (2, 1, 1)
    _lost_after(rig, worker, job)
    assert (rig.job(job).attempts, rig.job(job).failures) == (1, 2)
    worker.register(HeldToken(token=rig.job(job).token, stage="waiting"))
    assert (rig.job(job).attempts, rig.job(job).failures) == (1, 1)


def test_what_a_found_gpu_had_begun_has_begun_once() -> None:
    rig = Rig()
    worker = rig.worker("w")
    job = rig.submit()
    worker.started(rig.job(job).token)
    _lost_after(rig, worker, job)
    assert (rig.job(job).starts, rig.job(job).attempts) == (1, 1)
    worker.register(HeldToken(token=rig.job(job).token, stage="running"))
    assert (rig.job(job).starts, rig.job(job).attempts, rig.job(job).failures) == (1, 0, 0)


def test_a_new_router_knows_of_an_adoption() -> None:
    old = Rig()
    worker = old.worker("w")
    job = old.submit()
    worker.started(old.job(job).token)
    _lost_after(old, worker, job)
    worker.register(HeldToken(token=old.job(job).token, stage="running"))
    new = _restart(old)
    for rig in (old, new):
        known = rig.job(job)
        assert (known.starts, known.attempts, known.failures, known.lost) == (1, 0, 0, False)


def test_a_new_router_avoids_no_gpu_that_only_gave_a_job_back() -> None:
    old = Rig()
    worker = old.worker("w", credit=1)
    job = old.submit()
    worker.returned(old.job(job).token)
    assert (old.job(job).avoid, _restart(old).job(job).avoid) == ("", "")
    worker.grant()
    worker.started(old.job(job).token)
    worker.fail(old.job(job).token)
    assert (old.job(job).avoid, _restart(old).job(job).avoid) == ("w", "w")


def test_what_was_noted_of_a_picture_that_was_not_taken_stays_with_no_job() -> None:
    rig = Rig()
    worker = rig.worker("w")
    job = rig.submit()
    token = rig.job(job).token
    worker.started(token)
    worker.done(token, notes=(Note(code="clipped", message="the prompt was cut"),))
    rig.stored("the picture's bytes do not match its sha256")
    assert rig.job(job).notes == ()
    rig.say(CancelJob(rid="1", job_id=job))
    assert rig.job(job).notes == _restart(rig).job(job).notes == ()
