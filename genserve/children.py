"""The processes of `genserve up`: started, read, restarted when they die, stopped in order.

Each child is the leader of its own session, so that Ctrl-C on the terminal reaches only the parent, which
then stops the children in the right order; the kernel tells them should the parent be killed (--parent-pid).
Knows processes and pipes; not what the parts are for.
"""

import os
import selectors
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.clock import monotonic_s
from common.process import EXIT_CONFIG
from genserve.parts import Part, command_line

RESTART_FIRST_S = 0.5
RESTART_MAX_S = 30.0
STEADY_AFTER_S = 60.0  # a child that lived this long starts again with the first delay
STOP_MARGIN_S = 5.0  # beyond its own drain time, before it is killed
STOP_AT_ONCE_S = 2.0  # for the last clearing up after a second Ctrl-C
POLL_S = 0.1
TAIL_LINES = 20
READ_BYTES = 65536


@dataclass(frozen=True)
class Exit:
    """How a child ended, and when it starts again; None: never."""

    name: str
    status: int  # as subprocess gives it: negative is a signal
    restart_in_s: float | None
    tail: tuple[str, ...]  # its last lines
    unseen: tuple[str, ...]  # those of them that were not shown

    @property
    def reason(self) -> tuple[str, ...]:
        """Why it cannot start, as it said last; see common.process.exit_config."""
        at = max((at for at, line in enumerate(self.tail) if line.startswith("genserve: ")), default=0)
        return self.tail[at:]

    def __str__(self) -> str:
        if self.status < 0:
            return f"was ended by {signal.Signals(-self.status).name}"
        return f"ended with status {self.status}"


class Child:
    """One part's process and its next life."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.process: subprocess.Popen[bytes] | None = None
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.unseen: deque[str] = deque(maxlen=TAIL_LINES)
        self._started_at = 0.0
        self._restart_at: float | None = 0.0
        self._delay_s = RESTART_FIRST_S

    @property
    def alive(self) -> bool:
        """Is there a process, and has it not ended?"""
        return self.process is not None and self.process.poll() is None

    def start_if_due(self, now: float, *, all_piped: bool) -> bool:
        """Start the process where its time has come; was it started? Only its stderr is piped, or all it says."""
        if self.process is not None or self._restart_at is None or now < self._restart_at:
            return False
        self.process = subprocess.Popen(  # noqa: S603  # our own interpreter with our own arguments
            command_line(self.part, os.getpid()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if all_piped else None,
            stderr=subprocess.STDOUT if all_piped else subprocess.PIPE,
            start_new_session=True,
        )
        self._started_at = now
        return True

    def reap(self, now: float) -> Exit | None:
        """How the process ended, once after its end. One that a person must mend is not restarted."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        self.process = None
        if now - self._started_at >= STEADY_AFTER_S:
            self._delay_s = RESTART_FIRST_S
        delay_s = None if status == EXIT_CONFIG else self._delay_s
        self._restart_at = None if delay_s is None else now + delay_s
        self._delay_s = min(self._delay_s * 2, RESTART_MAX_S)
        return Exit(self.part.name, status, delay_s, tuple(self.tail), tuple(self.unseen))

    def signal(self, signal_: signal.Signals) -> None:
        """Signal the process if it still lives."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal_)


class Children:
    """All parts together. `on_line` gets each line that they write to stderr.

    `held`: it gets what they write to stdout as well, but nothing before `release_lines`.
    """

    def __init__(self, parts: Sequence[Part], *, held: bool, on_line: Callable[[str], None]) -> None:
        self._children = [Child(part) for part in parts]
        self._all_piped = held
        self._on_line = on_line
        self._held = held
        self._selector = selectors.DefaultSelector()
        self._partial: dict[int, bytes] = {}

    def release_lines(self) -> None:
        """Show lines from here on; before, only the last ones of a child that dies are told."""
        self._held = False
        for child in self._children:
            child.unseen.clear()

    def tend(self) -> list[Exit]:
        """Start what is due, pass lines on for a moment, tell who ended."""
        now = monotonic_s()
        for child in self._children:
            if child.start_if_due(now, all_piped=self._all_piped):
                self._follow(child)
        self._read(POLL_S)
        if not all(child.alive for child in self._children):
            self._read(0)  # the last words of one that has just ended
        return [exit_ for child in self._children if (exit_ := child.reap(monotonic_s()))]

    def stop(self, names: Sequence[str], *, at_once: Callable[[], bool]) -> list[str]:
        """Let these drain side by side; those that had to be killed. Returns early when `at_once()`."""
        children = [child for child in self._children if child.part.name in names]
        deadline = monotonic_s() + max((c.part.stop_s for c in children), default=0.0) + STOP_MARGIN_S
        for child in children:
            child.signal(signal.SIGTERM)
        while any(child.alive for child in children):
            if at_once():
                return []
            if monotonic_s() > deadline:
                return self._kill(children)
            self._read(POLL_S)
        return []

    def stop_at_once(self) -> None:
        """No more draining: a moment to clear up, then the end."""
        deadline = monotonic_s() + STOP_AT_ONCE_S
        while any(child.alive for child in self._children) and monotonic_s() < deadline:
            for child in self._children:
                child.signal(signal.SIGTERM)  # again and again: a part's second signal means at once
            self._read(POLL_S)
        self._kill(self._children)

    def close(self) -> None:
        """Pass on the last words and let go of the pipes."""
        self._read(0)
        for key in list(self._selector.get_map().values()):
            self._forget(key.fileobj)
        self._selector.close()

    def _kill(self, children: Sequence[Child]) -> list[str]:
        killed = [child for child in children if child.alive]
        for child in killed:
            assert child.process is not None
            os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
        return [child.part.name for child in killed]

    def _follow(self, child: Child) -> None:
        child.tail.clear()
        child.unseen.clear()
        assert child.process is not None
        pipe = child.process.stdout or child.process.stderr
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        self._selector.register(pipe, selectors.EVENT_READ, child)

    def _read(self, timeout_s: float) -> None:
        """Pass on what the pipes hold; sleeps where there are none."""
        for key, _ in self._selector.select(timeout_s):
            data = os.read(key.fd, READ_BYTES)
            if not data:
                self._forget(key.fileobj)
                continue
            *lines, rest = (self._partial.get(key.fd, b"") + data).split(b"\n")
            self._partial[key.fd] = rest[-READ_BYTES:]
            for line in lines:
                text = line.decode("utf-8", "replace")
                key.data.tail.append(text)
                if self._held:
                    key.data.unseen.append(text)
                else:
                    self._on_line(text)

    def _forget(self, pipe: object) -> None:
        assert hasattr(pipe, "fileno")
        assert hasattr(pipe, "close")
        self._partial.pop(pipe.fileno(), None)
        self._selector.unregister(pipe)
        pipe.close()
