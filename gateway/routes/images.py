"""POST /v1/images/generations."""

import random

from aiohttp import web

from common.clock import wall_s
from gateway.context import GATEWAY, client_label, read_json_body, reply
from gateway.dialects import openai
from gateway.dialects.errors import fields_named
from gateway.drawing import draw
from gateway.middleware import JOB_IDS


async def post_generations(request: web.Request) -> web.Response:
    """Draw n pictures and answer with all of them."""
    gateway = request.app[GATEWAY]
    asked = openai.read_request(await read_json_body(request))
    jobs = openai.to_jobs(
        asked,
        model=await gateway.model_meant(asked.model),
        client=client_label(request),
        random_seed=random.randrange(openai.RANDOM_SEEDS),
    )
    with fields_named(openai.PARAMS):
        drawn = await draw(gateway.link, jobs, wait_s=gateway.settings.wait_s)
    request[JOB_IDS] = [each.job.job_id for each in drawn]
    return reply(openai.to_response(asked, drawn, created=int(wall_s())))
