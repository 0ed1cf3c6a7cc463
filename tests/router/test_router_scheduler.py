"""Which job goes to which GPU, and when; and the plan of what waits."""

from collections import Counter
from collections.abc import Callable

from common.messages import Accepted, Dispatch, JobQuery, JobReply, StatusQuery, StatusReply
from router.commands import ToWorker
from router.jobs import JobState
from router.speeds import JOBS_TO_COMPARE
from tests.router.rig import FakeWorker, Rig, card


def _sent(rig: Rig) -> list[tuple[str, str]]:
    """(peer, job_id) of what the last event dispatched."""
    return [
        (c.peer.decode(), c.message.token.job_id)
        for c in rig.out
        if isinstance(c, ToWorker) and isinstance(c.message, Dispatch)
    ]


def _learn(worker: FakeWorker, step_s: float, tail_s: float = 0.0) -> None:
    """Teach the router how fast this worker is."""
    job = worker.rig.submit()
    token = worker.rig.job(job).token
    assert worker.rig.job(job).worker_id == worker.name
    worker.started(token)
    worker.progress(token, 1, step_s=step_s)
    worker.done(token, decode_s=tail_s)
    worker.rig.stored()
    worker.grant()


def test_priority_first_then_order_of_arrival(rig: Rig) -> None:
    rig.worker("gone").bye()
    jobs = [rig.submit(priority=p) for p in (0, 5, 0, 5, -1)]
    worker = rig.worker("w", credit=1)
    order = []
    while worker.believed.hand:
        (job_id,) = worker.believed.hand
        order.append(jobs.index(job_id))
        worker.draw(rig.job(job_id).token)
    assert order == [1, 3, 0, 2, 4]


def test_an_idle_gpu_comes_first(rig: Rig) -> None:
    rig.worker("w")
    first = rig.submit()
    assert _sent(rig) == [("peer-w", first)]
    rig.worker("v")
    second = rig.submit()
    assert _sent(rig) == [("peer-v", second)]


def test_nothing_waits_at_a_busy_gpu_of_unknown_speed_until_its_last_step(rig: Rig) -> None:
    worker = rig.worker("w")
    first, second = rig.submit(steps=4), rig.submit(steps=4)
    token = rig.job(first).token
    worker.started(token)
    for step in (1, 2):
        worker.progress(token, step)
        assert _sent(rig) == []
    worker.progress(token, 3)  # the fourth and last is running
    assert _sent(rig) == [("peer-w", second)]
    rig.submit()
    worker.grant()
    assert _sent(rig) == []  # at most one beyond the running one


def test_the_next_job_is_sent_half_a_second_before_the_running_one_ends(rig: Rig) -> None:
    worker = rig.worker("w")
    _learn(worker, step_s=1.0, tail_s=0.2)
    first, second = rig.submit(steps=4), rig.submit(steps=4)
    token = rig.job(first).token
    worker.started(token)
    worker.progress(token, 3)
    rig.tick(0.6)
    assert rig.state(second) == "queued"
    rig.tick(0.2)  # 1.0 + 0.2 - 0.8 s are left
    assert rig.state(second) == "dispatched"


def test_an_overdue_step_does_not_look_like_an_end(rig: Rig) -> None:
    worker = rig.worker("w")
    _learn(worker, step_s=1.0)
    first, second = rig.submit(steps=4), rig.submit(steps=4)
    worker.started(rig.job(first).token)
    worker.progress(rig.job(first).token, 1)
    rig.tick(2.5)
    assert rig.state(second) == "queued"


def test_without_an_idle_gpu_the_one_soonest_free_gets_the_job(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(prefetch_s=2.0)
    w, v = rig.worker("w"), rig.worker("v")
    _learn(w, step_s=1.0)
    _learn(v, step_s=1.0)
    a, b = rig.submit(steps=4), rig.submit(steps=4)
    at_w, at_v = (a, b) if rig.job(a).worker_id == "w" else (b, a)
    w.started(rig.job(at_w).token)
    v.started(rig.job(at_v).token)
    c = rig.submit()
    w.progress(rig.job(at_w).token, 1, step_s=1.0)  # three seconds left
    assert rig.state(c) == "queued"
    v.progress(rig.job(at_v).token, 2, step_s=1.0)  # two
    assert (rig.state(c), rig.job(c).worker_id) == ("dispatched", "v")


def test_equal_gpus_get_equal_shares(rig: Rig) -> None:
    workers = {name: rig.worker(name) for name in ("w", "v", "u")}
    shares: Counter[str] = Counter()
    for _ in range(30):
        job = rig.job(rig.submit())
        shares[job.worker_id] += 1
        workers[job.worker_id].draw(job.token)
    assert set(shares.values()) == {10}


def test_a_newcomer_does_not_get_everything(rig: Rig) -> None:
    old = rig.worker("w")
    for _ in range(10):
        old.draw(rig.job(rig.submit()).token)
    new = rig.worker("v")
    workers, shares = {"w": old, "v": new}, Counter[str]()
    for _ in range(10):
        job = rig.job(rig.submit())
        shares[job.worker_id] += 1
        workers[job.worker_id].draw(job.token)
    assert shares == {"w": 5, "v": 5}


def test_a_clearly_faster_gpu_is_preferred_and_a_slightly_faster_one_is_not(rig: Rig) -> None:
    slow = rig.worker("slow")
    for _ in range(JOBS_TO_COMPARE):
        _learn(slow, step_s=2.0)
    slow.heartbeat("loading")
    fast = rig.worker("fast")
    for _ in range(JOBS_TO_COMPARE):
        _learn(fast, step_s=0.5)
    slow.heartbeat()
    for _ in range(3):
        job = rig.job(rig.submit())
        assert job.worker_id == "fast"
        fast.draw(job.token)
    slow.believed.service.speeds.learn_step(rig.job(rig.submit()).order, 0.0001)  # known otherwise now: 5.6 s
    rig.tick()
    other = rig.submit()  # 4 s at the fast one, behind the job that is there
    assert rig.state(other) == "queued"
    last = rig.submit()  # 6 s
    assert (rig.state(other), rig.job(last).worker_id) == ("queued", "slow")


def test_one_slow_first_job_does_not_keep_work_away(rig: Rig) -> None:
    workers = {name: rig.worker(name) for name in ("a", "b")}
    shares = dict.fromkeys(workers, 0)
    for number in range(20):  # one at a time; the first one ever is slow, as first ones are
        job = rig.job(rig.submit())
        shares[job.worker_id] += 1
        worker = workers[job.worker_id]
        worker.started(job.token)
        worker.progress(job.token, 1, step_s=5.0 if number == 0 else 0.1)
        worker.done(job.token)
        rig.stored()
        worker.grant()
    assert shares["a"] >= JOBS_TO_COMPARE


def test_a_new_job_is_told_its_eta_at_once(rig: Rig) -> None:
    worker = rig.worker("w")
    _learn(worker, step_s=1.0)
    rig.submit()
    rig.submit()
    rig.submit()
    (accepted,) = rig.told(Accepted)
    assert accepted.job.eta_s is not None
    assert accepted.job.position == 2


def test_a_job_goes_only_where_its_model_is_served(rig: Rig) -> None:
    rig.worker("w", cards=(card("a"),))
    rig.worker("v", cards=(card("b"), card("c")))
    assert rig.job(rig.submit(model="b")).worker_id == "v"
    assert rig.job(rig.submit(model="a")).worker_id == "w"
    waiting = rig.submit(model="c")
    assert rig.state(waiting) == "queued"


def test_a_gpu_of_two_models_draws_by_priority_across_both(rig: Rig) -> None:
    rig.worker("x", cards=(card("a"), card("b")), ready=False)
    low, high = rig.submit(model="a"), rig.submit(model="b", priority=1)
    worker = rig.worker("w", cards=(card("a"), card("b")), credit=1)
    assert list(worker.believed.hand) == [high]
    worker.draw(rig.job(high).token)
    assert list(worker.believed.hand) == [low]


def test_instance_chosen_is_logged_with_idle_or_busy(rig: Rig) -> None:
    worker = rig.worker("w")
    first, second = rig.submit(steps=1), rig.submit(steps=1)
    worker.started(rig.job(first).token)
    assert rig.state(second) == "dispatched"
    lines = [(c.fields["job_id"], c.fields["idle"]) for c in rig.logged("instance.chosen")]
    assert lines == [(first, True), (second, False)]


def test_a_job_that_finds_no_gpu_is_logged(rig: Rig) -> None:
    rig.worker("w", credit=1)
    rig.submit()
    waiting = rig.submit()
    assert [c.fields for c in rig.logged("instance.none")] == [{"job_id": waiting, "model": "m", "waiting": 1}]


# --- the plan ----------------------------------------------------------------------------------


def test_the_plan_gives_each_job_a_gpu_a_position_and_a_time(rig: Rig) -> None:
    w, v = rig.worker("w"), rig.worker("v")
    _learn(w, step_s=1.0)
    _learn(v, step_s=1.0)
    running = [rig.submit(steps=4) for _ in range(2)]
    for job_id in running:
        job = rig.job(job_id)
        (w if job.worker_id == "w" else v).started(job.token)
    waiting = [rig.submit(steps=4) for _ in range(3)]
    (status,) = rig.say(StatusQuery(rid="s"))
    assert isinstance(status, StatusReply)
    assert sorted(worker.queue_size for worker in status.workers) == [1, 2]
    views = []
    for job_id in waiting:
        (reply,) = rig.say(JobQuery(rid="j", job_id=job_id))
        assert isinstance(reply, JobReply)
        views.append((reply.job.position, reply.job.eta_s))
    assert views == [(1, 8.0), (2, 8.0), (3, 12.0)]


def test_no_eta_is_made_up(rig: Rig) -> None:
    rig.worker("w")
    rig.submit()
    waiting = rig.submit()
    (reply,) = rig.say(JobQuery(rid="j", job_id=waiting))
    assert isinstance(reply, JobReply)
    assert (reply.job.position, reply.job.eta_s) == (1, None)


def test_queue_sizes_are_bounded_and_the_rest_overflows(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(gpu_queue_size=2)
    rig.worker("w")
    rig.worker("v")
    for _ in range(10):
        rig.submit()
    (status,) = rig.say(StatusQuery(rid="s"))
    assert isinstance(status, StatusReply)
    states = Counter(job.state for job in rig.broker.state.jobs.values())
    assert states == {JobState.DISPATCHED: 2, JobState.QUEUED: 8}
    assert [worker.queue_size for worker in status.workers] == [2, 2]
    assert (status.stats.queued, status.stats.running, status.stats.overflow) == (10, 0, 6)
    assert status.stats.queued == status.stats.overflow + sum(w.queue_size for w in status.workers)
