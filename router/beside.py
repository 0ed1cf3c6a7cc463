"""Work done by a few threads beside the loop; a descriptor polls readable when some of it is done.

It knows nothing of what the work is. Called by the loop's thread only. What a piece of work raises is raised
to whoever asks for what is done.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

WAKE_BYTES_MAX = 4096  # read at once

R = TypeVar("R")


class Beside(Generic[R]):
    """Threads that do what is put to them, each piece by one of them, in no order between them."""

    def __init__(self, *, threads: int, name: str) -> None:
        self._work: SimpleQueue[Callable[[], R] | None] = SimpleQueue()
        self._finished: SimpleQueue[R | Exception] = SimpleQueue()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._owed_bytes = 0  # by the threads: one for each piece of work, written after it is done
        self._threads = [Thread(target=self._do_all, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def put(self, work: Callable[[], R]) -> None:
        """Have this done. How much may wait is the caller's to bound."""
        self._owed_bytes += 1
        self._work.put(work)

    def done(self) -> list[R]:
        """The results that have come since the last call. Raises what a piece of work has raised."""
        found: list[R] = []
        if self._owed_bytes:
            with suppress(BlockingIOError):
                self._owed_bytes -= len(self._wake_out.recv(WAKE_BYTES_MAX))
            with suppress(Empty):
                while True:
                    result = self._finished.get_nowait()
                    if isinstance(result, Exception):
                        raise result
                    found.append(result)
        return found

    def fileno(self) -> int:
        """Readable while something is done."""
        return self._wake_out.fileno()

    def close(self) -> None:
        """Do what has been put, then end."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._wake_in.close()
        self._wake_out.close()

    def _do_all(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                self._finished.put(work())
            except Exception as error:  # raised again by done(), in the loop's thread
                self._finished.put(error)
            self._wake_in.send(b"\x00")
