"""What a failed job is worth trying again, when and where."""

from collections.abc import Callable

import pytest

from common.messages import STATUS_FAILURES, Failed, ResultAck, StatusQuery, StatusReply, Token
from tests.router.rig import Rig


def _token(rig: Rig, job: str) -> Token:
    return rig.job(job).token


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


def test_status_names_the_last_failures_newest_first(rig: Rig) -> None:
    workers = {name: rig.worker(name) for name in "abcdefgh"}  # one that fails three times in a row has to rest
    for number in range(STATUS_FAILURES + 2):
        token = _token(rig, rig.submit())
        gpu = rig.job(token.job_id).worker_id
        workers[gpu].started(token)
        workers[gpu].fail(token, "job_timeout", message=f"number {number}")
    rig.say(StatusQuery(rid="s"))
    (status,) = rig.told(StatusReply)
    assert [each.message for each in status.failures] == [f"number {n}" for n in range(STATUS_FAILURES + 1, 1, -1)]
    newest = status.failures[0]
    assert (newest.code, newest.job_id, newest.worker_id) == ("job_timeout", token.job_id, gpu)


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


@pytest.mark.parametrize("how", ["draining", "broken", "gone"])
def test_a_gpu_is_asked_again_as_soon_as_no_other_is_left(rig: Rig, how: str) -> None:
    """At once, not at the next tick."""
    first, other = rig.worker("a"), rig.worker("b", ready=False)
    job = rig.submit()
    token = rig.job(job).token
    first.started(token)
    first.fail(token, "out_of_memory")
    first.grant()
    assert rig.state(job) == "queued"  # `other` is still loading
    if how == "draining":
        other.draining()
    elif how == "broken":
        other.heartbeat("broken")
    else:
        other.bye()
    assert (rig.state(job), rig.job(job).worker_id, rig.job(job).dispatch) == ("dispatched", "a", 2)


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
