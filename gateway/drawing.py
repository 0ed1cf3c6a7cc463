"""From jobs to pictures through the link: all admitted or none, and whoever hangs up frees the GPUs.

A request with a key of its own is the exception to both: its jobs stay as they are, since its repetition finds them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from common.codec import Buffer
from common.errors import GenServeError
from common.messages import Accepted, JobProgress, JobSpec
from gateway.callers import ANYBODY, Caller
from gateway.dialects.keys import RequestKey
from gateway.dialects.picture import Drawn
from gateway.link import RouterLink
from gateway.submission import Submission


@asynccontextmanager
async def drawing(
    link: RouterLink,
    specs: Sequence[JobSpec],
    *,
    wait_s: float,
    caller: Caller = ANYBODY,
    payload: Sequence[Buffer] = (),
    key: RequestKey | None = None,
    cancel_on_disconnect: bool = True,
    on_progress: Callable[[int, JobProgress, bytes], None] | None = None,
) -> AsyncIterator[list[Submission]]:
    """The jobs of a request on their way, each with the same `payload`; `on_progress` is told which of them moved.

    Inside the block its time runs: when `wait_s` have passed it ends with deadline_exceeded. Whatever ends it cancels
    the jobs that have not ended, but those of a key; with `cancel_on_disconnect`, being cancelled does so too.
    """
    caller.check_room(len(specs))
    submissions: list[Submission] = []
    cancel = key is None
    try:
        async with asyncio.timeout(wait_s):
            for index, spec in enumerate(specs):
                submission = link.submit(
                    spec,
                    payload=payload,
                    key="" if key is None else key.of_job(index),
                    digest="" if key is None else key.digest,
                    owner=caller.owner,
                    terms=caller.terms,
                    on_progress=partial(on_progress, index) if on_progress is not None else None,
                )
                submissions.append(submission)
                if key is not None and index == 0 and len(specs) > 1:
                    await submissions[0].answered  # else another body under this key would leave its further jobs
            yield submissions
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


async def draw(
    link: RouterLink,
    specs: Sequence[JobSpec],
    *,
    wait_s: float,
    caller: Caller = ANYBODY,
    payload: Sequence[Buffer] = (),
    key: RequestKey | None = None,
    cancel_on_disconnect: bool = True,
) -> list[Drawn]:
    """The pictures of `specs`, in their order. The first refusal or failure is raised, and ends the other jobs."""
    begun = drawing(
        link, specs, wait_s=wait_s, caller=caller, payload=payload, key=key, cancel_on_disconnect=cancel_on_disconnect
    )
    async with begun as submissions:
        return await asyncio.gather(*(submission.ended for submission in submissions))


async def accept(
    link: RouterLink,
    spec: JobSpec,
    *,
    key: RequestKey | None,
    caller: Caller = ANYBODY,
    payload: Sequence[Buffer] = (),
) -> Accepted:
    """Submit one job, to be asked after later: the router's word. Never cancels it. `payload`: its inputs' frames."""
    name, digest = (key.of_job(0), key.digest) if key else ("", "")
    submission = link.submit(spec, payload=payload, key=name, digest=digest, owner=caller.owner, terms=caller.terms)
    try:
        return await submission.answered
    finally:
        link.release(submission, cancel=False)
