"""What a process says of itself: how it stands, in words, and whether it is well.

Pure: time is an argument. Being well is a list of named checks, each of which answers what is wrong. The watchdog of
systemd is fed only while none of them complains; a loop that does not turn any more never gets to ask them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

FEEDS_PER_TIMEOUT = 3  # so that one that is late or lost kills nobody

Check: TypeAlias = Callable[[float], str]  # now (monotonic seconds) -> what is wrong, '' where nothing is


@dataclass(frozen=True, slots=True)
class Standing:
    """How a process stands."""

    text: str  # to a person, on one line: '2 GPUs ready, 3 jobs running, 5 waiting'
    usable: bool = True  # it can do what it is there for
    stopping: bool = False
    needs_s: float = 0.0  # what its start, as long as it is at work on it, or its stop may still take


class Pulse:
    """A check on what must happen again and again: content for `limit_s` after each beat."""

    def __init__(self, what: str, limit_s: float, now: float) -> None:
        """`what` has not happened when it complains, e.g. 'no tick was handled'."""
        self._what = what
        self._limit_s = limit_s
        self._beat_now = now

    def beat(self, now: float) -> None:
        """It has happened."""
        self._beat_now = now

    def __call__(self, now: float) -> str:
        """What is wrong, '' where nothing is."""
        silence_s = now - self._beat_now
        return f"{self._what} for {silence_s:.0f} s" if silence_s > self._limit_s else ""


class Watchdog:
    """When to feed systemd's watchdog, and why not to."""

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s` is systemd's: who is not fed for so long is killed. 0: it does not watch."""
        self._checks: dict[str, Check] = {}
        self._interval_s = timeout_s / FEEDS_PER_TIMEOUT
        self._due_now = float("-inf")

    def watch(self, checks: Mapping[str, Check]) -> None:
        """From now on these must be content as well."""
        self._checks |= checks

    def look(self, now: float) -> str | None:
        """'' where it is to be fed now, the complaint where it must not be, None where it is not due."""
        if not self._interval_s or now < self._due_now:
            return None
        complaint = self.complaint(now)
        if not complaint:
            self._due_now = now + self._interval_s
        return complaint

    def complaint(self, now: float) -> str:
        """Of the first check that has one: 'journal: the last commit has not succeeded'."""
        for name, check in self._checks.items():
            wrong = check(now)
            if wrong:
                return f"{name}: {wrong}"
        return ""
