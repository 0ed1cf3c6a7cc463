"""The laws of the house that a machine can check: layers, purity, lengths, words, suppressions."""

import ast
import io
import re
import subprocess
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "router", "gpu_daemon", "gateway", "genserve")
FILE_LINES_MAX = 350
FUNCTION_LINES_MAX = 60

# Whom each room may import, beside itself and what is installed.
MAY_IMPORT: dict[str, set[str]] = {
    "common": set(),
    "router": {"common"},
    "gpu_daemon": {"common"},
    "gateway": {"common"},
    "genserve": {"common", "router", "gpu_daemon", "gateway"},
}
# Rooms that decide and never act: events in, commands out. Time is an argument.
PURE = (
    "common/messages/*.py",
    "common/codec.py",
    "common/errors.py",
    "common/health.py",
    "common/models.py",
    "common/peers.py",
    "common/picture_files.py",
    "common/roles.py",
    "common/settings/*.py",
    "genserve/installation/layout.py",
    "genserve/installation/steps.py",
    "router/*.py",
    "gpu_daemon/engine_messages.py",
    "gpu_daemon/events.py",
    "gpu_daemon/hand.py",
    "gpu_daemon/outbox.py",
    "gpu_daemon/session.py",
    "gpu_daemon/standing.py",
    "gpu_daemon/work.py",
    "gateway/dialects/*.py",
    "genserve/burst/*.py",
    "genserve/rates.py",
    "gateway/standing.py",
)
ACTING = {  # carry decisions out
    "genserve/burst/http_door.py",
    "genserve/burst/live.py",
    "genserve/burst/load.py",
    "genserve/burst/orders.py",  # chance by seed
    "genserve/burst/raw_door.py",
    "genserve/burst/run.py",
    "router/app.py",
    "router/beside.py",
    "router/disk.py",
    "router/door.py",
    "router/journal.py",
    "router/journal_look.py",
    "router/journal_schema.py",
    "router/loop.py",
    "router/memory_journal.py",
    "router/outgoing.py",
    "router/pictures.py",
    "router/sqlite_journal.py",
    "router/state_folder.py",
    "router/wal_check.py",
}
IMPURE = {"zmq", "asyncio", "threading", "time", "random", "os", "torch", "aiohttp", "socket", "subprocess"}
TORCH = {"torch", "diffusers", "transformers", "accelerate", "safetensors"}
ENGINE = "gpu_daemon/engine/"
BANNED_IMPORTS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
BANNED_CALLS = {"eval", "exec"}
HOST_PATHS = re.compile(r"(?<![\w.])/(work|root|home/\w+|Users/\w+)(/|\b)")
SUPPRESSION = re.compile(
    r"#\s*(noqa|type:\s*ignore)(?P<code>:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*|\[[\w-]+(,\s*[\w-]+)*\])?(?P<rest>.*)"
)


def tracked(pattern: str = "*") -> list[Path]:
    """Files of the project: tracked by git, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted({ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()})


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Full dotted names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative imports hide the layer"
            found.add(node.module or "")
    return frozenset(found)


def top(module: str) -> str:
    return module.partition(".")[0]


SOURCES = [path for package in PACKAGES for path in tracked(f"{package}/*.py")]
ALL_PYTHON = tracked("*.py")
ids = pytest.mark.parametrize


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 40
    assert {name_of(path).split("/")[0] for path in SOURCES} == set(PACKAGES)


@ids("path", SOURCES, ids=name_of)
def test_layers(path: Path) -> None:
    room = name_of(path).split("/")[0]
    ours = {top(module) for module in imports_of(path)} & set(PACKAGES)
    assert ours <= MAY_IMPORT[room] | {room}


@ids("pattern", PURE)
def test_pure_rooms_import_nothing_that_acts(pattern: str) -> None:
    paths = sorted(ROOT.glob(pattern))
    assert paths, f"{pattern} names no file: mend the list"
    for path in paths:
        if name_of(path) not in ACTING:
            assert not {top(module) for module in imports_of(path)} & IMPURE, name_of(path)


@ids("path", SOURCES, ids=name_of)
def test_torch_only_in_the_engine(path: Path) -> None:
    if not name_of(path).startswith(ENGINE) and "gpu_daemon/models/" not in name_of(path):
        assert not {top(module) for module in imports_of(path)} & TORCH


@ids("path", SOURCES, ids=name_of)
def test_only_the_clock_reads_the_clock(path: Path) -> None:
    if name_of(path) != "common/clock.py":
        reads = {
            f"time.{node.attr}"
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"
        }
        assert reads <= {"time.sleep"}, "take `now` as an argument, or use common/clock.py"


@ids("path", SOURCES, ids=name_of)
def test_file_states_its_law(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), "open the file with a docstring: what lives here, what it must not know"


@ids("path", [path for path in ALL_PYTHON if not name_of(path).startswith("tests/")], ids=name_of)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= FILE_LINES_MAX


@ids("path", ALL_PYTHON, ids=name_of)
def test_functions_are_short(path: Path) -> None:
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not long


@ids("path", ALL_PYTHON, ids=name_of)
def test_nothing_is_pickled_or_evaluated(path: Path) -> None:
    assert not {top(module) for module in imports_of(path)} & BANNED_IMPORTS
    calls = [node.func for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    names = {function.id for function in calls if isinstance(function, ast.Name)}
    assert not names & BANNED_CALLS


@ids("path", ALL_PYTHON, ids=name_of)
def test_suppressions_name_a_rule_and_a_reason(path: Path) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
    reasoned = 0  # the last line with a reason; it also stands for the lines right below it
    for token in tokens:
        found = SUPPRESSION.match(token.string) if token.type == tokenize.COMMENT else None
        if found:
            where = f"{name_of(path)}:{token.start[0]}: {token.string}"
            assert found["code"], f"{where}: names no rule"
            above = reasoned == token.start[0] - 1
            assert above or re.search(r"#\s*\w.{7,}", found["rest"]), f"{where}: gives no reason"
            reasoned = token.start[0]


def test_no_paths_of_one_machine() -> None:
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:  # pictures and weights
            continue
        if path != Path(__file__):
            found = HOST_PATHS.search(text)
            assert found is None, f"{name_of(path)}: {text[max(0, found.start() - 40) : found.end() + 40]!r}"


def test_unfinished_work_is_no_part_of_the_code() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    for path in SOURCES:
        found = marks.search(path.read_text("utf-8"))
        assert found is None, f"{name_of(path)}: {found[0]}"
