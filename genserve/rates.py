"""How fast the service goes just now: pictures and steps, from the differences between two looks at its counts.

Pure. STATUS counts pictures, and shows of each GPU the step that it is at; between two looks a GPU has made the steps
that its job has advanced, and those of the jobs that it ended meanwhile, taken to be as long as the one in sight.
"""

from collections import deque
from itertools import pairwise

from msgspec import Struct

from common.messages import StatusReply, WorkerView

OVER_S = 30.0  # what "just now" means
LOOKS_MAX = 1000  # kept
LATELY = 30


class Rates(Struct, frozen=True, kw_only=True):
    """Over the last `over_s`."""

    over_s: float
    pictures_per_min: float
    steps_per_s: float
    refused: int
    failed: int
    retried: int
    steps_lately: tuple[float, ...]  # steps a second between two looks, oldest first, at most LATELY of them


class _Look(Struct, frozen=True, kw_only=True):
    now: float
    done: int
    refused: int
    failed: int
    retried: int
    steps: int  # made since the first look


class Meter:
    """Fed with every STATUS; forgets everything when the router has begun anew."""

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque(maxlen=LOOKS_MAX)
        self._last: StatusReply | None = None

    def look(self, reply: StatusReply, now: float) -> Rates | None:
        """The rates at `now` (monotonic); None until there are two looks to compare."""
        if self._last is not None and reply.stats.uptime_s < self._last.stats.uptime_s:
            self._looks.clear()
            self._last = None
        before = {worker.worker_id: worker for worker in self._last.workers} if self._last else {}
        made = sum(steps_between(before[w.worker_id], w) for w in reply.workers if w.worker_id in before)
        stats, sofar = reply.stats, self._looks[-1].steps if self._looks else 0
        self._looks.append(
            _Look(
                now=now,
                done=stats.done_total,
                refused=stats.rejected_total,
                failed=stats.failed_total,
                retried=stats.retried_total,
                steps=sofar + made,
            )
        )
        while len(self._looks) > 2 and self._looks[1].now <= now - OVER_S:
            self._looks.popleft()
        self._last = reply
        first, last = self._looks[0], self._looks[-1]
        over_s = last.now - first.now
        if over_s <= 0:
            return None
        return Rates(
            over_s=over_s,
            pictures_per_min=(last.done - first.done) * 60 / over_s,
            steps_per_s=(last.steps - first.steps) / over_s,
            refused=last.refused - first.refused,
            failed=last.failed - first.failed,
            retried=last.retried - first.retried,
            steps_lately=tuple(
                (b.steps - a.steps) / (b.now - a.now) for a, b in pairwise(self._looks) if b.now > a.now
            )[-LATELY:],
        )


def steps_between(before: WorkerView, after: WorkerView) -> int:
    """How many steps a GPU has made from one look to the next, as well as can be told."""
    if before.busy and after.busy and before.job_id == after.job_id:
        return max(0, after.step - before.step)
    ended = max(0, after.done_total - before.done_total)
    made = after.step if after.busy else 0
    if before.busy and ended:
        made += before.steps - before.step
        ended -= 1
    return made + ended * (after.steps or before.steps)
