"""A diagnosis for people, line by line as it comes, and for programs.

Knows findings; not what is checked.
"""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.text import Text

from genserve.diagnose.finding import Finding

STYLES = {"ok": "green", "warn": "bold yellow", "fail": "bold red", "skip": "dim"}
STATUS_COLUMNS, NAME_COLUMNS = 6, 16
FIX_INDENT = 6
WORDS_COLUMNS_MIN = 30


class Report:
    """Prints findings under the headings of their groups. Neighbours that were skipped for one reason share a line."""

    def __init__(self, console: Console, titles: dict[str, str]) -> None:
        self._console = console
        self._titles = titles
        self._group = ""
        self._skipped: list[Finding] = []

    def tell(self, finding: Finding) -> None:
        """One check's line, and under it the command that mends what it found."""
        if self._skipped and (not finding.skipped or not _alike(finding, self._skipped[-1])):
            self._tell_skipped()
        if finding.skipped:
            self._skipped.append(finding)
            return
        self._head(finding)
        self._line(finding.status, _name(finding), finding.detail)
        for line in finding.fix.splitlines():  # whole, so that it can be copied; a narrow terminal wraps it
            self._console.print(Text(" " * FIX_INDENT + line, style="cyan"), soft_wrap=True)

    def end(self, findings: Sequence[Finding], took_s: float) -> None:
        """How many of how many."""
        if self._skipped:
            self._tell_skipped()
        self._console.print()
        self._console.print(summary(findings, took_s), soft_wrap=True)

    def _tell_skipped(self) -> None:
        skipped, self._skipped = self._skipped, []
        self._head(skipped[0])
        names = ", ".join(map(_name, skipped))
        why = skipped[0].detail.removeprefix("not checked: ")
        if len(names) < NAME_COLUMNS:
            self._line("skip", names, why, style="dim")
        else:
            self._line("skip", "", f"{names}: {why}", style="dim", indent=STATUS_COLUMNS)

    def _head(self, finding: Finding) -> None:
        group = finding.name.partition(".")[0]
        if group != self._group:
            self._group = group
            self._console.print(Text(f"\n{self._titles[group]}", style="bold"))

    def _line(self, word: str, name: str, detail: str, *, style: str = "", indent: int = 0) -> None:
        indent = indent or STATUS_COLUMNS + NAME_COLUMNS
        first, *more = _wrapped(detail, self._console.width - indent)
        shown = f"{name:<{NAME_COLUMNS}}" if name else ""
        head = Text.assemble(" ", (f"{word:<{STATUS_COLUMNS - 1}}", STYLES[word]), shown, (first, style))
        self._console.print(head, soft_wrap=True, highlight=False)
        for line in more:
            self._console.print(Text(" " * indent + line, style=style), soft_wrap=True, highlight=False)


def _name(finding: Finding) -> str:
    return finding.name.partition(".")[2]


def _alike(one: Finding, other: Finding) -> bool:
    return one.detail == other.detail and one.name.partition(".")[0] == other.name.partition(".")[0]


def summary(findings: Sequence[Finding], took_s: float) -> Text:
    """'2 of 41 checks failed', and what to do now."""
    counts = Counter("skip" if finding.skipped else finding.status for finding in findings)
    failed, total = counts["fail"], len(findings)
    checks = "check" if total == 1 else "checks"
    text = Text(f" {failed or 'None'} of {total} {checks} failed", style=STYLES["fail" if failed else "ok"])
    for word, words in (("warn", "to look at"), ("skip", "not checked")):
        if counts[word]:
            text.append(f", {counts[word]} {words}", style=STYLES[word])
    text.append(f" ({took_s:.1f} s)", style="dim")
    if failed or counts["warn"]:
        text.append("\n The command under a line mends it; then diagnose again.", style="dim")
    return text


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns; a path that is longer stays whole where it can."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        lines += textwrap.wrap(paragraph, max(width, WORDS_COLUMNS_MIN), break_on_hyphens=False) or [""]
    return lines or [""]


def as_json_text(findings: Iterable[Finding]) -> str:
    """For programs. A check that could not look is ok, and its detail begins with 'not checked: '."""
    checks = [{"name": f.name, "status": f.status, "detail": f.detail, "fix": f.fix} for f in findings]
    return msgspec.json.format(msgspec.json.encode({"checks": checks}), indent=2).decode()
