"""Telling webhooks how jobs ended: written to a folder before the job is answered for, repeated until it is taken.

A file a job, named after it, gone when it is delivered or given up. Whatever is killed meanwhile, the next gateway goes
on from the files, and looks for more of them now and then, since one that it relieves writes until its end. So one may
come twice, with the same `webhook-id`. Nothing of an answer but its status is looked at.
"""

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct

from common.clock import wall_s
from common.errors import GenServeError
from common.log import get_logger
from gateway.dialects import webhooks
from gateway.dialects.events import ENDS
from gateway.dialects.webhooks import Webhook
from gateway.following import Following
from gateway.joblog import Event

PENDING_MAX = 4000  # less than the jobs that can be followed
DELIVERIES_AT_ONCE_MAX = 16
DELIVERY_TIMEOUT_S = 15.0
REPEAT_AFTER_S = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0)  # then it is given up
JITTER = 0.2  # of each wait
ASK_AGAIN_S = 5.0  # where the router does not answer
LOOK_INTERVAL_S = 30.0  # for files that another gateway has left
GONE = 410  # of a receiver that wants no more
_SUFFIX = ".json"


class _Pending(Struct, frozen=True, kw_only=True):
    """What a file holds."""

    job_id: str
    owner: str
    webhook: Webhook


class Webhooks:
    """The webhooks that are not delivered yet. Used on one event loop, between `start` and `stop`."""

    def __init__(self, folder: Path, following: Following) -> None:
        self._folder = folder
        self._following = following
        self._log = get_logger()
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by job id
        self._at_once = asyncio.Semaphore(DELIVERIES_AT_ONCE_MAX)
        self._left_out: set[str] = set()  # names of files that are looked at no more

    def start(self) -> None:
        """Go on with what other gateways have left, now and whenever they do."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DELIVERY_TIMEOUT_S))
        self._looking = asyncio.ensure_future(self._look())

    async def stop(self) -> None:
        """Deliver no more; the files stay."""
        tasks = (self._looking, *self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    def check_room(self) -> None:
        """Raise GenServeError unavailable where PENDING_MAX wait already."""
        if len(self._tasks) >= PENDING_MAX:
            raise GenServeError("unavailable", f"{PENDING_MAX} webhooks wait to be delivered already")

    async def add(self, job_id: str, owner: str, webhook: Webhook) -> None:
        """Tell the end of this job, from now on whatever happens. Raises GenServeError storage_full."""
        pending = _Pending(job_id=job_id, owner=owner, webhook=webhook)
        try:
            await asyncio.to_thread(_write, self._folder, f"{job_id}{_SUFFIX}", msgspec.json.encode(pending))
        except OSError as error:
            raise GenServeError(
                "storage_full", f"the webhook could not be written down ({error.strerror}); the job itself is accepted"
            ) from None
        self._begin(pending)

    async def _look(self) -> None:
        while True:
            known = self._left_out | {f"{job_id}{_SUFFIX}" for job_id in self._tasks}
            found = await asyncio.to_thread(_read, self._folder, known, PENDING_MAX - len(self._tasks))
            for path, what in found:
                if isinstance(what, _Pending):
                    self._begin(what)
                else:
                    self._left_out.add(path.name)
                    self._log.error("webhook.unreadable", path=str(path), cause=what)
            await asyncio.sleep(LOOK_INTERVAL_S)

    def _begin(self, pending: _Pending) -> None:
        if pending.job_id not in self._tasks:
            task = asyncio.ensure_future(self._tell(pending))
            self._tasks[pending.job_id] = task
            task.add_done_callback(self._on_done(pending.job_id))

    def _on_done(self, job_id: str) -> Callable[[asyncio.Task[None]], None]:
        def done(task: asyncio.Task[None]) -> None:
            del self._tasks[job_id]
            if not task.cancelled() and (error := task.exception()) is not None:
                self._left_out.add(f"{job_id}{_SUFFIX}")  # the next gateway tries again
                self._log.error("webhook.crashed", job_id=job_id, exc_info=error)

        return done

    async def _tell(self, pending: _Pending) -> None:
        """To its end, and away with its file."""
        event = await self._end_of(pending)
        if event is not None:
            body = webhooks.body_of(event.name, event.data, at=datetime.now(UTC).isoformat(timespec="seconds"))
            await self._deliver(pending, body)
        else:
            self._log.warning("webhook.job_unknown", job_id=pending.job_id)
        with suppress(FileNotFoundError):
            await asyncio.to_thread(self._path(pending).unlink)

    def _path(self, pending: _Pending) -> Path:
        return self._folder / f"{pending.job_id}{_SUFFIX}"

    async def _end_of(self, pending: _Pending) -> Event | None:
        """The last event of its job; None where there is no such job any more. Waits for a router that is away."""
        news = asyncio.Event()
        while True:
            try:
                async with self._following.log_of(pending.job_id, pending.owner, news.set) as log:
                    while not (log.ended and (last := log.standing()[1]) and last[-1].name in ENDS):
                        news.clear()
                        await news.wait()
                    if webhooks.is_end(last[-1].name):
                        return last[-1]
            except GenServeError as error:
                if error.code == "not_found":
                    return None
            await asyncio.sleep(ASK_AGAIN_S)

    async def _deliver(self, pending: _Pending, body: bytes) -> None:
        for repeats_after_s in (*REPEAT_AFTER_S, None):
            if not await asyncio.to_thread(self._path(pending).exists):
                return  # another gateway has delivered it meanwhile
            cause = await self._post(pending, body)
            if not cause:
                self._log.info("webhook.delivered", job_id=pending.job_id)
                return
            if repeats_after_s is None or cause == str(GONE):
                break
            self._log.info("webhook.refused", job_id=pending.job_id, cause=cause, again_in_s=repeats_after_s)
            await asyncio.sleep(repeats_after_s * random.uniform(1 - JITTER, 1 + JITTER))
        self._log.warning("webhook.given_up", job_id=pending.job_id, cause=cause)

    async def _post(self, pending: _Pending, body: bytes) -> str:
        """Why it was not taken; '' where it was."""
        headers = webhooks.headers_of(pending.webhook, pending.job_id, body, now_s=int(wall_s()))
        try:
            async with (
                self._at_once,
                self._session.post(pending.webhook.url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                return "" if 200 <= answer.status < 300 else str(answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return type(error).__name__


def _read(folder: Path, known: set[str], count_max: int) -> list[tuple[Path, _Pending | str]]:
    """What the files that are not `known` hold, at most so many; a text says why one cannot be read."""
    found: list[tuple[Path, _Pending | str]] = []
    try:
        paths = sorted(folder.iterdir()) if folder.name not in known else []
    except FileNotFoundError:
        return []  # there were none yet
    except OSError as error:
        return [(folder, str(error))]
    for path in (each for each in paths if each.suffix == _SUFFIX):
        if path.name in known:
            continue
        if len(found) >= count_max:
            break
        try:
            found.append((path, msgspec.json.decode(path.read_bytes(), type=_Pending)))
        except FileNotFoundError:
            continue  # delivered just now
        except (OSError, msgspec.DecodeError) as error:
            found.append((path, str(error)))
    return found


def _write(folder: Path, name: str, data: bytes) -> None:
    """Whole or not at all, for its owner's eyes alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = folder / f"{name}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / name)
    folder_descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_descriptor)
    finally:
        os.close(folder_descriptor)
