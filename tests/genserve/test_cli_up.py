"""`genserve up` with real processes and no-op engines: what it says, restarts, refuses, and leaves behind."""

import http.client
import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ports import free_ports
from tests.service import GENSERVE, Service, running, wait_for

NOOP = ("--engine", "noop", "--gpus", "cpu")
STOP_WITHIN_S = 30.0


@contextmanager
def started(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Service]:
    """A service that the test itself brings to its end; ended by force where it does not."""
    service = Service(folder, *arguments, env={"TMPDIR": str(folder), **(env or {})})
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.kill()


def all_gone(processes: list[psutil.Process]) -> bool:
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def own_processes(service: Service) -> list[psutil.Process]:
    return service.processes("genserve")


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("GENSERVE_", "FLUX_", "SAVE_TEST"))}


def until_ready(folder: Path, port: int, **env: str) -> tuple[str, list[dict[str, Any]]]:
    """What a run until it was ready, stopped by Ctrl-C, said on stderr and logged on stdout."""
    said, logged = folder / "said", folder / "logged"
    with said.open("wb") as stderr, logged.open("wb") as stdout:
        process = subprocess.Popen(
            [GENSERVE, "up", *NOOP, "--port", str(port)],
            cwd=folder,
            env={**clean_environment(), **env},
            stdout=stdout,
            stderr=stderr,
        )
    try:
        wait_for("event up.ready", lambda: '"up.ready"' in logged.read_text("utf-8"))
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_WITHIN_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return said.read_text("utf-8"), [json.loads(line) for line in logged.read_text("utf-8").splitlines()]


def test_plain_output_tells_where_everything_is(tmp_path: Path) -> None:
    port = free_ports()
    text, events = until_ready(tmp_path, port)
    path = tmp_path / "output" / "first-picture.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    expected = ("GenServe is ready", f"http://127.0.0.1:{port}", str(path), f"--router tcp://127.0.0.1:{port + 1}")
    assert [words for words in (*expected, "status", "Ctrl-C", "draining…") if words not in text] == []
    assert "Warning" not in text
    assert "\x1b" not in text
    assert text.endswith("stopped\n")
    (ready,) = [event for event in events if event["event"] == "up.ready"]
    assert (ready["url"], ready["first_picture"]) == (f"http://127.0.0.1:{port}", str(path))
    assert events[-1]["event"] == "up.stopped"


def test_a_default_model_that_nobody_serves_is_told_with_what_to_do(tmp_path: Path) -> None:
    text, events = until_ready(tmp_path, free_ports(), GENSERVE_ROUTER_DEFAULT_MODEL="nope")
    assert "GenServe is ready" not in text
    assert "GenServe serves, but its first picture failed" in text
    assert re.search(
        r"^  First picture +failed: the default model 'nope' has not been registered yet; .", text, re.MULTILINE
    )
    assert re.search(
        r"^  Warning +no GPU serves .* router\.default_model = 'nope', .* set it to one of noop", text, re.MULTILINE
    )
    assert {"up.first_picture_failed", "up.default_model_unserved"} <= {event["event"] for event in events}


@pytest.mark.parametrize("part", ["genserve router", "genserve gpu-daemon", "genserve gateway"])
def test_a_part_that_is_killed_is_started_again(tmp_path: Path, part: str) -> None:
    with running(tmp_path, *NOOP) as service:
        (before,) = service.processes(part)
        before.kill()
        wait_for("another process", lambda: [p for p in service.processes(part) if p.pid != before.pid])
        service.wait_ready()
        subprocess.run(
            [GENSERVE, "generate", "x", "--router", service.client_endpoint],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        (died,) = service.events("part.died")
        assert died["how"] == "was ended by SIGKILL"


def test_a_part_that_a_person_must_mend_stops_everything(tmp_path: Path) -> None:
    env = {"FLUX_MODEL_PATH": str(tmp_path / "no-such-folder")}
    with started(tmp_path, "--gpus", "cpu", env=env) as service:
        assert service.process.wait(STOP_WITHIN_S) == 78
        text = service.log_text()
        assert "no-such-folder" in text
        assert "cpu cannot start until what it says above is mended" in text
        lines = text.splitlines()
        last_words = lines[lines.index("cpu could not start:") + 1 :]
        assert last_words[0].startswith("genserve: the model folder ")
        assert last_words[-1].startswith("  -> ")
        assert "up.stopped" not in "".join(last_words)
        assert "Traceback" not in text
        assert service.events("part.died") == []


def test_the_first_signal_drains_and_the_second_stops_at_once(tmp_path: Path) -> None:
    env = {"GENSERVE_GPU_DAEMON_NOOP_STEP_S": "30"}
    with started(tmp_path, *NOOP, env=env) as service:
        service.wait_ready()
        client = subprocess.Popen(
            [GENSERVE, "generate", "x", "--steps", "2", "--router", service.client_endpoint],
            cwd=tmp_path,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for("a running job", lambda: service.events("job.started"))
            processes = own_processes(service)
            assert psutil.Process(service.process.pid).cmdline()[0] == f"genserve up --port {service.port}"
            service.process.send_signal(signal.SIGINT)
            wait_for("draining daemon", lambda: service.events("daemon.draining"))
            assert service.process.poll() is None
            began = time.monotonic()
            service.process.send_signal(signal.SIGINT)
            assert service.process.wait(STOP_WITHIN_S) == 0
            assert time.monotonic() - began < 10
        finally:
            client.kill()
            client.wait()
        assert all_gone(processes)
        assert "Traceback" not in service.log_text()
        assert "1 job waits for the next start" in service.log_text()


def test_nothing_outlives_an_up_that_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, *NOOP) as service:
        service.wait_ready()
        processes = own_processes(service)
        assert len(processes) == 5  # up, router, daemon, engine, gateway
        service.process.kill()
        service.process.wait()
        wait_for("the end of all parts", lambda: all_gone(processes), STOP_WITHIN_S)


def test_an_up_that_is_killed_leaves_the_running_job_its_chance(tmp_path: Path) -> None:
    env = {"GENSERVE_GPU_DAEMON_NOOP_STEP_S": "0.5"}
    with started(tmp_path, *NOOP, env=env) as service:
        service.wait_ready()
        processes = own_processes(service)
        with ThreadPoolExecutor(1) as pool:
            body = {"prompt": "x", "num_inference_steps": 4}
            answer = pool.submit(service.post, "/v1/images/generations", body)
            wait_for("a running job", lambda: service.events("job.started"))
            service.process.kill()
            service.process.wait()
            status, drawn, _ = answer.result(STOP_WITHIN_S)
        assert status == 200, drawn
        wait_for("the end of all parts", lambda: all_gone(processes), STOP_WITHIN_S)
        (draining,) = service.events("gateway.draining")
        assert draining["process"] == "gateway"
        assert [len(service.events(f"{part}.stopped")) for part in ("gateway", "daemon", "router")] == [1, 1, 1]
        assert "Traceback" not in service.log_text()


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path) -> None:
    with started(tmp_path, *NOOP) as service:
        service.wait_ready()
        assert service.stop() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["service.log", "state", "xdg"]


def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path) -> None:
    with running(tmp_path, *NOOP) as service:
        again = subprocess.run(
            [GENSERVE, "up", *NOOP, "--port", str(service.port)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert again.returncode == 78
    assert f"127.0.0.1:{service.port} cannot be listened on" in again.stderr
    assert again.stdout == ""


def read_until(leader: int, words: str) -> str:
    """What a terminal shows, up to `words` or to the end; colours and cursor movements taken out."""
    said = b""
    while words.encode() not in said:
        try:
            said += os.read(leader, 65536)
        except OSError:  # every process on its other side has ended
            break
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode("utf-8", "replace"))


@contextmanager
def on_a_terminal(folder: Path, port: int, **env: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A run whose outputs are a terminal, and the other side of that."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [GENSERVE, "up", *NOOP, "--port", str(port)],
        cwd=folder,
        env={**clean_environment(), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40", **env},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    try:
        yield process, leader
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(leader)


def test_a_closed_terminal_stops_everything_in_order(tmp_path: Path) -> None:
    """As Ctrl-C does; and that nobody can be told of it any more harms nothing."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [GENSERVE, "up", *NOOP, "--port", "0"],
        cwd=tmp_path,
        env={**clean_environment(), "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    try:
        read_until(leader, "Ctrl-C")
        parts = psutil.Process(process.pid).children(recursive=True)
        assert len(parts) >= 3
        os.close(leader)
        process.send_signal(signal.SIGHUP)
        assert process.wait(STOP_WITHIN_S) == 0
        assert all_gone(parts)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_on_a_terminal_the_start_is_quiet_and_the_logs_are_readable(tmp_path: Path) -> None:
    with on_a_terminal(tmp_path, 0) as (process, leader):
        start = read_until(leader, "Ctrl-C")
        process.send_signal(signal.SIGINT)
        end = read_until(leader, "stopped\r\n\0")  # never said: to the end
        assert process.wait(STOP_WITHIN_S) == 0
    assert "✔ router" in start
    assert "router.listening" not in start
    assert re.search(r"\d\d:\d\d:\d\d .*gateway +gateway\.draining", end)
    assert end.rstrip().endswith("stopped")
    assert '"event"' not in start + end


def test_on_a_terminal_too_a_killed_up_leaves_the_running_job_its_chance(tmp_path: Path) -> None:
    port = free_ports()
    with on_a_terminal(tmp_path, port, GENSERVE_GPU_DAEMON_NOOP_STEP_S="0.5") as (process, leader):
        read_until(leader, "Ctrl-C")
        parts = psutil.Process(process.pid).children(recursive=True)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=STOP_WITHIN_S)
        body = json.dumps({"prompt": "x", "num_inference_steps": 4})
        connection.request("POST", "/v1/images/generations", body, {"Content-Type": "application/json"})
        read_until(leader, "job.started")
        process.kill()  # nobody reads what its parts write any more
        process.wait()
        assert connection.getresponse().status == 200
        connection.close()
        wait_for("the end of all parts", lambda: all_gone(parts), STOP_WITHIN_S)
