"""A run as tables for a terminal of 80 columns or more.

Pure: from the run, its figures and its verdicts.
"""

from collections.abc import Iterable, Sequence

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from genserve.burst.record import Run
from genserve.burst.statistics import GpuShare, Group, Spread, Summary, duration, percent
from genserve.burst.verdicts import BAD, GOOD, NOTE, WARN, Verdict
from genserve.status import number

MARKS = {GOOD: ("✔", "green"), NOTE: ("•", "cyan"), WARN: ("▲", "yellow"), BAD: ("✘", "bold red")}
DOORS = {"http": "HTTP", "zmq": "ZeroMQ", "both": "HTTP and ZeroMQ in turn"}
BAR = 8  # characters
NAME_MIN = 8  # the same, of names that are folded where a terminal is narrow


def report(run: Run, figures: Summary, said: Sequence[Verdict]) -> RenderableType:
    """Everything a person wants to know first."""
    parts: list[RenderableType] = [Text(""), Text(f" {headline(run, figures)}", style="bold"), Text("")]
    parts += [each for verdict in said for each in _verdict(verdict)]
    parts += [Text(""), _times(figures)]
    if figures.gpus:
        parts += [Text(""), _gpus(figures.gpus)]
    for kind, title in (("shape", "Shapes"), ("door", "Doors"), ("client", "Clients"), ("priority", "Priorities")):
        groups = [group for group in figures.groups if group.kind == kind]
        if groups:
            parts += [Text(""), _groups(title, groups)]
    if figures.errors or figures.refusals:
        parts += [Text(""), _errors(figures)]
    return Stack(*parts, Text(""))


def headline(run: Run, figures: Summary) -> str:
    """The run in one line."""
    stopped = " (stopped early)" if run.interrupted else ""
    return (
        f"{figures.done} pictures in {duration(figures.duration_s)}{stopped}: "
        f"{number(figures.pictures_per_s)} a second, {number(figures.steps_per_s)} steps a second"
    )


def asked(run: Run) -> str:
    """What was asked for, in one line."""
    options = run.options
    how = f"{options.rate_per_s:g} a second" if options.rate_per_s else f"{options.concurrency} at a time"
    return f"{options.requests} requests over {DOORS[options.over]}, {how}"


def percentile_rows(figures: Summary) -> list[tuple[str, str, Spread]]:
    """(what, what that is, how it lies) of every kind of time that was measured."""
    rows = (
        ("latency", "from when the request was due to the picture in hand", figures.latency),
        ("first step", "from when the request was due to the first step seen", figures.first_step),
        ("wait", "from acceptance to the start on a GPU", figures.wait),
        ("run", "from the start to the picture kept by the router", figures.run),
        ("engine", "of it, inside the engine", figures.engine),
        ("asking, fetching", "of the latency, what is neither wait nor run", figures.outside),
        ("sent late", "how much later than due it was sent", figures.late),
    )
    return [(name, meaning, spread) for name, meaning, spread in rows if spread is not None]


def _verdict(verdict: Verdict) -> Iterable[RenderableType]:
    mark, style = MARKS[verdict.tone]
    row = Table.grid(padding=(0, 1))
    row.add_column(no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(Text(f" {mark}", style=style), Text(verdict.text))
    yield row
    if verdict.advice:
        yield Padding(Text(f"-> {verdict.advice}", style="dim"), (0, 0, 0, 3))


def _times(figures: Summary) -> Table:
    table = _table("Times")
    table.add_column("", no_wrap=True)
    for name in ("p50", "p90", "p95", "p99", "max", "of"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, _, spread in percentile_rows(figures):
        values = (spread.p50, spread.p90, spread.p95, spread.p99, spread.max)
        table.add_row(name, *(duration(max(0.0, value)) for value in values), str(spread.count))
    return table


def _gpus(gpus: Sequence[GpuShare]) -> Table:
    table = _table("GPUs")
    table.add_column("device", overflow="fold", min_width=NAME_MIN)  # a host's name may be long
    table.add_column("pictures", justify="right", no_wrap=True)
    table.add_column("share of the work", no_wrap=True)
    for name in ("busy", "idle*", "run", "a step", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for gpu in gpus:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=1.0, completed=gpu.work_share, width=BAR, complete_style="cyan", finished_style="cyan"),
            percent(gpu.work_share),
        )
        table.add_row(
            gpu.name,
            str(gpu.pictures),
            bar,
            percent(gpu.busy_share),
            duration(gpu.idle_while_waiting_s),
            duration(gpu.run.p50) if gpu.run else "–",
            duration(gpu.step_s) if gpu.step_s else "–",
            Text(str(gpu.failed), style="red" if gpu.failed else "dim"),
        )
    table.caption = " * while jobs waited"
    table.caption_justify = "left"
    return table


def _groups(title: str, groups: Sequence[Group]) -> Table:
    table = _table(title)
    table.add_column("", overflow="fold", min_width=NAME_MIN)
    for name in ("done", "latency\np50", "latency\np95", "wait\np50", "wait\np95", "run\np50"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        table.add_row(
            DOORS.get(group.name, group.name),
            f"{group.done} of {group.requests}",
            *(
                duration(value) if spread else "–"
                for spread, value in (
                    (group.latency, group.latency.p50 if group.latency else 0.0),
                    (group.latency, group.latency.p95 if group.latency else 0.0),
                    (group.wait, group.wait.p50 if group.wait else 0.0),
                    (group.wait, group.wait.p95 if group.wait else 0.0),
                    (group.run, group.run.p50 if group.run else 0.0),
                )
            ),
        )
    return table


def _errors(figures: Summary) -> Table:
    table = _table("Errors")
    table.add_column("code", no_wrap=True)
    table.add_column("count", justify="right")
    table.add_column("what was said", overflow="fold")
    for kind in figures.errors:
        table.add_row(Text(kind.code, style="red"), str(kind.count), kind.message)
    for kind in figures.refusals:
        table.add_row(Text(kind.code, style="yellow"), str(kind.count), "sent again")
    return table


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
