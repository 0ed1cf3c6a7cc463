"""The command itself: bounds, crashes, both kinds of output, the exit status, and one whole run with a real engine."""

import json
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from common.settings import DEFAULT_FILE
from genserve.diagnose.catalogue import CHECKS, TITLES, chosen
from genserve.diagnose.finding import Finding, Note, check, fail, ok
from genserve.diagnose.host import Host, NotChecked
from genserve.diagnose.report import Report, as_json_text
from genserve.diagnose.run import diagnose
from tests.diagnose.looking import clean, found, look, model
from tests.ports import free_ports
from tests.service import GENSERVE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "diagnose.md").read_text("utf-8")


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GENSERVE, "diagnose", *arguments], env=clean(**env), capture_output=True, text=True, check=False, timeout=300
    )


# --- bounds ------------------------------------------------------------------------------------


def one(look_: object, **given: float) -> Finding:
    made = check("system.clock", "x", **given)(look_)  # type: ignore[arg-type]  # the tests' looks are plain functions
    (finding,) = diagnose([made], Host(env={}))
    return finding


def test_a_check_that_hangs_is_a_fail_that_says_where():
    release = threading.Event()

    def hangs(_host: Host) -> Iterator[Note]:
        release.wait(30)
        yield ok("")

    finding = one(hangs, bound_s=0.2)
    release.set()
    assert finding.status == "fail"
    assert re.search(r"did not end within 0.2 s \(it is in \w+, \w+\.py:\d+\)", finding.detail)
    assert finding.fix == "genserve diagnose --only system.clock"


def test_a_check_that_crashes_is_a_fail_of_that_check():
    def crashes(_host: Host) -> Iterator[Note]:
        yield ok("so far")
        raise ZeroDivisionError("nothing by nothing")

    finding = one(crashes)
    assert finding.status == "fail"
    assert "ZeroDivisionError: nothing by nothing (test_diagnose_command.py:" in finding.detail
    assert finding.fix


def test_the_worst_that_is_said_comes_first():
    finding = one(lambda _host: [ok("a"), fail("b", "mend b"), Note("warn", "c", "mend c"), fail("d", "mend b")])
    assert finding == Finding("system.clock", "fail", "b\nd\nc\na", "mend b\nmend c")


def test_what_cannot_be_looked_at_is_ok_and_says_why():
    def cannot(_host: Host) -> Iterator[Note]:
        raise NotChecked("nobody is here")
        yield ok("")

    assert one(cannot) == Finding("system.clock", "ok", "not checked: nobody is here", skipped=True)


# --- what is shown -----------------------------------------------------------------------------

FINDINGS = [
    Finding("gpus.driver", "ok", "no NVIDIA GPU in this machine: the CPU draws"),
    Finding("gpus.files", "ok", "not checked: there is no GPU", skipped=True),
    Finding("model.vae", "fail", f"/{'long/' * 30}x has 1 bytes where its header declares 20", f"rm {'y' * 100}"),
]


def test_lines_for_people_fit_the_terminal_and_commands_stay_whole():
    console = Console(width=80, force_terminal=False, record=True)
    report = Report(console, TITLES)
    for finding in FINDINGS:
        report.tell(finding)
    report.end(FINDINGS, 1.25)
    lines = console.export_text().splitlines()
    assert " ok   driver          no NVIDIA GPU in this machine: the CPU draws" in lines
    assert " skip files           there is no GPU" in lines
    assert f"      rm {'y' * 100}" in lines
    assert all(len(line) <= 80 for line in lines if "yyy" not in line)
    assert all(line == line.rstrip() for line in lines)
    assert " 1 of 3 checks failed, 1 not checked (1.2 s)" in lines


def test_json_has_the_shape_that_is_promised():
    told = json.loads(as_json_text(FINDINGS))
    assert list(told) == ["checks"]
    assert all(list(entry) == ["name", "status", "detail", "fix"] for entry in told["checks"])
    assert {entry["status"] for entry in told["checks"]} == {"ok", "fail"}


def test_names_are_unique_and_stand_in_groups():
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names) >= 41
    assert [group for group in TITLES if not chosen(group)[0]] == []
    assert {check.group for check in CHECKS} == set(TITLES)
    assert chosen("gpus.driver, nonsense") == ([chosen("gpus")[0][0]], ["nonsense"])


def test_the_page_lists_every_check_as_it_says_of_itself():
    rows = re.findall(r"^\| `(\w+\.\w+)` \| (.+?) \|", PAGE, re.MULTILINE)
    assert rows == [(check.name, check.about + (" (not with `--quick`)" if check.slow else "")) for check in CHECKS]


# --- the whole command -------------------------------------------------------------------------


def test_a_fail_is_status_1_and_told_without_colours_in_a_pipe():
    done = run("--only", "settings", GENSERVE_ROUTER_GPU_QEUE_SIZE="5")
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert re.search(r"^ fail environment +unknown environment variable", done.stdout, re.MULTILINE)
    assert " 1 of 5 checks failed" in done.stdout
    told = run("--only", "settings", "--json", GENSERVE_ROUTER_GPU_QEUE_SIZE="5")
    assert told.returncode == 1
    assert [c["name"] for c in json.loads(told.stdout)["checks"] if c["status"] == "fail"] == ["settings.environment"]


def test_a_check_that_is_none_is_refused():
    done = run("--only", "modl")
    assert done.returncode == 2
    assert "there is no check 'modl'" in done.stderr


@pytest.mark.skipif(DEFAULT_FILE.exists(), reason="this machine has settings of its own")
def test_a_healthy_machine_has_no_fail_and_an_engine_really_draws(tmp_path: Path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    port = free_ports()
    done = run("--json", "--gpus", "cpu", "--port", str(port), XDG_STATE_HOME=str(tmp_path), TMPDIR=str(tmp_path))
    checks = {entry["name"]: entry for entry in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0, [entry for entry in checks.values() if entry["status"] == "fail"]
    assert list(checks) == [check.name for check in CHECKS]
    assert all(entry["status"] != "fail" for entry in checks.values())
    assert re.match(
        r"cpu: genserve-shapes loaded in [\d.]+ s, 64x64 in one step drawn", checks["engine.draw"]["detail"]
    )
    assert "diffusers" in checks["environment.imports"]["detail"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_torch_that_is_installed_and_does_not_load(tmp_path: Path):
    """Only importing it tells: in the probe, and in the engine."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "raise ImportError('libcudart.so.13: cannot open shared object file')"
    )
    env = {"PYTHONPATH": str(tmp_path), "FLUX_GPUS": "cpu"}
    findings = look("environment.imports,engine.draw", quick=False, env=env)
    found(
        findings["environment.imports"],
        "fail",
        "torch cannot be imported: ImportError: libcudart",
        "--force-reinstall torch",
    )
    found(findings["engine.draw"], "fail", "model_load_failed", "genserve diagnose --only environment,model,tokenizers")
    assert "libcudart.so.13" in findings["engine.draw"].detail


def test_an_engine_that_is_not_ready_in_time_is_ended(tmp_path: Path):
    env = {"FLUX_GPUS": "cpu", "GENSERVE_GPU_DAEMON_ENGINE_START_TIMEOUT_S": "0.05", "TMPDIR": str(tmp_path)}
    finding = look("engine.draw", quick=False, env=env)["engine.draw"]
    assert finding.status == "fail"
    assert "gpu_daemon.engine_start_timeout_s = 0.05" in finding.detail
    assert not list(tmp_path.iterdir())


def test_commands_that_mend_survive_strange_paths(tmp_path: Path):
    folder = model(tmp_path).rename(tmp_path / "a model; rm -rf 'x'")
    os.truncate(folder / "vae" / "diffusion_pytorch_model.safetensors", 5000)
    finding = look("model.vae", env={"FLUX_MODEL_PATH": str(folder)})["model.vae"]
    assert shlex.split(finding.fix)[:2] == ["rm", str(folder / "vae" / "diffusion_pytorch_model.safetensors")]
