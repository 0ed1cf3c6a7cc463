"""On what terms an owner draws, where its gateway says: how many jobs at one time, how many GPU seconds a minute.

Pure. What a job will take is charged when it is accepted, as predicted, and put right when it has ended. Nothing of it
is written down: after a restart every minute begins anew. Its weight is the queue's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import GenServeError
from common.messages import Terms
from router.queue import share_of

if TYPE_CHECKING:
    from router.jobs import Job
    from router.state import RouterState

NEED_S = 1.0  # of GPU time that must be left for one more job
RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S = 1.0, 120.0
RETRY_AFTER_UNKNOWN_S = 5.0  # where no end can be foretold


def check_terms(state: RouterState, owner: str, terms: Terms) -> None:
    """Raise GenServeError rate_limit_exceeded, with the limit and when to come back, where one more is too many."""
    jobs = state.room.clients[share_of(owner, "", terms.weight)]
    if terms.jobs_max and jobs >= terms.jobs_max:
        raise GenServeError(
            "rate_limit_exceeded",
            f"{jobs} of this key's jobs wait or run, and it may have {terms.jobs_max} at one time (jobs_max)",
            param="jobs_max",
            retry_after_s=_next_end_s(state, owner),
        )
    limit = terms.gpu_seconds_per_minute
    if limit and (wait_s := state.gpu_seconds.wait_s(owner, limit, NEED_S, state.now)):
        raise GenServeError(
            "rate_limit_exceeded",
            f"this key has had its {limit:g} GPU seconds a minute (gpu_seconds_per_minute); "
            f"some are left again in {wait_s:.0f} s",
            param="gpu_seconds_per_minute",
            retry_after_s=wait_s,
        )


def charge(state: RouterState, job: Job) -> None:
    """It is accepted: so much of its owner's GPU seconds is spoken for."""
    job.charged_s = state.fleet.cost_ms(job.order) / 1000
    state.gpu_seconds.spend(job.owner, job.charged_s, state.now)


def settle(state: RouterState, job: Job, unused: float) -> None:
    """It has ended: what it took counts. `unused`: the part (0 … 1) of it that was not drawn."""
    if job.charged_s:
        took_s = job.charged_s * (1 - unused) if job.timings is None else job.timings.total_s
        state.gpu_seconds.spend(job.owner, took_s - job.charged_s, state.now)


def _next_end_s(state: RouterState, owner: str) -> float:
    """Seconds until one of its jobs is likely to have ended."""
    own = (state.eta_s(job) for job in state.live.values() if job.owner == owner)
    wait_s = min((eta for eta in own if eta is not None), default=RETRY_AFTER_UNKNOWN_S)
    return min(max(wait_s, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)
