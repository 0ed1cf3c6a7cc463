"""What is found out when a daemon registers again, and how one leaves."""

import pytest

from common.messages import CancelJob, CancelToken, Fenced, HeldToken, ResultAck, Token, Welcome
from tests.router.rig import FakeWorker, Rig


def _token(rig: Rig, job: str) -> Token:
    return rig.job(job).token


def _held(token: Token, stage: str) -> HeldToken:
    return HeldToken(token=token, stage=stage)


def _in_hand(rig: Rig, worker: FakeWorker, stage: str) -> Token:
    token = _token(rig, rig.submit())
    assert token.job_id in worker.believed.hand
    if stage != "waiting":
        worker.started(token)
    return token


@pytest.mark.parametrize("stage", ["waiting", "running", "ended"])
def test_what_a_daemon_lists_and_holds_rightly_it_keeps(rig: Rig, stage: str) -> None:
    worker = rig.worker("w")
    token = _in_hand(rig, worker, stage)
    (welcome,) = worker.register(_held(token, stage), peer=b"new")
    assert isinstance(welcome, Welcome)
    assert (welcome.keep, welcome.drop) == ((token,), ())
    assert worker.believed.hand == {token.job_id: 1}
    worker.done(token)
    rig.stored()
    assert rig.state(token.job_id) == "done"


def test_what_it_runs_although_the_start_was_never_heard_is_running(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _in_hand(rig, worker, "waiting")
    worker.register(_held(token, "running"))
    assert rig.state(token.job_id) == "running"


def test_what_it_lists_wrongly_it_drops(rig: Rig) -> None:
    worker, other = rig.worker("w"), rig.worker("v")
    cancelled = _in_hand(rig, worker, "running")
    rig.say(CancelJob(rid="x", job_id=cancelled.job_id))
    unknown = Token(job_id="0" * 32, dispatch=1)
    anothers = _token(rig, rig.submit())
    assert anothers.job_id in other.believed.hand
    (welcome,) = worker.register(*(_held(t, "running") for t in (cancelled, unknown, anothers)))
    assert isinstance(welcome, Welcome)
    assert (welcome.keep, welcome.drop) == ((), (cancelled, unknown, anothers))


def test_a_token_listed_twice_is_kept_once(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _in_hand(rig, worker, "running")
    (welcome,) = worker.register(_held(token, "running"), _held(token, "running"))
    assert isinstance(welcome, Welcome)
    assert (welcome.keep, welcome.drop) == ((token,), (token,))


def test_what_it_should_hold_and_does_not_list_is_requeued_at_once(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _in_hand(rig, worker, "running")
    worker.register()
    assert rig.state(token.job_id) == "queued"
    assert rig.job(token.job_id).attempts == 1
    worker.ready()
    assert worker.dispatched() == [Token(job_id=token.job_id, dispatch=2)]


def test_a_new_boot_of_the_daemon_has_nothing_in_hand(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _in_hand(rig, worker, "running")
    rig.tick(3.1)
    worker.boot_id = "second"
    worker.register(peer=b"new")
    assert rig.state(token.job_id) == "queued"


def test_a_daemon_thought_dead_comes_back_with_its_job_and_it_is_not_drawn_twice(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _in_hand(rig, worker, "running")
    rig.tick(10.5)
    assert (rig.state(token.job_id), rig.job(token.job_id).attempts) == ("queued", 1)
    (welcome,) = worker.register(_held(token, "running"), peer=b"new")
    assert isinstance(welcome, Welcome)
    assert welcome.keep == (token,)
    assert (rig.state(token.job_id), rig.job(token.job_id).attempts) == ("running", 0)
    worker.done(token)
    rig.stored()
    assert rig.state(token.job_id) == "done"


def test_once_it_was_sent_elsewhere_the_old_token_is_stale(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _in_hand(rig, worker, "running")
    rig.tick(10.5)
    other = rig.worker("v")
    assert other.believed.hand == {token.job_id: 2}
    (welcome,) = worker.register(_held(token, "ended"), peer=b"new")
    assert isinstance(welcome, Welcome)
    assert welcome.drop == (token,)
    assert worker.done(token) == [Fenced(token=token)]


def test_an_end_that_was_acknowledged_in_vain_is_acknowledged_again(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _in_hand(rig, worker, "running")
    worker.done(token)
    worker.register(_held(token, "ended"), peer=b"new")  # while it is being stored
    rig.stored()
    assert rig.to_worker(b"new") == [ResultAck(token=token)]


def test_credit_of_kept_tokens_is_the_daemons_business(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _in_hand(rig, worker, "running")
    worker.register(_held(token, "running"))
    worker.ready(credit=1)  # two slots less the one kept
    assert worker.believed.credit == 1
    rig.submit()
    assert worker.believed.credit == 1  # the running job is not about to end
    worker.progress(token, 3)
    assert worker.believed.credit == 0


def test_a_draining_daemon_finishes_and_leaves(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _in_hand(rig, worker, "running")
    waiting = rig.submit()
    worker.draining()
    worker.done(token)
    rig.stored()
    worker.grant()
    assert worker.dispatched() == []
    worker.bye()
    assert rig.state(waiting) == "queued"
    assert rig.broker.state.fleet.workers == {}


def test_cancel_of_a_waiting_second_job_tells_the_daemon(rig: Rig) -> None:
    worker = rig.worker("w")
    first, second = rig.submit(steps=1), rig.submit(steps=1)
    worker.started(_token(rig, first))
    assert rig.state(second) == "dispatched"
    rig.say(CancelJob(rid="x", job_id=second))
    assert rig.to_worker(worker.peer) == [CancelToken(token=_token(rig, second))]
    assert list(worker.believed.hand) == [first]
