"""The jobs that may start at any moment: by priority, and within one priority each client its fair share.

Pure. One line a model and priority (see fair.py). What a job counts is its predicted GPU time, by what the
whole fleet has shown of its model and size; divided by its owner's weight, where it has one.
"""

from collections.abc import Iterable, Iterator, Mapping
from heapq import merge

from router.fair import Client, Line
from router.fleet import Fleet
from router.jobs import Job


class JobQueue:
    """Who waits, in which order."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._lines: dict[str, dict[int, Line]] = {}  # model -> priority -> line
        self._size = 0
        self.changes = 0  # rises with every change

    def __len__(self) -> int:
        return self._size

    def __contains__(self, job: Job) -> bool:
        line = self._line(job)
        return line is not None and line.holds(client_of(job), job.sequence)

    # --- changes -------------------------------------------------------------------------------

    def add(self, job: Job) -> None:
        """Wait: behind its client's other jobs, or, where it had been sent before, in its old place."""
        lines = self._lines.setdefault(job.order.model, {})
        line = lines.get(job.order.priority)
        if line is None:
            line = lines[job.order.priority] = Line(self._clock_beside(job))
        put = line.bring_back if job.dispatch else line.append
        put(client_of(job), job.sequence, job.job_id, self._slot_ms(job))
        self._size += 1
        self.changes += 1

    def take(self, job: Job) -> None:
        """It is sent to a GPU; its client is charged. Raises ValueError where it did not wait."""
        self._present(job).take(client_of(job), job.sequence, job.job_id)
        self._size -= 1
        self.changes += 1

    def remove(self, job: Job) -> None:
        """Wait no longer; its client is charged nothing. Raises ValueError where it did not wait."""
        self._present(job).remove(client_of(job), job.sequence, job.job_id)
        self._size -= 1
        self.changes += 1
        self._forget(job)

    def settle(self, job: Job, unused: float) -> None:
        """It has ended; its client gets the `unused` part (0 … 1) of what it was charged back."""
        line = self._line(job)
        if line is not None:
            self.changes += line.settle(job.job_id, unused)
            self._forget(job)

    def recost(self, model: str, jobs: Mapping[str, Job]) -> None:
        """A first speed of this model is known: what its jobs count was guessed until now."""
        for line in self._lines.get(model, {}).values():
            line.recost(lambda job_id: self._slot_ms(jobs[job_id]))
            self.changes += 1

    def _slot_ms(self, job: Job) -> int:
        """What it counts: twice the weight makes half the slot, so that twice as many follow each other as fast."""
        return max(1, round(self._fleet.cost_ms(job.order) / (job.weight or 1.0)))

    def _clock_beside(self, job: Job) -> int:
        """Models drawn by the same GPUs share these: a new line begins where the ones beside it stand."""
        beside = (self._lines.get(model, {}) for model in self._fleet.drawn_beside(job.order.model))
        return max((lines[job.order.priority].clock for lines in beside if job.order.priority in lines), default=0)

    def _line(self, job: Job) -> Line | None:
        lines = self._lines.get(job.order.model)
        return None if lines is None else lines.get(job.order.priority)

    def _present(self, job: Job) -> Line:
        line = self._line(job)
        if line is None:
            raise ValueError(f"job {job.job_id} is not in the queue")
        return line

    def _forget(self, job: Job) -> None:
        lines = self._lines[job.order.model]
        if lines[job.order.priority].over:
            del lines[job.order.priority]
            if not lines:
                del self._lines[job.order.model]

    # --- questions -----------------------------------------------------------------------------

    def position(self, job: Job) -> int:
        """1: the next of its model to start; 0: not in the queue."""
        if job not in self:
            return 0
        lines = self._lines[job.order.model]
        ahead = sum(line.size for priority, line in lines.items() if priority > job.order.priority)
        return ahead + lines[job.order.priority].before(client_of(job), job.sequence) + 1

    def position_when_due(self, job: Job) -> int:
        """Of a job that waits out a pause: it comes first in its line afterwards."""
        lines = self._lines.get(job.order.model, {})
        return sum(line.size for priority, line in lines.items() if priority > job.order.priority) + 1

    def positions(self) -> dict[str, int]:
        """Everyone's, at once."""
        return {job_id: at for model in self._lines for at, job_id in enumerate(self.ordered([model]), 1)}

    def ordered(self, models: Iterable[str]) -> Iterator[str]:
        """The ids of the jobs for these models, in the order in which they should start."""
        walks = [self._walk(self._lines[model]) for model in models if model in self._lines]
        return (entry[-1] for entry in (walks[0] if len(walks) == 1 else merge(*walks)))

    @staticmethod
    def _walk(lines: dict[int, Line]) -> Iterator[tuple[int, int, int, str]]:
        for priority in sorted(lines, reverse=True):
            for begin, sequence, job_id in lines[priority].walk():
                yield -priority, begin, sequence, job_id

    def waits_for(self, models: Iterable[str]) -> bool:
        """Does any job wait for one of these models?"""
        return any(line.size for model in models for line in self._lines.get(model, {}).values())

    def models(self) -> list[str]:
        """Those with jobs waiting."""
        return [model for model in self._lines if self.waits_for((model,))]

    def check(self, live: Iterable[str]) -> None:
        """Raise AssertionError where the books do not balance; `live` are the jobs that have not ended."""
        lines = [line for lines in self._lines.values() for line in lines.values()]
        assert self._size == sum(line.size for line in lines), self._size
        for line in lines:
            line.check()
            assert not line.over, "an empty line is kept"
            assert line.charged() <= set(live), "an ended job is still charged"


def client_of(job: Job) -> Client:
    """To whom it counts."""
    return share_of(job.owner, job.order.client, job.weight)


def share_of(owner: str, label: str, weight: float) -> Client:
    """To whom a job counts: to its client's label, or, where its owner has a weight, to the owner as a whole."""
    return (owner, "" if weight else label)
