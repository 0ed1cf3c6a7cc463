"""What a fuzz run says when it has found something: what, by which frame, and how to see it again."""

from collections.abc import Sequence


class FuzzError(AssertionError):
    """Something gave way. Its text says how it is played again."""

    def __init__(self, what: str, *, again: str, frames: Sequence[bytes] = (), side: str = "") -> None:
        shown = f"\n  frames of a {side}: {show(frames)}" if frames else ""
        super().__init__(f"{what}{shown}\n  again: {again}")


def show(frames: Sequence[bytes]) -> str:
    """Frames for a person: short ones whole."""
    return "[" + ", ".join(repr(bytes(frame[:200])) + ("…" if len(frame) > 200 else "") for frame in frames[:12]) + "]"
