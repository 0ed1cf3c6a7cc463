"""docs/logs.md lists every event of the code, with its levels, its processes and its fields, and none that is gone."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.flood import REPEATED
from genserve.__main__ import app
from genserve.log_lines import BESIDE, SAME
from genserve.log_page import EVENT_ICONS
from tests.docs.log_calls import ANY, LEVELS, PACKAGES, LogCall, log_calls

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "logs.md").read_text("utf-8")
CALLS = log_calls()
COMMON = {"job_id", "worker_id", "device", "traceback", "count", "cut", "job"}
ROW = re.compile(r"\| `([a-z_.]+)` \|" + r"([^|]*)\|" * 5)
SECRETS = re.compile(r"key|secret|password|passwd|authorization|credential|api_key|bearer|digest")
PROMPTS = {"prompt", "negative_prompt"}


class Row:
    def __init__(self, found: re.Match[str]) -> None:
        self.event = found[1]
        self.processes = set(found[2].split())
        self.levels = set(found[3].split())
        self.fields = set(re.findall(r"`([a-z_]+)`", found[4]))
        self.meaning, self.what_to_do = found[5].strip(), found[6].strip()


ROWS = {row.event: row for row in map(Row, filter(None, map(ROW.fullmatch, PAGE.splitlines())))}


def by_event() -> dict[str, list[LogCall]]:
    found: dict[str, list[LogCall]] = defaultdict(list)
    for call in CALLS:
        found[call.event].append(call)
    return found


def test_the_page_lists_exactly_the_events_of_the_code() -> None:
    assert len(CALLS) > 80
    assert sorted(ROWS) == sorted(by_event())
    listed = [line.split("`")[1] for line in PAGE.splitlines() if ROW.fullmatch(line)]
    assert listed == sorted(set(listed)), "in the order of the alphabet, each once"


@pytest.mark.parametrize("event", sorted(ROWS))
def test_levels_processes_and_fields_are_those_of_the_code(event: str) -> None:
    row, calls = ROWS[event], by_event()[event]
    levels = set().union(*(call.levels for call in calls))
    assert row.levels <= set(LEVELS)
    assert row.levels == levels if ANY not in levels else levels - {ANY} <= row.levels, levels
    assert row.processes == {call.process for call in calls}
    seen = set().union(*(call.fields for call in calls)) - COMMON
    assert seen <= row.fields, f"not listed: {seen - row.fields}"
    assert any(call.open for call in calls) or row.fields == seen, f"not in the code: {row.fields - seen}"
    assert len(row.meaning) > 10
    assert row.what_to_do


def test_nothing_is_logged_that_the_reading_of_the_code_does_not_find() -> None:
    """A logger that is given an event which is no constant, or a Log made otherwise, would be overlooked."""
    found = {call.where for call in CALLS}
    allowed = {"common/log.py", "gateway/lines.py"}  # where lines that were decided on elsewhere are written
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and _logs(node) and f"{name}:{node.lineno}" not in found:
                    passed_on = name in allowed or all(
                        not isinstance(a, ast.Constant | ast.JoinedStr) for a in node.args
                    )
                    assert passed_on, f"{name}:{node.lineno}: {ast.unparse(node)[:100]}"


def _logs(node: ast.Call) -> bool:
    called = ast.unparse(node.func)
    name = called.rpartition(".")[2]
    if name == "Log":
        return bool(node.args)
    receiver = called.rpartition(".")[0]
    return name in (*LEVELS, "exception", "critical", "log") and bool(re.search(r"log(ger)?(\(\))?$", receiver))


def test_prompts_are_logged_at_debug_only_and_keys_never() -> None:
    shown = [call for call in CALLS if PROMPTS & set(call.fields)]
    assert {call.event for call in shown} == {"job.prompt", "job.drawing"}
    for call in CALLS:
        assert not [name for name in call.fields if SECRETS.search(name)], call.where
        for name, value in call.fields.items():
            touched = {each.attr for each in ast.walk(value) if isinstance(each, ast.Attribute)}
            assert not touched & {"key", "digest", "headers", "authorization"}, f"{call.where}: {name}"
            if call.levels != {"debug"}:
                assert not touched & PROMPTS, f"{call.where}: {name}"


def test_tables_that_name_events_name_some_of_the_page() -> None:
    named = {*REPEATED, *BESIDE, *EVENT_ICONS, *(event for _, event in SAME.values())}
    assert named <= set(ROWS)


def test_the_command_has_every_flag_that_the_page_names() -> None:
    text = CliRunner().invoke(app, ["logs", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    named = {flag for line in PAGE.splitlines() if "genserve logs " in line for flag in re.findall(r"--[a-z]+", line)}
    assert {"--file", "--follow", "--json", "--journal"} <= named
    assert [flag for flag in named if flag not in text] == []
