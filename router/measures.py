"""What the router counts and times for /metrics: everything only rises, from its start on.

Pure. Says nothing of single jobs, models or clients, so what it holds is bounded, whoever asks for whatever.
"""

from bisect import bisect_left
from collections import Counter
from itertools import pairwise

from common.messages import Histogram, RouterMeasures, Timings

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
STAGES = ("queue", "encode", "denoise", "preview", "decode", "save", "whole")
assert all(lower < upper for lower, upper in pairwise(BOUNDS_S))


class Times:
    """A histogram of seconds."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, time_s: float) -> None:
        """It took so long once more."""
        time_s = max(0.0, time_s)  # wall clocks of others may go backwards
        self.counts[bisect_left(BOUNDS_S, time_s)] += 1
        self.sum_s += time_s


class Measures:
    """All of it. `failed` and `rejected` are counted by the codes of common/errors.py."""

    def __init__(self) -> None:
        self.started_at = 0.0  # wall seconds
        self.stages = {stage: Times() for stage in STAGES}
        self.failed: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.steps = 0

    def started(self, waited_s: float) -> None:
        """A job has begun for the first time, so long after it was accepted."""
        self.stages["queue"].add(waited_s)

    def done(self, whole_s: float, timings: Timings, steps: int) -> None:
        """A picture is kept, so long after its job was accepted."""
        self.stages["whole"].add(whole_s)
        self.stages["encode"].add(timings.encode_s)
        self.stages["denoise"].add(timings.denoise_s)
        self.stages["preview"].add(timings.preview_s)
        self.stages["decode"].add(timings.decode_s)
        self.stages["save"].add(timings.save_s)
        self.steps += steps

    def view(self, oldest_wait_s: float) -> RouterMeasures:
        """As STATUS brings it."""
        return RouterMeasures(
            started_at=self.started_at,
            bounds_s=BOUNDS_S,
            stages={
                stage: Histogram(counts=tuple(times.counts), sum_s=round(times.sum_s, 6))
                for stage, times in self.stages.items()
            },
            failed=dict(self.failed),
            rejected=dict(self.rejected),
            steps_total=self.steps,
            oldest_wait_s=round(oldest_wait_s, 3),
        )
