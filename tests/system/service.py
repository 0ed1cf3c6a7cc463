"""The service on a booted machine: its units, what it is asked to draw, and how its jobs ended."""

import itertools
from concurrent.futures import Future
from typing import Any

from tests.service import wait_for
from tests.system.machine import Machine

ROUTER, GATEWAY, SOCKET = "genserve-router.service", "genserve-gateway.service", "genserve-gateway.socket"
GPUS = ("genserve-gpu@cpu:0.service", "genserve-gpu@cpu:1.service")
SERVICES = (ROUTER, GATEWAY, *GPUS)
READY_WITHIN_S = 120.0
ENDS_WITHIN_S = 120.0
_numbers = itertools.count(1)


def gpus_ready(machine: Machine) -> int:
    """How many GPUs can draw, as the gateway tells; 0 while nobody answers."""
    try:
        status, body = machine.call("/health").result()
    except OSError:
        return 0
    return body["workers_ready"] if status == 200 else 0


def picture(machine: Machine, *, key: str = "", **fields: Any) -> "Future[tuple[int, Any]]":
    """A synchronous request for one small picture, repeated never; with this key of HTTP."""
    number = next(_numbers)
    body = {"prompt": f"a red circle, number {number}", "size": "64x64", "seed": number, **fields}
    headers = {"Idempotency-Key": f"picture-{number}", **({"Authorization": f"Bearer {key}"} if key else {})}
    return machine.call("/v1/images/generations", body, headers=headers)


def submit(machine: Machine, **fields: Any) -> str:
    """A job, taken; its path."""
    number = next(_numbers)
    body = {"prompt": f"a blue square, number {number}", "size": "64x64", "seed": number, **fields}
    status, answer = machine.call("/v1/jobs", body).result()
    assert status == 202, answer
    return str(answer["links"]["self"])


def job(machine: Machine, path: str) -> dict[str, Any]:
    """How a job stands."""
    status, answer = machine.call(path).result()
    assert status == 200, answer
    return dict(answer)


def wait_done(machine: Machine, paths: list[str]) -> list[dict[str, Any]]:
    """The jobs, each of them drawn."""
    ended = [wait_for(f"end of {path}", lambda path=path: _ended(job(machine, path)), ENDS_WITHIN_S) for path in paths]
    assert [(each["id"], each["state"]) for each in ended if each["state"] != "done"] == []
    return ended


def wait_up(machine: Machine, unit: str, *, other_than: str = "") -> str:
    """The main process of a unit that is up, and another one than before."""

    def up() -> str:
        pid = machine.property(unit, "MainPID")
        return pid if pid not in ("0", other_than) and machine.property(unit, "ActiveState") == "active" else ""

    return str(wait_for(f"{unit} up again", up, READY_WITHIN_S))


def _ended(view: dict[str, Any]) -> dict[str, Any]:
    return view if view["state"] in ("done", "failed", "cancelled") else {}
