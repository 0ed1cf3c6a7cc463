"""When to look at which job for its deadline: a heap, in which what has ended is found out late.

Pure. It holds each living job once or more, and a few that have ended; looking at one too early costs nothing.
"""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from router.jobs import Job

STALE_MIN = 64  # entries of ended jobs that are not worth a sweep


class Deadlines:
    """The times to look."""

    def __init__(self, live: Mapping[str, Job]) -> None:
        self._live = live
        self._heap: list[tuple[float, str]] = []

    def look(self, job: Job, at_now: float) -> None:
        """Look at this job then."""
        heappush(self._heap, (at_now, job.job_id))
        if len(self._heap) > 2 * len(self._live) + STALE_MIN:
            first: dict[str, float] = {}
            for when, job_id in self._heap:
                if job_id in self._live:
                    first[job_id] = min(when, first.get(job_id, when))
            self._heap = [(when, job_id) for job_id, when in first.items()]
            heapify(self._heap)

    def due(self, now: float) -> list[Job]:
        """The living jobs whose time to be looked at has come, each once; say when to look at them again."""
        found: dict[str, Job] = {}
        while self._heap and self._heap[0][0] <= now:
            job_id = heappop(self._heap)[1]
            job = self._live.get(job_id)
            if job is not None:
                found[job_id] = job
        return list(found.values())

    def check(self) -> None:
        """Raise AssertionError where a living job is never looked at before its deadline has passed."""
        looked: dict[str, float] = {}
        for when, job_id in self._heap:
            looked[job_id] = min(when, looked.get(job_id, when))
        for job_id in self._live:
            assert job_id in looked, f"nobody looks at {job_id}"
