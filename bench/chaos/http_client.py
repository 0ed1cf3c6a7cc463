"""Clients that speak HTTP: jobs asked for and looked after, and synchronous requests; every request with its key.

They do what the README tells clients to do: repeat with the same key until answered, wait as long as Retry-After
says, come back after hanging up.
"""

import asyncio
import base64
import random
from collections.abc import Mapping
from typing import Any

import aiohttp

from bench.chaos.ledger import CANCELLED, DONE, FAILED, REFUSED, Entry, Ledger
from bench.chaos.orders import Order

ANSWER_TIMEOUT_S = 15.0  # of one quick request
PICTURE_TIMEOUT_S = 60.0  # of one synchronous request; then it is repeated
POLL_S = (0.4, 1.2)
REPEAT_S = (0.2, 2.0)  # after a request that broke
COME_BACK = (429, 503, 507)
ENDS = {"done": DONE, "failed": FAILED, "cancelled": CANCELLED}
Answer = tuple[int, Any, Mapping[str, str]]


class HttpClient:
    """Carries out orders over HTTP."""

    def __init__(self, url: str, ledger: Ledger, name: str, seed: int) -> None:
        self._url = url
        self._ledger = ledger
        self._headers = {"X-GenServe-Client": name}
        self._rng = random.Random(f"{name} {seed}")
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=False))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._session.close()

    async def carry_out(self, entry: Entry) -> None:
        """Until its end is known."""
        if entry.order.door == "http-images":
            await self._draw(entry)
        else:
            await self._submit_and_poll(entry)

    # --- POST /v1/images/generations -------------------------------------------------------------

    async def _draw(self, entry: Entry) -> None:
        order, hang_up_after_s = entry.order, entry.order.hang_up_after_s
        while not entry.end:
            entry.asked += 1
            timeout_s = PICTURE_TIMEOUT_S if hang_up_after_s is None else hang_up_after_s
            status, body, headers = await self._ask(
                "POST", "/v1/images/generations", timeout_s, body=_body(order) | {"n": 1}, key=order.key
            )
            if status == 0 and hang_up_after_s is not None:
                self._ledger.hung_up += 1
                hang_up_after_s = None
                await asyncio.sleep(self._rng.uniform(0, 3))
                self._ledger.came_back += 1
            elif status == 0:
                await self._pause()
            elif status == 200:
                item = body["data"][0]
                self._ledger.done(entry, item["genserve"]["job_id"], base64.b64decode(item["b64_json"]))
            elif not await self._come_back(status, body, headers):
                self._refused_or_failed(entry, status, body)

    def _refused_or_failed(self, entry: Entry, status: int, body: Any) -> None:
        code = _code(body)
        if code == "deadline_unreachable":
            self._ledger.ended(entry, REFUSED, code)
        elif status >= 500 and code not in ("internal", "protocol_error"):
            self._ledger.ended(entry, FAILED, code)
        else:
            self._wrong(entry, status, body)

    # --- /v1/jobs --------------------------------------------------------------------------------

    async def _submit_and_poll(self, entry: Entry) -> None:
        order = entry.order
        while not entry.job_id:
            entry.asked += 1
            status, body, headers = await self._ask(
                "POST", "/v1/jobs", ANSWER_TIMEOUT_S, body=_body(order), key=order.key
            )
            if status in (200, 202):
                self._ledger.accepted(entry, body["id"])
            elif status == 0:
                await self._pause()
            elif not await self._come_back(status, body, headers):
                self._refused_or_failed(entry, status, body)
                return
        if order.hang_up_after_s is not None:  # a client that looks after its job only later
            self._ledger.hung_up += 1
            await asyncio.sleep(order.hang_up_after_s * 4)
            self._ledger.came_back += 1
        if order.cancel_after_s is not None:
            await asyncio.sleep(order.cancel_after_s)
            await self._cancel(entry)
        while not entry.end:
            await self._look(entry)

    async def _look(self, entry: Entry) -> None:
        status, body, headers = await self._ask("GET", f"/v1/jobs/{entry.job_id}", ANSWER_TIMEOUT_S)
        if status == 200:
            if body["state"] == "done":
                await self._fetch(entry)
            elif body["state"] in ENDS:
                self._ledger.ended(entry, ENDS[body["state"]], (body["error"] or {}).get("code", ""))
            else:
                await asyncio.sleep(self._rng.uniform(*POLL_S))
        elif status == 0:
            await self._pause()
        elif not await self._come_back(status, body, headers):
            self._wrong(entry, status, body)

    async def _fetch(self, entry: Entry) -> None:
        status, body, headers = await self._ask("GET", f"/v1/jobs/{entry.job_id}/image", ANSWER_TIMEOUT_S)
        if status == 200:
            self._ledger.done(entry, entry.job_id, body)
        elif status == 0:
            await self._pause()
        elif not await self._come_back(status, body, headers):
            self._wrong(entry, status, body)

    async def _cancel(self, entry: Entry) -> None:
        while not entry.end:
            status, body, headers = await self._ask("DELETE", f"/v1/jobs/{entry.job_id}", ANSWER_TIMEOUT_S)
            if status == 200:
                self._ledger.ended(entry, CANCELLED)
            elif status == 0:
                await self._pause()
            elif status == 409:  # it has ended before
                return
            elif not await self._come_back(status, body, headers):
                self._wrong(entry, status, body)

    # --- one request -----------------------------------------------------------------------------

    async def _ask(
        self, method: str, path: str, timeout_s: float, *, body: dict[str, Any] | None = None, key: str = ""
    ) -> Answer:
        """(status, JSON or bytes, headers); status 0 where no answer came."""
        headers = self._headers | ({"Idempotency-Key": key} if key else {})
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(method, self._url + path, json=body, headers=headers) as answer,
            ):
                data = await answer.read()
                if answer.content_type == "application/json":
                    return answer.status, await answer.json(), answer.headers
                return answer.status, data, answer.headers
        except (aiohttp.ClientError, OSError) as error:
            self._ledger.broken[f"HTTP {type(error).__name__}"] += 1
        return 0, None, {}

    async def _come_back(self, status: int, body: Any, headers: Mapping[str, str]) -> bool:
        """Wait as long as the answer says, if it says so."""
        if status not in COME_BACK or "Retry-After" not in headers:
            return False
        self._ledger.refusals[f"{status} {_code(body)}"] += 1
        await asyncio.sleep(float(headers["Retry-After"]) + self._rng.random())
        return True

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(*REPEAT_S))

    def _wrong(self, entry: Entry, status: int, body: Any) -> None:
        self._ledger.fault(entry, f"an answer that nobody promised: {status} {str(body)[:300]}")
        self._ledger.ended(entry, FAILED, f"{status} {_code(body)}")


def _code(body: Any) -> str:
    try:
        return str(body["error"]["code"])
    except (TypeError, KeyError):
        return ""


def _body(order: Order) -> dict[str, Any]:
    return {
        "prompt": order.key,
        "size": f"{order.width}x{order.height}",
        "seed": order.seed,
        "num_inference_steps": order.steps,
        "priority": order.priority,
        **({"deadline_s": order.deadline_s} if order.deadline_s else {}),
    }
