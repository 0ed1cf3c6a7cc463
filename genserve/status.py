"""`genserve status`: the router's STATUS as tables for people, or as it came for programs.

Pure but for `status`: the tables are made from a StatusReply and the time.
"""

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.clock import wall_s
from common.messages import StatusReply, WorkerView
from genserve.client import Client, RouterAddress
from genserve.paper import paper

STATE_STYLES = {"ready": "green", "loading": "cyan", "draining": "yellow", "suspect": "yellow", "broken": "bold red"}
UNBOUNDED_COLUMNS = 1000  # more than any table takes
WIDE_BAR, NARROW_BAR = 12, 6  # characters
MIB_PER_GIB = 1024


def status(router: RouterAddress, *, as_json: bool) -> int:
    """Print how the service stands; the exit status. Raises GenServeError unavailable."""
    with Client(router) as client:
        reply = client.status()
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(reply), indent=2).decode() + "\n")
    else:
        console = paper()
        console.print(tables(reply, now=wall_s(), width=console.width))
    return 0


def tables(reply: StatusReply, *, now: float, width: int, workers_max: int | None = None) -> RenderableType:
    """Everything STATUS tells, for a terminal of `width` >= 80 columns. `now`: wall seconds.

    Of more than `workers_max` GPUs the rest is only counted.
    """
    everyone = sorted(reply.workers, key=_natural_order)
    reply = msgspec.structs.replace(reply, workers=tuple(everyone[:workers_max]))
    more = len(everyone) - len(reply.workers)
    names = shown_names(everyone)
    troubles = [
        Text(f"  {names[w.worker_id]}: {w.detail}", style=STATE_STYLES.get(w.state, ""))
        for w in reply.workers
        if w.detail and w.state != "ready"
    ]
    full = _workers(reply, names, now, wide=True)
    workers: RenderableType = full if _natural_width(full) <= width else _workers(reply, names, now, wide=False)
    if not reply.workers:
        workers = Text(" No GPU is registered: start one with `genserve gpu-daemon`", style="yellow")
    parts: list[RenderableType] = [Text(""), workers, *troubles]
    if more:
        parts.append(Text(f"  and {more} {'GPU' if more == 1 else 'GPUs'} more", style="dim"))
    parts += [Text(""), _counts(reply), _limits(reply)]
    if reply.storage_full:
        parts.append(Text(f" No new jobs are taken: {reply.storage_full}", style="red"))
    if reply.models:
        parts += [Text(""), _models(reply)]
    if reply.failures:
        parts += [Text(""), _failures(reply, names, now)]
    return Group(*parts, Text(""))


def _workers(reply: StatusReply, names: Mapping[str, str], now: float, *, wide: bool) -> Table:
    """One row a GPU; less of it where the terminal is narrow."""
    table = _table("GPUs")
    table.add_column("device", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("model", no_wrap=True, overflow="ellipsis", max_width=None if wide else 17)
    table.add_column("job", no_wrap=True)
    for column in ("waiting", "memory", "done", *(("failed", "a step", "last job") if wide else ())):
        table.add_column(column, justify="right", no_wrap=True)
    for worker in reply.workers:
        table.add_row(
            names[worker.worker_id],
            Text(worker.state, style=STATE_STYLES.get(worker.state, "")),
            ", ".join(worker.models),
            _job(worker, wide=wide),
            str(worker.queue_size),
            _memory(worker),
            str(worker.done_total),
            *(_history(worker, now) if wide else ()),
        )
    return table


def _natural_width(table: Table) -> int:
    """Columns that the table takes where nothing is cut."""
    console = Console(width=UNBOUNDED_COLUMNS)
    return Measurement.get(console, console.options, table).maximum


def _history(worker: WorkerView, now: float) -> tuple[RenderableType, ...]:
    return (
        Text(str(worker.failed_total), style="red" if worker.failed_total else "dim"),
        seconds(worker.step_s) if worker.step_s else "–",
        f"{seconds(max(0.0, now - worker.last_used_at))} ago" if worker.last_used_at else "–",
    )


def _counts(reply: StatusReply) -> Table:
    stats, limits = reply.stats, reply.limits
    table = _table("Jobs")
    names = ("running", "waiting", "behind", "done", "failed", "cancelled", "refused", "retried")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(
        str(stats.running),
        str(stats.queued - stats.overflow),
        f"{stats.overflow} of {limits.global_queue_size}",
        str(stats.done_total),
        Text(str(stats.failed_total), style="red" if stats.failed_total else ""),
        str(stats.cancelled_total),
        str(stats.rejected_total),
        str(stats.retried_total),
    )
    return table


def _limits(reply: StatusReply) -> Text:
    limits = reply.limits
    return Text(
        f" up {seconds(reply.stats.uptime_s)} · {limits.gpu_queue_size} wait for each GPU and "
        f"{limits.global_queue_size} behind them · a job lives {seconds(limits.job_deadline_s)}",
        style="dim",
    )


def _models(reply: StatusReply) -> Table:
    table = _table("Models")
    table.add_column("name", no_wrap=True, overflow="ellipsis")
    table.add_column("GPUs", justify="right")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("steps", justify="right")
    table.add_column("folder", overflow="fold")
    for model in reply.models:
        card = model.card
        default = " (default)" if card.name == reply.default_model else ""
        table.add_row(
            f"{card.name}{default}",
            Text(str(model.workers), style="" if model.workers else "yellow"),
            f"{card.width}x{card.height}",
            str(card.steps),
            "embedded" if card.embedded else model.model_path or "–",
        )
    return table


def _failures(reply: StatusReply, names: Mapping[str, str], now: float) -> RenderableType:
    lines: list[RenderableType] = [Text("Last failures", style="bold")]
    for each in reply.failures:
        when, gpu = f"{seconds(max(0.0, now - each.at))} ago", names.get(each.worker_id, each.worker_id)
        where = f" on {gpu}" if gpu else ""
        lines.append(Text.assemble(" ", (each.code, "red"), f"{where}, {when}, job {each.job_id}"))
        lines.append(Padding(Text(each.message, style="dim"), (0, 0, 0, 3)))
    return Group(*lines)


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=True,
        header_style="dim",
        padding=(0, 1),
    )


def shown_names(workers: Sequence[WorkerView]) -> dict[str, str]:
    """What to call each, by worker_id: its device where all are of one host, else with its host.

    Hosts may have one name: where that would call two the same, both are called by their ids.
    """
    one_host = len({worker.host for worker in workers}) == 1
    names = {
        worker.worker_id: worker.device.device if one_host else f"{worker.host}/{worker.device.device}"
        for worker in workers
    }
    count = Counter(names.values())
    return {worker_id: name if count[name] == 1 else worker_id for worker_id, name in names.items()}


def _natural_order(worker: WorkerView) -> list[str | int]:
    """By name, and numbers in it as numbers: cuda:2 before cuda:10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", worker.worker_id)]


def _job(worker: WorkerView, *, wide: bool) -> RenderableType:
    if not worker.busy:
        return Text("idle", style="dim")
    width = WIDE_BAR if wide else NARROW_BAR
    bar = ProgressBar(total=max(worker.steps, 1), completed=worker.step, width=width, complete_style="cyan")
    row = Table.grid(padding=(0, 1))
    row.add_row(*([worker.job_id[:8]] if wide else []), bar, f"{worker.step}/{worker.steps}")
    return row


def _memory(worker: WorkerView) -> str:
    used = (worker.load.allocated_mb + worker.load.cached_mb) / MIB_PER_GIB
    total = worker.device.total_mb / MIB_PER_GIB
    return f"{used:.{0 if used >= 10 else 1}f}/{total:.0f} GiB" if total else f"{used:.1f} GiB"


def seconds(value: float) -> str:
    """A duration in its two largest units: 0.043 s, 12.5 s, 3 m 20 s, 5 h 12 m, 2 d 3 h."""
    if value < 1:
        return f"{value:.3f} s"
    if value < 60:
        return f"{value:.1f} s"
    for large, name, small, rest in ((3600, "m", 60, "s"), (86_400, "h", 3600, "m")):
        if value < large:
            return f"{value // small:.0f} {name} {value % small // (small / 60):.0f} {rest}"
    return f"{value // 86_400:.0f} d {value % 86_400 // 3600:.0f} h"


def number(value: float) -> str:
    """A number to three figures, a large one to the unit: 0.123, 12.3, 1467."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
