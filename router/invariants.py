"""What must hold after every event, whatever happened. Tests ask after each; it reads and changes nothing.

Pure.
"""

from collections import Counter

from router.admission import Room
from router.fleet import Worker
from router.jobs import ENDED, IN_HAND, NEEDS_A_GPU, Job, JobState
from router.scheduler import remaining_s
from router.state import RouterState


def check(state: RouterState) -> None:
    """Raise AssertionError where the state contradicts itself."""
    state.fleet.check()
    state.watches.check()
    state.queue.check(state.live)
    state.deadlines.check()
    _check_sets(state)
    _check_places(state)
    _check_counts(state)
    _check_nobody_idles(state)


def _check_sets(state: RouterState) -> None:
    assert state.live.keys() | state.ended.keys() | state.dead.keys() == state.jobs.keys()
    assert len(state.live) + len(state.ended) + len(state.dead) == len(state.jobs)
    for job_id, job in state.jobs.items():
        assert job.job_id == job_id, job
        assert job.ended == (job_id not in state.live), job
        assert (job_id in state.dead) == (job.error is not None and job.error.code == "poison"), job
        assert 0 <= job.settled <= job.dispatch, job
        assert (job.picture is not None) == (job.state in (JobState.STORING, JobState.DONE)), job
        assert (job.error is not None) == (job.state is JobState.FAILED), job
        assert 0 <= job.step <= job.order.steps, job
        assert job.attempts <= job.starts, job
    for job_id in state.watches.jobs():
        assert job_id in state.live, f"ended job {job_id} is watched"


def _check_places(state: RouterState) -> None:
    """Each job that has not ended is in exactly one place."""
    held = Counter(job_id for worker in state.fleet.workers.values() for job_id in worker.hand)
    for worker in state.fleet.workers.values():
        for job_id, dispatch in worker.hand.items():
            job = state.jobs[job_id]
            assert (job.worker_id, job.dispatch) == (worker.worker_id, dispatch), job
            assert job.state in IN_HAND, job
            assert job.holds(dispatch), job
    for job in state.live.values():
        places = {
            "queue": job in state.queue,
            "delayed": job.job_id in state.delayed,
            "hand": held[job.job_id] == 1,
            "orphans": job.job_id in state.orphans,
            "store": job.state is JobState.STORING,
        }
        assert sum(places.values()) == 1, (places, job)
        assert (places["queue"] or places["delayed"]) == (job.state is JobState.QUEUED), (places, job)
        assert (places["hand"] or places["orphans"]) == (job.state in IN_HAND), (places, job)
    assert len(state.queue) + len(state.delayed) == state.census[JobState.QUEUED]
    assert set(state.orphans) <= set(state.live)


def _check_counts(state: RouterState) -> None:
    living = Counter(job.state for job in state.live.values())
    assert living == Counter({s: n for s, n in state.census.items() if n and s not in ENDED}), state.census
    room = Room(state.fleet, state.jobs, state.settings)
    for job in state.live.values():
        if job.state in NEEDS_A_GPU:
            room.count(job, 1)
    assert state.room.needing == room.needing, (state.room.needing, room.needing)
    assert state.room.clients == room.clients, (state.room.clients, room.clients)
    kept = sum(job.picture.bytes for job in state.ended.values() if job.picture is not None)
    assert state.result_bytes == kept, (state.result_bytes, kept)
    assert len(state.ended) <= state.settings.ended_jobs_max
    assert len(state.dead) <= state.settings.dead_letters_max


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
    own_s = idle.service.speeds.compared_s(job.order)
    assert own_s is not None, f"{idle.worker_id} idles, of unknown speed, although {job.job_id} waits"
    for worker in state.fleet.serving(job.order.model):
        times = [remaining_s(state.jobs[job_id], worker, state.now) for job_id in worker.hand]
        times.append(worker.service.speeds.compared_s(job.order))
        if worker.state == "ready" and None not in times and sum(time or 0.0 for time in times) < own_s:
            return
    raise AssertionError(f"{idle.worker_id} idles although it would be the first to end {job.job_id}")
