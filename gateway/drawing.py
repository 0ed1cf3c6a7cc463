"""From jobs to pictures through the link: all admitted or none, and whoever hangs up frees the GPUs.

A request with a key of its own is the exception to both: its jobs stay as they are, since its repetition finds them.
"""

import asyncio
from collections.abc import Sequence

from common.errors import GenServeError
from common.messages import Accepted, JobSpec
from gateway.dialects.keys import RequestKey
from gateway.dialects.picture import Drawn
from gateway.link import RouterLink
from gateway.submission import Submission


async def draw(
    link: RouterLink,
    specs: Sequence[JobSpec],
    *,
    wait_s: float,
    key: RequestKey | None = None,
    cancel_on_disconnect: bool = True,
) -> list[Drawn]:
    """The pictures of `specs`, in their order.

    The first refusal or failure is raised, and the other jobs are cancelled; so are all of them when `wait_s` have
    passed (deadline_exceeded) or, with `cancel_on_disconnect`, when this coroutine is cancelled.
    """
    submissions: list[Submission] = []
    cancel = key is None
    try:
        async with asyncio.timeout(wait_s):
            for index, spec in enumerate(specs):
                if key is None:
                    submissions.append(link.submit(spec))
                    continue
                submissions.append(link.submit(spec, key=key.of_job(index), digest=key.digest))
                if index == 0 and len(specs) > 1:
                    await submissions[0].answered  # else another body under this key would leave its further jobs
            return await asyncio.gather(*(submission.ended for submission in submissions))
    except TimeoutError:
        raise GenServeError(
            "deadline_exceeded", f"no picture within the {wait_s:g} s that a request may wait"
        ) from None
    except asyncio.CancelledError:
        cancel = cancel and cancel_on_disconnect
        raise
    finally:
        for submission in submissions:
            link.release(submission, cancel=cancel)


async def accept(link: RouterLink, spec: JobSpec, *, key: RequestKey | None) -> Accepted:
    """Submit one job, to be asked after later: the router's word. Never cancels it."""
    submission = link.submit(spec, key=key.of_job(0) if key else "", digest=key.digest if key else "")
    try:
        return await submission.answered
    finally:
        link.release(submission, cancel=False)
