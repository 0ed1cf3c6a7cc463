"""How far training is: a wall-clock budget that stretches or cuts a stage, and the log that stays of a run."""

import csv
import sys
import time
from pathlib import Path


class Budget:
    """So many seconds from now; none means as many as it takes."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds, self._start = seconds, time.monotonic()

    def share_used(self) -> float:
        """0 at the start, 1 when it is spent; 0 for ever where there is no bound."""
        return 0.0 if self._seconds is None else (time.monotonic() - self._start) / self._seconds

    def left_s(self) -> float:
        """Seconds left; infinite where there is no bound."""
        return float("inf") if self._seconds is None else self._seconds - (time.monotonic() - self._start)


class Log:
    """Lines of a CSV file (elapsed_s, stage, step, loss, rate), shown as they are written; a resumed run appends."""

    FIELDS = ("elapsed_s", "stage", "step", "loss", "rate")

    def __init__(self, path: Path, *, new: bool = True) -> None:
        self._path, self._start = path, time.monotonic()
        if new and not path.exists():
            self._append(self.FIELDS)

    def write(self, *, stage: str, step: int, loss: float, rate: float) -> None:
        """One line."""
        row = (f"{time.monotonic() - self._start:.1f}", stage, str(step), f"{loss:.5f}", f"{rate:.2e}")
        self._append(row)
        sys.stderr.write(" ".join(row) + "\n")

    def _append(self, row: tuple[str, ...]) -> None:
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)
