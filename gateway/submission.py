"""One job on its way through the link, and how it may end. Knows futures; knows no socket and no HTTP."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

from common.codec import Buffer
from common.errors import ERRORS, GenServeError
from common.messages import Accepted, Cancelled, ErrorInfo, Failed, JobProgress, Rejected, Submit
from gateway.dialects.errors import JobError
from gateway.dialects.picture import Drawn

ENDED = frozenset({"done", "failed", "cancelled"})  # as a JobView names states

TRACEPARENT: ContextVar[str] = ContextVar("traceparent", default="")  # of the span that a job submitted now is part of

Outcome = TypeVar("Outcome")
OnProgress: TypeAlias = Callable[[JobProgress, bytes], None]  # and the bytes of its preview, if it has one


class Submission:
    """One job on its way: `answered` gets the router's ACCEPTED, `ended` the picture, or either the error instead."""

    __slots__ = (
        "answered", "asked_now", "ended", "ended_before", "job_id", "message", "on_progress", "payload", "refused",
        "released", "resubmits", "rid", "unanswered",
    )  # fmt: skip

    def __init__(
        self,
        message: Submit,
        loop: asyncio.AbstractEventLoop,
        on_progress: OnProgress | None = None,
        payload: Sequence[Buffer] = (),
    ) -> None:
        self.rid = message.rid
        self.on_progress = on_progress
        self.payload = payload
        self.message = message  # sent again, as it is, until it is answered: its key makes it one job
        self.answered: asyncio.Future[Accepted] = loop.create_future()
        self.ended: asyncio.Future[Drawn] = loop.create_future()
        self.unanswered: asyncio.TimerHandle | None = None  # fails it where the router says neither yes nor no
        self.asked_now = 0.0  # monotonic seconds: when it was last sent
        self.refused: GenServeError | None = None  # by a router that is stopping; the next one may take it
        self.job_id = ""  # of the router's, while it has accepted it
        self.ended_before = False  # its key was known, and the job of then had ended
        self.resubmits = 0  # since the router lost it
        self.released = False  # nobody waits for it any more

    def settle(self, outcome: Drawn | GenServeError) -> None:
        """It has ended, one way or the other."""
        if isinstance(outcome, GenServeError):
            settle(self.answered, outcome)
        settle(self.ended, outcome)

    def release(self) -> None:
        """Nobody waits for it any more."""
        self.released = True
        for future in (self.answered, self.ended):
            if not future.cancel() and not future.cancelled():
                future.exception()  # seen: whoever waited was told another failure first

    def stop_clock(self) -> None:
        """It is answered, or forgotten."""
        if self.unanswered is not None:
            self.unanswered.cancel()


def settle(future: asyncio.Future[Outcome], outcome: Outcome | GenServeError) -> None:
    """Give `future` its outcome, unless it has one or nobody waits any more."""
    if future.done():
        return
    if isinstance(outcome, GenServeError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def refusal(message: Rejected) -> GenServeError:
    """The error that a submission is refused with."""
    code = message.code if message.code in ERRORS else "internal"
    return GenServeError(code, message.message, param=message.param, retry_after_s=message.retry_after_s)


def job_failure(message: Failed | Cancelled) -> JobError:
    """The error that a job without a picture ended with."""
    if isinstance(message, Failed):
        return JobError(message.job_id, message.error)
    return JobError(message.job_id, ErrorInfo(code="cancelled", message=f"the job {message.job_id} was cancelled"))
