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
from gateway.context import GATEWAY, JOB_IDS, client_label, job_id_of, random_seed, read_json_body, reply, request_key
from gateway.dialects import jobs, openai
from gateway.dialects.errors import fields_named
from gateway.dialects.keys import told_as_header
from gateway.drawing import accept
from gateway.link import HTTP_OWNER
from gateway.submission import job_failure


async def post_job(request: web.Request) -> web.Response:
    """202 with the accepted job; 200 with the job of then where the key is known."""
    gateway = request.app[GATEWAY]
    asked = jobs.read_request(await read_json_body(request))
    key = request_key(request, "jobs", asked)
    job = jobs.to_job(
        asked,
        model=await gateway.model_meant(asked.model),
        client=client_label(request),
        random_seed=random_seed(key),
    )
    with fields_named(openai.PARAMS), told_as_header(key):
        accepted = await accept(gateway.link, job, key=key)
    request[JOB_IDS] = [accepted.job_id]
    if job.previews:
        gateway.link.following.begin(accepted.job_id, HTTP_OWNER)
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
        question = JobsQuery(rid=link.new_rid(), states=asked.states, before=before, limit=limit, owner=HTTP_OWNER)
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
    question: ClientMessage = kind(rid=link.new_rid(), job_id=job_id, owner=HTTP_OWNER)
    return await link.ask(question)


def _unexpected(answer: Message) -> GenServeError:
    return GenServeError("internal", f"the router answered a question about a job with {answer.NAME.decode()}")
