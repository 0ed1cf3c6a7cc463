"""The HTTP door: POST /v1/images/generations as any program would, and GET /v1/jobs for what became of each.

Knows the gateway's replies; knows neither the router nor the terminal. A client that gives up hangs up.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from common.messages import StatusReply
from genserve.burst.door import Drawn, Sighting, Trouble
from genserve.burst.record import Job, Order

QUICK_S = 15.0  # for whatever is not a picture


class HttpDoor:
    """A gateway."""

    name = "http"

    def __init__(self, url: str, model: str, api_key: str) -> None:
        self.address = url
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def open(self) -> None:
        """Open no more than a session: connections are made as they are needed."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=self._headers)

    async def close(self) -> None:
        """Hang up."""
        await self._session.close()

    async def status(self) -> StatusReply:
        """GET /v1/status."""
        body = await self._ask("GET", "/v1/status")
        try:
            return msgspec.convert({"rid": "-", **body}, StatusReply)
        except (msgspec.ValidationError, TypeError) as error:
            raise Trouble("protocol_error", f"{self.address} is no GenServe gateway of this version: {error}") from None

    async def draw(self, order: Order, sighting: Sighting) -> Drawn:
        """POST /v1/images/generations, which shows no steps. Cancelled, it hangs up: the gateway cancels the job."""
        body: dict[str, Any] = {"prompt": order.prompt, "seed": order.seed, "priority": order.priority}
        if order.width:
            body["size"] = f"{order.width}x{order.height}"
        if order.steps:
            body["num_inference_steps"] = order.steps
        if self._model:
            body["model"] = self._model
        answer = await self._ask(
            "POST", "/v1/images/generations", body, headers={"X-GenServe-Client": order.client}, within_s=None
        )
        item = answer["data"][0]
        sighting.job_id = item["genserve"]["job_id"]
        return Drawn(bytes=len(base64.b64decode(item["b64_json"])), job=None)

    async def job(self, job_id: str) -> Job | None:
        """GET /v1/jobs/{id}."""
        try:
            view = await self._ask("GET", f"/v1/jobs/{job_id}")
        except Trouble as trouble:
            if trouble.code == "not_found":
                return None
            raise
        width, height = (int(side) for side in view["size"].split("x"))
        timings = view["timings"] or {}
        return Job(
            job_id=job_id,
            worker_id=view["worker"] or "",
            state=view["state"],
            width=width,
            height=height,
            steps=view["steps"],
            created_at=view["created_at"],
            started_at=view["started_at"] or 0.0,
            ended_at=view["ended_at"] or 0.0,
            starts=view["attempts"],
            engine_s=timings.get("total_s", 0.0),
            denoise_s=timings.get("denoise_s", 0.0),
        )

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        within_s: float | None = QUICK_S,
    ) -> Any:
        """The body of a 200. Raises Trouble for everything else."""
        limit = aiohttp.ClientTimeout(total=within_s)
        try:
            async with self._session.request(
                method, self.address + path, json=body, headers=headers, timeout=limit
            ) as answer:
                data = await answer.read()
                status, said = answer.status, answer.headers
        except TimeoutError as error:
            raise Trouble("connection", f"no answer from {self.address}{path} in time") from error
        except aiohttp.ClientResponseError as error:  # its own words are of what it could not parse
            raise Trouble("connection", f"what answers at {self.address} does not speak HTTP") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Trouble("connection", f"{self.address}: {str(error) or type(error).__name__}") from error
        try:
            told = json.loads(data)
            if status == 200:
                return told
            fault = told["error"]
            wait_ms = said.get("retry-after-ms")
            raise Trouble(fault["code"], fault["message"], retry_after_s=float(wait_ms) / 1000 if wait_ms else None)
        except (ValueError, KeyError, TypeError) as error:
            text = f"{self.address}{path} answered {status} with no GenServe body"
            raise Trouble("protocol_error", text) from error
