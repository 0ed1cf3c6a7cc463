"""All that happens in one run, in order: as a hash, to hold two runs against each other, and as a story, to be read.

Everything noted goes into the hash; the newest lines are kept for whoever looks into a failure.
"""

from collections import deque
from hashlib import blake2b
from typing import Any

STORY_LINES_MAX = 250


class Trace:
    """Notes."""

    def __init__(self) -> None:
        self.now = lambda: 0.0
        self.lines = 0
        self._hash = blake2b(digest_size=16)
        self._story: deque[tuple[float, str, bytes | str, Any]] = deque(maxlen=STORY_LINES_MAX)

    def note(self, what: str, who: bytes | str, detail: Any = "", *, told: Any = "") -> None:
        """Anything whose text is the same in every run of the seed. `told` is for the story only."""
        now = self.now()
        self.lines += 1
        self._hash.update(f"{now!r} {what} {who!r} {detail!r}\n".encode("utf-8", "surrogatepass"))
        self._story.append((now, what, who, told or detail))

    def frames(self, what: str, peer: bytes, frames: list[bytes]) -> None:
        """One message as it is on the wire."""
        now = self.now()
        self.lines += 1
        self._hash.update(f"{now!r} {what} ".encode())
        self._hash.update(peer)
        for frame in frames:
            self._hash.update(frame)
        self._story.append((now, what, peer, frames))

    def digest(self) -> str:
        """Of everything so far."""
        return self._hash.hexdigest()

    def story(self, show: "Any" = repr) -> str:
        """The newest lines, `show` making text of frames."""
        lines = []
        for now, what, who, detail in self._story:
            name = who.decode() if isinstance(who, bytes) else who
            text = show(detail) if isinstance(detail, list) else str(detail)
            lines.append(f"{now:10.4f} {what:9} {name:12} {text[:300]}")
        return "\n".join(lines)
