"""What a person sees of `genserve up`: the stages of its start, what it says when ready, how it stops.

Everything here is written to stderr; stdout belongs to the parts' logs. On a terminal the stages are one
moving table, elsewhere a plain line each time one of them changes. Knows nothing of processes and sockets.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.rule import Rule
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from common.clock import monotonic_s

State = Literal["waiting", "working", "done", "failed"]
MARKS = {"waiting": "[dim]·[/]", "done": "[bold green]✔[/]", "failed": "[bold red]✘[/]"}
PLAIN_MARKS = {"waiting": "  ", "working": "..", "done": "ok", "failed": "!!"}
REFRESH_PER_S = 8
NAME_WIDTH = 13  # characters, in what is said when ready


@dataclass
class Stage:
    """One row: how a part stands, in a few words; since when it is at work; whether it has ended."""

    state: State = "waiting"
    words: str = ""
    began_at: float = 0.0
    took_s: float = 0.0


class Stages:
    """The start, row by row."""

    def __init__(self, names: Sequence[str], console: Console) -> None:
        self.console = console
        self._rows = {name: Stage() for name in names}
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            get_renderable=self._table, console=console, refresh_per_second=REFRESH_PER_S, transient=False
        )
        self._began_at = monotonic_s()

    def start(self) -> None:
        """Begin to show."""
        if self.console.is_terminal:
            self._live.start()

    def stop(self) -> None:
        """Leave the last picture of the table and let others write."""
        self._live.stop()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return monotonic_s() - self._began_at

    def state(self, name: str) -> State:
        """How a row stands."""
        return self._rows[name].state

    def set(self, name: str, state: State, words: str = "", *, quiet: bool = False) -> None:
        """A row moved; `quiet`: not worth a line of its own where there is no terminal."""
        row, now = self._rows[name], monotonic_s()
        if (row.state, row.words) == (state, words):
            return
        if row.state != state:
            row.took_s = now - row.began_at if state == "done" and row.began_at else 0.0
            row.began_at = now if state == "working" else row.began_at
        row.state, row.words = state, words
        if not self.console.is_terminal and not quiet:
            took = f" ({row.took_s:.1f} s)" if row.took_s >= 0.05 else ""
            self._print(f"{PLAIN_MARKS[state]} {name}: {words or state}{took}")

    def tell(self, text: str) -> None:
        """One line, above the table where there is one."""
        self._print(text)

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="ellipsis", no_wrap=True)
        table.add_column(justify="right", style="dim", no_wrap=True)
        now = monotonic_s()
        for name, row in self._rows.items():
            mark: RenderableType = self._spinner if row.state == "working" else Text.from_markup(MARKS[row.state])
            seconds = now - row.began_at if row.state == "working" else row.took_s
            style = {"failed": "red", "waiting": "dim"}.get(row.state, "")
            table.add_row(mark, name, Text(row.words, style=style), f"{seconds:.0f} s" if seconds >= 1 else "")
        return table


@dataclass(frozen=True)
class ReadyNews:
    """What a person wants to know of a service that has just become ready."""

    url: str
    picture: str  # path of the first picture; '' where none was drawn
    picture_facts: str
    picture_failed: str  # why it could not be drawn and what to do; '' where it was, or was not wanted
    warning: str  # what a person should mend though everything runs; '' for nothing
    generate: str  # a command to try
    curl: str
    status: str
    note: str  # what to know about the model; '' for nothing
    took_s: float


def show_ready(console: Console, news: ReadyNews) -> None:
    """Say where the service is and what to try. What is to be copied is never broken into lines."""
    stands, style = ("serves, but its first picture failed", "red") if news.picture_failed else ("is ready", "green")
    title = f"GenServe {stands} ({news.took_s:.1f} s)"
    prose_width = console.width - NAME_WIDTH - 4 if console.is_terminal else 10_000
    rows = [
        ("Open", news.url),
        ("First picture", news.picture),
        *_wrapped("", news.picture_facts, prose_width),
        *_wrapped("First picture", news.picture_failed, prose_width),
        *_wrapped("Warning", news.warning, prose_width),
        ("Draw", news.generate),
        ("", news.curl),
        ("Look", news.status),
        ("Stop", "Ctrl-C"),
        *_wrapped("Note", news.note, prose_width),
    ]
    if console.is_terminal:
        console.print()
        console.print(Rule(f"[bold {style}]{title}[/]", style=style, align="left"))
    else:
        console.print(title, highlight=False)
    for name, text in rows:
        if text:
            console.print(f"  [bold]{name:<{NAME_WIDTH}}[/] {escape(text)}", highlight=False, soft_wrap=True)
    if console.is_terminal:
        console.print(Rule(style=style))
        console.print()


def _wrapped(name: str, text: str, width: int) -> list[tuple[str, str]]:
    """Rows of a text that is read, not copied."""
    return [(name if at == 0 else "", line) for at, line in enumerate(textwrap.wrap(text, width))]
