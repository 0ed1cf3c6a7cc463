"""Which job goes to which GPU, and when; and the plan of what waits."""

from collections import Counter
from collections.abc import Callable

from common.messages import Accepted, CancelJob, Dispatch, JobQuery, JobReply, StatusQuery, StatusReply
from router.commands import ToWorker
from router.fleet import FAILURES_BEFORE_REST, REST_S
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


# --- faster and slower ones ---------------------------------------------------------------------


def _two_speeds(rig: Rig) -> tuple[FakeWorker, FakeWorker]:
    """A slow GPU of 10 s and a fast one of 1 s a step, both known and idle."""
    slow = rig.worker("slow")
    for _ in range(JOBS_TO_COMPARE):
        _learn(slow, step_s=10.0)
    slow.heartbeat("loading")
    fast = rig.worker("fast")
    for _ in range(JOBS_TO_COMPARE):
        _learn(fast, step_s=1.0)
    slow.heartbeat()
    return slow, fast


def test_a_slow_gpu_leaves_what_a_faster_one_ends_sooner_and_takes_what_comes_behind(rig: Rig) -> None:
    slow, fast = _two_speeds(rig)
    jobs = [rig.submit(steps=4) for _ in range(11)]  # 4 s each on the fast one, 40 s on the slow one
    assert list(fast.believed.hand) == jobs[:1]
    assert list(slow.believed.hand) == jobs[9:10]  # the tenth would end there in 40 s too; the nine before sooner
    assert rig.job(jobs[10]).worker_id == ""
    fast.bye()
    rig.tick()
    assert [rig.state(job_id) for job_id in jobs[1:3]] == ["queued", "queued"]  # the slow one draws


def test_a_slow_gpu_takes_what_was_left_to_a_faster_one_that_fails(rig: Rig) -> None:
    slow, fast = _two_speeds(rig)
    first, second = rig.submit(steps=4), rig.submit(steps=4)
    fast.started(rig.job(first).token)
    assert (rig.state(second), slow.believed.hand) == ("queued", {})
    fast.heartbeat("broken")
    assert list(slow.believed.hand) == [second]


def test_a_slow_gpu_does_not_wait_for_a_faster_one_that_stands_still(rig: Rig) -> None:
    slow, fast = _two_speeds(rig)
    first, second = rig.submit(steps=4), rig.submit(steps=4)
    fast.started(rig.job(first).token)
    for _ in range(4):
        rig.tick(1.0, step=0.5)
        slow.heartbeat()
        fast.heartbeat()
    assert list(slow.believed.hand) == [second]


def test_a_slow_gpu_does_not_wait_where_little_is_known(rig: Rig) -> None:
    slow = rig.worker("slow")
    for _ in range(JOBS_TO_COMPARE - 1):
        _learn(slow, step_s=10.0)
    fast = rig.worker("fast")
    for _ in range(2):
        rig.submit()
    assert len(slow.believed.hand) == len(fast.believed.hand) == 1


# --- order and outlooks ------------------------------------------------------------------------


def _view(rig: Rig, job_id: str) -> tuple[int, float | None]:
    (reply,) = rig.say(JobQuery(rid="j", job_id=job_id))
    assert isinstance(reply, JobReply)
    return reply.job.position, reply.job.eta_s


def test_positions_and_etas_follow_the_fair_order(rig: Rig) -> None:
    worker = rig.worker("w")
    _learn(worker, step_s=1.0)
    worker.started(rig.job(rig.submit(steps=4, client="a")).token)
    a = [rig.submit(steps=4, client="a") for _ in range(3)]
    b = [rig.submit(steps=4, client="b") for _ in range(2)]
    high = rig.submit(steps=2, priority=1, client="a")
    order = [high, b[0], a[0], b[1], a[1], a[2]]
    assert [_view(rig, job_id) for job_id in order] == [
        (1, 6.0), (2, 10.0), (3, 14.0), (4, 18.0), (5, 22.0), (6, 26.0)
    ]  # fmt: skip
    rig.say(CancelJob(rid="c", job_id=b[0]))
    assert [_view(rig, job_id)[0] for job_id in (high, b[1], a[0], a[1], a[2])] == [1, 2, 3, 4, 5]


def test_a_job_that_was_sent_ahead_counts_what_is_drawn_before_it(rig: Rig) -> None:
    worker = rig.worker("w")
    _learn(worker, step_s=1.0)
    first, second = rig.submit(steps=4), rig.submit(steps=3)
    worker.started(rig.job(first).token)
    worker.progress(rig.job(first).token, 3)
    rig.tick(0.75)
    assert rig.state(second) == "dispatched"
    assert _view(rig, second) == (0, 3.25)


def test_a_job_that_waits_out_a_pause_says_when_it_may_be_ready(rig: Rig) -> None:
    worker, other = rig.worker("w"), rig.worker("v")
    _learn(worker, step_s=1.0)
    _learn(other, step_s=1.0)
    job_id = rig.submit(steps=4)
    for _ in range(2):
        at = {"w": worker, "v": other}[rig.job(job_id).worker_id]
        at.fail(rig.job(job_id).token)
        at.grant()
    assert job_id in rig.broker.state.delayed
    wait_s = rig.job(job_id).not_before_now - rig.now
    assert wait_s > 1.0
    high = [rig.submit(steps=4, priority=1) for _ in range(3)]
    assert [rig.state(one) for one in high] == ["dispatched", "dispatched", "queued"]
    assert _view(rig, job_id) == (2, 8.0)
    rig.submit(steps=4)
    rig.tick(wait_s + 0.1)
    assert _view(rig, job_id)[0] == 2


def test_a_gpu_that_rests_is_not_promised(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(attempts_max=100, retry_backoff_s=0)
    worker = rig.worker("w")
    _learn(worker, step_s=1.0)
    job_id = rig.submit(steps=4)
    for _ in range(FAILURES_BEFORE_REST):
        worker.fail(rig.job(job_id).token)
        worker.grant()
    rig.tick(0.5)
    assert _view(rig, job_id) == (1, REST_S - 0.5 + 4.0)


def test_after_a_restart_each_client_has_its_order_and_none_is_buried(rig: Rig) -> None:
    rig.worker("gone").bye()
    a = [rig.submit(client="a", deadline_s=1000.0 - n) for n in range(5)]
    b = [rig.submit(client="b") for _ in range(2)]
    again = Rig(first_epoch=100, records=rig.records)
    assert list(again.broker.state.queue.ordered(["m"])) == [a[0], b[0], a[1], b[1], *a[2:]]


def test_what_was_guessed_counts_anew_once_a_speed_is_known(rig: Rig) -> None:
    worker = rig.worker("w", credit=1)
    rig.submit(client="a")
    a = [rig.submit(client="a") for _ in range(3)]
    worker.started(rig.job(next(iter(worker.believed.hand))).token)
    worker.progress(rig.job(next(iter(worker.believed.hand))).token, 1, step_s=1.0)
    b = [rig.submit(client="b") for _ in range(3)]
    assert list(rig.broker.state.queue.ordered(["m"])) == [b[0], a[0], b[1], a[1], b[2], a[2]]
