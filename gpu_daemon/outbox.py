"""What a daemon has to say to the router while the connection takes it, and while it does not.

Pure: sending is a function that is handed in. Ends may never be lost and go out in order; what the next
message says better, and complaints, may be lost; a REGISTER makes everything before it void.
"""

from collections import deque
from collections.abc import Callable, Sequence

from common.codec import Buffer, encode
from common.messages import ErrorReply, Heartbeat, Message, Register, WorkerProgress

LOSSY = (Heartbeat, WorkerProgress, ErrorReply)


class Outbox:
    """Messages in order. `send` takes the frames of one, or returns False where it cannot just now."""

    def __init__(self, send: Callable[[Sequence[Buffer]], bool]) -> None:
        self._send = send
        self._waiting: deque[Sequence[Buffer]] = deque()  # bounded by the credit that the daemon gives

    def __len__(self) -> int:
        return len(self._waiting)

    def say(self, message: Message, payload: Sequence[Buffer] = ()) -> None:
        """Send it now, or once what waits before it has gone."""
        lossy = isinstance(message, LOSSY)
        if isinstance(message, Register):
            self._waiting.clear()  # ends are listed in it, and repeated after the WELCOME
        elif lossy and self._waiting:
            return
        self._waiting.append(encode(message, payload))
        if not self.flush() and lossy:
            self._waiting.pop()

    def flush(self) -> bool:
        """Send what waits, as far as it goes; is all of it sent?"""
        while self._waiting:
            if not self._send(self._waiting[0]):
                return False
            self._waiting.popleft()
        return True
