"""OpenAI's images: POST /v1/images/generations and /v1/images/edits, whole or as events; and the files of links."""

import asyncio
from collections.abc import Mapping
from functools import partial

from aiohttp import web

from common.clock import wall_s
from common.errors import GenServeError
from common.messages import Cancelled, Failed, Fetch, JobProgress, JobReply, Result
from gateway.access import WHO
from gateway.context import GATEWAY, JOB_ID, JOB_IDS, client_label, random_seed, read_json_body, reply, request_key
from gateway.dialects import jobs, links, openai, openai_events
from gateway.dialects.errors import fields_named
from gateway.dialects.inputs import FILES, NO_INPUTS, Inputs, inputs_named
from gateway.dialects.keys import told_as_header
from gateway.dialects.picture import Drawn
from gateway.drawing import drawing
from gateway.sse import KEEP_ALIVE_S, EventStream
from gateway.submission import Submission, job_failure
from gateway.uploads import uploaded


async def post_generations(request: web.Request) -> web.StreamResponse:
    """Draw n pictures and answer with all of them, or with events while they form."""
    asked = openai.read_request(await read_json_body(request))
    return await _answer(request, asked, NO_INPUTS, "image_generation")


async def post_edits(request: web.Request) -> web.StreamResponse:
    """The same, from a picture, and with a mask only where that opens it."""
    async with uploaded(request, FILES) as form:
        asked, inputs = openai.read_edit(form)
        return await _answer(request, asked, inputs, "image_edit")


async def get_file(request: web.Request) -> web.Response:
    """The file that a link leads to, for whoever has the link."""
    gateway, job_id, part = request.app[GATEWAY], request.match_info["job_id"], request.match_info["part"]
    query: Mapping[str, str] = request.query
    now = wall_s()
    owner = links.check(gateway.link_secret, job_id, part, query, wall_s=now)
    if not JOB_ID.fullmatch(job_id):
        raise GenServeError("not_found", "there is no such file", param="job_id")
    request[JOB_IDS] = [job_id]
    answer, data = await gateway.link.ask(Fetch(rid=gateway.link.new_rid(), job_id=job_id, owner=owner))
    match answer:
        case Failed() | Cancelled():
            raise job_failure(answer)
        case JobReply():
            raise jobs.not_finished(answer.job)
        case Result():
            left_s = max(0, int(int(query["expires"]) - now))
            headers = {
                "Cache-Control": f"private, max-age={left_s}, immutable",
                "X-Content-Type-Options": "nosniff",
                "ETag": f'"{answer.picture.sha256}"',
                "Content-Disposition": f'inline; filename="{jobs.file_name(job_id, answer.picture.format)}"',
            }
            return web.Response(body=data, headers=headers, content_type=f"image/{answer.picture.format}")
    raise GenServeError("internal", f"the router answered FETCH with {answer.NAME.decode()}")


async def _answer(
    request: web.Request, asked: openai.Asked, inputs: Inputs, kind: openai_events.Kind
) -> web.StreamResponse:
    gateway = request.app[GATEWAY]
    key = request_key(request, "edits" if inputs.specs else "images", asked, inputs.digest)
    specs = openai.to_jobs(
        asked,
        model=await gateway.model_meant(asked.model),
        client=client_label(request),
        random_seed=random_seed(key),
        inputs=inputs,
    )
    settings, news = gateway.settings, _News()
    begun = drawing(
        gateway.link,
        specs,
        wait_s=settings.wait_s,
        caller=request[WHO],
        payload=inputs.payload,
        key=key,
        cancel_on_disconnect=settings.cancel_on_disconnect,
        on_progress=news.progress,
    )
    with inputs_named(FILES), fields_named(openai.PARAMS), told_as_header(key):
        async with begun as submissions:
            if not asked.stream:
                drawn = await asyncio.gather(*(each.ended for each in submissions))
                request[JOB_IDS] = [each.job.job_id for each in drawn]
                return reply(_to_response(request, asked, drawn))
            accepted = await asyncio.gather(*(each.answered for each in submissions))  # a refusal has its own status
            request[JOB_IDS] = [each.job_id for each in accepted]
            stream = EventStream(request)
            await stream.open()
            await _tell(stream, asked, kind, submissions, news)
    return stream.response


def _to_response(request: web.Request, asked: openai.Asked, drawn: list[Drawn]) -> openai.ImagesResponse:
    now = int(wall_s())

    def link_of(job_id: str) -> str:
        return link_to(request, job_id, now=now)

    return openai.to_response(asked, drawn, created=now, link_of=link_of)


def link_to(request: web.Request, job_id: str, *, now: int) -> str:
    """A URL of the job's picture that works without a key until it expires."""
    gateway = request.app[GATEWAY]
    expires_at = now + max(1, int(gateway.settings.link_ttl_s))
    base = gateway.settings.public_url or f"{request.scheme}://{request.host}"
    return base + links.path_of(gateway.link_secret, job_id, owner=request[WHO].owner, expires_at=expires_at)


class _News:
    """What happens to the jobs of one request, in order: a preview, or that one has ended."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[int, JobProgress | None, bytes]] = asyncio.Queue()

    def progress(self, index: int, progress: JobProgress, preview: bytes) -> None:
        """A job moved. Of each only so many previews come as it asked for, so the queue is short."""
        if progress.preview is not None:
            self.queue.put_nowait((index, progress, preview))

    def end(self, index: int, _ended: asyncio.Future[Drawn]) -> None:
        """A job has ended."""
        self.queue.put_nowait((index, None, b""))


async def _tell(
    stream: EventStream,
    asked: openai.Asked,
    kind: openai_events.Kind,
    submissions: list[Submission],
    news: _News,
) -> None:
    """Every event until all have ended. Raises the error of the first that fails."""
    for index, submission in enumerate(submissions):
        submission.ended.add_done_callback(partial(news.end, index))
    going = len(submissions)
    while going:
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                index, progress, data = await news.queue.get()
        except TimeoutError:
            await stream.keep_alive()
            continue
        now = int(wall_s())
        if progress is not None:
            event = openai_events.partial_image(kind, asked, index, progress, data, created_at=now)
            await stream.send(event.type, event)
            continue
        going -= 1
        drawn = submissions[index].ended.result()
        done = openai_events.completed(kind, asked, index, drawn, created_at=now)
        await stream.send(done.type, done)
