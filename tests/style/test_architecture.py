"""ARCHITECTURE.md names every file of the product, and none that is gone."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
ROOMS = ("common", "router", "gpu_daemon", "gateway", "genserve", "bench", "training")


def test_every_file_has_its_line() -> None:
    listed, room = set(), ""
    for line in TEXT.splitlines():
        if heading := re.fullmatch(r"### (\w+)/", line):
            room = heading[1]
        if entry := re.match(r"\| `([\w/]+\.py)` \| (.+) \|$", line):
            listed.add(f"{room}/{entry[1]}")
            assert len(entry[2]) > 5, line
    files = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py" or path.parent.name == "messages"
    }
    assert listed == files


def test_every_file_that_the_text_names_exists() -> None:
    for name in re.findall(r"`((?:common|router|gpu_daemon|gateway|genserve)/[\w/.]+)`", TEXT):
        assert (ROOT / name).exists(), name
