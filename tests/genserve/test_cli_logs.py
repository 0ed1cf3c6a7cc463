"""`genserve logs`: lines of a recorded journal, of files, of a router's history, merged into one job's life.

tests/genserve/data/journal.jsonl is what `journalctl -o json --all` (systemd 252) said of real processes: two GPU
daemons, of which one's engine was killed while it drew. Hosts and devices were renamed, fields of no interest left out.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from common.messages import JobMoment, JobQuery, JobReply, Message, StatusQuery
from genserve import logs
from genserve.__main__ import app
from genserve.journald import Journal, Window, elsewhere
from genserve.log_lines import LogLine, Stay, beside, folded, in_order, moment_line, parse, stays, together
from tests.common import samples
from tests.genserve.fake_router import FakeRouter, view

DATA = Path(__file__).parent / "data" / "journal.jsonl"
RECORDED = DATA.read_text("utf-8").splitlines()
JOB = "3268e9a8156049cb926bdc7b4408ee70"
NOBODY = "tcp://127.0.0.1:9"  # where no router answers
AT = 1_795_611_613.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "ANSWER_TIMEOUT_S", 0.3)


def run(*words: str, router: str = NOBODY, stdin: str = "", columns: str | None = "160") -> tuple[int, str]:
    """The exit status and everything that is printed. `columns`: None: into a file."""
    env = {"COLUMNS": columns, "TERM": "dumb", "NO_COLOR": "1"}
    result = CliRunner().invoke(app, ["logs", *words, "--router", router], env=env, input=stdin)
    assert not result.exception or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def journal_file(folder: Path, *units: str) -> Path:
    """The recorded entries of some units."""
    path = folder / f"{'-'.join(units) or 'all'}.json"
    kept = [line for line in RECORDED if not units or any(unit in line for unit in units)]
    path.write_text("\n".join(kept) + "\n", "utf-8")
    return path


def row(text: str, *words: str) -> int:
    """The number of the one line of `text` that holds all these words."""
    (found,) = [at for at, line in enumerate(text.splitlines()) if all(word in line for word in words)]
    return found


# --- reading lines -------------------------------------------------------------------------------


def test_every_entry_of_a_recorded_journal_is_understood() -> None:
    lines = [parse(text) for text in RECORDED]
    assert all(line is not None and line.event and line.host and line.unit.startswith("genserve-") for line in lines)
    assert {line.process for line in lines if line} == {"router", "gateway", "gpu-daemon"}
    (died,) = [line for line in lines if line and line.event == "engine.died"]
    assert (died.host, died.unit, died.level) == ("gpu-7", "genserve-gpu@0.service", "warning")
    assert abs(died.at - 1_795_611_613.54) < 0.01


OURS = '{"event": "job.done", "level": "info", "time": "2026-11-25T13:00:13.5Z", "process": "engine", "job_id": "x"}'


@pytest.mark.parametrize(
    "text",
    [
        OURS,
        f"<6>{OURS}",
        f"Nov 25 13:00:13 gpu-7 genserve[123]: {OURS}",
        f"gateway-1  | {OURS}\r\n",
        json.dumps({"__REALTIME_TIMESTAMP": "1795611613500000", "MESSAGE": OURS}),
        json.dumps({"__REALTIME_TIMESTAMP": "1795611613500000", "MESSAGE": list(OURS.encode())}),
        json.dumps({"__REALTIME_TIMESTAMP": "1795611613500000", "MESSAGE": [OURS, "another of the same name"]}),
    ],
)
def test_a_line_is_found_whatever_stands_before_it(text: str) -> None:
    line = parse(text)
    assert line is not None
    assert (line.at, line.event, line.job_ids()) == (1_795_611_613.5, "job.done", ["x"])


@pytest.mark.parametrize(
    "text",
    [
        "", "genserve: gateway.port is wrong", "{", "{}", "[]", "{'event': 'x'}", '{"event": 1, "time": "x"}',
        '{"event": "a.b", "time": "yesterday"}', '{"MESSAGE": null, "__REALTIME_TIMESTAMP": "1"}', '{"MESSAGE": "x"}',
        '{"MESSAGE": "x", "__REALTIME_TIMESTAMP": "soon"}', '{"MESSAGE": [999], "__REALTIME_TIMESTAMP": "1"}',
        '{"MESSAGE": "of another", "_SYSTEMD_UNIT": "nginx.service", "__REALTIME_TIMESTAMP": "1"}', "{" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_line_of_ours_is_none(text: str) -> None:
    assert parse(text) is None


def test_what_systemd_says_of_a_unit_stands_beside() -> None:
    told = {
        "__REALTIME_TIMESTAMP": "1795611613500000", "PRIORITY": "4", "SYSLOG_IDENTIFIER": "systemd", "_PID": "1",
        "_HOSTNAME": "gpu-7", "_SYSTEMD_UNIT": "init.scope", "UNIT": "genserve-gpu@0.service",
        "MESSAGE": "genserve-gpu@0.service: Main process exited, code=killed, status=9/KILL",
    }  # fmt: skip
    line = parse(json.dumps(told))
    assert line is not None
    assert (line.process, line.level, line.unit) == ("systemd", "warning", "genserve-gpu@0.service")
    where = [Stay("gpu-7/cuda:0", AT, AT + 1)]
    assert beside(line, where, {"gpu-7/cuda:0": ("gpu-7", "cuda:0")})
    assert not beside(line, where, {"gpu-7/cuda:0": ("gpu-8", "cuda:0")})
    assert not beside(line, [Stay("gpu-7/cuda:1", AT, AT + 1)], {"gpu-7/cuda:1": ("gpu-7", "cuda:1")})


def _line(at: float, event: str, process: str = "engine", **fields: Any) -> LogLine:
    return LogLine(at, process, fields.pop("level", "warning"), event, fields, fields.pop("host", ""))


def test_only_what_happened_there_and_then_stands_beside() -> None:
    history = (
        JobMoment(at=AT, event="accepted"), JobMoment(at=AT + 1, event="dispatched", detail="#1 to a/cuda:0"),
        JobMoment(at=AT + 2, event="started"), JobMoment(at=AT + 5, event="requeued", detail="engine_died"),
        JobMoment(at=AT + 9, event="dispatched", detail="#2 to b/cuda:0"),
    )  # fmt: skip
    where = stays(history, [], now=AT + 20)
    assert where == [Stay("a/cuda:0", AT + 1, AT + 5), Stay("b/cuda:0", AT + 9, AT + 20)]
    places = {"a/cuda:0": ("a", "cuda:0"), "b/cuda:0": ("b", "cuda:0")}
    seen = [
        _line(AT + at, "engine.died", host=host, device="cuda:0") for at in (0.5, 3, 6, 8, 12) for host in ("a", "b")
    ]
    stands = [(line.at - AT, line.host) for line in seen if beside(line, where, places)]
    assert stands == [(3, "a"), (6, "a"), (12, "b")]
    assert beside(_line(AT + 3, "worker.dead", "router", worker_id="a/cuda:0", level="error"), where, places)
    assert not beside(_line(AT + 3, "worker.dead", "router", worker_id="c/cuda:0", level="error"), where, places)
    assert not beside(_line(AT + 3, "engine.loading", host="a", device="cuda:0", level="debug"), where, places)
    assert not beside(_line(AT + 3, "job.failed", host="a", device="cuda:0", job_id="f" * 32), where, places)


def test_a_moment_that_a_line_tells_is_told_once_at_its_time() -> None:
    moments = [moment_line(JobMoment(at=AT + at, event=event), "j") for at, event in ((0, "accepted"), (5, "done"))]
    lines = [_line(AT + 0.004, "job.accepted", "router"), _line(AT + 9, "job.finished", "router")]
    told, untold = together(moments, lines)
    assert [(line.at, line.event) for line in told] == [(AT, "job.accepted"), (AT + 9, "job.finished")]
    assert [line.event for line in untold] == ["done"]
    assert [line.event for line in in_order([*told, *untold])] == ["job.accepted", "done", "job.finished"]


def test_a_client_that_asks_again_and_again_is_told_once() -> None:
    asks = [(_line(AT + n, "http.request", method="GET", path="/v1/jobs/x", status=200), True) for n in range(5)]
    other = (_line(AT + 2.5, "http.request", method="DELETE", path="/v1/jobs/x", status=200), True)
    found = folded([*asks, other])
    assert [(line.fields["method"], line.fields.get("times")) for line, _ in found] == [("GET", 5), ("DELETE", None)]


# --- the command ---------------------------------------------------------------------------------


def test_a_whole_life_from_the_files_of_two_hosts(tmp_path: Path) -> None:
    front, gpus = journal_file(tmp_path, "router", "gateway"), journal_file(tmp_path, "gpu@")
    status, text = run(JOB[:8], "--file", str(gpus), str(front))
    assert status == 0
    order = [
        row(text, "router", "front", "job.accepted"),
        row(text, "gateway", "front", "http.request", "202"),
        row(text, "gpu-daemon", "gpu-7/cuda:0", "job.started"),
        row(text, "gpu-daemon", "gpu-7/cuda:0", "engine.died", "SIGKILL"),
        row(text, "gpu-daemon", "gpu-7/cuda:0", "job.failed", "engine_died"),
        row(text, "router", "gpu-7/cuda:0", "job.requeued"),
        row(text, "gpu-daemon", "gpu-7/cuda:1", "job.started"),
        row(text, "gpu-daemon", "gpu-7/cuda:1", "job.done", "1.51"),
        row(text, "router", "gpu-7/cuda:1", "job.finished"),
    ]
    assert order == sorted(order)
    assert JOB in text.splitlines()[1]
    assert "+1.3 s" in text
    assert "the router's history of it is missing" in text
    assert "daemon.started" not in text


def test_for_programs_each_line_is_one_object() -> None:
    status, text = run(JOB, "--file", str(DATA), "--json")
    assert status == 0
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines if line["process"] == "router"] == [
        "job.accepted", "job.requeued", "job.finished",
    ]  # fmt: skip
    assert lines == sorted(lines, key=lambda line: line["time"])
    assert {line["host"] for line in lines} == {"front", "gpu-7"}
    assert next(line["event"] for line in lines if not line["names_the_job"]) == "engine.died"


def test_in_a_file_each_line_of_the_log_is_one_line(tmp_path: Path) -> None:
    whole = run(JOB, "--file", str(journal_file(tmp_path)), columns=None)[1].splitlines()
    narrow = run(JOB, "--file", str(journal_file(tmp_path)), columns="80")[1].splitlines()
    assert len(narrow) > len(whole)
    assert max(map(len, whole)) > 160
    assert [line for line in whole if line != line.rstrip()] == []
    row("\n".join(whole), f"http.request  method GET  path /v1/jobs/{JOB}  status 200", "elapsed_s", "times 3")


def test_stdin_is_read_as_well() -> None:
    status, text = run(JOB[:8], "--file", "-", stdin="\n".join(RECORDED))
    assert status == 0
    assert "job.finished" in text


def test_a_router_that_does_not_answer_is_said(tmp_path: Path) -> None:
    status, text = run(JOB, "--file", str(journal_file(tmp_path, "router")))
    assert status == 0
    assert "the router's history of it is missing: no router answers" in text
    assert "no line of the router" not in text


def _history_router(history: tuple[JobMoment, ...]) -> Callable[[FakeRouter, Message], None]:
    def script(router: FakeRouter, message: Message) -> None:
        if isinstance(message, JobQuery):
            job = view("done", job_id=message.job_id)
            router.say(JobReply(rid=message.rid, job_id=message.job_id, job=job, history=history))
        elif isinstance(message, StatusQuery):
            (reply,) = [each for each in samples.TO_CLIENT if each.NAME == b"STATUS"]
            router.say(type(reply)(**{**{f: getattr(reply, f) for f in reply.__struct_fields__}, "rid": message.rid}))

    return script


HISTORY = (
    JobMoment(at=AT + 0.031, event="accepted"),
    JobMoment(at=AT + 0.031, event="dispatched", detail="#1 to gpu-7/cuda:0"),
    JobMoment(at=AT + 0.6, event="requeued", detail="engine_died: \x1b[2Jthe engine died"),
    JobMoment(at=AT + 0.6, event="dispatched", detail="#2 to gpu-7/cuda:1"),
    JobMoment(at=AT + 2.06, event="done"),
)


def test_a_job_without_any_line_still_tells_its_life(
    start: Callable[..., FakeRouter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "front")
    empty = tmp_path / "empty.log"
    empty.write_text("what a person wrote\n", "utf-8")
    status, text = run(JOB, "--file", str(empty), router=start(_history_router(HISTORY)).endpoint)
    assert status == 0
    order = [row(text, "history", what) for what in ("accepted", "dispatch 1", "requeued", "dispatch 2", "done")]
    assert order == sorted(order)
    assert "gpu-7/cuda:1" in text.splitlines()[order[3]]
    assert "\x1b" not in text
    assert "holds no JSON log line of GenServe" in text
    assert "ssh gpu-7 " in text
    assert "--since @1795611608" in text
    assert f"genserve logs {JOB} --file {empty} --file gpu-7.json" in text
    assert "no line of the router names it" in text


def test_history_and_lines_are_one_story(start: Callable[..., FakeRouter]) -> None:
    status, text = run(JOB[:8], "--file", str(DATA), router=start(_history_router(HISTORY)).endpoint)
    assert status == 0
    assert [line for line in text.splitlines() if "⚠" in line and "engine" not in line] == []
    assert row(text, "job.accepted") < row(text, "history", "dispatch 1") < row(text, "gpu-7/cuda:0", "job.started")
    assert text.count("history") == 2, "what lines tell is not told again"


def test_no_trace_is_an_error_that_says_what_was_looked_at() -> None:
    status, text = run("deadbeef", "--file", str(DATA))
    assert status == 1
    assert "no trace of a job deadbeef" in text
    assert "all 32 digits" in text
    assert f"{len(RECORDED)} lines were read" in text


def test_what_cannot_be_meant_is_refused_with_what_can(tmp_path: Path) -> None:
    for words, says in (
        (("1a2b",), "at least its first 8 digits"),
        (("../../etc",), "is no job id"),
        ((JOB, "--file", str(tmp_path / "nowhere.log")), "cannot be read"),
    ):
        status, text = run(*words)
        assert status == 2
        assert says in " ".join(text.replace("│", " ").split())
    twins = tmp_path / "twins.log"
    twins.write_text("".join(OURS.replace('"x"', f'"{JOB[:8]}{n * 24}"') + "\n" for n in "ab"), "utf-8")
    status, text = run(JOB[:8], "--file", str(twins))
    assert status == 2
    assert "begins the ids of 2 jobs" in " ".join(text.replace("│", " ").split())


# --- the journal ---------------------------------------------------------------------------------


def test_the_commands_that_read_the_journal() -> None:
    begin = ["journalctl", "-o", "json", "--all", "--no-pager", "-u", "genserve*"]
    assert Journal().command(Window()) == begin
    assert Journal(merge=True).command(Window(word="1a2b3c4d")) == [*begin, "--merge", "--grep", "1a2b3c4d"]
    assert Journal(directory=Path("/j")).command(Window(since=100.0, until=110.5), follow=True) == [
        *begin, "--directory", "/j", "--since", "@95", "--until", "@116", "--follow", "--lines", "all",
    ]  # fmt: skip
    told = elsewhere("gpu 7", Window(100.0, 110.5), "gpu 7.json")
    assert told.startswith("ssh 'gpu 7' 'journalctl -o json --all --no-pager -u '\"'\"'genserve*'")
    assert told.endswith("> 'gpu 7.json'")


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A journalctl that says what a script says, and writes down how it was called."""

    def make(script: str) -> Path:
        calls = tmp_path / "calls"
        program = tmp_path / "bin" / "journalctl"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n', "utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        return calls

    return make


def test_the_journal_is_asked_for_the_job_and_then_for_its_time(journalctl: Callable[[str], Path]) -> None:
    calls = journalctl(f"cat {DATA}")
    status, text = run(JOB[:8], "--merge")
    assert status == 0
    assert row(text, "engine.died", "gpu-7/cuda:0")
    first, second = calls.read_text("utf-8").splitlines()
    assert "--merge --grep 3268e9a8" in first
    assert "--since @1795611608 --until @1795611621" in second
    assert "--grep" not in second


def test_a_journalctl_without_patterns_reads_everything(journalctl: Callable[[str], Path]) -> None:
    calls = journalctl(
        f'case "$*" in *--grep*) echo "Compiled without pattern matching support" >&2; exit 1;; *) cat {DATA};; esac'
    )
    status, text = run(JOB)
    assert status == 0
    assert "job.finished" in text
    assert len(calls.read_text("utf-8").splitlines()) == 3


def test_what_the_journal_cannot_give_is_said(journalctl: Callable[[str], Path]) -> None:
    journalctl('echo "Failed to add filter for units: No data available" >&2; exit 1')
    assert "this host's journal has no entry of a unit genserve*" in run("deadbeef")[1]
    journalctl('echo "No journal files were opened due to insufficient permissions." >&2; exit 1')
    assert "journalctl says: No journal files were opened due to insufficient permissions." in run("deadbeef")[1]


def test_a_host_without_journalctl_is_told_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "name files of log lines with --file" in run("deadbeef")[1]
