"""The older dialect's POST /generate, POST /generate/upload and GET /task/{id}."""

from aiohttp import web

from common.errors import GenServeError
from common.messages import Cancelled, Failed, Fetch, JobReply, Result
from gateway.context import GATEWAY, JOB_ID, JOB_IDS, client_label, random_seed, read_json_body, reply, request_key
from gateway.dialects import generate
from gateway.dialects.errors import fields_named
from gateway.dialects.inputs import Inputs, inputs_named
from gateway.dialects.keys import told_as_header
from gateway.dialects.picture import Drawn
from gateway.drawing import draw
from gateway.link import HTTP_OWNER
from gateway.submission import job_failure
from gateway.uploads import uploaded


async def post_generate(request: web.Request) -> web.Response:
    """Draw one picture and answer with it."""
    return await _draw(request, generate.read_request(await read_json_body(request)), generate.NO_INPUTS)


async def post_upload(request: web.Request) -> web.Response:
    """The same from a form, which may bring a picture to start from, and a mask."""
    async with uploaded(request, generate.FILES) as form:
        asked, inputs = generate.read_upload(form)
        return await _draw(request, asked, inputs)


async def _draw(request: web.Request, asked: generate.GenerateRequest, inputs: Inputs) -> web.Response:
    gateway = request.app[GATEWAY]
    key = request_key(request, "generate", asked, inputs.digest)
    job = generate.to_job(
        asked,
        model=await gateway.model_meant(asked.model_asked),
        client=client_label(request),
        random_seed=random_seed(key),
        inputs=inputs,
    )
    with inputs_named(generate.FILES), fields_named(generate.PARAMS), told_as_header(key):
        (drawn,) = await draw(
            gateway.link,
            [job],
            wait_s=gateway.settings.wait_s,
            payload=inputs.payload,
            key=key,
            cancel_on_disconnect=gateway.settings.cancel_on_disconnect,
        )
    request[JOB_IDS] = [drawn.job.job_id]
    return reply(generate.to_response(drawn))


async def get_task(request: web.Request) -> web.Response:
    """How a job stands; its picture once it is drawn, as often as asked while the router keeps it."""
    gateway, task_id = request.app[GATEWAY], request.match_info["task_id"]
    if not JOB_ID.fullmatch(task_id):
        raise GenServeError("not_found", "a task id is the 32 hexadecimal digits that task_id gave", param="task_id")
    answer, data = await gateway.link.ask(Fetch(rid=gateway.link.new_rid(), job_id=task_id, owner=HTTP_OWNER))
    match answer:
        case Result():
            return reply(generate.task(answer.job, Drawn(job=answer.job, picture=answer.picture, data=data)))
        case Failed() | Cancelled():
            return reply(generate.task(answer.job, job_failure(answer)))
        case JobReply():
            return reply(generate.task(answer.job, None))
    raise GenServeError("internal", f"the router answered FETCH with {answer.NAME.decode()}")
