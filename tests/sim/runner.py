"""Plays many seeds and stops at the first that fails, with its story."""

import re
import traceback
from collections import Counter
from dataclasses import dataclass, field

from tests.sim.router_node import Crashed
from tests.sim.world import World, played_time

STORY_CHARS_MAX = 40_000
JOB_ID = re.compile(r"\b[0-9a-f]{32}\b")


@dataclass(slots=True)
class Outcome:
    """One run."""

    seed: int
    digest: str = ""
    events: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failure: str = ""  # what is wrong, in one paragraph
    story: str = ""  # the last events, the jobs' histories, where it was found


def play_one(seed: int, *, faults: int | None = None) -> Outcome:
    """One run, whatever comes of it."""
    outcome = Outcome(seed)
    with played_time():
        world = World(seed, faults=faults)
        try:
            world.run()
        except (Exception, Crashed) as error:  # any exception at all is what is looked for
            outcome.failure = f"{type(error).__name__}: {error}"
            outcome.story = _story(world, outcome.failure, traceback.format_exc())
        finally:
            world.disk.close()
    outcome.digest, outcome.events = world.trace.digest(), world.clock.events
    outcome.counts.update({f"fault: {kind}": count for kind, count in world.counts.items()})
    outcome.counts.update({f"router crashed {where}": count for where, count in world.router.crashes.items()})
    outcome.counts.update(world.promises.counts)
    return outcome


def first_failure(seeds: range) -> Outcome | None:
    """The first seed that fails, if any does."""
    for seed in seeds:
        outcome = play_one(seed)
        if outcome.failure:
            return outcome
    return None


def _story(world: World, failure: str, trace: str) -> str:
    named = [job_id for job_id in dict.fromkeys(JOB_ID.findall(failure)) if job_id in world.promises.lives]
    jobs = "\n".join(f"job {job_id}\n{world.promises.tell(job_id)}" for job_id in named[:5])
    text = f"{world.story()}\n\n{jobs}\n\n{trace}"
    return text[-STORY_CHARS_MAX:]
