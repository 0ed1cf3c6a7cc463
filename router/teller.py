"""Telling clients how their jobs move and end.

Pure. PROGRESS may be dropped and is throttled for each watch, a preview never throttled; an end is told once to each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.messages import Cancelled, Failed, JobProgress, Message, Picture, Result
from router.events import Peer
from router.jobs import Job, JobState
from router.state import RouterState
from router.views import shown_state

QUEUE_NEWS_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture on its way from a GPU to those who watch: the frames of `payload` are passed on as they came."""

    picture: Picture | None = None
    index: int = 0
    parts: tuple[int, ...] = ()
    payload: Sequence[Any] = ()


NO_PREVIEW = Preview()


class Teller:
    """Tells those who watch."""

    def __init__(self, state: RouterState) -> None:
        self._state = state
        self._positions_now = 0.0  # when places in the queue were last told
        self._positions_changes = 0  # of the queue, then

    def progress(
        self, job: Job, *, always: bool = False, position: int | None = None, preview: Preview = NO_PREVIEW
    ) -> None:
        """PROGRESS to all who watch, each at most every `progress_interval_s` unless `always` or with a preview.

        `position`: its place in the queue, where that is known already.
        """
        always |= preview.picture is not None
        state = self._state
        due_now = state.now - state.settings.progress_interval_s
        told = [w for w in state.watches.of(job.job_id, state.now) if always or w.told_now <= due_now]
        if not told:
            return
        position, eta_s = state.position(job) if position is None else position, state.eta_s(job)
        for watch in told:
            watch.told_now, watch.position = state.now, position
            message = JobProgress(
                rid=watch.rid,
                job_id=job.job_id,
                state=shown_state(job),
                step=job.step,
                steps=job.order.drawn_steps,
                position=position,
                eta_s=eta_s,
                preview=preview.picture,
                preview_index=preview.index,
                parts=preview.parts,
            )
            state.to_client(watch.peer, message, payload=preview.payload)

    def positions(self) -> None:
        """PROGRESS to those whose place in the queue is another now, at most every QUEUE_NEWS_INTERVAL_S."""
        state = self._state
        if state.now < self._positions_now + QUEUE_NEWS_INTERVAL_S or state.queue.changes == self._positions_changes:
            return
        self._positions_now, self._positions_changes = state.now, state.queue.changes
        positions = state.queue.positions()
        for job_id in state.watches.jobs():
            job, position = state.jobs[job_id], positions.get(job_id)
            if position is None:
                continue
            if any(watch.position != position for watch in state.watches.of(job_id, state.now)):
                self.progress(job, always=True, position=position)

    def end(self, job: Job) -> None:
        """The end, to all who watch; nobody watches it afterwards."""
        for watch in self._state.watches.end(job.job_id, self._state.now):
            self.end_to(watch.peer, watch.rid, job)

    def end_to(self, peer: Peer, rid: str, job: Job) -> None:
        """How an ended job ended."""
        state, view = self._state, self._state.view(job)
        message: Message
        if job.state is JobState.DONE:
            assert job.picture is not None
            message = Result(rid=rid, job_id=job.job_id, job=view, picture=job.picture, parts=job.parts)
            state.to_client(peer, message, picture_of=job.job_id)
            return
        if job.state is JobState.FAILED:
            assert job.error is not None
            message = Failed(rid=rid, job_id=job.job_id, job=view, error=job.error)
        else:
            message = Cancelled(rid=rid, job_id=job.job_id, job=view)
        state.to_client(peer, message)
