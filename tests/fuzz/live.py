"""What the fuzzing of a real process needs on either side: its memory, its log, and all that it was sent."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.fuzz.failure import FuzzError

ANSWER_WITHIN_S = 15.0  # to a PING, or to the last of a round
RSS_GROWTH_MB_MAX = 48  # after the first WARM_UP_SHARE of the frames; what it may keep is bounded by its settings
WARM_UP_SHARE = 0.3
BUGS = ("router.bug", "session.fault", "message.failed", "journal.failed")
MIB = 1024 * 1024


class Watched:
    """One process under fire, and the frames that it was sent since it was last seen to be well."""

    def __init__(self, pid: int, log_path: Path, *, again: str) -> None:
        self.process = psutil.Process(pid)
        self.log_path = log_path
        self.again = again
        self.sent: list[tuple[str, list[bytes]]] = []
        self.warm_mb = 0.0
        self.most_mb = 0.0
        self._read = 0  # bytes of the log

    def fail(self, what: str) -> FuzzError:
        """An error that says where what was sent is kept."""
        path = self.log_path.parent / "fuzz-frames.jsonl"
        lines = (json.dumps([side, [frame.hex() for frame in frames]]) for side, frames in self.sent)
        path.write_text("\n".join(lines) + "\n", "utf-8")
        side, frames = self.sent[-1] if self.sent else ("", [])
        again = f"{self.again}\n  one by one: python -m tests.fuzz --replay {path}"
        return FuzzError(what, again=again, frames=frames, side=side)

    def check_log(self, *, also: Iterable[str] = ()) -> list[dict[str, Any]]:
        """The new lines, none of which tells of a bug of ours."""
        with self.log_path.open("rb") as file:
            file.seek(self._read)
            whole = file.read()
        whole = whole[: whole.rfind(b"\n") + 1]
        self._read += len(whole)
        lines = []
        for line in whole.splitlines():
            if b"Traceback" in line or any(f'"{bug}"'.encode() in line for bug in (*BUGS, *also)):
                raise self.fail(f"its log says: {line[:3000].decode('utf-8', 'replace')}")
            if line.startswith(b"{"):
                lines.append(json.loads(line))
        return lines

    def check_memory(self, share_done: float) -> None:
        """Its resident memory stays where it was once warm."""
        now_mb = self.process.memory_info().rss / MIB
        self.most_mb = max(self.most_mb, now_mb)
        if share_done < WARM_UP_SHARE or not self.warm_mb:
            self.warm_mb = max(self.warm_mb, now_mb)
        elif now_mb > self.warm_mb + RSS_GROWTH_MB_MAX:
            raise self.fail(f"its memory grew from {self.warm_mb:.0f} to {now_mb:.0f} MiB")

    def until(self, what: str, probe: Callable[[], Any]) -> Any:
        """The first true value of `probe`, which should wait a little itself."""
        end = time.monotonic() + ANSWER_WITHIN_S
        while True:
            value = probe()
            if value:
                return value
            if not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE:
                raise self.fail("the process has ended")
            if time.monotonic() > end:
                raise self.fail(f"no {what} within {ANSWER_WITHIN_S:g} s")


def kept_frames(path: Path) -> list[tuple[str, list[bytes]]]:
    """What `Watched.fail` wrote."""
    found: Sequence[Any] = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
    return [(side, [bytes.fromhex(frame) for frame in frames]) for side, frames in found]
