"""Whether a job that failed is tried again, when, and on which GPU.

Pure. The request's own faults are final. Want of memory is tried once more, elsewhere if another GPU serves
the model. Faults of engines, daemons and hosts are tried `attempts_max` times: at once, then with a doubling
wait. A job that ended two engines is poison.
"""

from dataclasses import dataclass

from common.settings import RouterSettings
from router.jobs import Job

INFRASTRUCTURE = frozenset(("engine_error", "engine_died", "worker_lost"))
ENGINE_DEATHS_MAX = 2
MEMORY_FAILURES_MAX = 2
RETRY_WAIT_MAX_S = 300.0
RETURN_WAIT_S = 0.1  # a job given back again and again waits a little longer each time
RETURN_WAIT_MAX_S = 5.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `wait_s`. `bar`: only elsewhere, where another GPU serves the model."""

    wait_s: float
    bar: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job has failed."""

    code: str
    message: str


def after_failure(job: Job, code: str, message: str, settings: RouterSettings) -> Retry | GiveUp:
    """What becomes of `job`, in which this failure has been counted."""
    if code == "out_of_memory":
        return GiveUp(code, message) if job.memory_failures >= MEMORY_FAILURES_MAX else Retry(0.0, bar=True)
    if code not in INFRASTRUCTURE:
        return GiveUp(code, message)
    if job.engine_deaths >= ENGINE_DEATHS_MAX:
        return GiveUp("poison", f"it ended {job.engine_deaths} engines; the last time: {message}")
    if job.attempts >= settings.attempts_max:
        return GiveUp(code, f"{message} (attempt {job.attempts} of {settings.attempts_max})")
    if job.failures <= 1:
        return Retry(0.0)
    wait_s = min(settings.retry_backoff_s * 2.0 ** min(job.failures - 2, 30), RETRY_WAIT_MAX_S)
    return Retry(wait_s * _jitter(job))


def after_return(job: Job) -> Retry:
    """A job given back without having begun: at once, but never in a tight circle."""
    return Retry(min(RETURN_WAIT_S * (job.returns - 1), RETURN_WAIT_MAX_S))


def _jitter(job: Job) -> float:
    """0.75 to 1.25, from the job's random id: the retries of many jobs do not come as one."""
    return 0.75 + int(job.job_id[-6:], 16) / 0xFFFFFF / 2
