"""What a run has found, as tables for a person. Decides nothing but how it looks."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from bench.chaos.audit import BY_CHAOS, Verdict
from bench.chaos.faults import Fault
from bench.chaos.ledger import Ledger

WIDTH = 100
FAULTS_TOLD_MAX = 40
Row = tuple[str, str, str]


def show(
    *,
    title: str,
    ledger: Ledger,
    verdict: Verdict,
    storm: Sequence[Fault],
    times_s: Mapping[str, Sequence[float]],
    limits_s: Mapping[str, float],
    notes: Iterable[str],
) -> None:
    """Print everything."""
    console = Console(width=WIDTH, highlight=False)
    console.print(f"\n[bold]{title}[/bold]")
    if storm:
        console.print(_storm(storm))
    if times_s:
        console.print(_times(times_s, limits_s))
    console.print(_facts(ledger, verdict))
    if verdict.failures:
        console.print("[bold]Jobs that failed, and what was done to them[/bold]")
        for line in verdict.failures:
            console.print(f"  {line}", markup=False)
    for note in notes:
        console.print(note, markup=False)
    faults = verdict.faults + ledger.faults
    for line in faults[:FAULTS_TOLD_MAX]:
        console.print(f"FAULT: {line}", style="red", markup=False)
    if len(faults) > FAULTS_TOLD_MAX:
        console.print(f"… and {len(faults) - FAULTS_TOLD_MAX} faults more", style="red")
    console.print("[bold green]clean[/]" if not faults else f"[bold red]{len(faults)} faults[/]")


def _storm(storm: Sequence[Fault]) -> Table:
    table = Table(title="Troubles", title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for column in ("router and disk", "GPU daemons and engines", "gateway and clients"):
        table.add_column(column)
        table.add_column("", justify="right")
    columns: list[list[tuple[str, int]]] = [[], [], []]
    for kind, count in sorted(Counter(fault.kind for fault in storm).items()):
        place = 0 if "router" in kind or "disk" in kind else 1 if "daemon" in kind or "engine" in kind else 2
        columns[place].append((kind, count))
    for row in range(max(map(len, columns))):
        cells = [(found[row][0], str(found[row][1])) if row < len(found) else ("", "") for found in columns]
        table.add_row(*(text for cell in cells for text in cell))
    table.add_section()
    sums = [str(sum(count for _, count in column)) for column in columns]
    table.add_row("in all", sums[0], "in all", sums[1], "in all", sums[2])
    return table


def _times(times_s: Mapping[str, Sequence[float]], limits_s: Mapping[str, float]) -> Table:
    table = Table(title="Recovery, seconds", title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    table.add_column("")
    for column in ("times", "median", "worst", "allowed"):
        table.add_column(column, justify="right")
    for what, times in times_s.items():
        allowed = f"{limits_s[what]:g}" if what in limits_s else ""
        table.add_row(what, str(len(times)), f"{statistics.median(times):.2f}", f"{max(times):.2f}", allowed)
    return table


def _facts(ledger: Ledger, verdict: Verdict) -> Table:
    table = Table(title="Jobs", title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("")
    entries = ledger.entries
    doors = Counter(entry.order.door for entry in entries)
    for row in (
        ("orders", str(len(entries)), ", ".join(f"{n} {door}" for door, n in sorted(doors.items()))),
        ("submissions sent", str(sum(entry.asked for entry in entries)), _counted(ledger.refusals, "refused: ")),
        ("requests without an answer", str(ledger.broken.total()), _counted(ledger.broken)),
        ("clients that hung up", str(ledger.hung_up), f"{ledger.came_back} came back"),
        ("ended", str(sum(1 for entry in entries if entry.end)), _counted(verdict.ends)),
        ("lost", str(sum("lost" in fault for fault in verdict.faults)), ""),
        ("delivered differently", str(sum("twice" in fault for fault in ledger.faults)), _deliveries(ledger)),
        ("left hanging", str(len(ledger.hanging)), ""),
        ("pictures wrong", str(sum("picture is wrong" in f for f in ledger.faults)), f"{_pictures(ledger)} checked"),
        *_failures(verdict),
        (
            "given to a GPU",
            str(verdict.dispatches),
            f"begun {verdict.starts} times; {_counted(verdict.retried, 'back: ')}",
        ),
    ):
        table.add_row(*row)
    return table


def _failures(verdict: Verdict) -> Iterable[Row]:
    codes = verdict.failed_codes
    by_chaos = Counter({code: n for code, n in codes.items() if code in BY_CHAOS})
    yield "failed by poison or deadline", str(by_chaos.total()), _counted(by_chaos)
    yield "failed otherwise", str((codes - by_chaos).total()), _counted(codes - by_chaos)


def _counted(counter: Counter[str], before: str = "") -> str:
    return before + ", ".join(f"{n} {what}" for what, n in counter.most_common()) if counter else ""


def _deliveries(ledger: Ledger) -> str:
    again = sum(entry.deliveries - 1 for entry in ledger.entries if entry.deliveries)
    return f"{again} ends told again, each the same" if again else ""


def _pictures(ledger: Ledger) -> int:
    return sum(1 for entry in ledger.entries if entry.sha256)
