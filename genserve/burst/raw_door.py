"""The ZeroMQ door: SUBMIT to the router itself, through the same link that the gateway uses.

Knows messages and the link; knows neither HTTP nor the terminal. A client that gives up says CANCEL.
"""

import msgspec

from common.errors import GenServeError
from common.messages import Failed, JobProgress, JobQuery, JobReply, JobSpec, JobView, StatusQuery, StatusReply
from gateway.dialects.errors import JobError
from gateway.link import RouterLink
from genserve.burst.door import Drawn, Sighting, Trouble
from genserve.burst.record import Job, Order
from genserve.client import RouterAddress

ANSWER_TIMEOUT_S = 10.0


class RawDoor:
    """A router."""

    name = "zmq"

    def __init__(self, router: RouterAddress, model: str) -> None:
        self.address = router.endpoint
        self._model = model
        self._link = RouterLink(router.endpoint, answer_timeout_s=ANSWER_TIMEOUT_S, key=router.key, owner="")

    async def open(self) -> None:
        """Connect, and keep connecting."""
        self._link.open()

    async def close(self) -> None:
        """Drop the connection."""
        await self._link.close()

    async def status(self) -> StatusReply:
        """STATUS, all pages of GPUs together."""
        reply = await self._page(0)
        workers = list(reply.workers)
        while reply.workers and len(workers) < reply.workers_total:
            reply = await self._page(len(workers))
            workers += reply.workers
        return msgspec.structs.replace(reply, workers=tuple(workers))

    async def draw(self, order: Order, sighting: Sighting) -> Drawn:
        """SUBMIT and wait for RESULT. Cancelled, it says CANCEL."""

        def on_progress(progress: JobProgress, _preview: bytes) -> None:
            if progress.step:
                sighting.stepped()

        submission = self._link.submit(self._spec(order), on_progress=on_progress)
        try:
            drawn = await submission.ended
        except JobError as error:
            raise Trouble(error.code, error.message, ended=True) from error
        except GenServeError as error:
            raise Trouble(error.code, error.message, retry_after_s=error.retry_after_s) from error
        finally:
            sighting.job_id = submission.job_id
            self._link.release(submission, cancel=True)
        return Drawn(bytes=len(drawn.data), job=_job(drawn.job))

    async def job(self, job_id: str) -> Job | None:
        """JOB."""
        try:
            answer, _ = await self._link.ask(JobQuery(rid=self._link.new_rid(), job_id=job_id))
        except GenServeError as error:
            if error.code == "not_found":
                return None
            raise Trouble(error.code, error.message) from error
        return _job(answer.job) if isinstance(answer, JobReply | Failed) else None

    def _spec(self, order: Order) -> JobSpec:
        return JobSpec(
            prompt=order.prompt,
            model=self._model,
            width=order.width,
            height=order.height,
            steps=order.steps,
            seed=order.seed,
            priority=order.priority,
            client=order.client,
        )

    async def _page(self, workers_from: int) -> StatusReply:
        try:
            answer, _ = await self._link.ask(StatusQuery(rid=self._link.new_rid(), workers_from=workers_from))
        except GenServeError as error:
            raise Trouble(error.code, error.message) from error
        if not isinstance(answer, StatusReply):
            raise Trouble("protocol_error", f"{self.address} answered STATUS with {answer.NAME.decode()}")
        return answer


def _job(view: JobView) -> Job:
    return Job(
        job_id=view.job_id,
        worker_id=view.worker_id,
        state=view.state,
        width=view.width,
        height=view.height,
        steps=view.steps,
        created_at=view.created_at,
        started_at=view.started_at,
        ended_at=view.ended_at,
        starts=view.attempts,
        engine_s=view.timings.total_s if view.timings else 0.0,
        denoise_s=view.timings.denoise_s if view.timings else 0.0,
    )
