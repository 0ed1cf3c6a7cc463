"""The jobs that somebody may see, newest first, a page at a time.

Pure. A page begins before a job's number in the order of acceptance: what is accepted meanwhile moves no later page.
"""

from itertools import islice

from common.messages import JobsQuery, JobsReply
from common.roles import Identity
from router.permission import may_touch
from router.state import RouterState
from router.views import page, shown_state


def jobs_reply(state: RouterState, message: JobsQuery, who: Identity) -> JobsReply:
    """One page; with `next_before` that of the page after it, 0 where there is none."""
    matching = (
        job
        for job in reversed(state.jobs.values())
        if (not message.before or job.sequence < message.before)
        and (not message.states or shown_state(job) in message.states)
        and may_touch(job, message, who)
    )
    wanted = list(islice(matching, message.limit + 1))  # one more: is there a further page?
    shown = page((state.view(job) for job in wanted), count_max=message.limit)
    more = len(shown) < len(wanted)
    return JobsReply(rid=message.rid, jobs=shown, next_before=wanted[len(shown) - 1].sequence if more else 0)
