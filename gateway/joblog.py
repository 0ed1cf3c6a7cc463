"""What is told of one job to those who follow it: numbered events, the last of them kept for who comes back.

Pure. Of the pictures on the way only the latest is kept: it stands for those before it. An event's id is the log's
own name and a number; an id of another log (another gateway's, or of before a restart) is nobody's.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.dialects import events

EVENTS_MAX = 256  # kept for who comes back
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Event:
    """One event, its data in JSON."""

    id: str
    number: int
    name: str
    data: bytes


class JobLog:
    """The events of one job, from when somebody first followed it."""

    def __init__(self, name: str) -> None:
        """`name` is told in each event's id; no other log of the job may have it."""
        self._name = name
        self._kept: deque[Event] = deque(maxlen=EVENTS_MAX)
        self._number = 0
        self._preview: Event | None = None
        self._standing: dict[str, Any] | None = None  # the latest job.state, as who comes now is told it
        self._listeners: set[Callable[[], None]] = set()
        self.ended = False  # nothing is added any more

    def add(self, event: events.Told, *, last: bool = False) -> None:
        """One more event; the `last` one ends the log."""
        self._number += 1
        kept = self._event(self._number, event)
        if event.name == events.STATE:
            self._standing = event.body
        if event.name == events.PREVIEW:
            if self._preview is not None and self._preview in self._kept:
                self._kept.remove(self._preview)
            self._preview = kept
        self._kept.append(kept)
        self.ended = self.ended or last
        self._wake()

    def end(self) -> None:
        """Nothing will be added: the gateway is stopping."""
        self.ended = True
        self._wake()

    def begin_after(self, last_event_id: str) -> int | None:
        """The number after which somebody goes on who has had `last_event_id`; None: they begin anew."""
        name, _, number = last_event_id.rpartition("-")
        known = name == self._name and number.isascii() and number.isdecimal() and len(number) < 10
        return int(number) if known and int(number) <= self._number else None

    def ended_with(self, last_event_id: str) -> bool:
        """Was this id that of the job's end?"""
        last = self._kept[-1] if self._kept else None
        return last is not None and last.name in events.ENDS and last.id == last_event_id

    def standing(self) -> tuple[int, list[Event]]:
        """For who begins now: the number to go on after, how the job stands, and the latest picture on its way."""
        if self._kept and self.ended:
            return self._number, [self._kept[-1]]
        told = [self._event(self._number, events.Told(events.STATE, self._standing))] if self._standing else []
        return self._number, told + ([self._preview] if self._preview is not None else [])

    def after(self, number: int) -> list[Event]:
        """The events after that number that are kept."""
        return [event for event in self._kept if event.number > number]

    def listen(self, wake: Callable[[], None]) -> None:
        """Have `wake` called at each event, until `leave`."""
        self._listeners.add(wake)

    def leave(self, wake: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners.discard(wake)

    @property
    def followed(self) -> bool:
        """Does anybody listen?"""
        return bool(self._listeners)

    def _event(self, number: int, told: events.Told) -> Event:
        return Event(f"{self._name}-{number}", number, told.name, _encoder.encode(told.body))

    def _wake(self) -> None:
        for wake in tuple(self._listeners):
            wake()
