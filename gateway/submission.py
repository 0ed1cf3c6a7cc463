"""One job on its way through the link, and how it may end. Knows futures; knows no socket and no HTTP."""

import asyncio
from typing import TypeVar

from common.errors import ERRORS, GenServeError
from common.messages import Cancelled, ErrorInfo, Failed, JobSpec, Rejected
from gateway.dialects.errors import JobError
from gateway.dialects.picture import Drawn

Outcome = TypeVar("Outcome")


class Submission:
    """One job on its way. `ended` gets its picture, or the GenServeError that it ended with."""

    __slots__ = ("ended", "job_id", "key", "resubmits", "rid", "spec", "unanswered")

    def __init__(self, rid: str, spec: JobSpec, ended: asyncio.Future[Drawn], unanswered: asyncio.TimerHandle) -> None:
        self.rid = rid
        self.spec = spec
        self.ended = ended
        self.unanswered = unanswered  # fails it where the router says neither yes nor no
        self.job_id = ""  # of the router's, while it has accepted it
        self.key = ""  # of its resubmissions, once the router has lost it
        self.resubmits = 0


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
