"""The jobs dialect: /v1/jobs, one picture each, asked for now and fetched later.

Pure. Its names of fields are those of POST /v1/images/generations. Times ending in `_at` are wall seconds since
1970; what has not happened yet is null.
"""

from collections.abc import Sequence
from typing import get_args
from urllib.parse import urlencode

import msgspec
from msgspec import UNSET, Struct, UnsetType

from common.errors import GenServeError
from common.messages import SUFFIXES, ErrorInfo, JobMoment, JobSpec, JobView, Note, ShownState
from gateway.dialects import body, errors, openai
from gateway.dialects.errors import HttpError, JobError
from gateway.dialects.inputs import NO_INPUTS, Inputs, name_input, read_files
from gateway.dialects.multipart import Form
from gateway.dialects.openai import check_output, output_format, output_quality, parse_size
from gateway.dialects.picture import EngineSeconds, engine_seconds
from gateway.dialects.webhooks import Webhook

PARAMS = {name: own for name, own in openai.PARAMS.items() if name != "previews"}  # which is called so here, too
LIST_LIMIT, LIST_LIMIT_MAX = 20, 100  # jobs on a page
NUMBER_DIGITS_MAX = 15
STATES: tuple[ShownState, ...] = get_args(ShownState)
RETRY_AFTER_S_MAX = 60.0  # a job may move up when others are cancelled


class JobFields(body.Body, frozen=True, kw_only=True):
    """What a job is asked for with, in JSON and in a form."""

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


class JobRequest(JobFields, frozen=True, kw_only=True):
    """The body of POST /v1/jobs."""

    webhook: Webhook | None = None


class JobForm(JobFields, frozen=True, kw_only=True):
    """The text fields of POST /v1/jobs as a form; the files stand beside them: image, and mask."""

    strength: body.Strength | None = None
    webhook: str = ""  # JSON


class ImageFacts(Struct, frozen=True, kw_only=True):
    """The picture of a job that is done."""

    format: str
    width: int
    height: int
    bytes: int
    sha256: str


class Links(Struct, frozen=True, kw_only=True):
    """Where to ask for more."""

    self: str
    image: str
    events: str


class Moment(Struct, frozen=True, kw_only=True):
    """Something that happened to a job."""

    at: float
    event: str
    detail: str


class Job(Struct, frozen=True, kw_only=True):
    """One job as it stands. What has not happened yet is null."""

    id: str
    state: str
    model: str
    size: str
    seed: int
    steps: int
    step: int
    guidance_scale: float
    priority: int
    client: str
    position: int  # 1 starts next; 0 waits no more
    eta_s: float | None  # to its end; null while no speed is known
    created_at: float
    started_at: float | None
    ended_at: float | None
    deadline_at: float
    attempts: int
    device: str | None
    worker: str | None  # the device's name in the fleet: host/device
    error: errors.ErrorFacts | None
    image: ImageFacts | None
    warnings: tuple[Note, ...]
    timings: EngineSeconds | None
    links: Links
    history: tuple[Moment, ...] | UnsetType = UNSET  # oldest first; only where one job is asked for


def read_request(data: bytes) -> JobRequest:
    """The checked request. Raises GenServeError invalid_request; `param` names the field."""
    request = body.read(data, JobRequest)
    _check(request)
    return request


def read_form(form: Form) -> tuple[JobForm, Inputs]:
    """The checked form and its files. Raises as `read_request` does."""
    request = body.read_form(form.fields, JobForm)
    _check(request)
    return request, read_files(form)


def webhook_of(request: JobRequest | JobForm) -> Webhook | None:
    """Whom to tell the end. Raises GenServeError invalid_request for a form's that is no JSON of one."""
    if isinstance(request, JobRequest):
        return request.webhook
    if not request.webhook:
        return None
    try:
        return msgspec.json.decode(request.webhook, type=Webhook)
    except msgspec.DecodeError as error:
        text = f'webhook is the JSON text {{"url": …, "secret": …}}: {error}'
        raise GenServeError("invalid_request", text, param="webhook") from None


def _check(request: JobFields) -> None:
    body.not_blank("prompt", request.prompt)
    parse_size(request.size)
    check_output(request.output_format, request.output_compression)


def to_job(
    request: JobRequest | JobForm, *, model: str, client: str, random_seed: int, inputs: Inputs = NO_INPUTS
) -> JobSpec:
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
        inputs=inputs.specs,
        strength=request.strength if isinstance(request, JobForm) else None,
    )


def _failure(job_id: str, info: ErrorInfo) -> errors.ErrorFacts:
    error = JobError(job_id, info)
    name_input(error)
    return errors.facts(error)


def location(job_id: str) -> str:
    """The path of a job."""
    return f"/v1/jobs/{job_id}"


def to_view(job: JobView, history: Sequence[JobMoment] | None = None) -> Job:
    """How a job stands; with what happened to it, oldest first, where `history` is given."""
    told = () if history is None else tuple(Moment(at=m.at, event=m.event, detail=m.detail) for m in history)
    return Job(
        id=job.job_id,
        state=job.state,
        model=job.model,
        size=f"{job.width}x{job.height}",
        seed=job.seed,
        steps=job.steps,
        step=job.step,
        guidance_scale=job.guidance_scale,
        priority=job.priority,
        client=job.client,
        position=job.position,
        eta_s=job.eta_s,
        created_at=job.created_at,
        started_at=job.started_at or None,
        ended_at=job.ended_at or None,
        deadline_at=job.deadline_at,
        attempts=job.attempts,
        device=job.device or None,
        worker=job.worker_id or None,
        error=_failure(job.job_id, job.error) if job.error else None,
        image=_image(job),
        warnings=job.notes,
        timings=engine_seconds(job.timings) if job.timings else None,
        links=Links(
            self=location(job.job_id), image=f"{location(job.job_id)}/image", events=f"{location(job.job_id)}/events"
        ),
        history=UNSET if history is None else told,
    )


def _image(job: JobView) -> ImageFacts | None:
    if job.picture is None:
        return None
    return ImageFacts(**{name: getattr(job.picture, name) for name in ImageFacts.__struct_fields__})


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


class JobPage(Struct, frozen=True, kw_only=True):
    """One page of jobs, newest first, and the path of the next one; null: this is the last."""

    object: str = "list"
    data: list[Job]
    next: str | None


def to_list(found: Sequence[JobView], next_before: int, asked: JobList) -> JobPage:
    """One page of jobs, newest first, and the path of the next one."""
    more = {"limit": asked.limit, **({"state": ",".join(asked.states)} if asked.states else {}), "after": next_before}
    following = f"/v1/jobs?{urlencode(more, safe=',')}" if next_before else None
    return JobPage(data=[to_view(job) for job in found], next=following)


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
