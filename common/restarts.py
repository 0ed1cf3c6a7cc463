"""Backoff for a service that ends again and again: before it does anything, the next one waits a little longer.

Systemd 252 waits the same time before every restart (RestartSteps= is newer), so the process does it itself. What it
must know of those before it stands in a file in the folder that systemd keeps for the unit over its restarts and
removes when the unit is stopped: $RUNTIME_DIRECTORY, RuntimeDirectoryPreserve=restart. Elsewhere nothing happens.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from common.clock import monotonic_s
from common.log import get_logger
from common.notify import Systemd

FIRST_S = 1.0  # before the second restart in a row; doubles. The first one waits for nothing
MAX_S = 30.0
STEADY_S = 60.0  # who lived so long has no failures in a row behind it
COUNTED_MAX = 16  # by then the wait has reached its bound
FILE_NAME = "starts"
_TEXT_CHARS_MAX = 100


def wait_s(failures: int) -> float:
    """How long to wait after that many ends in a row."""
    return min(FIRST_S * 2.0 ** (failures - 2), MAX_S) if failures > 1 else 0.0


class Restarts:
    """The starts of one unit that were not followed by an end in order."""

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        folder = env.get("RUNTIME_DIRECTORY", "")  # one folder a unit: a colon in it is its instance's, as in cpu:1
        self._file = Path(folder) / FILE_NAME if folder else None

    def hold_back(self, systemd: Systemd) -> None:
        """Wait as long as the ends before demand, and say so; from here on this is a start that has not ended well."""
        if self._file is None:
            return
        failures = self._failures(monotonic_s())
        self._write(failures)
        pause_s = wait_s(failures)
        if pause_s:
            get_logger().warning("process.held_back", ends_in_a_row=failures, wait_s=pause_s)
            systemd.tell(STATUS=f"ended {failures} times in a row; it starts again in {pause_s:.0f} s, see its journal")
            time.sleep(pause_s)
            self._write(failures)  # what counts as its life begins now

    def ended_well(self) -> None:
        """This process ends because it was asked to."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _failures(self, now: float) -> int:
        """How many there were in a row before this start."""
        assert self._file is not None
        try:
            before, began = self._file.read_text("ascii")[:_TEXT_CHARS_MAX].split()
            lived_s = now - float(began)
            failures = int(before)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError):  # cut off while it was written: at least one
            return 1
        return 1 if not 0 <= lived_s < STEADY_S else min(failures + 1, COUNTED_MAX)

    def _write(self, failures: int) -> None:
        assert self._file is not None
        try:
            self._file.write_text(f"{failures} {monotonic_s():.3f}\n", "ascii")
        except OSError as error:  # the service matters more than its backoff
            get_logger().warning("process.starts_uncounted", path=str(self._file), cause=error.strerror)
