"""What is known of how fast a GPU draws: learned from what it reports, never configured.

Pure. A speed belongs to (model, drawn pixels). A job with a second pass for its negative prompt takes twice
as long a step, so that steps are learned and told per pass. A size that was never drawn is guessed from the
nearest one of its model, by pixels; a guess serves outlooks, shares and the choice of a GPU, and refuses nothing.
"""

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

from common.messages import JobOrder, Timings

NEWEST_WEIGHT = 0.3
SPEEDS_PER_WORKER_MAX = 64
JOBS_TO_COMPARE = 3  # drawn before a GPU's speed is held against another's: the first are often slow
UNKNOWN_PASS_S_PER_MPIXEL = 0.2  # what a model counts of which nothing is known


class Trust(IntEnum):
    """How well a speed is known."""

    GUESSED = 0  # from another size, or from other GPUs
    LEARNED = 1  # from this size, on this GPU
    COMPARED = 2  # from enough jobs of it


@dataclass(slots=True)
class Speed:
    """Seconds; None where nothing is known yet."""

    pass_s: float | None = None  # one pass of one step
    head_s: float | None = None  # before the first step
    tail_s: float | None = None  # after the last step
    jobs: int = 0  # drawn

    def job_s(self, order: JobOrder) -> float | None:
        """How long the whole job takes; None where unknown."""
        if self.pass_s is None:
            return None
        return (self.head_s or 0.0) + order.drawn_steps * self.pass_s * _passes(order) + (self.tail_s or 0.0)

    def remaining_s(self, order: JobOrder, step: int, since_s: float) -> float | None:
        """How long a running job still takes, `since_s` seconds after its step number `step` was done."""
        if self.pass_s is None:
            return None
        step_s, tail_s = self.pass_s * _passes(order), self.tail_s or 0.0
        left = order.drawn_steps - step
        if left <= 0:
            return max(0.0, tail_s - since_s)
        return max(0.0, self._present_s(order, step) - since_s) + (left - 1) * step_s + tail_s

    def late(self, order: JobOrder, step: int, since_s: float) -> bool:
        """Has what comes after step number `step` taken far longer than it should?"""
        return self.pass_s is not None and since_s > 2 * self._present_s(order, step) + 1.0

    def _present_s(self, order: JobOrder, step: int) -> float:
        if step >= order.drawn_steps:
            return self.tail_s or 0.0
        return (self.pass_s or 0.0) * _passes(order) + ((self.head_s or 0.0) if step == 0 else 0.0)


class Speeds:
    """One GPU's, or those of all together."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Speed] = {}
        self._drawn: Counter[str] = Counter()  # jobs by model
        self.last_step_s = 0.0  # as learned for the size drawn last; 0: unknown

    # --- learning ------------------------------------------------------------------------------

    def learn_step(self, order: JobOrder, step_s: float) -> None:
        """A step of this job took so long."""
        speed = self._speed(order)
        speed.pass_s = _blend(speed.pass_s, step_s / _passes(order))
        self.last_step_s = speed.pass_s * _passes(order)

    def learn_whole(self, order: JobOrder, timings: Timings) -> None:
        """The whole job took so long."""
        speed = self._speed(order)
        speed.jobs += 1
        self._drawn[order.model] += 1
        speed.head_s = _blend(speed.head_s, timings.encode_s)
        speed.tail_s = _blend(speed.tail_s, timings.decode_s + timings.save_s)
        if speed.pass_s is None and timings.denoise_s > 0:
            self.learn_step(order, timings.denoise_s / order.drawn_steps)

    def _speed(self, order: JobOrder) -> Speed:
        key = _key(order)
        speed = self._known.pop(key, None) or Speed()
        self._known[key] = speed  # the one used last stands last
        if len(self._known) > SPEEDS_PER_WORKER_MAX:
            self._known.pop(next(iter(self._known)))
        return speed

    # --- asking --------------------------------------------------------------------------------

    def learned(self, order: JobOrder) -> Speed | None:
        """For just this model and size, as it was drawn here; None where it was not."""
        speed = self._known.get(_key(order))
        return None if speed is None or speed.pass_s is None else speed

    def guessed(self, order: JobOrder) -> Speed | None:
        """From the nearest size of its model that was drawn here, by pixels."""
        model, pixels = _key(order)
        near, known = min(
            ((max(p, pixels) / min(p, pixels), p) for (m, p), s in self._known.items() if m == model and s.pass_s),
            default=(0.0, 0),
        )
        if not near:
            return None
        speed, scale = self._known[model, known], pixels / known
        return Speed((speed.pass_s or 0.0) * scale, speed.head_s, (speed.tail_s or 0.0) * scale)

    def job_s(self, order: JobOrder) -> float | None:
        """How long the whole job will take here, as learned; None where unknown."""
        speed = self.learned(order)
        return None if speed is None else speed.job_s(order)

    def compared_s(self, order: JobOrder) -> float | None:
        """`job_s`, where it rests on enough jobs to choose a GPU by."""
        speed = self._known.get(_key(order))
        return speed.job_s(order) if speed is not None and speed.jobs >= JOBS_TO_COMPARE else None

    def likely_s(self, order: JobOrder) -> float | None:
        """The same, where enough jobs of its model were drawn here; a size drawn seldom or never may be guessed."""
        if self._drawn[order.model] < JOBS_TO_COMPARE:
            return None
        speed = self.learned(order) or self.guessed(order)
        return None if speed is None else speed.job_s(order)

    def remaining_s(self, order: JobOrder, step: int, since_s: float) -> float | None:
        """How long a running job still takes, `since_s` seconds after its step number `step` was done; as learned."""
        speed = self.learned(order)
        return None if speed is None else speed.remaining_s(order, step, since_s)

    def knows(self, model: str) -> bool:
        """Is any speed of this model known?"""
        return any(name == model and speed.pass_s is not None for (name, _), speed in self._known.items())

    def trust(self, order: JobOrder) -> Trust:
        """How far `learned` may be trusted."""
        speed = self.learned(order)
        if speed is None:
            return Trust.GUESSED
        return Trust.COMPARED if speed.jobs >= JOBS_TO_COMPARE else Trust.LEARNED

    def cost_ms(self, order: JobOrder) -> int:
        """What the job counts in its client's share, at least 1: its seconds here, if need be guessed."""
        speed = self.learned(order) or self.guessed(order)
        pixels = order.drawn_width * order.drawn_height
        unknown = Speed(UNKNOWN_PASS_S_PER_MPIXEL * pixels / 1e6)
        return max(1, round(1000 * ((speed or unknown).job_s(order) or 0.0)))


def shape(order: JobOrder) -> tuple[str, int, int, int]:
    """Jobs that agree in this take equally long on one GPU."""
    return (*_key(order), order.drawn_steps, _passes(order))


def _key(order: JobOrder) -> tuple[str, int]:
    return (order.model, order.drawn_width * order.drawn_height)


def _passes(order: JobOrder) -> int:
    return 2 if order.true_cfg_scale > 1 else 1


def _blend(known: float | None, newest: float) -> float:
    return newest if known is None else known + NEWEST_WEIGHT * (newest - known)
