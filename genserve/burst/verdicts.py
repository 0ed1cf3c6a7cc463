"""What the figures mean, in words, and what to do about it. docs/burst.md explains each threshold.

Pure. A verdict is said only where its figures rest on enough requests to mean something.
"""

from msgspec import Struct

from genserve.burst.record import DONE, Request, Run
from genserve.burst.statistics import GpuShare, Group, Summary, duration, percent, spread
from genserve.status import number

GOOD, NOTE, WARN, BAD = "good", "note", "warn", "bad"

REQUESTS_MIN = 20  # below that only what failed is judged
EVEN_WORK = 0.8  # of the busiest GPU's work: less is uneven
SAME_BUSY = 0.85  # as busy as the busiest GPU, and yet less work: it is slower
IDLE_SHARE = 0.05  # of the GPUs' time while jobs waited
IDLE_S = 0.5  # and so many seconds together
FULL_BUSY = 0.9  # of the GPUs' time
LOW_BUSY = 0.6
LATE_S = 0.1  # that one request in a hundred is sent later than due
TAIL = 3.0  # times the median wait, that one in a hundred waits longer than
TAIL_S = 1.0  # and at least so many seconds
WAITS_GREW = 2.0  # times, from the first third of the arrivals to the last
WAITS_GREW_S = 1.0
SLOWED = 1.2  # times as long for the same picture on the same GPU, last third against first
SAMPLE_MIN = 12  # pictures of one shape on one GPU
EVEN_CLIENTS = 1.5  # times the mean wait of the client that waits least
EVEN_CLIENTS_S = 0.5
DEAR_DOOR = 0.1  # of the latency
_PARTS = ((0.5, "half of"), (1 / 3, "a third of"), (0.25, "a quarter of"), (0.75, "three quarters of"))


class Verdict(Struct, frozen=True, kw_only=True):
    """One thing worth knowing."""

    name: str  # stable, for programs
    tone: str  # good | note | warn | bad
    text: str
    advice: str = ""


def verdicts(run: Run, figures: Summary) -> list[Verdict]:
    """The worst first, else in the order of a request's life."""
    found = [_outcome(figures), _refused(run, figures), _again(figures)]
    if figures.done >= REQUESTS_MIN:
        found += [
            _late(figures),
            _growing(run),
            _balance(figures),
            _idle(figures),
            _busy(run, figures),
            _tail(figures),
            _fair(figures),
            _slowed(run),
            _doors(figures),
            _owners(run),
            _others(run),
        ]
    order = {BAD: 0, WARN: 1, NOTE: 2, GOOD: 3}
    return sorted((verdict for verdict in found if verdict), key=lambda verdict: order[verdict.tone])


def _outcome(figures: Summary) -> Verdict:
    asked = figures.requests - figures.gave_up
    if not figures.failed:
        gave_up = f"; {figures.gave_up} gave up, as they were to" if figures.gave_up else ""
        return Verdict(name="outcome", tone=GOOD, text=f"all {asked} pictures came{gave_up}")
    kinds = ", ".join(f"{kind.count} {kind.code}" for kind in figures.errors)
    return Verdict(
        name="outcome",
        tone=BAD,
        text=f"{figures.failed} of {asked} requests got no picture: {kinds}",
        advice="docs/protocol.md, “Codes”, says of each whose fault it is and what to do",
    )


def _refused(run: Run, figures: Summary) -> Verdict | None:
    again = sum(kind.count for kind in figures.refusals if kind.code == "queue_full")
    lost = sum(kind.count for kind in figures.errors if kind.code == "queue_full")
    if not again + lost:
        return None
    limits = run.limits
    lower = "lower --rate" if run.options.rate_per_s else "lower --concurrency"
    text = f"the queue refused {again + lost} of {figures.requests + figures.tries_again} asks"
    return Verdict(
        name="refused",
        tone=WARN,
        text=text + ("" if lost else "; all were taken when sent again"),
        advice=f"{lower}, add GPUs, or raise router.global_queue_size ({limits.global_queue_size}): then they wait",
    )


def _again(figures: Summary) -> Verdict | None:
    if not figures.started_again:
        return None
    jobs = "1 job was" if figures.started_again == 1 else f"{figures.started_again} jobs were"
    return Verdict(
        name="started_again",
        tone=WARN,
        text=f"{jobs} started more than once: a GPU, its engine or its connection failed",
        advice="genserve status names the GPU; genserve jobs show ID tells a job's story",
    )


def _late(figures: Summary) -> Verdict | None:
    if figures.late is None or figures.late.p99 < LATE_S:
        return None
    return Verdict(
        name="late_client",
        tone=WARN,
        text=f"this client could not keep the rate: one in a hundred was sent {duration(figures.late.p99)} late",
        advice="lower --rate, or run it on another machine than the service",
    )


def _growing(run: Run) -> Verdict | None:
    """Do jobs come faster than they are drawn?"""
    if not run.options.rate_per_s:
        return None
    came_per_s = (len(run.requests) - 1) / max(run.requests[-1].due_s, 1e-9)
    waits = [r.job.started_at - r.job.created_at for r in run.requests if r.job and r.job.started_at]
    third = len(waits) // 3
    first, last = spread(waits[:third]), spread(waits[-third:]) if third else None
    if first is None or last is None:
        return None
    if last.p50 - first.p50 < WAITS_GREW_S or last.p50 < WAITS_GREW * first.p50:
        text = f"the GPUs keep up with {number(came_per_s)} requests a second: waits do not grow"
        return Verdict(name="keeps_up", tone=GOOD, text=text)
    return Verdict(
        name="keeps_up",
        tone=WARN,
        text=f"jobs came faster than they were drawn, {number(came_per_s)} a second: the median wait grew from "
        f"{duration(first.p50)} to {duration(last.p50)}",
        advice="lower --rate below the pictures a second of this run, or add GPUs",
    )


def _balance(figures: Summary) -> Verdict | None:
    gpus = sorted(figures.gpus, key=lambda gpu: gpu.work)
    if len(gpus) < 2:
        return None
    least, most = gpus[0], gpus[-1]
    if most.work <= 0:
        return None
    ratio = least.work / most.work
    if ratio >= EVEN_WORK:
        shares = sorted({percent(least.work_share), percent(most.work_share)})
        text = f"the {len(gpus)} GPUs share the work evenly: {' to '.join(shares)} each"
        return Verdict(name="balance", tone=GOOD, text=text)
    does = "drew nothing" if not least.work else f"does {_part(ratio)} {most.name}'s work"
    return _uneven(least, most, f"{least.name} {does}")


def _uneven(least: GpuShare, most: GpuShare, text: str) -> Verdict:
    pictures = f"{least.pictures} pictures beside {most.pictures}"
    slower = least.step_s > most.step_s and least.busy_share >= SAME_BUSY * most.busy_share
    if slower:
        why = f"it was as busy and is slower, {duration(least.step_s)} a step beside {duration(most.step_s)}"
        return Verdict(name="balance", tone=NOTE, text=f"{text} ({pictures}): {why}")
    if least.idle_while_waiting_s >= max(IDLE_S, IDLE_SHARE * least.busy_s):
        why = f"it stood idle for {duration(least.idle_while_waiting_s)} while jobs waited"
        advice = "genserve status says whether it is ready, and its log why it was not"
        return Verdict(name="balance", tone=WARN, text=f"{text} ({pictures}): {why}", advice=advice)
    why = "there was not enough to do for it"
    return Verdict(name="balance", tone=NOTE, text=f"{text} ({pictures}): {why}", advice="ask for more at one time")


def _idle(figures: Summary) -> Verdict | None:
    idle_s = sum(gpu.idle_while_waiting_s for gpu in figures.gpus)
    if not figures.waiting_s:
        return None
    if figures.idle_while_waiting < IDLE_SHARE or idle_s < IDLE_S:
        return Verdict(name="idle", tone=GOOD, text="no GPU stood idle while jobs waited")
    worst = max(figures.gpus, key=lambda gpu: gpu.idle_while_waiting_s)
    return Verdict(
        name="idle",
        tone=WARN,
        text=f"the GPUs idle {percent(figures.idle_while_waiting)} of the time in which jobs waited; most of all "
        f"{worst.name}, {duration(worst.idle_while_waiting_s)}",
        advice="very short jobs pay for each handover; else look for a GPU that was away: genserve status, its log",
    )


def _busy(run: Run, figures: Summary) -> Verdict | None:
    if not figures.gpus:
        return None
    more = "raise --rate" if run.options.rate_per_s else "raise --concurrency"
    if figures.busy >= FULL_BUSY:
        return Verdict(
            name="busy",
            tone=GOOD,
            text=f"the GPUs were busy {percent(figures.busy)} of the time: {number(figures.pictures_per_s)} pictures a "
            "second is what this fleet does with this mix",
        )
    tone = NOTE if figures.busy < LOW_BUSY else GOOD
    advice = f"{more} to find out what this fleet can do" if tone == NOTE else ""
    text = f"the GPUs were busy {percent(figures.busy)} of the time: there is room for more"
    return Verdict(name="busy", tone=tone, text=text, advice=advice)


def _tail(figures: Summary) -> Verdict | None:
    wait = figures.wait
    if wait is None or any(group.kind == "priority" for group in figures.groups):
        return None  # waiting longer is what a low priority means
    if wait.p99 < TAIL_S or wait.p99 < TAIL * wait.p50:
        return None
    return Verdict(
        name="tail",
        tone=NOTE,
        text=f"one job in a hundred waited {duration(wait.p99)} or longer; half of them at most {duration(wait.p50)}",
    )


def _fair(figures: Summary) -> Verdict | None:
    clients = [group for group in figures.groups if group.kind == "client" and group.wait]
    if len(clients) < 2 or any(group.kind == "priority" for group in figures.groups):
        return None
    means = sorted(group.wait.mean for group in clients if group.wait)
    told = f"{len(clients)} clients waited {duration(means[0])} to {duration(means[-1])} on average"
    if means[-1] <= EVEN_CLIENTS * means[0] or means[-1] - means[0] < EVEN_CLIENTS_S:
        return Verdict(name="fair", tone=GOOD, text=f"fair: {told}")
    return Verdict(
        name="fair",
        tone=NOTE,
        text=f"unequal waits: {told}",
        advice="GPU time is shared evenly between clients: who asks for more of it waits longer",
    )


def _slowed(run: Run) -> Verdict | None:
    """Does the same picture take longer at the end than at the beginning?"""
    worst, where = 1.0, ""
    for worker_id, times in _beside_their_shape(run).items():
        third = len(times) // 3
        first, last = spread(times[:third]), spread(times[-third:]) if third else None
        if len(times) >= SAMPLE_MIN and first and last and first.p50 > 0 and last.p50 / first.p50 > worst:
            worst, where = last.p50 / first.p50, worker_id
    if worst < SLOWED:
        return None
    name = next((gpu.name for gpu in run.gpus if gpu.worker_id == where), where)
    return Verdict(
        name="slowed",
        tone=NOTE,
        text=f"{name} became slower: the same picture took {worst:.1f} times as long at the end as at the beginning",
        advice="is it hot, is its power capped, does something else run on that machine?",
    )


def _beside_their_shape(run: Run) -> dict[str, list[float]]:
    """For each GPU how long its pictures took, beside the median of their shape there, in the order of their start."""
    drawn = [(r.job, r.shape) for r in run.requests if r.outcome == DONE and r.job]
    series: dict[tuple[str, str], list[float]] = {}
    for job, shape in drawn:
        series.setdefault((job.worker_id, shape), []).append(job.engine_s or job.ended_at - job.started_at)
    medians = {key: spread(times) for key, times in series.items()}
    found: dict[str, list[float]] = {}
    for job, shape in sorted(drawn, key=lambda each: each[0].started_at):
        median = medians[job.worker_id, shape]
        if median and median.p50 > 0:
            took_s = job.engine_s or job.ended_at - job.started_at
            found.setdefault(job.worker_id, []).append(took_s / median.p50)
    return found


def _doors(figures: Summary) -> Verdict | None:
    doors: dict[str, Group] = {group.name: group for group in figures.groups if group.kind == "door"}
    http, raw = (doors.get(name) for name in ("http", "zmq"))
    if http and raw and http.outside and raw.outside:
        more_s = http.outside.p50 - raw.outside.p50
        costs = f"HTTP adds {duration(more_s)} over ZeroMQ" if more_s > 0 else "HTTP adds nothing over ZeroMQ"
        return Verdict(name="doors", tone=GOOD, text=f"{costs} (median of {http.done} and {raw.done} requests)")
    if figures.outside is None or figures.latency is None:
        return None
    share = figures.outside.p50 / figures.latency.p50 if figures.latency.p50 else 0.0
    took = duration(max(0.0, figures.outside.p50))
    text = f"asking and fetching take {took} (median), {percent(max(0.0, share))} of the whole"
    if share < DEAR_DOOR:
        return Verdict(name="doors", tone=GOOD, text=text)
    return Verdict(name="doors", tone=NOTE, text=text, advice="for pictures this quick the way there counts")


def _owners(run: Run) -> Verdict | None:
    if run.options.over != "both" or not run.options.keyed:
        return None
    return Verdict(
        name="owners",
        tone=NOTE,
        text="with keys the two doors are two owners to the router: it shares the GPUs evenly between what came over "
        "HTTP and what came over ZeroMQ, so waits and refusals are each door's own",
        advice="compare the doors by what asking and fetching take; or measure one at a time, with --over",
    )


def _others(run: Run) -> Verdict | None:
    if run.totals is None:
        text = "the router restarted during the run: what else it did is not known"
        return Verdict(name="others", tone=WARN, text=text)
    others = run.totals.submitted - _accepted(run.requests)
    if others <= 0:
        return None
    return Verdict(
        name="others",
        tone=NOTE,
        text=f"{others} jobs of others came meanwhile, and are not in these figures",
        advice="measure when nobody else asks",
    )


def _accepted(requests: tuple[Request, ...]) -> int:
    """How many jobs this run can have made: who hung up, or lost the connection, may have had one."""
    return len(requests) + sum(code == "connection" for request in requests for code in request.refusals)


def _part(ratio: float) -> str:
    """A share in words, where there is a word that is near enough."""
    near, words = min(_PARTS, key=lambda part: abs(part[0] - ratio))
    return words if abs(near - ratio) <= 0.06 * near + 0.01 else f"{percent(ratio)} of"
