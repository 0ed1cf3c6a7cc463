"""Log lines as the journal takes them: priorities, bounded length, and a storm held together."""

import json
import os
import subprocess
import sys
from io import StringIO
from typing import Any

import pytest

from common.flood import KINDS_MAX, Flood
from common.log import LINE_BYTES_MAX, configure, json_line
from common.settings import LogSettings

PROGRAM = """
import sys
from common.errors import SettingsError
from common.log import configure
from common.process import exit_config
from common.settings import LogSettings
logger = configure("router", LogSettings(level="debug", format=sys.argv[1]))
for level in ("debug", "info", "warning", "error"):
    getattr(logger, level)("a.b", text="two\\nlines", odd="\\udcff\\u2028")
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("c.d")
raise SystemExit(exit_config(SettingsError("gateway.port is wrong")))
"""


def _said(format_: str, *, journal: bool) -> tuple[list[str], list[str]]:
    """What a process says on stdout and stderr, both of which the journal reads, or not."""
    reads, writes = os.pipe()
    found = os.fstat(writes)
    env = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}" if journal else "1:2", "LC_ALL": "C"}
    command = [sys.executable, "-c", PROGRAM, format_]
    with subprocess.Popen(command, stdout=writes, stderr=subprocess.PIPE, env=env) as it:
        os.close(writes)
        with os.fdopen(reads, encoding="utf-8", newline="\n") as pipe:
            out = pipe.read()
        assert it.stderr is not None
        err = it.stderr.read().decode()
        assert it.wait() == 78
    return out.removesuffix("\n").split("\n"), err.splitlines()


def test_the_journal_is_told_the_priority_of_each_line() -> None:
    lines, _ = _said("auto", journal=True)
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>", "<3>"]
    events = [json.loads(line[3:]) for line in lines]
    assert [event["level"] for event in events] == ["debug", "info", "warning", "error", "error"]
    assert events[0]["text"] == "two\nlines"
    assert events[0]["odd"] == "\udcff\u2028"
    assert "ZeroDivisionError" in events[4]["traceback"]


def test_each_line_of_a_traceback_for_a_person_has_its_priority_too() -> None:
    lines, _ = _said("console", journal=True)
    assert len(lines) == 8
    assert all(line[:3] in ("<7>", "<6>", "<4>", "<3>") for line in lines)


def test_nobody_else_is_told_a_priority() -> None:
    lines, errors = _said("json", journal=False)
    assert all(json.loads(line) for line in lines)
    assert errors[0].startswith("genserve: gateway.port")


@pytest.mark.parametrize(
    "fields",
    [
        {"traceback": "Traceback (most recent call last):\n" + "  File x, line 1\n" * 9000 + "RuntimeError: boom"},
        {"message": "\0" * 40_000, "other": "kept"},
        {"message": "🦊" * 40_000, "detail": "\\" * 60_000},
        {"job_ids": ["0123456789abcdef" * 2] * 4000},
        {f"field_{n}": "x" * 2000 for n in range(60)},
        {f"field_{n}": "\0" * 3000 for n in range(100)},
        {f"field_{n}": "x" for n in range(9000)} | {"job_id": "j"},
    ],
)
def test_a_long_line_stays_one_json_object_that_the_journal_does_not_cut(fields: dict[str, Any]) -> None:
    first = {"event": "job.failed", "level": "error", "time": "2026-01-01T00:00:00Z", "process": "engine"}
    text = json_line({**first, **fields})
    assert len(text.encode()) <= LINE_BYTES_MAX
    assert len(text.encode()) > LINE_BYTES_MAX / 4 or len(fields) > 1000
    found = json.loads(text)
    assert {key: found[key] for key in first} == first
    assert found["cut"]
    if "traceback" in fields:
        assert found["traceback"].startswith("Traceback (most")
        assert found["traceback"].endswith("RuntimeError: boom")
        assert "bytes left out" in found["traceback"]
    assert found.get("other") in (None, "kept")
    assert found.get("job_id") == fields.get("job_id")


def test_a_line_of_the_usual_length_is_left_alone() -> None:
    event = {"event": "a.b", "text": "x" * 40_000}
    assert json.loads(json_line(event)) == event
    assert json.loads(json_line({"event": "a.b", "s": float("nan"), "t": [float("inf")]})) == {
        "event": "a.b", "s": "nan", "t": ["inf"],
    }  # fmt: skip


def test_nobody_writes_lines_or_colours_of_his_own_into_a_persons_log(monkeypatch: pytest.MonkeyPatch) -> None:
    out = StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    logger = configure("router", LogSettings(format="console"))
    logger.info("job.accepted", client="x\n12:00:00 ✅ router job.done", model="\x1b[2Jm")
    (line,) = out.getvalue().splitlines()
    assert r"client='x\n12:00:00 ✅ router job.done'" in line
    assert r"model='\x1b[2Jm'" in line


# --- storms --------------------------------------------------------------------------------------


def test_a_storm_is_one_line_at_once_and_then_one_a_second_with_its_count() -> None:
    flood = Flood()
    fields = [{"code": "queue_full", "client": str(n)} for n in range(1000)]
    passed = [f for n, f in enumerate(fields) if flood.passes("info", "job.rejected", f, now=10 + n / 1000)]
    assert passed == fields[:1]
    assert flood.holds
    assert flood.due(10.9) == []
    assert flood.due(11.0) == [("info", "job.rejected", {"code": "queue_full", "client": "999", "count": 999})]
    assert not flood.passes("info", "job.rejected", fields[0], now=11.5)
    assert flood.due(12.0) == [("info", "job.rejected", {**fields[0], "count": 1})]
    assert flood.due(13.0) == []
    assert not flood.holds
    assert flood.passes("info", "job.rejected", fields[0], now=13.1)


def test_other_kinds_and_other_events_pass() -> None:
    flood = Flood()
    assert flood.passes("info", "job.rejected", {"code": "queue_full"}, 0.0)
    assert flood.passes("info", "job.rejected", {"code": "unknown_model"}, 0.0)
    assert all(flood.passes("info", "job.accepted", {"job_id": "x"}, 0.0) for _ in range(100))
    assert not flood.passes("info", "job.rejected", {"code": "queue_full"}, 0.5)
    assert flood.due(float("inf")) == [("info", "job.rejected", {"code": "queue_full", "count": 1})]


def test_codes_that_a_peer_makes_up_take_no_room() -> None:
    flood = Flood()
    passed = sum(flood.passes("warning", "worker.error", {"code": str(n)}, 0.0) for n in range(10_000))
    assert passed == KINDS_MAX + 1
    assert sum(fields["count"] for _, _, fields in flood.due(1.0)) == 10_000 - passed
