"""What a load needs of a way into the service, whichever it is.

Pure: the two doors, HTTP and raw ZeroMQ, keep this contract; the load knows nothing else of them.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from common.errors import ERRORS
from common.messages import StatusReply
from genserve.burst.record import Job, Order


class Sighting:
    """What a client sees of its job before the end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.job_id = ""  # '': not told
        self.first_step_now: float | None = None  # by the clock

    def stepped(self) -> None:
        """The job has made a step."""
        if self.first_step_now is None:
            self.first_step_now = self._clock()


class Drawn(Struct, frozen=True, kw_only=True):
    """A picture came."""

    bytes: int
    job: Job | None  # where the door tells it with the picture


class Trouble(Exception):  # noqa: N818  # a refusal is no error of this program
    """No picture came. `code` is of common/errors.py, or `connection` or `timeout`, which only a client sees."""

    def __init__(self, code: str, message: str, *, retry_after_s: float | None = None, ended: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.ended = ended  # the job had been accepted, and ended so

    @property
    def may_be_sent_again(self) -> bool:
        """Was there merely no room, or nobody who answered? A job that has failed is not asked for again."""
        return not self.ended and self.code in ("queue_full", "storage_full", "unavailable", "connection")

    @property
    def what_to_do(self) -> str:
        """The next step that the taxonomy of errors names."""
        return ERRORS[self.code].next_step if self.code in ERRORS else ""


class Door(Protocol):
    """One way in. Used on one event loop, between `open` and `close`."""

    name: str  # http | zmq
    address: str

    async def open(self) -> None:
        """Get ready; nobody need answer yet."""

    async def close(self) -> None:
        """Let go; whatever is still under way is cancelled."""

    async def status(self) -> StatusReply:
        """How the service stands. Raises Trouble."""

    async def draw(self, order: Order, sighting: Sighting) -> Drawn:
        """One picture. Raises Trouble. Cancelled, it gives the job up as a client of this door would."""

    async def job(self, job_id: str) -> Job | None:
        """What became of a job; None where the service does not know. Raises Trouble."""
