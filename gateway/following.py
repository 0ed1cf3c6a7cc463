"""Following jobs by their ids: one WATCH a job, however many listen here.

Knows the router's words and job logs; knows no socket and no HTTP. A WATCH is repeated, and finds its job again after
a reconnection and a restart of either side. When nobody listens any more a job is followed on for a while, so that who
comes back has missed nothing; listening and leaving change nothing of the job itself.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from msgspec import structs

from common.clock import monotonic_s
from common.codec import Buffer
from common.errors import ERRORS, GenServeError
from common.messages import (
    Cancelled,
    ClientMessage,
    ErrorReply,
    Failed,
    JobProgress,
    JobReply,
    JobView,
    Message,
    Result,
    Watch,
)
from gateway.dialects import events
from gateway.joblog import JobLog

FOLLOWED_MAX = 4096  # jobs at one time
KEPT_UNHEARD_S = 60.0  # how long a job is followed on, or its end known, when nobody listens


class _Followed:
    """One job that is followed."""

    def __init__(self, watch: Watch, name: str) -> None:
        self.watch = watch
        self.log = JobLog(name)
        self.asked: asyncio.Future[None] | None = None  # how it stands is being asked
        self.job: JobView | None = None  # as it stood last
        self.refused = False  # the router's last word was an error: who comes next asks anew
        self.unheard_now = 0.0  # monotonic seconds: since when nobody listens


class Following:
    """The jobs that are followed, each with its log."""

    def __init__(
        self,
        ask: Callable[[ClientMessage], Awaitable[tuple[Message, bytes]]],
        send: Callable[[ClientMessage], None],
        new_rid: Callable[[], str],
    ) -> None:
        """`ask` raises what the router refuses with, and unavailable where it does not answer."""
        self._ask = ask
        self._send = send
        self._new_rid = new_rid
        self._followed: dict[str, _Followed] = {}  # by rid
        self._rids: dict[tuple[str, str], str] = {}  # by owner and job id

    @asynccontextmanager
    async def log_of(self, job_id: str, owner: str, wake: Callable[[], None]) -> AsyncIterator[JobLog]:
        """The log of a job; inside the block `wake` is called at each event.

        Raises GenServeError not_found for a job that the router does not know, or that is another's; unavailable where
        it does not answer, or FOLLOWED_MAX jobs are followed already.
        """
        followed = self._of(job_id, owner)
        followed.log.listen(wake)
        try:
            if followed.job is None:
                await asyncio.shield(self._asking(followed))
            yield followed.log
        finally:
            followed.log.leave(wake)
            followed.unheard_now = monotonic_s()
            if followed.job is None and not followed.log.followed:
                self._forget(followed)

    def begin(self, job_id: str, owner: str) -> None:
        """Follow a job already, for one who will listen soon and is to miss nothing; no more than that is promised."""
        if len(self._followed) < FOLLOWED_MAX:
            followed = self._of(job_id, owner)
            followed.unheard_now = monotonic_s()
            self._asking(followed)

    def hears(self, message: Message, payload: Sequence[Buffer]) -> bool:
        """Is this about a job that is followed here?"""
        followed = self._followed.get(getattr(message, "rid", ""))
        if followed is None or followed.log.ended:
            return followed is not None
        match message:
            case JobReply():
                self._stands(followed, message.job)
            case JobProgress():
                self._moves(followed, message, payload)
            case Result() | Failed() | Cancelled():
                followed.job = message.job
                followed.log.add(events.end(message), last=True)
            case ErrorReply() if followed.job is not None:  # else whoever asks is told
                code = message.code if message.code in ERRORS else "internal"
                followed.refused = True
                followed.log.add(events.error(GenServeError(code, message.message)), last=True)
        return True

    def repeat(self, now: float) -> None:
        """Say every WATCH again, and forget what nobody has listened to for long. To be called every few seconds."""
        for followed in list(self._followed.values()):
            if not followed.log.followed and now - followed.unheard_now > KEPT_UNHEARD_S:
                self._forget(followed)
            elif not followed.log.ended and followed.job is not None:
                self._send(followed.watch)

    def stop(self) -> None:
        """End every log as it is: who listens has to come back, to another gateway or this one's next life."""
        for followed in self._followed.values():
            followed.log.end()

    def __len__(self) -> int:
        """How many jobs are followed."""
        return len(self._followed)

    def _of(self, job_id: str, owner: str) -> _Followed:
        if (rid := self._rids.get((owner, job_id))) is not None:
            if not self._followed[rid].refused:
                return self._followed[rid]
            self._forget(self._followed[rid])
        if len(self._followed) >= FOLLOWED_MAX:
            raise GenServeError("unavailable", f"{FOLLOWED_MAX} jobs are being followed already")
        rid = self._new_rid()
        self._rids[owner, job_id] = rid
        watch = Watch(rid=rid, job_id=job_id, owner=owner)
        self._followed[rid] = _Followed(watch, uuid.uuid4().hex[:8])
        return self._followed[rid]

    def _asking(self, followed: _Followed) -> asyncio.Future[None]:
        if followed.asked is None:
            followed.asked = asyncio.ensure_future(self._begin(followed))
            followed.asked.add_done_callback(_seen)
        return followed.asked

    async def _begin(self, followed: _Followed) -> None:
        """The answer itself passes through `hears`; a refusal is for who awaits this."""
        try:
            await self._ask(followed.watch)
        finally:
            followed.asked = None

    def _forget(self, followed: _Followed) -> None:
        self._followed.pop(followed.watch.rid, None)
        self._rids.pop((followed.watch.owner, followed.watch.job_id), None)

    @staticmethod
    def _stands(followed: _Followed, job: JobView) -> None:
        """Told where something is new that no step tells."""
        if followed.job is None or _what_counts(followed.job) != _what_counts(job):
            followed.log.add(events.state(job))
        followed.job = job

    def _moves(self, followed: _Followed, news: JobProgress, payload: Sequence[Buffer]) -> None:
        job = followed.job
        if job is None:
            return
        stands = (news.state, news.position) == (job.state, job.position)
        if stands and job.state == "running":
            followed.log.add(events.step(news))
        if news.preview is not None:
            followed.log.add(events.preview(news, b"".join(payload)))
        if not stands:
            self._send(followed.watch)  # to be told the whole job: its device, since when, how often tried
            return
        followed.job = structs.replace(job, step=news.step, eta_s=news.eta_s)
        if job.state != "running" and job.eta_s != news.eta_s:
            followed.log.add(events.state(followed.job))


def _seen(asked: asyncio.Future[None]) -> None:
    """Who awaits it is told; where nobody does, who listens later asks again."""
    if not asked.cancelled():
        asked.exception()


def _what_counts(job: JobView) -> JobView:
    return structs.replace(job, step=0, eta_s=None)
