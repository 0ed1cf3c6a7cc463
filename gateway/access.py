"""Who may use HTTP here: the keys' file as it stands now, what each path needs, and how often a key may ask.

The file is looked at every second. One that cannot be read changes nothing: those of before stay in force, and the log
says why. What a key has open when it is revoked is cut.
"""

import asyncio
from pathlib import Path

from aiohttp import web

from common.allowance import Allowances
from common.clock import monotonic_s
from common.errors import GenServeError, SettingsError
from common.http_keys import HttpKey, Right
from common.keys import need_http_keys, read_http_keys
from common.log import get_logger
from common.settings import GatewaySettings
from gateway.callers import ANYBODY, Caller, KnownKeys, caller_of, key_text
from gateway.listener import needs_keys

LOOK_EVERY_S = 1.0
WHO = web.RequestKey("who", Caller)
REVOKED = web.RequestKey("revoked", str)  # the name of the key that was revoked while this was being answered
OPEN = frozenset({"/", "/health", "/health/live", "/health/ready", "/openapi.json", "/docs"})  # tell nothing of jobs
OPEN_BEGINNINGS = ("/v1/images/files/", "/page/", "/docs/")  # a link to a file is a key of its own
READ = frozenset({"/v1/status", "/status", "/gpu/load", "/config", "/devices", "/metrics"})
MODELS = ("/v1/models", "/models")


def is_open(path: str) -> bool:
    """Is it told to everybody, with a key or without?"""
    return path in OPEN or path.startswith(OPEN_BEGINNINGS)


class Access:
    """Decides on each request. Used on one event loop, between `start` and `stop`."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Raises SettingsError where keys are needed and there are none."""
        self.asks_for_keys = needs_keys(settings)
        self._path = Path(settings.http_keys_file)
        self._known = KnownKeys(())
        self._seen: tuple[int, int, int] | None = None
        self._requests = Allowances()
        self._open: dict[int, tuple[web.Request, HttpKey]] = {}  # by id(): requests are no keys
        self._log = get_logger()
        self._said = ""
        if self.asks_for_keys:
            self._seen = _stamp(self._path)  # before it is read: a change in between is seen
            self._known = KnownKeys(need_http_keys(self._path))

    def start(self) -> None:
        """Look at the file again and again."""
        self._looking = asyncio.ensure_future(self._look())

    async def stop(self) -> None:
        """Look no more."""
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)

    def judge(self, request: web.Request) -> Caller:
        """Who asks. Raises HttpError 401 for an unknown key, 403 for what it may not, 429 for too much of it."""
        if not self.asks_for_keys:
            return ANYBODY
        path = request.path
        if is_open(path) or request.method == "OPTIONS":
            return ANYBODY
        caller = caller_of(key_text(request.headers), self._known)
        if not path.startswith(MODELS):  # which whoever has a key may know
            right: Right = "read" if path in READ else "generate"
            caller.need(right)
        if request.method == "POST":
            self._count(caller)
        return caller

    def begin(self, request: web.Request, caller: Caller) -> None:
        """It is being answered, until `end`: where its key is revoked meanwhile, it is cut."""
        if caller.key is not None:
            self._open[id(request)] = (request, caller.key)

    def end(self, request: web.Request) -> None:
        """It is answered."""
        self._open.pop(id(request), None)

    def _count(self, caller: Caller) -> None:
        key = caller.key
        if key is None or key.requests_per_minute is None:
            return
        now = monotonic_s()
        wait_s = self._requests.wait_s(key.name, key.requests_per_minute, 1.0, now)
        if wait_s:
            raise GenServeError(
                "rate_limit_exceeded",
                f"the key {key.name!r} may ask for pictures {key.requests_per_minute} times a minute "
                "(requests_per_minute)",
                param="requests_per_minute",
                retry_after_s=wait_s,
            )
        self._requests.spend(key.name, 1.0, now)

    async def _look(self) -> None:
        while self.asks_for_keys:
            await asyncio.sleep(LOOK_EVERY_S)
            if (stamp := _stamp(self._path)) != self._seen or self._said:
                self._seen = stamp
                self._read_again()

    def _read_again(self) -> None:
        try:
            entries = read_http_keys(self._path)
        except SettingsError as error:
            if error.message != self._said:
                self._said = error.message
                self._log.error("keys.unreadable", path=str(self._path), message=error.message)
            return
        self._said = ""
        self._known = KnownKeys(entries)
        self._log.info("keys.read", path=str(self._path), valid=len(self._known.valid))
        for request, key in list(self._open.values()):
            if key.sha256 not in self._known.valid:
                request[REVOKED] = key.name
                request.task.cancel()  # the middleware answers


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
