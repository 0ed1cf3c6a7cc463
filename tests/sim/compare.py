"""Replay equals memory: what a broker that starts from the journal knows, held against the one that lives.

What a GPU does at the moment is not written down and not compared: a picture that is being stored is, after a
replay, still running.
"""

from typing import Any

from router.jobs import IN_HAND, Job, JobState
from router.state import RouterState

TOLERANCE_S = 0.01
EXACT = (
    "owner", "order", "sequence", "created_at", "deadline_at", "dispatch", "settled", "worker_id", "device", "starts",
    "started_at", "ended_at", "error", "revived_as", "moments", "inputs_of",
)  # fmt: skip
TO_GO_ON = ("lost", "attempts", "failures", "returns", "engine_deaths", "memory_failures", "avoid", "barred")
NEAR = ("created_now", "deadline_now", "ended_now")


def differences(live: RouterState, again: RouterState) -> list[str]:
    """What the replay does not know, or knows otherwise."""
    found: list[str] = []

    def hold(what: str, ours: Any, theirs: Any) -> None:
        if ours != theirs:
            found.append(f"{what}: alive {ours!r}, replayed {theirs!r}")

    for name in ("jobs", "live", "ended", "dead"):
        hold(name, sorted(getattr(live, name)), sorted(getattr(again, name)))
    hold("keys", list(live.keys._keys.items()), list(again.keys._keys.items()))
    hold("models", list(live.cards.items()), list(again.cards.items()))
    hold("model paths", live.model_paths, again.model_paths)
    hold("result_bytes", live.result_bytes, again.result_bytes)
    hold("bytes of inputs", live.inputs.kept_bytes, again.inputs.kept_bytes)
    hold("sequence", live.sequence >= again.sequence, True)
    for job_id, job in live.jobs.items():
        other = again.jobs.get(job_id)
        if other is not None:
            found += [f"job {job_id} ({job.state.value}): {text}" for text in _of_a_job(job, other, live, again)]
    return found


def _of_a_job(job: Job, other: Job, live: RouterState, again: RouterState) -> list[str]:
    found = []
    state = JobState.RUNNING if job.state is JobState.STORING else job.state
    if state is not other.state:
        found.append(f"state: alive {job.state.value}, replayed {other.state.value}")
    differing = [n for n in (EXACT if job.ended else EXACT + TO_GO_ON) if getattr(job, n) != getattr(other, n)]
    differing += [n for n in NEAR if abs(getattr(job, n) - getattr(other, n)) > TOLERANCE_S]
    found += [f"{n}: alive {getattr(job, n)!r}, replayed {getattr(other, n)!r}" for n in differing]
    if state is JobState.QUEUED:
        due = [max(0.0, one.not_before_now - live.now) for one in (job, other)]
        if abs(due[0] - due[1]) > TOLERANCE_S:
            found.append(f"starts again in: alive {due[0]!r}, replayed {due[1]!r}")
    if job.ended and (job.picture, job.parts, job.timings, job.notes) != (
        other.picture,
        other.parts,
        other.timings,
        other.notes,
    ):
        found.append("its picture's facts differ")
    if state in IN_HAND and job.job_id not in again.orphans:
        found.append("the replay does not wait for its GPU")
    return found
