"""The small parts by themselves: speeds, retries, keys, watches, the queue, the journal's pictures."""

import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec.structs import replace

from common.messages import Timings, Token
from common.settings import RouterSettings
from router.beside import Beside
from router.jobs import Job
from router.journal import Journal, Stored
from router.keys import KEYS_MAX, Key, Keys
from router.memory_journal import CHECK_AT_ONCE_BYTES_MAX, MemoryJournal
from router.retry import RETRY_WAIT_MAX_S, GiveUp, Retry, after_failure, after_return
from router.scheduler import JobQueue
from router.speeds import SPEEDS_PER_WORKER_MAX, Speeds
from router.watches import Watches
from tests.common.samples import ORDER
from tests.router.journals import opened, picture, stored

TEN_STEPS = replace(ORDER, steps=10, drawn_width=64, drawn_height=64, true_cfg_scale=1.0)
SETTINGS = RouterSettings()


def _job(number: int = 1, **changes: Any) -> Job:
    return Job(
        job_id=f"{number:032x}", owner="local", order=replace(TEN_STEPS, **changes), notes=(), sequence=number,
        created_at=0, created_now=0, deadline_at=9, deadline_now=9,
    )  # fmt: skip


# --- speeds ------------------------------------------------------------------------------------


def test_speeds_are_unknown_until_learned() -> None:
    speeds = Speeds()
    assert speeds.job_s(TEN_STEPS) is None
    assert speeds.remaining_s(TEN_STEPS, 3, 0.0) is None
    assert speeds.last_step_s == 0.0


def test_a_job_is_its_head_its_steps_and_its_tail() -> None:
    speeds = Speeds()
    speeds.learn_step(TEN_STEPS, 2.0)
    assert speeds.job_s(TEN_STEPS) == 20.0
    speeds.learn_whole(TEN_STEPS, Timings(encode_s=1.0, denoise_s=20.0, decode_s=0.5, save_s=0.25))
    assert speeds.job_s(TEN_STEPS) == 21.75
    assert speeds.remaining_s(TEN_STEPS, 0, 0.5) == 21.25
    assert speeds.remaining_s(TEN_STEPS, 9, 0.5) == 2.25
    assert speeds.remaining_s(TEN_STEPS, 9, 100.0) == 0.75
    assert speeds.remaining_s(TEN_STEPS, 10, 0.5) == 0.25
    assert speeds.remaining_s(TEN_STEPS, 10, 100.0) == 0.0


def test_newer_steps_weigh_more_and_a_second_pass_doubles_a_step() -> None:
    speeds = Speeds()
    speeds.learn_step(TEN_STEPS, 1.0)
    speeds.learn_step(TEN_STEPS, 2.0)
    assert speeds.job_s(TEN_STEPS) == pytest.approx(13.0)
    twice = replace(TEN_STEPS, true_cfg_scale=4.0)
    assert speeds.job_s(twice) == pytest.approx(26.0)
    speeds.learn_step(twice, 2.6)
    assert speeds.last_step_s == pytest.approx(2.6)
    assert speeds.job_s(TEN_STEPS) == pytest.approx(13.0)


def test_each_size_has_its_own_speed_and_they_are_bounded() -> None:
    speeds = Speeds()
    for side in range(1, SPEEDS_PER_WORKER_MAX + 2):
        speeds.learn_step(replace(TEN_STEPS, drawn_width=side), side)
    assert speeds.job_s(replace(TEN_STEPS, drawn_width=1)) is None
    assert speeds.job_s(replace(TEN_STEPS, drawn_width=2)) == 20.0


def test_steps_are_learned_from_the_whole_where_none_was_reported() -> None:
    speeds = Speeds()
    speeds.learn_whole(TEN_STEPS, Timings(denoise_s=5.0))
    assert speeds.job_s(TEN_STEPS) == 5.0


# --- retries -----------------------------------------------------------------------------------


def test_waits_are_bounded() -> None:
    job = _job()
    job.failures = 90
    verdict = after_failure(job, "worker_lost", "gone", SETTINGS)
    assert isinstance(verdict, Retry)
    assert verdict.wait_s <= RETRY_WAIT_MAX_S * 1.25


def test_jobs_do_not_come_back_as_one() -> None:
    waits = set()
    for number in range(20):
        job = _job(number * 999_983)
        job.failures = 2
        verdict = after_failure(job, "engine_error", "x", SETTINGS)
        assert isinstance(verdict, Retry)
        waits.add(verdict.wait_s)
    assert len(waits) == 20
    assert 1.5 <= min(waits) < max(waits) <= 2.5


def test_attempts_max_of_one_means_no_retry() -> None:
    job = _job()
    job.attempts = job.failures = 1
    assert isinstance(after_failure(job, "worker_lost", "gone", RouterSettings(attempts_max=1)), GiveUp)


@pytest.mark.parametrize(("returns", "wait_s"), [(1, 0.0), (2, 0.1), (11, 1.0), (1000, 5.0)])
def test_returned_jobs_wait_longer_each_time(returns: int, wait_s: float) -> None:
    job = _job()
    job.returns = returns
    assert after_return(job).wait_s == pytest.approx(wait_s)


# --- queue, keys, watches ----------------------------------------------------------------------


def test_the_queue_orders_finds_and_removes() -> None:
    queue = JobQueue()
    jobs = [_job(n, priority=n % 3, model="ab"[n % 2]) for n in range(12)]
    for job in reversed(jobs):
        queue.add(job)
    expected = sorted(jobs, key=lambda j: (-j.order.priority, j.sequence))
    assert list(queue.ordered(["a", "b", "c"])) == [j.job_id for j in expected]
    assert [queue.position(j) for j in expected if j.order.model == "a"] == [1, 2, 3, 4, 5, 6]
    queue.remove(expected[0])
    assert expected[0] not in queue
    assert queue.position(expected[0]) == 0
    assert len(queue) == 11
    with pytest.raises(ValueError, match="not in the queue"):
        queue.remove(expected[0])
    for job in expected[1:]:
        queue.remove(job)
    assert queue.models() == []


def test_keys_are_bounded_by_time_and_number() -> None:
    keys = Keys(ttl_s=10.0)
    for n in range(KEYS_MAX + 1):
        keys.take("o", str(n), Key("j", b"", float(n >= 2)))
    assert keys.forget_oldest(0.0) == ("o", "0")
    assert keys.forget_oldest(0.0) is None
    assert keys.forget_oldest(10.5) == ("o", "1")
    assert keys.forget_oldest(10.5) is None


def test_watches_leave_nothing_behind() -> None:
    watches = Watches(SETTINGS)
    for n in range(10):
        watches.add("job", b"p%d" % (n % 3), str(n), 0.0)
    watches.drop_peer(b"p0")
    assert len(watches.of("job", 1.0)) == 6
    watches.check()
    assert watches.of("job", 16.0) == []
    watches.check()
    assert watches.jobs() == []


# --- pictures ----------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    if request.param == "sqlite":
        with opened(tmp_path) as on_disk:
            yield on_disk
        return
    in_memory = MemoryJournal()
    yield in_memory
    in_memory.close()


@pytest.mark.parametrize("size", [10, CHECK_AT_ONCE_BYTES_MAX, CHECK_AT_ONCE_BYTES_MAX + 1, 3_000_000])
def test_pictures_are_checked_and_kept(journal: Journal, size: int) -> None:
    data = bytes(size)
    good, bad = (Token(job_id=c * 32, dispatch=1) for c in "ab")
    frames = [zmq.Frame(data[: size // 2]), zmq.Frame(data[size // 2 :])]
    journal.store(good, picture(data), frames)
    journal.store(bad, picture(data, sha256="0" * 64), frames)
    assert sorted(stored(journal, 2), key=lambda s: s.token.job_id) == [
        Stored(good),
        Stored(bad, "the picture's bytes do not match its sha256"),
    ]
    assert b"".join(f.bytes for f in journal.fetch(good.job_id) or ()) == data
    assert journal.fetch(bad.job_id) is None
    journal.drop(good.job_id)
    assert journal.fetch(good.job_id) is None
    journal.commit()
    assert select.select([journal.fileno()], [], [], 0)[0] == [] or journal.stored() == []


@pytest.mark.parametrize(("data", "announced"), [(b"abc", 4), (b"", 0)])
def test_a_picture_of_another_length_is_refused(journal: Journal, data: bytes, announced: int) -> None:
    journal.store(Token(job_id="a" * 32, dispatch=1), picture(data, bytes=announced), [zmq.Frame(data)])
    (outcome,) = stored(journal, 1)
    assert "announced" in outcome.refusal


# --- beside the loop ---------------------------------------------------------------------------


def test_work_is_done_beside_and_its_end_wakes_the_loop() -> None:
    beside: Beside[int] = Beside(threads=2, name="test")
    both, found = threading.Barrier(2), list[int]()
    for number in (1, 2):
        beside.put(lambda number=number: both.wait(10) * 0 + number)  # type: ignore[misc]  # its default is an int
    while len(found) < 2:
        assert select.select([beside.fileno()], [], [], 10)[0]
        found += beside.done()
    assert sorted(found) == [1, 2]
    beside.put(lambda: 1 // 0)
    assert select.select([beside.fileno()], [], [], 10)[0]
    with pytest.raises(ZeroDivisionError):
        beside.done()
    beside.put(lambda: 3)
    beside.close()
