"""How a job's life looks to a person, one line after another; and to a program, one JSON object a line.

Pure: lines in, something to print out.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from common.log import ICONS
from genserve.log_lines import HISTORY, LogLine
from genserve.status import number, seconds

LEVEL_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red"}
VALUE_STYLES = {"debug": "dim", "warning": "yellow", "error": "red"}
PROCESS_STYLES = {
    "router": "cyan", "gateway": "blue", "gpu-daemon": "magenta", "engine": "green", HISTORY: "dim cyan",
    "systemd": "dim", "up": "dim",
}  # fmt: skip
EVENT_ICONS = {
    "job.accepted": "📥", "job.finished": "🏁", "job.cancelled": "🛑", "job.requeued": "🔁", "job.rejected": "🚫",
    "picture.saved": "💾",
}  # fmt: skip
NOT_SHOWN = ("job", "job_id", "worker_id", "device", "traceback", "request_id", "peer", "pid", "logger")
TRACEBACK_LINES_MAX = 40  # shown to a person: the last ones
GAP_S = 1.0  # from here on a pause is worth a colour


def rows(lines: Sequence[tuple[LogLine, bool]], *, before: float | None = None) -> Table:
    """Lines in order, each with whether it names the job; `before`: when the line before the first was."""
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)  # time
    table.add_column(no_wrap=True, justify="right", min_width=8)  # since the line before
    table.add_column(no_wrap=True, min_width=10)  # process
    table.add_column(no_wrap=True, min_width=10)  # device
    table.add_column(no_wrap=True, width=2)  # icon
    table.add_column(overflow="fold")  # what
    for line, about in lines:
        style = LEVEL_STYLES.get(line.level, "") if about else "dim"
        elapsed = None if before is None else max(0.0, line.at - before)
        before = line.at
        table.add_row(
            Text(_clock(line.at), style="dim"),
            Text("" if elapsed is None else f"+{seconds(elapsed)}", style="bold" if (elapsed or 0) >= GAP_S else "dim"),
            Text(line.process, style=PROCESS_STYLES.get(line.process, "") if about else "dim"),
            Text(_place(line), style="dim"),
            Text(_icon(line)),
            _what(line, style, about=about),
        )
    return table


def _what(line: LogLine, style: str, *, about: bool) -> RenderableType:
    text = Text()
    text.append(line.event or "says", style=style or "bold")
    for key, value in line.fields.items():
        if key not in NOT_SHOWN and value not in ("", None, [], {}):
            text.append(f"  {key} ", style="dim")
            text.append(_plain(value), style=VALUE_STYLES.get(line.level, "") if about else "dim")
    traceback = line.text("traceback")
    if not traceback:
        return text
    kept = traceback.rstrip().splitlines()
    shown = kept[-TRACEBACK_LINES_MAX:]
    left_out = f"… {len(kept) - len(shown)} lines before\n" if len(shown) < len(kept) else ""
    return Group(text, Padding(Text(_printable(left_out + "\n".join(shown)), style="red"), (0, 0, 0, 2)))


def _icon(line: LogLine) -> str:
    return (ICONS.get(line.level) or EVENT_ICONS.get(line.event) or ICONS.get(line.event) or "").strip()


def _place(line: LogLine) -> str:
    device = line.text("device")
    return _printable(
        line.text("worker_id") or (f"{line.host}/{device}" if line.host and device else device or line.host)
    )


def _plain(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    return _printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _printable(text: str) -> str:
    """Nobody writes to the terminal through a log."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S.%f")[:-3]


def title(job_id: str, first: float, last: float, count: int) -> Text:
    """What stands above."""
    day = datetime.fromtimestamp(first).astimezone().strftime("%Y-%m-%d")
    return Text.assemble(
        "\n", (f" Job {job_id}", "bold"), (f"  {day} · {count} lines · {seconds(max(0.0, last - first))}\n", "dim")
    )


def unseen(notes: Sequence[str]) -> RenderableType:
    """What could not be seen, and how it can."""
    if not notes:
        return Text("")
    told = [Padding(Text(f"⚠ {note}", style="yellow"), (0, 0, 0, 1)) for note in notes]
    return Group(Text(""), *told, Text(""))


def as_json(line: LogLine, *, about: bool) -> str:
    """One line for programs: what it was, and where it comes from."""
    written = datetime.fromtimestamp(line.at, UTC).isoformat().replace("+00:00", "Z")
    found: Mapping[str, Any] = {
        "time": written, "host": line.host, "process": line.process, "level": line.level, "event": line.event,
        **line.fields, "names_the_job": about,
    }  # fmt: skip
    return json.dumps(found, ensure_ascii=False)
