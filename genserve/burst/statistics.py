"""The figures of a run: rates, waits, percentiles, shares of the GPUs, errors.

Pure. A percentile is a value that was measured (nearest rank), never one between two.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable

from msgspec import Struct

from genserve.burst import timeline
from genserve.burst.record import DONE, GAVE_UP, Gpu, Job, Request, Run
from genserve.status import seconds

PERCENTS = (50, 90, 95, 99)


class Spread(Struct, frozen=True, kw_only=True):
    """How values of one kind lie, in seconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class ErrorKind(Struct, frozen=True, kw_only=True):
    """Failures of one code."""

    code: str
    count: int
    message: str  # of the first


class GpuShare(Struct, frozen=True, kw_only=True):
    """What one GPU did of the run."""

    worker_id: str
    name: str
    pictures: int
    failed: int
    work: float  # megapixels times steps of its pictures
    work_share: float  # of everybody's, 0 to 1
    busy_s: float
    busy_share: float  # of the time from the first job's acceptance to the last one's end
    idle_while_waiting_s: float
    longest_gap_s: float
    run: Spread | None
    step_s: float  # median seconds a step; 0: nothing drawn


class Group(Struct, frozen=True, kw_only=True):
    """Requests that have something in common."""

    kind: str  # shape | door | client | priority
    name: str
    requests: int
    done: int
    latency: Spread | None
    wait: Spread | None
    run: Spread | None
    outside: Spread | None


class Summary(Struct, frozen=True, kw_only=True):
    """The figures."""

    requests: int
    done: int
    failed: int
    gave_up: int
    duration_s: float  # first request due to last end
    pictures_per_s: float
    steps_per_s: float
    megabytes_per_s: float  # of pictures
    latency: Spread | None  # of done requests, from due to the picture in hand
    first_step: Spread | None  # from due to the first step seen
    wait: Spread | None  # from acceptance to the start on a GPU
    run: Spread | None  # from there to the picture stored
    engine: Spread | None  # of it, inside the engine
    outside: Spread | None  # of the last try's latency, what is neither wait nor run: the door and the way there
    late: Spread | None  # how much later than due requests were sent, where they come by rate
    tries_again: int  # by clients
    refusals: tuple[ErrorKind, ...]  # that were sent again
    started_again: int  # jobs that the router gave to a GPU more than once
    errors: tuple[ErrorKind, ...]
    unknown_jobs: int  # done requests of whose jobs nothing more is known
    waiting_s: float  # time in which at least one job waited
    idle_while_waiting: float  # share of the GPUs' time while jobs waited in which they stood idle, 0 to 1
    busy: float  # share of the GPUs' time in which they drew
    gpus: tuple[GpuShare, ...]
    groups: tuple[Group, ...]


def summary(run: Run) -> Summary:
    """All figures of a run."""
    requests = run.requests
    done = [request for request in requests if request.outcome == DONE]
    failed = [request for request in requests if request.outcome not in (DONE, GAVE_UP)]
    duration_s = max((request.ended_s for request in requests), default=0.0)
    over_s = duration_s or math.inf
    gpus = gpu_shares(run)
    waiting_s = timeline.length_s(timeline.waiting(run))
    gpu_time_s = waiting_s * len(gpus)
    return Summary(
        requests=len(requests),
        done=len(done),
        failed=len(failed),
        gave_up=len(requests) - len(done) - len(failed),
        duration_s=duration_s,
        pictures_per_s=len(done) / over_s,
        steps_per_s=sum(request.job.steps for request in done if request.job) / over_s,
        megabytes_per_s=sum(request.bytes for request in done) / 1e6 / over_s,
        latency=spread(request.latency_s for request in done),
        first_step=spread(r.first_step_s for r in requests if r.first_step_s is not None),
        wait=spread(map(_wait_s, _jobs(done))),
        run=spread(map(_run_s, _jobs(done))),
        engine=spread(job.engine_s for job in _jobs(done) if job.engine_s),
        outside=spread(_outside_s(done)),
        late=spread(r.sent_s - r.due_s for r in requests if r.tries == 1) if run.options.rate_per_s else None,
        tries_again=sum(request.tries - 1 for request in requests),
        refusals=_kinds((code, "") for request in requests for code in request.refusals),
        started_again=sum(job.starts > 1 for job in _jobs(requests)),
        errors=_kinds((request.code, request.message) for request in failed),
        unknown_jobs=sum(request.job is None for request in done),
        waiting_s=waiting_s,
        idle_while_waiting=sum(gpu.idle_while_waiting_s for gpu in gpus) / gpu_time_s if gpu_time_s else 0.0,
        busy=sum(gpu.busy_share for gpu in gpus) / len(gpus) if gpus else 0.0,
        gpus=gpus,
        groups=groups(run),
    )


def spread(values: Iterable[float]) -> Spread | None:
    """None where there are no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    p50, p90, p95, p99 = (percentile(ordered, percent) for percent in PERCENTS)
    return Spread(
        count=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        max=ordered[-1],
    )


def duration(value_s: float) -> str:
    """As a person says it: 3.4 ms, 43 ms, 1.2 s, 3 m 20 s."""
    ms = value_s * 1000
    return seconds(max(1.0, value_s)) if ms >= 999.5 else f"{ms:.{1 if ms < 9.95 else 0}f} ms"


def percent(share: float) -> str:
    """A share of 0 to 1 as a person says it."""
    return f"{share * 100:.{1 if 0 < share < 0.095 else 0}f} %"


def percentile(ordered: list[float], percent: float) -> float:
    """The least value that at least `percent` of them do not exceed. `ordered`: not empty."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def gpu_shares(run: Run) -> tuple[GpuShare, ...]:
    """Every GPU that served when the run began or drew during it, in that order."""
    spans, waiting, end_s = timeline.spans(run), timeline.waiting(run), timeline.end_s(run)
    known = {gpu.worker_id: gpu for gpu in run.gpus}
    for span in spans:
        known.setdefault(
            span.worker_id, Gpu(worker_id=span.worker_id, name=span.worker_id, host="", built="", version="")
        )
    jobs: dict[str, list[Job]] = {worker_id: [] for worker_id in known}
    failed: Counter[str] = Counter()
    for request in run.requests:
        if request.job and request.job.worker_id in known:
            if request.outcome == DONE:
                jobs[request.job.worker_id].append(request.job)
            else:
                failed[request.job.worker_id] += request.outcome != GAVE_UP
    work = {worker_id: sum(_work(job) for job in drawn) for worker_id, drawn in jobs.items()}
    all_work = sum(work.values()) or math.inf
    shares = []
    for worker_id, gpu in known.items():
        drawn = jobs[worker_id]
        busy = timeline.merged((s.begin_s, s.end_s) for s in spans if s.worker_id == worker_id)
        steps_s = spread((job.denoise_s or _run_s(job)) / job.steps for job in drawn)
        shares.append(
            GpuShare(
                worker_id=worker_id,
                name=gpu.name,
                pictures=len(drawn),
                failed=failed[worker_id],
                work=work[worker_id],
                work_share=work[worker_id] / all_work,
                busy_s=timeline.length_s(busy),
                busy_share=timeline.length_s(busy) / end_s if end_s > 0 else 0.0,
                idle_while_waiting_s=timeline.length_s(timeline.without(waiting, busy)),
                longest_gap_s=timeline.longest_gap_s(busy),
                run=spread(map(_run_s, drawn)),
                step_s=steps_s.p50 if steps_s else 0.0,
            )
        )
    return tuple(shares)


def groups(run: Run) -> tuple[Group, ...]:
    """Requests by shape, door, client and priority, where there is more than one of a kind."""
    kinds: dict[str, Callable[[Request], str]] = {
        "shape": lambda request: request.shape,
        "door": lambda request: request.order.door,
        "client": lambda request: request.order.client,
        "priority": lambda request: f"{request.order.priority:+d}",
    }
    found = []
    for kind, name_of in kinds.items():
        members: dict[str, list[Request]] = {}
        for request in run.requests:
            members.setdefault(name_of(request), []).append(request)
        if len(members) > 1:
            found += [_group(kind, name, members[name]) for name in sorted(members, key=_natural)]
    return tuple(found)


def _group(kind: str, name: str, requests: list[Request]) -> Group:
    done = [request for request in requests if request.outcome == DONE]
    return Group(
        kind=kind,
        name=name,
        requests=len(requests),
        done=len(done),
        latency=spread(request.latency_s for request in done),
        wait=spread(map(_wait_s, _jobs(done))),
        run=spread(map(_run_s, _jobs(done))),
        outside=spread(_outside_s(done)),
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """As people sort: 64x64 before 128x128."""
    words = "".join(c if c.isdecimal() else f" {c} " for c in name).split()
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words]


def _jobs(requests: Iterable[Request]) -> list[Job]:
    return [request.job for request in requests if request.job and request.job.ended_at]


def _wait_s(job: Job) -> float:
    return max(0.0, (job.started_at or job.ended_at) - job.created_at)


def _run_s(job: Job) -> float:
    return max(0.0, job.ended_at - job.started_at) if job.started_at else 0.0


def _work(job: Job) -> float:
    return job.width * job.height * job.steps / 1e6


def _outside_s(done: Iterable[Request]) -> list[float]:
    """Of requests that needed one try: what the client saw less what the router knows of."""
    return [
        request.ended_s - request.sent_s - (request.job.ended_at - request.job.created_at)
        for request in done
        if request.job and request.job.ended_at and request.tries == 1
    ]


def _kinds(failures: Iterable[tuple[str, str]]) -> tuple[ErrorKind, ...]:
    """Most frequent first."""
    told = list(failures)
    counts = Counter(code for code, _ in told)
    first = dict(reversed(told))
    return tuple(ErrorKind(code=code, count=count, message=first[code]) for code, count in counts.most_common())
