"""POST /v1/images/generations."""

from aiohttp import web

from common.clock import wall_s
from gateway.context import GATEWAY, JOB_IDS, client_label, random_seed, read_json_body, reply, request_key
from gateway.dialects import openai
from gateway.dialects.errors import fields_named
from gateway.dialects.keys import told_as_header
from gateway.drawing import draw


async def post_generations(request: web.Request) -> web.Response:
    """Draw n pictures and answer with all of them."""
    gateway = request.app[GATEWAY]
    asked = openai.read_request(await read_json_body(request))
    key = request_key(request, "images", asked)
    jobs = openai.to_jobs(
        asked,
        model=await gateway.model_meant(asked.model),
        client=client_label(request),
        random_seed=random_seed(key),
    )
    with fields_named(openai.PARAMS), told_as_header(key):
        drawn = await draw(
            gateway.link,
            jobs,
            wait_s=gateway.settings.wait_s,
            key=key,
            cancel_on_disconnect=gateway.settings.cancel_on_disconnect,
        )
    request[JOB_IDS] = [each.job.job_id for each in drawn]
    return reply(openai.to_response(asked, drawn, created=int(wall_s())))
