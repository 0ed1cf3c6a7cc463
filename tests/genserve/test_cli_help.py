"""The command line itself: what it explains, how it refuses, and what it does not load."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from genserve.__main__ import app

COMMANDS = (
    "up", "router", "gpu-daemon", "gateway", "generate", "status", "jobs", "dead-letters", "requeue", "diagnose",
    "burst", "logs", "keys", "install", "upgrade", "uninstall", "config",
)  # fmt: skip
WIDE = {"COLUMNS": "200", "TERM": "dumb"}


def help_of(*words: str, columns: int = 200) -> str:
    result = CliRunner().invoke(app, [*words, "--help"], env={**WIDE, "COLUMNS": str(columns)})
    assert result.exit_code == 0, result.output
    return result.output


def test_every_command_is_listed() -> None:
    text = help_of()
    assert [name for name in COMMANDS if name not in text] == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("up", ("FLUX_GPUS", "FLUX_MODEL_PATH", "GENSERVE_GATEWAY_PORT", "[default: 12411]", "genserve up --gpus")),
        ("router", ("tcp://127.0.0.1:12412", "[default: 5]", "[default: 50]", "GENSERVE_ROUTER_GPU_QUEUE_SIZE")),
        ("gpu-daemon", ("cuda:N", "FLUX_MODEL_PATH", "noop", "--worker-id")),
        ("gateway", ("[default: 127.0.0.1]", "[default: 12411]", "GENSERVE_GATEWAY_ROUTER_ENDPOINT")),
        ("generate", ("--seed", "-o", "WxH", "--deadline", "--key", "genserve generate")),
        ("jobs", ("show", "cancel")),
        ("dead-letters", ("--json", "genserve dead-letters")),
        ("requeue", ("ID", "--router", "genserve requeue")),
        ("status", ("--json", "--watch", "[SECONDS]", "genserve status")),
        ("install", ("--gpus", "--router-host", "--key", "--dry-run", "as installed before")),
        ("upgrade", ("--dry-run", "no job is lost")),
        ("uninstall", ("--purge", "--dry-run")),
        ("burst", ("--concurrency", "[default: 200]", "--rate", "--over", "--report", "--give-up", "genserve burst")),
        ("logs", ("--file", "--follow", "--merge", "--json", "first 8 digits", "genserve logs 1a2b3c4d")),
        ("diagnose", ("--quick", "--json", "--only", "FLUX_GPUS", "FLUX_MODEL_PATH", "[default: 12411]")),
    ],
)
def test_help_tells_defaults_and_variables(command: str, words: tuple[str, ...]) -> None:
    text = help_of(command)
    assert [word for word in words if word not in text] == []
    assert "parent-pid" not in text  # between our own processes only


@pytest.mark.parametrize("command", [*COMMANDS, "jobs show", "jobs cancel"])
def test_nothing_is_cut_off_at_80_columns(command: str) -> None:
    assert "…" not in help_of(*command.split(), columns=80)


def test_help_loads_neither_torch_nor_sockets() -> None:
    code = (
        "import sys; from genserve.__main__ import app; app(['up', '--help'], standalone_mode=False); "
        "print(sorted({'torch', 'zmq', 'aiohttp', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_raw_commands_need_no_engine_packages() -> None:
    code = "import sys, genserve.generate, genserve.status, genserve.up; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["router", "--client-endpoint", "nonsense"], 78, "router.client_endpoint"),
        (["router", "--log-level", "loud"], 78, "log.level = 'loud' (from --log-level)"),
        (["gpu-daemon", "--router", "nonsense"], 78, "gpu_daemon.router_endpoint = 'nonsense'"),
        (["gateway", "--router", "nonsense"], 78, "gateway.router_endpoint = 'nonsense'"),
        (["gpu-daemon", "--engine", "magic"], 78, "gpu_daemon.engine"),
        (["gpu-daemon", "--engine", "noop", "--device", "gpu7"], 78, "gpu_daemon.device"),
        (["up", "--engine", "noop", "--gpus", "tpu"], 78, "'tpu'"),
        (["up", "--engine", "noop", "--gpus", "cpu", "--port", "65535"], 78, "65533"),
        (["generate", "x", "--size", "7"], 2, "512x512"),
        (["generate", "x", "-o", "x.gif"], 2, "x.png"),
        (["generate", "x", "-o", "missing/x.png"], 2, "missing"),
        (["generate", "x", "--router", "foo"], 2, "--router: 'foo' is not tcp://HOST:PORT"),
        (["status", "--router", "foo"], 2, "--router: 'foo' is not tcp://HOST:PORT"),
        (["status", "--router", "tcp://127.0.0.1:65536"], 2, "is not tcp://HOST:PORT"),
        (["jobs", "show", "0123abc"], 2, "'0123abc' is no job id"),
        (["jobs", "cancel", "x" * 32], 2, "is no job id"),
        (["requeue", "0123abc"], 2, "is no job id"),
        (["generate", "x", "--key", "k" * 129], 2, "it has 129 characters"),
        (["generate", "x", "--deadline", "0"], 1, "deadline_s"),
        (["generate", ""], 1, "prompt"),
        (["generate", "x", "--steps", "5000"], 1, "steps"),
    ],
)
def test_mistakes_are_named(arguments: list[str], status: int, words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "genserve", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "2"], "it goes with --watch"),
        (["status", "--watch", "--json"], "--json: it goes without --watch"),
        (["burst", "--rate", "fast"], "--rate: 'fast' is no rate such as 5/s"),
        (["burst", "--rate", "5/s", "-c", "3"], "in place of --concurrency"),
        (["burst", "--clients", "9"], "--clients: 9 clients need --concurrency 9 or more"),
        (["burst", "--sizes", "128x128,0x9"], "--sizes: '0x9' is no WIDTHxHEIGHT"),
        (["burst", "--steps", "4,many"], "--steps: 'many' is no number from 1 to 1000"),
        (["burst", "--priorities", "11"], "--priorities: '11' is no number from -10 to 10"),
        (["burst", "--url", "localhost:80"], "--url: 'localhost:80' is not http://HOST:PORT"),
        (["burst", "--report", "missing/x.html"], "there is no folder missing"),
    ],
)
def test_mistakes_are_named_before_anything_is_asked(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, arguments, env=WIDE)
    assert result.exit_code == 2
    assert words in result.output
