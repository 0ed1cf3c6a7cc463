"""docs/burst.md tells of every verdict and every flag."""

import inspect
import re
from pathlib import Path

from genserve import burst_command
from genserve.burst import verdicts

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "burst.md").read_text("utf-8")


def test_each_verdict_has_its_row_and_each_row_its_verdict() -> None:
    said = set(re.findall(r'name="(\w+)"', inspect.getsource(verdicts)))
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == said


def test_thresholds_are_those_of_the_code() -> None:
    v = verdicts
    for words in (
        f"from {v.REQUESTS_MIN} pictures on", f"is sent {v.LATE_S} s late", f"less than {v.EVEN_WORK} of the work",
        f"at least {v.SAME_BUSY} times as busy", f"{v.IDLE_SHARE:.0%} of their time".replace("%", " %"),
        f"and {v.IDLE_S} s in all", f"from {v.FULL_BUSY * 100:.0f} % busy", f"below {v.LOW_BUSY * 100:.0f} %",
        f"within {v.EVEN_CLIENTS} times, or {v.EVEN_CLIENTS_S} s", f"{v.SLOWED} times, last third",
        f"{v.SAMPLE_MIN} pictures or more",
    ):  # fmt: skip
        assert words in PAGE, words


def test_the_load_is_explained() -> None:
    flags = set(re.findall(r'"(--[a-z-]+)"', inspect.getsource(burst_command)))
    assert {flag for flag in flags if flag not in PAGE} <= {"--model", "--timeout", "--requests"}
