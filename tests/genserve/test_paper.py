"""Pages in files: every row in one line, whole, however wide; on a terminal, as wide as it is."""

import io
import sys

import pytest
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from genserve.paper import paper

WORDS = " ".join(f"word-{n}" for n in range(60))


def page() -> Group:
    table = Table(box=None)
    table.add_column("name")
    table.add_column("what", no_wrap=True)
    table.add_row("a", WORDS)
    table.add_row("a longer name", "x")
    return Group(Text(WORDS), Padding(Text("next"), (0, 0, 0, 2)), table)


def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    paper().print(page())
    return file.getvalue().splitlines()


def test_in_a_file_nothing_is_wrapped_or_cut_or_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = printed(monkeypatch)
    assert lines[0] == WORDS
    assert lines[1] == "  next"
    assert [line.split()[:2] for line in lines[2:4]] == [["name", "what"], ["a", "word-0"]]
    assert lines[3].endswith("word-59")
    assert [line for line in lines if line != line.rstrip()] == []


def test_who_says_how_wide_it_is_gets_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    assert max(map(len, printed(monkeypatch))) == 70
