"""What must hold after every event, whatever happened. Tests ask after each; it reads and changes nothing.

Pure. ARCHITECTURE.md lists these in words, with those that only a whole run can show (tests/sim).
"""

from router.fair import Client
from router.fleet import WORKERS_MAX, Worker
from router.jobs import IN_HAND, MOMENTS_MAX, NEEDS_A_GPU, Job, JobState
from router.keys import KEYS_MAX
from router.queue import client_of
from router.retry import ENGINE_DEATHS_MAX, MEMORY_FAILURES_MAX
from router.scheduler import remaining_s
from router.state import RouterState

HAND_JOBS_MAX = 64  # that a REGISTER may list


def check(state: RouterState) -> None:
    """Raise AssertionError where the state contradicts itself."""
    state.fleet.check()
    state.watches.check()
    state.queue.check(state.live)
    state.deadlines.check()
    _check_sets(state)
    for job in state.live.values():
        _check_live(state, job)
    _check_places(state)
    _check_counts(state)
    _check_bounds(state)
    _check_nobody_idles(state)


def _check_sets(state: RouterState) -> None:
    """Each job is known once: as live, as ended, or as a dead letter."""
    jobs = state.jobs
    assert len(state.live) + len(state.ended) + len(state.dead) == len(jobs)
    for kept, poison in ((state.ended, False), (state.dead, True)):
        for job_id, job in kept.items():
            assert jobs.get(job_id) is job, job
            if job.state is JobState.DONE:
                assert job.picture is not None, job
                assert job.error is None, job
                assert not poison, job
            elif job.state is JobState.FAILED:
                assert job.picture is None, job
                assert job.error is not None, job
                assert poison == (job.error.code == "poison" and not job.revived_as), job
            else:
                assert job.state is JobState.CANCELLED, job
                assert job.picture is None, job
                assert job.error is None, job
                assert not poison, job
            assert not job.revived_as or (job.error is not None and job.error.code == "poison"), job
    for job_id in state.watches.jobs():
        assert job_id in state.live, f"ended job {job_id} is watched"


def _check_live(state: RouterState, job: Job) -> None:
    """A job that has not ended: its token, its counts, its picture."""
    assert state.jobs.get(job.job_id) is job, job
    assert not job.ended, job
    assert job.error is None, job
    assert not job.revived_as, job
    assert (job.picture is not None) == (job.state is JobState.STORING), job
    assert 0 <= job.settled <= job.dispatch, job
    assert job.state is JobState.QUEUED or job.holds(job.dispatch), job
    assert not job.lost or job.state is JobState.QUEUED, job
    assert 0 <= job.step <= job.order.drawn_steps, job
    assert 0 <= job.attempts <= job.starts <= job.dispatch, job
    assert job.attempts <= job.failures, job
    assert job.attempts - job.memory_failures < state.settings.attempts_max, job
    assert job.engine_deaths < ENGINE_DEATHS_MAX, job
    assert job.memory_failures < MEMORY_FAILURES_MAX, job
    assert len(job.moments) <= MOMENTS_MAX, job


def _check_places(state: RouterState) -> None:
    """Each job that has not ended is in exactly one place."""
    held: dict[str, int] = {}
    for worker in state.fleet.workers.values():
        for job_id, dispatch in worker.hand.items():
            job = state.live[job_id]
            assert (job.worker_id, job.dispatch) == (worker.worker_id, dispatch), job
            assert job.state in IN_HAND, job
            held[job_id] = held.get(job_id, 0) + 1
    for job in state.live.values():
        job_id = job.job_id
        waits = (job in state.queue) + (job_id in state.delayed)
        works = held.get(job_id, 0) + (job_id in state.orphans)
        assert waits == (job.state is JobState.QUEUED), (waits, job)
        assert works == (job.state in IN_HAND), (works, job)
    assert len(state.queue) + len(state.delayed) == state.census[JobState.QUEUED]
    assert state.orphans.keys() <= state.live.keys()


def _check_counts(state: RouterState) -> None:
    """What is counted along the way is what counting now gives."""
    living: dict[JobState, int] = {}
    needing: dict[str, int] = {}
    clients: dict[Client, int] = {}
    for job in state.live.values():
        living[job.state] = living.get(job.state, 0) + 1
        if job.state in NEEDS_A_GPU:
            needing[job.order.model] = needing.get(job.order.model, 0) + 1
            clients[client_of(job)] = clients.get(client_of(job), 0) + 1
    for job_state in (JobState.QUEUED, JobState.DISPATCHED, JobState.RUNNING, JobState.STORING):
        assert state.census[job_state] == living.get(job_state, 0), state.census
    assert state.room.needing == needing, (state.room.needing, needing)
    assert state.room.clients == clients, (state.room.clients, clients)
    kept = 0
    for job in state.ended.values():
        if job.picture is not None:
            kept += job.picture.bytes
    assert state.result_bytes == kept, (state.result_bytes, kept)

    owners = [job for job in state.jobs.values() if job.inputs_of]
    places = {job.inputs_of: job.order for job in owners}
    assert len(places) == len(owners), "two jobs own the same inputs"
    state.inputs.check(places)
    for job in state.live.values():
        assert bool(job.inputs_of) == bool(job.order.inputs), job
    for job in state.ended.values():
        assert not job.inputs_of, job
    for job in state.dead.values():
        assert bool(job.inputs_of) == bool(job.order.inputs), job


def _check_bounds(state: RouterState) -> None:
    """Nothing grows beyond its bound, whatever is asked."""
    settings = state.settings
    assert len(state.ended) <= settings.ended_jobs_max
    assert len(state.dead) <= settings.dead_letters_max
    assert state.result_bytes <= settings.results_mb_max * 1024 * 1024
    assert len(state.keys) <= KEYS_MAX
    assert len(state.fleet.workers) <= WORKERS_MAX
    for worker in state.fleet.workers.values():
        assert len(worker.hand) <= HAND_JOBS_MAX + worker.dispatched_total, worker
    assert not state.out, "decided and not said"


def _check_nobody_idles(state: RouterState) -> None:
    """No GPU that could take a job stands idle, unless each that waits would end sooner on a faster one.

    Of the first that it could take, this is seen without any other: nothing is ahead of that one.
    """
    idle = [w for w in state.fleet.workers.values() if not w.hand and not w.rests_until_now]
    picked = state.scheduler.pick(idle, state.now)
    if picked is not None:
        raise AssertionError(f"{picked[1].worker_id} idles although {picked[0].job_id} waits")
    for worker in idle:
        if not worker.takes_new:
            continue
        waiting = (state.jobs[job_id] for job_id in state.queue.ordered(worker.models))
        job = next((job for job in waiting if state.scheduler.fits(job, worker, state.now)), None)
        if job is not None:
            _check_sooner(state, job, worker)


def _check_sooner(state: RouterState, job: Job, idle: Worker) -> None:
    """Some busy GPU, by what it has shown, ends its work and this job before the idle one would."""
    own_s = idle.service.speeds.likely_s(job.order)
    assert own_s is not None, f"{idle.worker_id} idles, of unknown speed, although {job.job_id} waits"
    for worker in state.fleet.serving(job.order.model):
        times = [remaining_s(state.jobs[job_id], worker, state.now) for job_id in worker.hand]
        times.append(worker.service.speeds.likely_s(job.order))
        if worker.state == "ready" and None not in times and sum(time or 0.0 for time in times) < own_s:
            return
    raise AssertionError(f"{idle.worker_id} idles although it would be the first to end {job.job_id}")
