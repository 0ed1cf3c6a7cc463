"""`python -m tests.sim --seeds 20000 --jobs 2`: plays that many runs, stops at the first that fails.

`--seed N` plays one, `--first N` says where to begin, `--planted` plants known bugs and looks for them. The last
lines are the counts of what happened.
"""

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.sim.planted import PLANTED
from tests.sim.runner import Outcome, first_failure, play_one

FIRST_SEED = 1000
SEEDS = 1000
CHUNK = 8
LINE_S = 10.0


def main() -> int:
    """The exit status: 0 where every promise held."""
    asked = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__.split(":")[0])
    asked.add_argument("--seeds", type=int, default=SEEDS, help=f"how many runs ({SEEDS})")
    asked.add_argument("--first", type=int, default=FIRST_SEED, help=f"the first seed ({FIRST_SEED})")
    asked.add_argument("--seed", type=int, help="play this one again, and tell all of it")
    asked.add_argument("--jobs", type=int, default=1, help="processes (1)")
    asked.add_argument("--planted", action="store_true", help="plant each known bug: after how many seeds is it found?")
    told = asked.parse_args()
    if told.planted:
        return _planted(range(told.first, told.first + told.seeds))
    if told.seed is not None:
        outcome = play_one(told.seed)
        print(outcome.story or _counts(outcome.counts))
        print(f"seed {told.seed}: {outcome.failure or 'every promise held'}; digest {outcome.digest}")
        return 1 if outcome.failure else 0
    return _many(range(told.first, told.first + told.seeds), told.jobs)


def _many(seeds: range, jobs: int) -> int:
    began = said = time.monotonic()
    total: Counter[str] = Counter()
    events = 0
    for played, outcome in enumerate(_outcomes(seeds, jobs), 1):
        total.update(outcome.counts)
        events += outcome.events
        if outcome.failure:
            print(f"\n{outcome.story}\nseed {outcome.seed} failed: {outcome.failure}")
            print(f"again: python -m tests.sim --seed {outcome.seed}")
            return 1
        now = time.monotonic()
        if now - said >= LINE_S or played == len(seeds):
            said = now
            rate = played / (now - began)
            left_s = (len(seeds) - played) / rate
            line = f"{played} of {len(seeds)} seeds, {events:,} events, {rate:.1f} seeds/s, {left_s:.0f} s left"
            print(f"\r{line:78}", end="\n" if not sys.stdout.isatty() else "", flush=True)
    print(f"\n{_counts(total)}\n{len(seeds)} seeds in {time.monotonic() - began:.1f} s: every promise held")
    return 0


def _planted(seeds: range) -> int:
    missed = 0
    for plant in PLANTED:
        with pytest.MonkeyPatch.context() as patch:
            plant(patch)
            found = first_failure(seeds)
        missed += found is None
        after = "not found" if found is None else f"{found.seed - seeds.start + 1:4}  {found.failure.splitlines()[0]}"
        print(f"{plant.__name__:50} {after[:150]}", flush=True)
    return 1 if missed else 0


def _outcomes(seeds: range, jobs: int) -> Iterator[Outcome]:
    if jobs <= 1:
        yield from map(play_one, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(play_one, seeds, chunksize=CHUNK)


def _counts(counts: Counter[str]) -> str:
    return "\n".join(f"{count:12,}  {name}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
