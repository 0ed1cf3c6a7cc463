"""/v1/jobs: submit one picture, look after it, fetch it, cancel it."""

from aiohttp import web

from common.errors import GenServeError
from common.messages import (
    JOBS_PER_PAGE,
    CancelJob,
    Cancelled,
    ClientMessage,
    Failed,
    Fetch,
    JobQuery,
    JobReply,
    JobsQuery,
    JobsReply,
    JobView,
    Message,
    Result,
)
from gateway.access import WHO
from gateway.context import GATEWAY, JOB_IDS, client_label, job_id_of, random_seed, read_json_body, reply, request_key
from gateway.dialects import jobs, webhooks
from gateway.dialects.errors import fields_named
from gateway.dialects.inputs import FILES, NO_INPUTS, Inputs, inputs_named
from gateway.dialects.keys import told_as_header
from gateway.drawing import accept
from gateway.submission import job_failure
from gateway.uploads import uploaded

FORM = "multipart/form-data"


async def post_job(request: web.Request) -> web.Response:
    """202 with the accepted job, 200 with the job of then where the key is known; a form brings a picture."""
    if request.content_type != FORM:
        return await _accepted(request, jobs.read_request(await read_json_body(request)), NO_INPUTS)
    async with uploaded(request, FILES) as form:
        return await _accepted(request, *jobs.read_form(form))


async def _accepted(request: web.Request, asked: jobs.JobRequest | jobs.JobForm, inputs: Inputs) -> web.Response:
    gateway, caller, webhook = request.app[GATEWAY], request[WHO], jobs.webhook_of(asked)
    if webhook is not None:
        webhooks.check(webhook, gateway.settings.webhook_hosts)
        gateway.webhooks.check_room()
    key = request_key(request, "jobs", asked, inputs.digest)
    job = jobs.to_job(
        asked,
        model=await gateway.model_meant(asked.model),
        client=client_label(request),
        random_seed=random_seed(key),
        inputs=inputs,
    )
    with inputs_named(FILES), fields_named(jobs.PARAMS), told_as_header(key):
        accepted = await accept(gateway.link, job, key=key, caller=caller, payload=inputs.payload)
    request[JOB_IDS] = [accepted.job_id]
    if job.previews:
        gateway.link.following.begin(accepted.job_id, caller.sees)
    if webhook is not None:
        await gateway.webhooks.add(accepted.job_id, caller.owner, webhook)
    repeated = accepted.repeated and key is not None  # a key made up here is repeated by the link alone
    return reply(
        jobs.to_view(accepted.job),
        status=200 if repeated else 202,
        headers={"Location": jobs.location(accepted.job_id)},
    )


async def get_jobs(request: web.Request) -> web.Response:
    """One's own jobs, newest first."""
    asked, link = jobs.read_list(list(request.query.items())), request.app[GATEWAY].link
    found: list[JobView] = []
    before = asked.before
    while len(found) < asked.limit:
        limit = min(JOBS_PER_PAGE, asked.limit - len(found))
        rid, owner = link.new_rid(), request[WHO].sees
        question = JobsQuery(rid=rid, states=asked.states, before=before, limit=limit, owner=owner)
        answer, _ = await link.ask(question)
        if not isinstance(answer, JobsReply):
            raise _unexpected(answer)
        found += answer.jobs
        before = answer.next_before
        if not before:
            break
    return reply(jobs.to_list(found, before, asked))


async def get_job(request: web.Request) -> web.Response:
    """How a job stands, and what happened to it."""
    answer, _ = await _ask(request, JobQuery)
    if isinstance(answer, JobReply):
        return reply(jobs.to_view(answer.job, answer.history))
    raise _unexpected(answer)


async def get_image(request: web.Request) -> web.Response:
    """The picture's file; 409 while there is none yet, and the job's own error where there will be none."""
    answer, data = await _ask(request, Fetch)
    match answer:
        case Failed() | Cancelled():
            raise job_failure(answer)
        case JobReply():
            raise jobs.not_finished(answer.job)
        case Result():
            picture = answer.picture
            name = jobs.file_name(answer.job_id, picture.format)
            headers = {"ETag": f'"{picture.sha256}"', "Content-Disposition": f'inline; filename="{name}"'}
            if any(tag.value in (picture.sha256, "*") for tag in request.if_none_match or ()):
                return web.Response(status=304, headers=headers)
            return web.Response(body=data, headers=headers, content_type=f"image/{picture.format}")
    raise _unexpected(answer)


async def delete_job(request: web.Request) -> web.Response:
    """Cancel a job: the engine stops at its next step."""
    answer, _ = await _ask(request, CancelJob)
    match answer:
        case Cancelled():
            return reply(jobs.to_view(answer.job))
        case JobReply():
            raise jobs.ended_before(answer.job)
    raise _unexpected(answer)


async def _ask(request: web.Request, kind: type[JobQuery | Fetch | CancelJob]) -> tuple[Message, bytes]:
    """The router's answer about the job that the path names."""
    link, job_id = request.app[GATEWAY].link, job_id_of(request)
    question: ClientMessage = kind(rid=link.new_rid(), job_id=job_id, owner=request[WHO].sees)
    return await link.ask(question)


def _unexpected(answer: Message) -> GenServeError:
    return GenServeError("internal", f"the router answered a question about a job with {answer.NAME.decode()}")
