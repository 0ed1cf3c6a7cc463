"""On what terms an owner draws: its share by its weight, its jobs at one time, its GPU seconds a minute."""

import random
from collections import Counter
from typing import Any

import pytest

from bench.played_fleet import PlayedFleet
from common.messages import (
    Accepted,
    CancelJob,
    ErrorReply,
    JobQuery,
    JobReply,
    JobSpec,
    Rejected,
    StatusQuery,
    StatusReply,
    Submit,
    Terms,
)
from common.roles import ANYONE
from router.events import ClientSaid
from tests.router.rig import FakeWorker, Rig
from tests.router.test_router_owners import ADMIN, ALICE, BOB, GATEWAY, HOST_A, ask, keyed, submit


def asked(terms: Terms | None, owner: str = "http/lab", **spec: Any) -> Submit:
    return Submit(rid="1", owner=owner, job=JobSpec(prompt="x", seed=1, **spec), terms=terms)


def refused(rig: Rig, terms: Terms, owner: str = "http/lab") -> Rejected | None:
    """Of one more job; None: it was accepted."""
    rig.all.clear()
    submit(rig, GATEWAY, message=asked(terms, owner))
    (answer,) = [*rig.told(Rejected), *rig.told(Accepted)]
    return answer if isinstance(answer, Rejected) else None


def drawn_on(rig: Rig, worker: FakeWorker, job_id: str, took_s: float) -> None:
    """From its start to its end."""
    token = rig.job(job_id).token
    worker.started(token)
    worker.done(token, total_s=took_s)
    rig.stored()
    worker.grant()


def cancel(rig: Rig, job_id: str) -> None:
    """In the name of the owner."""
    message = CancelJob(rid="2", job_id=job_id, owner="http/lab")
    rig.event(ClientSaid(wall=rig.wall, peer=b"front", who=GATEWAY, message=message))
    assert rig.state(job_id) == "cancelled"


# --- shares ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_owners_who_always_wait_share_the_gpus_by_their_weights(seed: int) -> None:
    """Whatever their jobs cost, how many GPUs there are, and by how many names they call themselves."""
    chance = random.Random(seed)
    weights = {f"http/o{i}": chance.choice([0.25, 0.5, 1.0, 2.0, 3.0, 8.0]) for i in range(chance.randint(2, 4))}
    steps = {owner: chance.choice([2, 4, 8]) for owner in weights}
    room = {"global_queue_size": 10_000, "gpu_queue_size": 0, "global_queue_reserve": 0}
    fleet = PlayedFleet([0.5] * chance.randint(1, 3), seed=seed, **room)
    fleet.submit(JobSpec(prompt="x", width=512, height=512, steps=4))  # so that speeds are known
    fleet.run(lambda: len(fleet.drawn) == 1)
    owners: dict[str, str] = {}
    for number in range(400):
        for owner, weight in weights.items():
            spec = JobSpec(prompt="x", width=512, height=512, steps=steps[owner], client=f"{number % 7}")
            answer = fleet.submit(spec, owner=owner, terms=Terms(weight=weight))
            assert isinstance(answer, Accepted), answer
            owners[answer.job_id] = owner
    fleet.run(lambda: len(fleet.drawn) >= 250)
    had = dict.fromkeys(weights, 0.0)  # seconds
    for one in fleet.drawn[1:]:
        had[owners[one.job_id]] += one.ended - one.started
    longest = max(one.ended - one.started for one in fleet.drawn)
    per_weight = {owner: had[owner] / weight for owner, weight in weights.items()}
    fair = sum(had.values()) / sum(weights.values())
    for owner, got in per_weight.items():
        assert abs(got - fair) * weights[owner] <= 4 * longest, (owner, per_weight, fair)


def test_an_owner_without_terms_shares_as_one_of_weight_one() -> None:
    fleet = PlayedFleet([0.5], global_queue_size=1000, gpu_queue_size=0, global_queue_reserve=0)
    owners = {}
    for name, terms in [("http/heavy", Terms(weight=3.0)), ("local", None)] * 60:
        answer = fleet.submit(JobSpec(prompt="x", width=512, height=512, steps=4), owner=name, terms=terms)
        assert isinstance(answer, Accepted)
        owners[answer.job_id] = name
    fleet.run(lambda: len(fleet.drawn) == 40)
    had = Counter(owners[one.job_id] for one in fleet.drawn)
    assert abs(had["http/heavy"] - 30) <= 2


def test_the_weight_outlives_the_router(rig: Rig) -> None:
    keyed(rig, HOST_A)
    job = submit(rig, GATEWAY, message=asked(Terms(weight=2.5)))
    assert Rig(records=rig.records).job(job).weight == 2.5


# --- limits ------------------------------------------------------------------------------------


def test_so_many_jobs_at_one_time(rig: Rig) -> None:
    worker = keyed(rig, HOST_A)
    terms = Terms(jobs_max=3)
    jobs = [submit(rig, GATEWAY, message=asked(terms, client=f"c{i}")) for i in range(3)]
    answer = refused(rig, terms)
    assert answer is not None
    assert (answer.code, answer.param) == ("rate_limit_exceeded", "jobs_max")
    assert "3 of this key's jobs" in answer.message
    assert answer.retry_after_s is not None
    assert 1.0 <= answer.retry_after_s <= 120.0
    assert refused(rig, terms, owner="http/other") is None
    drawn_on(rig, worker, jobs[0], 1.0)
    assert refused(rig, terms) is None
    assert refused(rig, terms) is not None
    cancel(rig, jobs[2])
    assert refused(rig, terms) is None


def test_how_many_there_are_is_known_after_a_restart(rig: Rig) -> None:
    keyed(rig, HOST_A)
    for _ in range(2):
        submit(rig, GATEWAY, message=asked(Terms(jobs_max=2)))
    again = Rig(records=rig.records, first_epoch=2)
    assert refused(again, Terms(jobs_max=2)) is not None
    assert refused(again, Terms(jobs_max=3)) is None


def test_a_known_key_is_no_further_job(rig: Rig) -> None:
    keyed(rig, HOST_A)
    message = Submit(rid="1", owner="http/lab", key="k", job=JobSpec(prompt="x", seed=1), terms=Terms(jobs_max=1))
    assert submit(rig, GATEWAY, message=message) == submit(rig, GATEWAY, message=message) != ""


@pytest.mark.parametrize("seed", range(10))
def test_gpu_seconds_a_minute_hold_over_time(rig: Rig, seed: int) -> None:
    """Who comes back when told is let in, and never has more than the first minute's, what time brings, and one job."""
    chance = random.Random(seed)
    limit, longest, had, began = 30.0, 12.0, 0.0, rig.now
    worker = keyed(rig, HOST_A)
    for _ in range(60):
        answer = refused(rig, Terms(gpu_seconds_per_minute=limit))
        if answer is not None:
            assert (answer.code, answer.param) == ("rate_limit_exceeded", "gpu_seconds_per_minute")
            assert answer.retry_after_s is not None
            rig.now += answer.retry_after_s
            worker.heartbeat()
            assert refused(rig, Terms(gpu_seconds_per_minute=limit)) is None
        (job,) = rig.broker.state.live.values()
        took_s = longest * chance.random()
        drawn_on(rig, worker, job.job_id, took_s)
        had += took_s
        rig.now += took_s
        worker.heartbeat()
        assert had <= limit * (1 + (rig.now - began) / 60) + longest
    assert had > 0.5 * limit * (rig.now - began) / 60


def test_what_was_not_drawn_is_given_back(rig: Rig) -> None:
    worker = keyed(rig, HOST_A)
    drawn_on(rig, worker, submit(rig, BOB), 1.0)
    terms = Terms(gpu_seconds_per_minute=2.0)
    for _ in range(20):  # each charged in full when it was accepted
        job = submit(rig, GATEWAY, message=asked(terms, steps=50))
        assert job != ""
        cancel(rig, job)


# --- who may say so, and who is told -----------------------------------------------------------


@pytest.mark.parametrize("who", [ALICE, ADMIN], ids=lambda who: who.role)
def test_only_a_gateway_says_on_what_terms(rig: Rig, who: Any) -> None:
    keyed(rig, HOST_A)
    assert submit(rig, who, message=asked(Terms(weight=100.0), owner="")) == ""
    (answer,) = rig.told(Rejected)
    assert (answer.code, answer.param) == ("forbidden", "terms")


def test_an_admin_over_http_sees_everyones_jobs_and_owns_none_so(rig: Rig) -> None:
    keyed(rig, HOST_A)
    job = submit(rig, GATEWAY, owner="http/lab")
    assert isinstance(ask(rig, GATEWAY, JobQuery(rid="2", job_id=job, owner=ANYONE)), JobReply)
    assert isinstance(ask(rig, GATEWAY, JobQuery(rid="2", job_id=job, owner="http/other")), ErrorReply)
    assert isinstance(ask(rig, ALICE, JobQuery(rid="2", job_id=job, owner=ANYONE)), ErrorReply)
    assert submit(rig, GATEWAY, owner=ANYONE) == ""
    assert rig.told(Rejected)[-1].param == "owner"


def test_status_names_jobs_to_those_who_may_see_them(rig: Rig) -> None:
    worker = keyed(rig, HOST_A)
    job = submit(rig, GATEWAY, owner="http/lab")
    worker.started(rig.job(job).token)
    rig.to_client(b"front")
    for owner, seen in (("http/lab", job), ("http/other", ""), ("local", ""), (ANYONE, job)):
        rig.out.clear()
        answer = ask(rig, GATEWAY, StatusQuery(rid="2", owner=owner))
        assert isinstance(answer, StatusReply)
        assert (answer.workers[0].busy, answer.workers[0].job_id) == (True, seen), owner
