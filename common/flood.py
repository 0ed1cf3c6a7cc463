"""Lines that a storm would repeat: the first of each kind at once, then one a second that says how many it stands for.

Pure. It is asked for each line, and from time to time for those it has held back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INTERVAL_S = 1.0
# By event: the fields whose values tell one kind from another; they take a handful of values each.
REPEATED: Mapping[str, Sequence[str]] = {
    "job.rejected": ("code",),
    "model.unknown": (),
    "worker.refused": ("code",),
    "worker.error": ("code",),
    "client.error": ("code",),
    "client.unreachable": ("lost", "why"),
    "router.malformed": (),
    "router.refused": ("code",),
    "http.request": ("status", "code"),
    "http.connections_full": (),
    "http.malformed": ("status",),
}
KINDS_MAX = 256  # that are told from each other; a peer may make up codes


@dataclass(slots=True)
class _Kind:
    level: str
    event: str
    written_now: float
    held: int = 0
    fields: Mapping[str, Any] | None = None  # of the newest that was held back


class Flood:
    """What was written when, of lines that may come by the thousand."""

    def __init__(self, repeated: Mapping[str, Sequence[str]] = REPEATED) -> None:
        self._repeated = repeated
        self._kinds: dict[tuple[str, ...], _Kind] = {}

    @property
    def holds(self) -> bool:
        """Is anything held back?"""
        return any(kind.held for kind in self._kinds.values())

    def passes(self, level: str, event: str, fields: Mapping[str, Any], now: float) -> bool:
        """Is this line to be written now? Else `due` tells of it."""
        by = self._repeated.get(event)
        if by is None:
            return True
        name = (level, event, *(str(fields.get(key, "")) for key in by))
        if name not in self._kinds and len(self._kinds) >= KINDS_MAX:
            name = (level, event, "…")
        kind = self._kinds.get(name)
        if kind is None or (not kind.held and now - kind.written_now >= INTERVAL_S):
            self._kinds[name] = _Kind(level, event, now)
            return True
        kind.held += 1
        kind.fields = fields
        return False

    def due(self, now: float) -> list[tuple[str, str, dict[str, Any]]]:
        """(level, event, fields) of those held back for an interval: the newest, with `count`. inf: all of them."""
        lines = []
        for name, kind in list(self._kinds.items()):
            if now - kind.written_now < INTERVAL_S:
                continue
            if kind.held:
                lines.append((kind.level, kind.event, {**(kind.fields or {}), "count": kind.held}))
                kind.held, kind.fields, kind.written_now = 0, None, now
            else:
                del self._kinds[name]
        return lines
