"""What ran where and when, what waited meanwhile, and what came out a second.

Pure: lists in, lists out. Seconds since the first job was accepted, by the router's clock; throughput by the client's.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec import Struct

from genserve.burst.record import DONE, Request, Run

BINS_MAX = 60
_NICE = (1.0, 2.0, 5.0)


class Span(Struct, frozen=True, kw_only=True):
    """One job on its GPU; of one that was tried again, the last time."""

    number: int  # of its request
    worker_id: str
    begin_s: float
    end_s: float
    waited_s: float
    done: bool


class Depth(Struct, frozen=True, kw_only=True):
    """From `at_s` on so many jobs wait and run, or do so on average until the next one."""

    at_s: float
    waiting: float
    running: float


class Bin(Struct, frozen=True, kw_only=True):
    """Pictures that came within [begin_s, begin_s + width_s)."""

    begin_s: float
    width_s: float
    pictures: int


def origin(run: Run) -> float:
    """When the first job was accepted, on the router's clock; 0 where nothing is known of any."""
    return min((request.job.created_at for request in run.requests if request.job), default=0.0)


def end_s(run: Run) -> float:
    """When the last job ended."""
    return max((request.job.ended_at for request in run.requests if request.job), default=0.0) - origin(run)


def spans(run: Run) -> list[Span]:
    """All that ran, by begin."""
    begin = origin(run)
    found = [
        Span(
            number=request.order.number,
            worker_id=job.worker_id,
            begin_s=job.started_at - begin,
            end_s=job.ended_at - begin,
            waited_s=job.started_at - job.created_at,
            done=request.outcome == DONE,
        )
        for request in run.requests
        if (job := request.job) and job.started_at and job.ended_at and job.worker_id
    ]
    return sorted(found, key=lambda span: span.begin_s)


def merged(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same time, without overlaps, by begin."""
    whole: list[tuple[float, float]] = []
    for begin, end in sorted(intervals):
        if whole and begin <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(whole[-1][1], end))
        elif end > begin:
            whole.append((begin, end))
    return whole


def length_s(intervals: Iterable[tuple[float, float]]) -> float:
    """Of intervals without overlaps, together."""
    return sum(end - begin for begin, end in intervals)


def without(
    intervals: Sequence[tuple[float, float]], taken: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """`intervals` less `taken`; both without overlaps and by begin."""
    left: list[tuple[float, float]] = []
    position = 0
    for begin, end in intervals:
        while position < len(taken) and taken[position][1] <= begin:
            position += 1
        at, index = begin, position
        while index < len(taken) and taken[index][0] < end:
            if taken[index][0] > at:
                left.append((at, taken[index][0]))
            at = max(at, taken[index][1])
            index += 1
        if at < end:
            left.append((at, end))
    return left


def waiting(run: Run) -> list[tuple[float, float]]:
    """When at least one job waited that had not been started before."""
    begin = origin(run)
    return merged(
        (job.created_at - begin, (job.started_at or job.ended_at) - begin)
        for request in run.requests
        if (job := request.job) and job.starts <= 1 and job.ended_at
    )


def depths(run: Run) -> list[Depth]:
    """How many of this run's jobs wait and run, at each change."""
    begin = origin(run)
    changes: dict[float, list[int]] = {}
    for request in run.requests:
        job = request.job
        if job is None or not job.ended_at:
            continue
        started_at = job.started_at or job.ended_at
        for at, waits, runs in ((job.created_at, 1, 0), (started_at, -1, 1), (job.ended_at, 0, -1)):
            change = changes.setdefault(at - begin, [0, 0])
            change[0] += waits
            change[1] += runs
    found, waits, runs = [], 0, 0
    for at in sorted(changes):
        waits += changes[at][0]
        runs += changes[at][1]
        found.append(Depth(at_s=at, waiting=waits, running=runs))
    return found


def averaged(depths: Sequence[Depth], parts: int) -> list[Depth]:
    """The averages over `parts` equal parts of the time, for what changes too often to be drawn."""
    begin, end = depths[0].at_s, depths[-1].at_s
    width = (end - begin) / parts
    sums = [[0.0, 0.0] for _ in range(parts)]
    for depth, after in pairwise(depths):
        at = depth.at_s
        while at < after.at_s:
            part = min(int((at - begin) / width), parts - 1)
            until = after.at_s if part == parts - 1 else min(after.at_s, begin + (part + 1) * width)
            if until <= at:  # the border itself, by rounding
                part, until = min(part + 1, parts - 1), min(after.at_s, begin + (part + 2) * width)
            sums[part][0] += depth.waiting * (until - at)
            sums[part][1] += depth.running * (until - at)
            at = until
    means = [Depth(at_s=begin + i * width, waiting=w / width, running=r / width) for i, (w, r) in enumerate(sums)]
    return [*means, depths[-1]]


def throughput(run: Run) -> list[Bin]:
    """Pictures that reached their clients, in bins of one width, but for the last one."""
    ends = [request.ended_s for request in run.requests if request.outcome == DONE]
    last_s = max((request.ended_s for request in run.requests), default=0.0)
    if not ends or last_s <= 0:
        return []
    width_s = nice_step(last_s, BINS_MAX)
    counts = [0] * max(1, int(last_s / width_s + 0.5))  # a short rest belongs to the bin before it
    for end in ends:
        counts[min(int(end / width_s), len(counts) - 1)] += 1
    last = len(counts) - 1
    return [
        Bin(begin_s=index * width_s, width_s=width_s if index < last else last_s - index * width_s, pictures=count)
        for index, count in enumerate(counts)
    ]


def nice_step(length: float, parts_max: int) -> float:
    """The least of … 0.1, 0.2, 0.5, 1, 2, 5, 10 … that cuts `length` > 0 into at most `parts_max` parts."""
    step = 1e-6
    while True:
        for factor in _NICE:
            if length / (step * factor) <= parts_max:
                return step * factor
        step *= 10


def longest_gap_s(busy: Sequence[tuple[float, float]]) -> float:
    """The longest time between two intervals."""
    return max((later[0] - earlier[1] for earlier, later in pairwise(busy)), default=0.0)


def requests_by_number(run: Run) -> dict[int, Request]:
    """Each request under its number."""
    return {request.order.number: request for request in run.requests}
