"""GET /v1/jobs/{id}/events: how a job goes on, as it goes on."""

import asyncio

from aiohttp import web

from gateway.access import WHO
from gateway.context import GATEWAY, job_id_of
from gateway.dialects.errors import HttpError
from gateway.dialects.events import ENDS
from gateway.joblog import JobLog
from gateway.sse import KEEP_ALIVE_S, EventStream

LAST_EVENT_ID = "Last-Event-ID"
LAST_EVENT_ID_CHARS_MAX = 64


async def get_events(request: web.Request) -> web.StreamResponse:
    """The job's events until its end; from where Last-Event-ID names one that this gateway has told, those after it.

    204 for who has been told the end already: a browser's EventSource comes back after that, and then no more.
    """
    gateway, job_id = request.app[GATEWAY], job_id_of(request)
    last = request.headers.get(LAST_EVENT_ID, "")
    if len(last) > LAST_EVENT_ID_CHARS_MAX:
        raise HttpError(400, f"{LAST_EVENT_ID} is none that was told here: leave it out", param=LAST_EVENT_ID)
    news = asyncio.Event()
    with gateway.streaming():
        async with gateway.link.following.log_of(job_id, request[WHO].sees, news.set) as log:
            if log.ended_with(last):
                return web.Response(status=204)
            stream = EventStream(request)
            await stream.open()
            if request.method == "HEAD":
                return stream.response
            await _tell(stream, log, last, news)
            return stream.response


async def _tell(stream: EventStream, log: JobLog, last: str, news: asyncio.Event) -> None:
    await stream.say_retry()
    number = log.begin_after(last)
    if number is None:
        number, standing = log.standing()
        for event in standing:
            await stream.send_json(event.name, event.data, event_id=event.id)
        if standing and standing[-1].name in ENDS:
            return
    while True:
        news.clear()
        for event in log.after(number):
            await stream.send_json(event.name, event.data, event_id=event.id)
            number = event.number
        if news.is_set():
            continue
        if log.ended:
            return
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                await news.wait()
        except TimeoutError:
            await stream.keep_alive()
