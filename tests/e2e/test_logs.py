"""A service's own log at info: no prompt and no secret in it, every event on the page, and one job's life found again.

One service for all of it: two no-op GPUs, JSON lines into a file.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_logs_page import COMMON, ROWS
from tests.rawclient import RawClient
from tests.service import GENSERVE, Service, running, wait_for

PROMPT = "canary-prompt-7f3a"
SECRET = "canary-secret-91bc"


@pytest.fixture(scope="module")
def at_info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    env = {"GENSERVE_LOG_LEVEL": "info", "GENSERVE_GPU_DAEMON_NOOP_STEP_S": "0.05", "GENSERVE_GATEWAY_PORT": "0"}
    env |= {"GENSERVE_ROUTER_GLOBAL_QUEUE_SIZE": "0", "GENSERVE_ROUTER_GPU_QUEUE_SIZE": "1"}
    folder = Path(tmp_path_factory.mktemp("logs"))
    with running(folder, "--gpus", "cpu,cpu", "--engine", "noop", workers=2, env=env, clean_log=False) as started:
        yield started


def lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log_text().splitlines() if line.startswith("{")]


def logs(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    """`genserve logs` over the service's log file."""
    command = [GENSERVE, "logs", *words, "--file", str(service.log_path), "--router", service.client_endpoint]
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


def test_neither_prompts_nor_secrets_are_in_a_log_at_info(at_info: Service) -> None:
    headers = {"Authorization": f"Bearer {SECRET}", "Idempotency-Key": SECRET, "X-Api-Key": SECRET, "Cookie": SECRET}
    wrong: list[dict[str, Any]] = [
        {}, {"size": "16x16"}, {"model": "nope"}, {"n": 99}, {"seed": "x"}, {"size": "x"},
    ]  # fmt: skip
    for body in wrong:
        at_info.post("/v1/images/generations", {"prompt": PROMPT, "negative_prompt": PROMPT, **body}, headers=headers)
        at_info.post("/v1/jobs", {"prompt": PROMPT, **body}, headers=headers)
    at_info.post("/generate", {"prompt": PROMPT * 1000}, headers=headers)
    at_info.post("/v1/jobs", {"prompt": f"{PROMPT} another body"}, headers=headers)
    at_info.post("/v1/jobs", f'{{"prompt": "{PROMPT}'.encode(), headers=headers)
    at_info.get(f"/nowhere?prompt={PROMPT}&key={SECRET}")
    with RawClient(at_info.client_endpoint) as client:
        client.ask(b"SUBMIT", rid="1", job={"prompt": PROMPT, "steps": 9999}, key=SECRET)
        client.ask(b"SUBMIT", rid="2", job={"prompt": [PROMPT]})
        client.draw(rid="3", prompt=PROMPT, negative_prompt=PROMPT, width=64, height=64)
        client.ask(b"SUBMIT", rid="4", job={"prompt": PROMPT, "width": 64, "height": 64}, key=SECRET)
        client.end_of("4")
        client.ask(b"SUBMIT", rid="5", job={"prompt": f"{PROMPT}!"}, key=SECRET)
        client.socket.send_multipart([b"GS1", b"SUBMIT", PROMPT.encode(), SECRET.encode()])
        client.receive()
    wait_for("the lines of all that", lambda: [e for e in at_info.events("http.request") if e.get("count", 0) > 1])
    assert at_info.events("frames.refused")
    text = at_info.log_text()
    assert [line for line in text.splitlines() if PROMPT in line or SECRET in line] == []


def test_a_storm_of_refusals_is_a_few_lines_and_every_accepted_job_has_its_own(at_info: Service) -> None:
    accepted, refused = [], 0
    before = len(at_info.events("job.rejected"))
    total = 0
    with RawClient(at_info.client_endpoint) as client:
        for number in range(400):
            client.send(b"SUBMIT", rid=str(number), job={"prompt": "x", "width": 64, "height": 64, "steps": 10})
        ended = 0
        while ended + refused < 400:
            name, header, _ = client.receive()
            if name == b"ACCEPTED":
                accepted.append(header["job_id"])
            refused += name == b"REJECTED"
            ended += name == b"RESULT"
        _, status, _ = client.ask(b"STATUS", rid="s")
        total = status["stats"]["rejected_total"]
    assert refused > 300
    told = wait_for("every refusal, counted", lambda: _counted(at_info, total))
    assert len(told) - before < 30
    assert {event["job_id"] for event in at_info.events("job.accepted")} >= set(accepted)
    assert {event["job_id"] for event in at_info.events("job.finished")} >= set(accepted)


def _counted(service: Service, refused: int) -> list[dict[str, Any]] | None:
    told = service.events("job.rejected")
    return told if sum(event.get("count", 1) for event in told) == refused else None


def test_the_life_of_a_job_whose_engine_was_killed(at_info: Service) -> None:
    status, body, _ = at_info.post("/v1/jobs", {"prompt": "x", "num_inference_steps": 20})
    assert status == 202
    job_id = body["id"]
    started = wait_for("start", lambda: [e for e in at_info.events("job.started") if e["job_id"] == job_id])[0]
    follow = subprocess.Popen(
        [GENSERVE, "logs", job_id[:8], "--follow", "--json", "--file", str(at_info.log_path), "--router",
         at_info.client_endpoint],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.kill(started["pid"], signal.SIGKILL)
    out, _ = follow.communicate(timeout=60)
    assert follow.returncode == 0
    followed = [json.loads(line)["event"] for line in out.splitlines()]
    assert followed[-1] == "job.finished"
    assert len(followed) == len([e for e in followed if e != "job.finished"]) + 1, "nothing is told twice"

    shown = logs(at_info, job_id[:8])
    assert shown.returncode == 0, shown.stderr
    objects = map(json.loads, logs(at_info, job_id, "--json").stdout.splitlines())
    told = [(line["process"], line["event"]) for line in objects]
    expected = [
        ("router", "job.accepted"), ("history", "dispatched"), ("gpu-daemon", "job.started"),
        ("gpu-daemon", "engine.died"), ("router", "job.requeued"), ("history", "dispatched"),
        ("gpu-daemon", "job.started"), ("gpu-daemon", "job.done"), ("router", "job.finished"),
    ]  # fmt: skip
    rest = iter(told)
    assert all(step in rest for step in expected), told
    assert job_id in shown.stdout
    assert re.search(r"\+\d\.\d+ s", shown.stdout)
    assert "⚠ " not in shown.stdout.splitlines()[-2]


def test_every_event_of_a_real_run_stands_on_the_page(at_info: Service) -> None:
    for line in lines(at_info):
        assert line["event"] in ROWS, line
        row = ROWS[line["event"]]
        assert line["level"] in row.levels, line
        assert line["process"] in row.processes, line
        assert set(line) - COMMON - {"event", "level", "time", "process"} <= row.fields, line
