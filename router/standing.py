"""How the router stands, on one line for the person who asks systemd: GPUs, what runs, what waits.

Pure. Only reads; what it counts is counted elsewhere.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from common.health import Standing
from router.jobs import JobState

if TYPE_CHECKING:
    from router.state import RouterState

STOP_MARGIN_S = 10.0  # for what is done when all is drained


def standing(state: RouterState) -> Standing:
    """'2 GPUs ready, 1 loading, 3 jobs running, 5 waiting'."""
    census = state.census
    running = census[JobState.RUNNING] + census[JobState.STORING]
    waiting = census[JobState.QUEUED] + census[JobState.DISPATCHED]
    if state.draining_until_now is not None:
        storing = census[JobState.STORING]
        kept = f", {_count(storing, 'picture')} being stored" if storing else ""
        text = f"draining: {_still_run(running)}, {waiting} waiting{kept}"
        return Standing(text, stopping=True, needs_s=state.settings.drain_s + STOP_MARGIN_S)
    parts = [_gpus(state), f"{_count(running, 'job')} running", f"{waiting} waiting"]
    text = ", ".join(parts)
    if state.storage_full:
        text += f"; new jobs are refused: {state.storage_full}"
    return Standing(text)


def _gpus(state: RouterState) -> str:
    workers = list(state.fleet.workers.values())
    if not workers:
        return "no GPU connected"
    found = Counter("silent" if worker.suspect or worker.peer is None else worker.state for worker in workers)
    ready = found.pop("ready", 0)
    return ", ".join([f"{_count(ready, 'GPU')} ready", *(f"{number} {name}" for name, number in sorted(found.items()))])


def _still_run(jobs: int) -> str:
    return "1 job still runs" if jobs == 1 else f"{jobs} jobs still run"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
