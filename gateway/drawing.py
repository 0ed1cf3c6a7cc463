"""From jobs to pictures through the link: all admitted or none, and whoever hangs up frees the GPUs."""

import asyncio
from collections.abc import Sequence

from common.errors import GenServeError
from common.messages import JobSpec
from gateway.dialects.picture import Drawn
from gateway.link import RouterLink
from gateway.submission import Submission


async def draw(link: RouterLink, specs: Sequence[JobSpec], *, wait_s: float) -> list[Drawn]:
    """The pictures of `specs`, in their order.

    The first refusal or failure is raised, and the other jobs are cancelled; so are all of them when this
    coroutine is cancelled, or when `wait_s` have passed (deadline_exceeded).
    """
    submissions: list[Submission] = []
    try:
        for spec in specs:
            submissions.append(link.submit(spec))  # noqa: PERF401  # those before a failing one are to be released
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.gather(*(submission.ended for submission in submissions))
        except TimeoutError:
            raise GenServeError(
                "deadline_exceeded", f"no picture within the {wait_s:g} s that a request may wait"
            ) from None
    finally:
        for submission in submissions:
            link.release(submission)
