"""What is kept of ended jobs, and how a router drains."""

from collections.abc import Callable

import pytest

from common.messages import (
    Accepted,
    Failed,
    Fetch,
    JobQuery,
    JobReply,
    Rejected,
    Requeue,
    StatusQuery,
    StatusReply,
)
from router.commands import DropResult, Log, Stop
from router.events import DrainAsked
from router.records import KeyForgotten
from tests.router.rig import FakeWorker, Rig, card
from tests.sim.compare import differences


def _done(rig: Rig, worker: FakeWorker, size: int = 7) -> str:
    job = rig.submit()
    token = rig.job(job).token
    worker.started(token)
    worker.done(token, size=size)
    rig.stored()
    return job


def test_ended_jobs_are_forgotten_after_their_time(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(result_ttl_s=5.0)
    worker = rig.worker("w")
    job = _done(rig, worker)
    rig.tick(4.9)
    assert job in rig.broker.state.jobs
    seen = rig.tick(0.2)
    assert job not in rig.broker.state.jobs
    assert [c.job_id for c in seen if isinstance(c, DropResult)] == [job]


def test_ended_jobs_are_bounded_in_number(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(ended_jobs_max=2)
    worker = rig.worker("w")
    jobs = []
    for _ in range(4):
        jobs.append(_done(rig, worker))
        worker.grant()
    assert list(rig.broker.state.ended) == jobs[2:]


def test_pictures_are_bounded_in_bytes(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(results_mb_max=64)
    worker = rig.worker("w")
    jobs = []
    for _ in range(4):
        jobs.append(_done(rig, worker, size=30 * 1024 * 1024))
        worker.grant()
    assert list(rig.broker.state.ended) == jobs[2:]
    assert rig.broker.state.result_bytes == 60 * 1024 * 1024


# --- dead letters that are drawn anew ----------------------------------------------------------


def _poison(rig: Rig, worker: FakeWorker, key: str = "") -> str:
    job = rig.submit(key=key)
    for _ in range(2):
        worker.started(rig.job(job).token)
        worker.fail(rig.job(job).token, "engine_died")
        worker.ready(1)
    assert job in rig.broker.state.dead
    return job


def _revive(rig: Rig, job: str) -> str:
    new = rig.submit_message(Requeue(rid="r", job_id=job))
    (accepted,) = rig.told(Accepted)
    assert accepted.job_id == new != job
    return new


def _replayed(rig: Rig) -> Rig:
    again = Rig(records=rig.records, wall=rig.wall)
    assert differences(rig.broker.state, again.broker.state) == []
    return again


def test_a_dead_letter_that_is_drawn_anew_stays_as_it_ended(rig: Rig) -> None:
    worker = rig.worker("w")
    job = _poison(rig, worker, key="k")
    (before,) = rig.say(JobQuery(rid="j", job_id=job))
    assert isinstance(before, JobReply)
    new = _revive(rig, job)
    for router in (rig, _replayed(rig)):
        assert list(router.broker.state.dead) == []
        (after,) = router.say(JobQuery(rid="j", job_id=job))
        assert isinstance(after, JobReply)
        assert after.job == before.job
        assert after.history[:-1] == before.history
        assert (after.history[-1].event, after.history[-1].detail) == ("requeued_as", new)
        assert [type(m) for m in router.say(Fetch(rid="f", job_id=job))] == [Failed]
        router.submit(key="k")
        assert [(m.job_id, m.repeated) for m in router.told(Accepted)] == [(job, True)]
    worker.draw(rig.job(new).token)
    assert (rig.state(job), rig.state(new)) == ("failed", "done")


def test_a_second_requeue_is_refused_and_names_the_job_it_became(rig: Rig) -> None:
    job = _poison(rig, rig.worker("w"))
    new = _revive(rig, job)
    for router in (rig, _replayed(rig)):
        router.submit_message(Requeue(rid="r", job_id=job))
        (refusal,) = router.told(Rejected)
        assert (refusal.code, refusal.param) == ("not_found", "job_id")
        assert job in refusal.message
        assert new in refusal.message
        assert len(router.broker.state.jobs) == 2


def test_a_dead_letter_that_is_drawn_anew_is_kept_as_long_as_any_result(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(result_ttl_s=60.0)
    worker = rig.worker("w")
    first, job, later = _done(rig, worker), "", []
    worker.grant()
    rig.tick(1.0)
    job = _poison(rig, worker)
    for _ in range(2):
        rig.tick(1.0)
        worker.heartbeat()
        later.append(_done(rig, worker))
        worker.grant()
    ended_now = rig.job(job).ended_now
    _revive(rig, job)
    assert list(rig.broker.state.ended) == [first, job, *later]
    rig.tick(ended_now + 59.9 - rig.now)
    assert job in rig.broker.state.jobs
    rig.tick(0.2)
    assert job not in rig.broker.state.jobs
    assert list(rig.broker.state.ended)[:2] == later


def test_one_whose_time_is_over_goes_at_once_and_its_new_job_lives(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(result_ttl_s=60.0)
    worker = rig.worker("w")
    job = _poison(rig, worker)
    rig.tick(120.0, step=1.0)
    other = rig.worker("v")
    done = _done(rig, other)
    new = _revive(rig, job)
    rig.tick(0.1)
    assert list(rig.broker.state.jobs) == [done, new]
    rig.submit_message(Requeue(rid="r", job_id=job))
    assert [m.code for m in rig.told(Rejected)] == ["not_found"]


# --- draining ----------------------------------------------------------------------------------


def test_a_draining_router_refuses_ends_what_it_has_and_stops(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    rig.event(DrainAsked(wall=rig.wall))
    assert not [c for c in rig.out if isinstance(c, Stop)]
    rig.submit()
    (refusal,) = rig.to_client()
    assert isinstance(refusal, Rejected)
    assert (refusal.code, refusal.retry_after_s) == ("unavailable", 5.0)
    worker.draw(rig.job(job).token)
    assert any(isinstance(c, Stop) for c in rig.tick(0.1))


def test_a_draining_router_does_not_wait_for_ever(rig: Rig) -> None:
    rig.worker("w", credit=0)
    rig.submit()
    rig.event(DrainAsked(wall=rig.wall))
    seen = rig.tick(10.1)
    assert [type(c).__name__ for c in seen].count("Stop") == 1
    (line,) = [c for c in seen if isinstance(c, Log) and c.event == "router.drained"]
    assert (line.level, line.fields["jobs_left"]) == ("warning", 1)


def test_a_router_whose_journal_is_durable_waits_only_for_pictures_being_kept(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(durable=True)
    worker = rig.worker("w")
    jobs = [rig.submit() for _ in range(3)]
    token = rig.job(jobs[0]).token
    worker.started(token)
    worker.done(token)
    assert not [c for c in rig.event(DrainAsked(wall=rig.wall)) if isinstance(c, Stop)]
    rig.submit()
    assert [type(m) for m in rig.to_client()] == [Rejected]
    rig.stored()
    seen = rig.tick(0.1)
    assert [type(c) for c in seen if isinstance(c, Stop)] == [Stop]
    (line,) = [c for c in seen if isinstance(c, Log) and c.event == "router.drained"]
    assert (line.level, line.fields["jobs_left"]) == ("info", 2)
    assert [rig.state(job) for job in jobs] == ["done", "dispatched", "queued"]


def test_a_router_whose_daemons_stop_as_well_waits_for_what_runs(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(durable=True)
    worker = rig.worker("w")
    jobs = [rig.submit() for _ in range(2)]
    token = rig.job(jobs[0]).token
    worker.started(token)
    rig.event(DrainAsked(wall=rig.wall, patient=True))
    worker.draining()
    assert not [c for c in rig.tick(0.1) if isinstance(c, Stop)]
    worker.done(token)
    assert not [c for c in rig.tick(0.1) if isinstance(c, Stop)]
    rig.stored()
    assert [type(c) for c in rig.tick(0.1) if isinstance(c, Stop)] == [Stop]
    assert [rig.state(job) for job in jobs] == ["done", "queued"]


def test_a_router_with_nothing_to_keep_stops_at_once(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(durable=True)
    rig.worker("w")
    rig.submit()
    assert [type(c) for c in rig.event(DrainAsked(wall=rig.wall)) if isinstance(c, Stop)] == [Stop]


def test_models_are_remembered_when_nobody_serves_them(rig: Rig) -> None:
    rig.worker("w", cards=(card("a"), card("b"))).bye()
    (status,) = rig.say(StatusQuery(rid="s"))
    assert isinstance(status, StatusReply)
    assert [(m.card.name, m.workers) for m in status.models] == [("a", 0), ("b", 0)]


def test_keys_stay_within_their_bound_between_two_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.keys.KEYS_MAX", 2)
    rig = Rig()
    rig.worker("w")
    jobs = [rig.submit(key=f"k{n}") for n in range(4)]
    assert len(rig.broker.state.keys) == 2
    assert rig.broker.state.keys.get("local", "k3").job_id == jobs[3]  # type: ignore[union-attr]  # it is there
    assert [r.key for r in rig.records if isinstance(r, KeyForgotten)] == ["k0", "k1"]
