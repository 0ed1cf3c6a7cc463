"""The jobs dialect: /v1/jobs, one picture each, asked for now and fetched later.

Pure. Its names of fields are those of POST /v1/images/generations. Times ending in `_at` are wall seconds since
1970; what has not happened yet is null.
"""

from collections.abc import Sequence
from typing import Any, get_args
from urllib.parse import urlencode

from msgspec import Struct, structs

from common.errors import GenServeError
from common.messages import SUFFIXES, JobMoment, JobSpec, JobView, ShownState
from gateway.dialects import body, errors
from gateway.dialects.errors import HttpError, JobError
from gateway.dialects.openai import check_output, output_format, output_quality, parse_size
from gateway.dialects.webhooks import Webhook

LIST_LIMIT, LIST_LIMIT_MAX = 20, 100  # jobs on a page
NUMBER_DIGITS_MAX = 15
STATES: tuple[ShownState, ...] = get_args(ShownState)
RETRY_AFTER_S_MAX = 60.0  # a job may move up when others are cancelled


class JobRequest(body.Body, frozen=True, kw_only=True):
    """The body of POST /v1/jobs."""

    prompt: body.Prompt
    model: body.ModelName = ""
    size: str = "auto"
    seed: body.Seed | None = None
    num_inference_steps: body.Steps | None = None
    guidance_scale: body.Guidance | None = None
    negative_prompt: body.NegativePrompt = ""
    true_cfg_scale: body.TrueCfg | None = None
    priority: body.Priority = 0
    deadline_s: body.Deadline | None = None
    output_format: str = "png"
    output_compression: body.Compression | None = None
    previews: body.Previews = 0
    webhook: Webhook | None = None


def read_request(data: bytes) -> JobRequest:
    """The checked request. Raises GenServeError invalid_request; `param` names the field."""
    request = body.read(data, JobRequest)
    body.not_blank("prompt", request.prompt)
    parse_size(request.size)
    check_output(request.output_format, request.output_compression)
    return request


def to_job(request: JobRequest, *, model: str, client: str, random_seed: int) -> JobSpec:
    """The job; `random_seed` is for a request that names none."""
    width, height = parse_size(request.size)
    return JobSpec(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        model=model,
        width=width,
        height=height,
        steps=request.num_inference_steps or 0,
        guidance_scale=request.guidance_scale,
        true_cfg_scale=request.true_cfg_scale,
        seed=random_seed if request.seed is None else request.seed,
        priority=request.priority,
        client=client,
        deadline_s=request.deadline_s,
        format=output_format(request.output_format),
        quality=output_quality(request.output_format, request.output_compression),
        previews=request.previews,
    )


def location(job_id: str) -> str:
    """The path of a job."""
    return f"/v1/jobs/{job_id}"


def to_view(job: JobView, history: Sequence[JobMoment] | None = None) -> dict[str, Any]:
    """How a job stands; with what happened to it, oldest first, where `history` is given."""
    picture, where = job.picture, location(job.job_id)
    view: dict[str, Any] = {
        "id": job.job_id,
        "state": job.state,
        "model": job.model,
        "size": f"{job.width}x{job.height}",
        "seed": job.seed,
        "steps": job.steps,
        "step": job.step,
        "guidance_scale": job.guidance_scale,
        "priority": job.priority,
        "client": job.client,
        "position": job.position,  # 1 starts next; 0 waits no more
        "eta_s": job.eta_s,  # to its end; null while no speed is known
        "created_at": job.created_at,
        "started_at": job.started_at or None,
        "ended_at": job.ended_at or None,
        "deadline_at": job.deadline_at,
        "attempts": job.attempts,
        "device": job.device or None,
        "worker": job.worker_id or None,  # the device's name in the fleet: host/device
        "error": errors.facts(JobError(job.job_id, job.error)) if job.error else None,
        "image": picture
        and {name: getattr(picture, name) for name in ("format", "width", "height", "bytes", "sha256")},
        "warnings": [structs.asdict(note) for note in job.notes],
        "timings": structs.asdict(job.timings) if job.timings else None,  # seconds inside the engine
        "links": {"self": where, "image": f"{where}/image", "events": f"{where}/events"},
    }
    if history is not None:
        view["history"] = [{"at": each.at, "event": each.event, "detail": each.detail} for each in history]
    return view


class JobList(Struct, frozen=True, kw_only=True):
    """What GET /v1/jobs?… asks for."""

    states: tuple[ShownState, ...]
    limit: int
    before: int  # where the page begins: 0, or what the link to it says


def read_list(query: Sequence[tuple[str, str]]) -> JobList:
    """The checked query. Raises GenServeError invalid_request; `param` names the field."""
    states: list[ShownState] = []
    numbers = {"limit": LIST_LIMIT, "after": 0}
    for name, value in query:
        if name == "state":
            for state in value.split(","):
                if state not in STATES:
                    raise _wrong("state", f"is one of {', '.join(STATES)}, or several with commas", value)
                states.append(state)
        elif name in numbers:
            if not (value.isascii() and value.isdecimal() and len(value) <= NUMBER_DIGITS_MAX):
                raise _wrong(name, "is a whole number", value)
            numbers[name] = int(value)
        else:
            raise GenServeError("invalid_request", f"there is no {name[:40]!r}: state, limit, after", param=name[:40])
    if not 1 <= numbers["limit"] <= LIST_LIMIT_MAX:
        raise _wrong("limit", f"is 1 to {LIST_LIMIT_MAX}", str(numbers["limit"]))
    return JobList(states=tuple(dict.fromkeys(states)), limit=numbers["limit"], before=numbers["after"])


def _wrong(name: str, right: str, value: str) -> GenServeError:
    return GenServeError("invalid_request", f"{name} {right}, not {value[:40]!r}", param=name)


def to_list(found: Sequence[JobView], next_before: int, asked: JobList) -> dict[str, Any]:
    """One page of jobs, newest first, and the path of the next one."""
    more = {"limit": asked.limit, **({"state": ",".join(asked.states)} if asked.states else {}), "after": next_before}
    following = f"/v1/jobs?{urlencode(more, safe=',')}" if next_before else None
    return {"object": "list", "data": [to_view(job) for job in found], "next": following}


def not_finished(job: JobView) -> HttpError:
    """The picture of a job is asked for that has not ended: when to come back."""
    where = f"number {job.position} in the queue" if job.position else "about to start"
    if job.state == "running":
        where = f"at step {job.step} of {job.steps}"
    return HttpError(
        409,
        f"the job {job.job_id} is {job.state}, {where}: there is no picture yet",
        code="not_finished",
        retry_after_s=None if job.eta_s is None else min(job.eta_s, RETRY_AFTER_S_MAX),
    )


def ended_before(job: JobView) -> HttpError:
    """A job is to be cancelled that has ended."""
    return HttpError(
        409,
        f"the job {job.job_id} has ended before ({job.state}): there is nothing left to cancel",
        next_step=f"GET {location(job.job_id)} tells how it ended",
    )


def file_name(job_id: str, format_: str) -> str:
    """What a browser calls the picture when it saves it."""
    return f"genserve-{job_id}.{SUFFIXES.get(format_, format_)}"
