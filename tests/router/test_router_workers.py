"""How jobs end at their daemons: tokens, fences, retries, and what is found out when one registers again."""

from collections.abc import Callable

import pytest

from common.messages import CancelJob, CancelToken, Failed, Fenced, HeldToken, Note, ResultAck, Token, Welcome
from router.commands import Append, ToWorker
from tests.router.rig import FakeWorker, Rig


def _token(rig: Rig, job: str) -> Token:
    return rig.job(job).token


def _held(token: Token, stage: str) -> HeldToken:
    return HeldToken(token=token, stage=stage)


# --- DONE --------------------------------------------------------------------------------------


def test_done_is_acknowledged_after_it_is_written_down(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _token(rig, rig.submit())
    worker.started(token)
    assert worker.done(token) == []
    rig.stored()
    assert rig.to_worker(worker.peer) == [ResultAck(token=token)]
    kinds = [type(c).__name__ for c in rig.out if isinstance(c, Append | ToWorker)]
    assert kinds == ["Append", "ToWorker"]


def test_a_repeated_done_is_acknowledged_again_and_stored_once(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _token(rig, rig.submit())
    worker.done(token)
    assert worker.done(token) == []  # being stored: the acknowledgement is on its way
    assert len(rig.stores) == 1
    rig.stored()
    assert worker.done(token) == [ResultAck(token=token)]
    assert rig.stores == []
    assert rig.broker.state.totals.done == 1


@pytest.mark.parametrize("end", ["done", "fail"])
def test_stale_and_unknown_tokens_are_fenced(rig: Rig, end: str) -> None:
    worker, other = rig.worker("w"), rig.worker("v")
    token = _token(rig, rig.submit())
    for wrong in (
        Token(job_id="0" * 32, dispatch=1),
        Token(job_id=token.job_id, dispatch=2),
        Token(job_id=token.job_id, dispatch=2**31),
    ):
        assert getattr(worker, end)(wrong) == [Fenced(token=wrong)]
    assert getattr(other, end)(token) == [Fenced(token=token)]  # it is another daemon's
    assert rig.state(token.job_id) == "dispatched"
    assert worker.believed.hand == {token.job_id: 1}


@pytest.mark.parametrize("what", ["started", "returned"])
def test_other_words_about_stale_tokens_are_fenced_too(rig: Rig, what: str) -> None:
    worker = rig.worker("w")
    wrong = Token(job_id="0" * 32, dispatch=1)
    assert getattr(worker, what)(wrong) == [Fenced(token=wrong)]


def test_done_and_fail_count_in_any_epoch(rig: Rig) -> None:
    worker = rig.worker("w")
    a, b = _token(rig, rig.submit()), rig.submit()
    worker.epoch -= 1
    worker.done(a)
    rig.stored()
    assert rig.state(a.job_id) == "done"
    worker.fail(_token(rig, b), "invalid_request")
    assert rig.state(b) == "failed"


def test_words_about_a_cancelled_job_are_fenced_and_its_credit_comes_back_once(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    token = _token(rig, job)
    worker.started(token)
    rig.say(CancelJob(rid="x", job_id=job))
    assert worker.progress(token, 2) == [Fenced(token=token)]
    assert worker.done(token) == [Fenced(token=token)]
    assert worker.believed.credit == 1
    worker.grant()
    assert worker.believed.credit == 2


def test_a_picture_that_does_not_match_is_drawn_again(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _token(rig, rig.submit())
    worker.started(token)
    worker.done(token)
    rig.stored("the picture's bytes do not match its sha256")
    assert Fenced(token=token) in rig.to_worker(worker.peer)
    assert rig.job(token.job_id).attempts == 1
    (again,) = worker.dispatched()
    assert again == Token(job_id=token.job_id, dispatch=2)


def test_a_worker_that_dies_while_its_picture_is_stored_changes_nothing(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _token(rig, rig.submit())
    worker.done(token)
    rig.tick(10.5)
    assert rig.broker.state.fleet.workers == {}
    rig.stored()
    assert rig.state(token.job_id) == "done"


def test_progress_or_done_without_started_is_as_good(rig: Rig) -> None:
    worker = rig.worker("w")
    a = _token(rig, rig.submit())
    worker.progress(a, 2)
    assert (rig.state(a.job_id), rig.job(a.job_id).step, rig.job(a.job_id).starts) == ("running", 2, 1)
    worker.progress(a, 99, steps=99)
    assert rig.job(a.job_id).step == 4
    worker.done(a)
    assert rig.state(a.job_id) == "storing"


def test_long_notes_are_cut_so_that_a_result_fits_its_header(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _token(rig, rig.submit())
    worker.done(token, notes=tuple(Note(code=str(n), message="x" * 4000) for n in range(16)))
    rig.stored()
    notes = rig.job(token.job_id).notes
    assert len(notes) == 8
    assert max(len(n.message) for n in notes) == 500


# --- FAIL and retries --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["invalid_request", "unsupported", "job_timeout", "model_load_failed", "deadline_exceeded"]
)
def test_what_no_retry_can_help_fails_at_once(rig: Rig, code: str) -> None:
    worker = rig.worker("w")
    token = _token(rig, rig.submit())
    worker.started(token)
    answers = worker.fail(token, code)
    assert answers == [ResultAck(token=token)]
    (failed,) = rig.told(Failed)
    assert (failed.error.code, failed.error.message) == (code, f"it was {code}")
    assert failed.error.next_step


def test_an_unknown_code_is_an_engine_error(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _token(rig, rig.submit())
    worker.fail(token, "gremlins")
    assert rig.job(token.job_id).failures == 1
    assert rig.job(token.job_id).dispatch == 2


def test_the_first_retry_is_at_once_and_elsewhere(rig: Rig) -> None:
    w, v = rig.worker("w"), rig.worker("v")
    job = rig.submit()
    assert rig.job(job).worker_id == "w"
    for _ in range(3):  # the share of v is the larger one
        other = rig.job(rig.submit())
        if other.worker_id == "v":
            v.draw(other.token)
    token = _token(rig, job)
    w.started(token)
    assert w.fail(token)[0] == ResultAck(token=token)
    assert (rig.job(job).worker_id, rig.job(job).attempts) == ("v", 1)


def test_the_only_gpu_is_asked_again(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _token(rig, rig.submit())
    worker.fail(token)
    assert [t.dispatch for t in worker.dispatched()] == [2]


def test_later_retries_wait_twice_as_long_each_time(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(attempts_max=5, retry_backoff_s=2.0)
    worker = rig.worker("w")
    job = rig.submit()
    waits = []
    for _ in range(4):
        worker.started(_token(rig, job))
        worker.fail(_token(rig, job))
        worker.grant()
        waits.append(rig.job(job).not_before_now - rig.now)
        worker.believed.failures_in_row = 0  # not the subject here
        for _ in range(200):
            if rig.state(job) == "dispatched":
                break
            rig.tick(0.1)
            worker.heartbeat()
    assert waits[0] == 0
    assert 1.5 <= waits[1] <= 2.5
    assert waits[2] == pytest.approx(2 * waits[1])
    assert waits[3] == pytest.approx(4 * waits[1])


def test_attempts_are_bounded_and_the_last_failure_is_told(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    for _ in range(3):
        worker.started(_token(rig, job))
        worker.fail(_token(rig, job))
        worker.grant()
        rig.tick(3.0, step=1.0)
        worker.heartbeat()
    assert rig.state(job) == "failed"
    error = rig.job(job).error
    assert error is not None
    assert (error.code, error.message) == ("engine_error", "it was engine_error (attempt 3 of 3)")
    assert rig.broker.state.totals.retried == 2


def test_failures_before_the_start_are_no_attempts(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    worker.fail(_token(rig, job), started=False)
    assert (rig.job(job).attempts, rig.job(job).failures, rig.job(job).starts) == (0, 1, 0)


def test_want_of_memory_is_tried_once_more_and_only_elsewhere(rig: Rig) -> None:
    w, v = rig.worker("w"), rig.worker("v")
    v.heartbeat("loading")
    job = rig.submit()
    first = _token(rig, job)
    w.started(first)
    w.fail(first, "out_of_memory")
    w.grant()
    assert rig.state(job) == "queued"  # w is idle, but v serves the model too
    v.heartbeat("ready")
    assert rig.job(job).worker_id == "v"
    v.fail(_token(rig, job), "out_of_memory")
    error = rig.job(job).error
    assert error is not None
    assert error.code == "out_of_memory"


def test_want_of_memory_on_the_only_gpu_is_tried_there_once_more(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    worker.fail(_token(rig, job), "out_of_memory")
    assert rig.job(job).dispatch == 2
    worker.fail(_token(rig, job), "out_of_memory")
    assert rig.state(job) == "failed"


def test_a_job_that_ends_two_engines_is_poison(rig: Rig) -> None:
    w, v = rig.worker("w"), rig.worker("v")
    job = rig.submit()
    w.started(_token(rig, job))
    w.fail(_token(rig, job), "engine_died")
    assert rig.job(job).worker_id == "v"
    v.started(_token(rig, job))
    v.fail(_token(rig, job), "engine_died")
    error = rig.job(job).error
    assert error is not None
    assert (error.code, error.retryable) == ("poison", False)


def test_a_gpu_whose_engine_died_is_sent_nothing_until_it_says_ready(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    worker.started(_token(rig, job))
    worker.fail(_token(rig, job), "engine_died")
    assert worker.dispatched() == []
    worker.heartbeat("loading")
    assert worker.dispatched() == []
    worker.heartbeat("ready")
    assert [t.dispatch for t in worker.dispatched()] == [2]


def test_a_repeated_fail_is_acknowledged_again_and_counts_once(rig: Rig) -> None:
    worker = rig.worker("w")
    token = _token(rig, rig.submit())
    worker.started(token)
    worker.fail(token)
    assert worker.fail(token) == [ResultAck(token=token)]
    assert rig.job(token.job_id).attempts == 1


def test_what_is_returned_goes_elsewhere_without_blame(rig: Rig) -> None:
    w = rig.worker("w")
    job = rig.submit()
    v = rig.worker("v")
    w.draining()
    w.returned(_token(rig, job))
    assert (rig.job(job).worker_id, rig.job(job).attempts, rig.job(job).failures) == ("v", 0, 0)
    assert v.believed.hand == {job: 2}


def test_a_job_given_back_again_and_again_does_not_go_round_in_a_tight_circle(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    for n in range(3):
        assert rig.job(job).dispatch == n + 1
        worker.returned(_token(rig, job))
        worker.grant()
        rig.tick(0.1 * n)
    assert rig.job(job).returns == 3


# --- registering again -------------------------------------------------------------------------


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
