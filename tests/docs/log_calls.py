"""Every place in the code where a line of the log is written or decided on, found by reading the code.

A call counts whose first words are a level and an event ("info", "job.accepted"), or whose name is a level and whose
first word is an event (logger.info("router.listening")). An event is words with dots between them.
"""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "router", "gpu_daemon", "gateway", "genserve")
LEVELS = ("debug", "info", "warning", "error")
METHODS = {**dict.fromkeys(LEVELS), "debug": "debug", "info": "info", "warning": "warning", "error": "error",
           "exception": "error"}  # fmt: skip
EVENT = re.compile(r"[a-z]+(\.[a-z_]+)+")
PROCESSES = {"router": "router", "gpu_daemon": "gpu-daemon", "gateway": "gateway", "genserve": "up"}
BUILT = {"worker.": ("ready", "loading", "broken", "draining")}  # f"worker.{state}"
ANY = "*"  # a level that only the run knows


@dataclass
class LogCall:
    """One of them. `levels` may hold ANY; `fields` are those that can be seen, `open` whether there may be others."""

    where: str
    process: str
    event: str
    levels: frozenset[str]
    fields: dict[str, ast.expr] = field(default_factory=dict)
    open: bool = False


def log_calls() -> list[LogCall]:
    """All of them."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name in ("common/log.py", "common/flood.py"):
                continue
            if name.startswith("genserve/diagnose/") or name == "genserve/key_pages.py":
                continue  # they log nothing, and names of settings look like events
            process = "engine" if name.startswith("gpu_daemon/engine/") else PROCESSES.get(package, "any")
            tree = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    found += _calls(node, f"{name}:{node.lineno}", process)
    return found


def _calls(node: ast.Call, where: str, process: str) -> list[LogCall]:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    arguments = list(node.args)
    if called in ("write", "write_line") and arguments and not isinstance(arguments[0], ast.Constant):
        arguments = arguments[1:] if len(arguments) > 2 else arguments  # log.write(logger, level, event, fields)
    for at in (0, 1):
        if len(arguments) <= at:
            return []
        levels = frozenset({METHODS[called]}) if at == 0 and called in METHODS else _levels(arguments, at)
        events = _events(arguments[at])
        if events and levels:
            fields, opened = _fields(node, arguments[at + 1 :])
            return [LogCall(where, process, event, levels, fields, opened) for event in events]
    return []


def _levels(arguments: list[ast.expr], at: int) -> frozenset[str]:
    if at == 0:
        return frozenset()
    level = arguments[0]
    found = {each.value for each in ast.walk(level) if isinstance(each, ast.Constant) and each.value in LEVELS}
    if isinstance(level, ast.Constant):
        return frozenset(found)
    return frozenset(found) or frozenset({ANY})


def _events(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and EVENT.fullmatch(node.value):
        return [node.value]
    if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        begin = str(node.values[0].value)
        return [begin + end for end in BUILT.get(begin, ())]
    return []


def _fields(node: ast.Call, rest: list[ast.expr]) -> tuple[dict[str, ast.expr], bool]:
    fields = {each.arg: each.value for each in node.keywords if each.arg is not None}
    fields.pop("exc_info", None)
    opened = any(each.arg is None for each in node.keywords)
    for each in rest:
        if isinstance(each, ast.Dict):
            for key, value in zip(each.keys, each.values, strict=True):
                if isinstance(key, ast.Constant):
                    fields[str(key.value)] = value
                else:
                    opened = True
        else:
            opened = opened or isinstance(each, ast.Name)
    return fields, opened
