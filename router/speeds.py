"""What is known of how fast a GPU draws: learned from what it reports, never configured.

Pure. A speed belongs to (model, drawn pixels). A job with a second pass for its negative prompt takes twice
as long a step, so that steps are learned and told per pass.
"""

from dataclasses import dataclass

from common.messages import JobOrder, Timings

NEWEST_WEIGHT = 0.3
SPEEDS_PER_WORKER_MAX = 64
JOBS_TO_COMPARE = 3  # drawn at one size before its speed is held against another GPU's: the first are often slow


@dataclass(slots=True)
class Speed:
    """Seconds; None where nothing is known yet."""

    pass_s: float | None = None  # one pass of one step
    head_s: float | None = None  # before the first step
    tail_s: float | None = None  # after the last step
    jobs: int = 0  # drawn


class Speeds:
    """One GPU's."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Speed] = {}
        self.last_step_s = 0.0  # as learned for the size drawn last; 0: unknown

    def learn_step(self, order: JobOrder, step_s: float) -> None:
        """A step of this job took so long."""
        speed = self._speed(order)
        speed.pass_s = _blend(speed.pass_s, step_s / _passes(order))
        self.last_step_s = speed.pass_s * _passes(order)

    def learn_whole(self, order: JobOrder, timings: Timings) -> None:
        """The whole job took so long."""
        speed = self._speed(order)
        speed.jobs += 1
        speed.head_s = _blend(speed.head_s, timings.encode_s)
        speed.tail_s = _blend(speed.tail_s, timings.decode_s + timings.save_s)
        if speed.pass_s is None and timings.denoise_s > 0:
            self.learn_step(order, timings.denoise_s / order.steps)

    def job_s(self, order: JobOrder) -> float | None:
        """How long the whole job will take here; None where unknown."""
        speed = self._known.get(_key(order))
        if speed is None or speed.pass_s is None:
            return None
        return (speed.head_s or 0.0) + order.steps * speed.pass_s * _passes(order) + (speed.tail_s or 0.0)

    def compared_s(self, order: JobOrder) -> float | None:
        """`job_s`, where it rests on enough jobs to choose a GPU by."""
        speed = self._known.get(_key(order))
        return self.job_s(order) if speed is not None and speed.jobs >= JOBS_TO_COMPARE else None

    def remaining_s(self, order: JobOrder, step: int, since_s: float) -> float | None:
        """How long a running job still takes, `since_s` seconds after its step number `step` was done."""
        speed = self._known.get(_key(order))
        if speed is None or speed.pass_s is None:
            return None
        step_s, tail_s = speed.pass_s * _passes(order), speed.tail_s or 0.0
        left = order.steps - step
        if left <= 0:
            return max(0.0, tail_s - since_s)
        present_s = step_s + ((speed.head_s or 0.0) if step == 0 else 0.0)
        return max(0.0, present_s - since_s) + (left - 1) * step_s + tail_s

    def _speed(self, order: JobOrder) -> Speed:
        key = _key(order)
        speed = self._known.pop(key, None) or Speed()
        self._known[key] = speed  # the one used last stands last
        if len(self._known) > SPEEDS_PER_WORKER_MAX:
            self._known.pop(next(iter(self._known)))
        return speed


def _key(order: JobOrder) -> tuple[str, int]:
    return (order.model, order.drawn_width * order.drawn_height)


def _passes(order: JobOrder) -> int:
    return 2 if order.true_cfg_scale > 1 else 1


def _blend(known: float | None, newest: float) -> float:
    return newest if known is None else known + NEWEST_WEIGHT * (newest - known)
