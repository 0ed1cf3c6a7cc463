"""The events of a job, as GET /v1/jobs/{id}/events tells them: from the router's words to names and bodies.

Pure. Each body has its event's name as `type`. The last one is job.done, job.failed or job.cancelled; `error` ends a
stream whose job the router does not know any more.
"""

from dataclasses import dataclass
from typing import Any

from common.errors import GenServeError
from common.messages import Cancelled, Failed, JobProgress, JobView, Result
from gateway.dialects import errors, jobs

STATE, STEP, PREVIEW = "job.state", "job.step", "job.preview"
DONE, FAILED, CANCELLED = "job.done", "job.failed", "job.cancelled"
ERROR = "error"
ENDS = frozenset({DONE, FAILED, CANCELLED, ERROR})


@dataclass(frozen=True, slots=True)
class Told:
    """One event: its name, and its body, which JSON will carry; bytes inside become base64."""

    name: str
    body: dict[str, Any] | None


def state(job: JobView) -> Told:
    """The whole job, as GET /v1/jobs/{id} shows it."""
    return Told(STATE, {"type": STATE, "job": jobs.to_view(job)})


def step(news: JobProgress) -> Told:
    """It is drawn: so far."""
    body = {"type": STEP, "id": news.job_id, "step": news.step, "steps": news.steps, "eta_s": news.eta_s}
    return Told(STEP, body)


def preview(news: JobProgress, data: bytes) -> Told:
    """The picture as it is so far."""
    assert news.preview is not None
    body = {
        "type": PREVIEW,
        "id": news.job_id,
        "index": news.preview_index,
        "step": news.step,
        "steps": news.steps,
        "format": news.preview.format,
        "width": news.preview.width,
        "height": news.preview.height,
        "b64_json": data,
    }
    return Told(PREVIEW, body)


def end(message: Result | Failed | Cancelled) -> Told:
    """How it ended, with the whole job."""
    name = DONE if isinstance(message, Result) else FAILED if isinstance(message, Failed) else CANCELLED
    return Told(name, {"type": name, "job": jobs.to_view(message.job)})


def error(failure: GenServeError) -> Told:
    """There is nothing to follow any more."""
    return Told(ERROR, {"type": ERROR, "error": errors.facts(failure)})
