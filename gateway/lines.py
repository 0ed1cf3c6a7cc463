"""The gateway's log lines that a storm would repeat by the thousand, held together; used on one event loop."""

import asyncio
from typing import Any

from common import log
from common.clock import monotonic_s
from common.flood import INTERVAL_S, Flood


class Lines:
    """Writes lines, of many that are alike one a second."""

    def __init__(self) -> None:
        self._log = log.get_logger()
        self._flood = Flood()
        self._flush: asyncio.TimerHandle | None = None

    def write(self, level: str, event: str, **fields: Any) -> None:
        """One line, at once or counted in one that follows within a second."""
        if self._flood.passes(level, event, fields, monotonic_s()):
            log.write(self._log, level, event, fields)
        elif self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(INTERVAL_S, self._on_time)

    def close(self) -> None:
        """Write what is held back."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._write_due(float("inf"))

    def _on_time(self) -> None:
        self._flush = None
        self._write_due(monotonic_s())
        if self._flood.holds:
            self._flush = asyncio.get_running_loop().call_later(INTERVAL_S, self._on_time)

    def _write_due(self, now: float) -> None:
        for level, event, fields in self._flood.due(now):
            log.write(self._log, level, event, fields)
