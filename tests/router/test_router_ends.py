"""How jobs end at their daemons: acknowledged, acknowledged again, or fenced."""

import pytest

from common.messages import CancelJob, Fenced, Note, ResultAck, Token
from router.commands import Append, ToWorker
from tests.router.rig import Rig


def _token(rig: Rig, job: str) -> Token:
    return rig.job(job).token


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
