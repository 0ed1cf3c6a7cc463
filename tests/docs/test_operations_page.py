"""docs/operations.md is held to the code: each alarm that a process may write, and paths and units that exist.

Its examples are run by tests/system, on a machine that systemd boots.
"""

import ast
import re
from pathlib import Path

from common.process import EXIT_CONFIG, EXIT_IOERR
from common.settings import SECTIONS
from genserve.installation import layout

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
HEAD, _, _REST = PAGE.partition("<!-- alarms: held to the code by tests/docs -->")
TABLE, _, TAIL = _REST.partition("<!-- end of alarms -->")
ROOMS = ("common", "router", "gpu_daemon", "gateway")
ALARMS = ("warning", "error", "exception", "critical")
COMPUTED = {"worker.broken", "peer.refused"}  # made from the state; of a level made from what happened
EVENT = re.compile(r"[a-z]+\.[a-z_]+")


def alarms_of(call: ast.Call) -> set[str]:
    """The event that a call logs as a warning or worse: log.warning("event") or log("warning", "event")."""
    texts = [word.value for word in call.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    if isinstance(call.func, ast.Attribute) and call.func.attr in ALARMS:
        texts = [call.func.attr, *texts]
    return {texts[1]} if len(texts) > 1 and texts[0] in ALARMS and EVENT.fullmatch(texts[1]) else set()


def test_every_alarm_stands_with_what_to_do() -> None:
    calls = [
        node
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
    ]
    logged = set().union(*map(alarms_of, calls)) | COMPUTED
    assert len(logged) > 30
    rows = re.findall(r"^\| (`[^|]+`) \| [^|]+ \| [^|]+ \|$", TABLE, re.MULTILINE)
    told = [name for names in rows for name in re.findall(r"`([^`]+)`", names)]
    assert sorted(told) == sorted(logged)


def test_every_exit_status_stands_there() -> None:
    statuses = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert set(map(int, statuses)) == {EXIT_CONFIG, EXIT_IOERR}


def test_settings_that_it_names_exist() -> None:
    named = re.findall(r"`(log|router|gpu_daemon|gateway|up)\.(\w+)`", HEAD + TAIL)
    assert len(named) >= 7
    assert [(section, key) for section, key in named if key not in SECTIONS[section].__struct_fields__] == []


def test_files_and_users_that_it_names_are_those_of_an_installation() -> None:
    for path in (layout.SETTINGS, layout.STATE, layout.DAEMON_KEY, layout.KEYS):
        assert str(path) in PAGE
    assert [user for user in layout.USERS if f"`{user}`" not in PAGE] == []
