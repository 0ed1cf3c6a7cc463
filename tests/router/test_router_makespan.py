"""Unequal GPUs over unequal jobs: as good as knowing all durations beforehand, and nobody idles for nothing."""

import pytest

from bench.makespan import known_makespan_s, make_task, played_makespan_s

SEEDS = (2, 7, 8, 23, 44, 88, 110)  # two to six GPUs, up to 3.6 times as fast as others


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_job_ends_as_early_as_if_all_durations_were_known(seed: int, warm: bool) -> None:
    task = make_task(seed)
    assert len(task.jobs) >= 20 * len(task.speeds)
    assert played_makespan_s(task, warm=warm, check=True) <= 1.05 * known_makespan_s(task)


def test_a_seed_plays_the_same_run_again() -> None:
    first, second = (played_makespan_s(make_task(2), warm=True) for _ in range(2))
    assert first == second
