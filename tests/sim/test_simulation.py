"""Clients, the real router and real daemons' sessions, played: whatever breaks, every promise is kept.

A seed plays the same run again: `python -m tests.sim --seed N` tells its story, `--seeds N --jobs 2` plays many.
"""

import os
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from common.messages import Cancelled, Failed
from tests.sim.runner import play_one
from tests.sim.world import CLIENTS, JOBS_PER_CLIENT, play

ROOT = Path(__file__).resolve().parents[2]
FIRST_SEED = 1000
SHARES = 2  # for two workers of xdist
BUDGET_S = 120.0 / SHARES  # of one core, a share
SEEDS_MIN = 500 // SHARES  # a share, however slow the machine


@pytest.mark.parametrize("share", range(SHARES))
def test_whatever_breaks_every_promise_is_kept(share: int, sim_seeds: int | None) -> None:
    began = time.process_time()
    for played in count():
        if sim_seeds is not None:
            if played * SHARES + share >= sim_seeds:
                return
        elif played >= SEEDS_MIN and time.process_time() - began >= BUDGET_S:
            return
        outcome = play_one(FIRST_SEED + played * SHARES + share)
        assert not outcome.failure, f"seed {outcome.seed}: {outcome.failure}\n{outcome.story}"


@pytest.mark.parametrize("seed", range(5))
def test_without_trouble_every_picture_is_drawn_once(seed: int) -> None:
    world = play(seed, faults=0)
    ends = [life.end for life in world.promises.lives.values()]
    assert len(ends) >= CLIENTS * JOBS_PER_CLIENT - sum(wish.given_up for c in world.clients for wish in c.wishes)
    assert Failed.NAME not in ends
    drawn = [token.job_id for token in world.promises.drawn]
    assert len(set(drawn)) == len(drawn)
    assert len(drawn) >= len(ends) - ends.count(Cancelled.NAME)


@pytest.mark.parametrize("seed", [7, 20, 21])
def test_a_seed_plays_the_same_run_again_byte_for_byte(seed: int) -> None:
    """The hash is of every event, command, frame and record in order; no order comes from the hashes of strings."""
    here = play_one(seed)
    assert here.digest == play_one(seed).digest
    for hash_seed in ("0", "4711"):
        told = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", str(seed)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.endswith(f"digest {here.digest}\n"), told.stdout[-500:]


def test_the_runs_contain_what_they_are_for() -> None:
    """Every kind of fault, every point where a router may crash, every record, ends of every kind."""
    total = sum((play_one(seed).counts for seed in range(60)), start=play_one(FIRST_SEED).counts)
    missing = [name for name in EXPECTED if not total[name]]
    assert not missing, (missing, total)


EXPECTED = [
    *(f"fault: {kind}" for kind in (
        "engine", "engine hangs", "cut", "half-open", "stall", "daemon crash", "daemon freeze", "daemon drain",
        "daemon gone", "router crash", "router freeze", "router drain", "client hangs up", "client stops reading",
        "client cut", "disk full", "letters", "deadly picture",
    )),
    *(f"router crashed {where}" for where in (
        "between turns", "before commit", "in commit, lost", "in commit, kept", "after commit", "before send",
        "before rename", "after rename",
    )),
    "JobAccepted", "JobDispatched", "JobStarted", "JobRequeued", "JobDone", "JobFailed", "JobCancelled",
    "JobRevived", "JobForgotten", "ModelKnown", "KeyTaken", "ACCEPTED", "REJECTED", "RESULT", "FAILED", "CANCELLED",
    "PROGRESS", "JOB", "STATUS", "DEAD_LETTERS", "ERROR", "WELCOME", "DISPATCH", "CANCEL", "RESULT_ACK", "FENCED",
    "RESYNC", "compared", "JobAccepted with inputs", "JobAccepted with another's inputs",
]  # fmt: skip
