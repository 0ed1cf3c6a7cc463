"""`genserve burst` against a real service, over both doors."""

import json
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_ports
from tests.service import GENSERVE, Service, wait_for

WITHIN_S = 60


def burst(service: Service, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GENSERVE, "burst", "--url", service.http_url, "--router", service.client_endpoint, *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )


@pytest.mark.parametrize("over", ["http", "zmq"])
def test_twelve_pictures(noop_pair: Service, over: str, tmp_path: Path) -> None:
    args = ("-n", "12", "-c", "4", "--over", over, "--sizes", "64x64,128x64", "--steps", "2,6", "--json")
    done = burst(noop_pair, *args, "--report", "burst.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    figures = told["summary"]
    assert (figures["done"], figures["failed"], figures["unknown_jobs"]) == (12, 0, 0)
    assert (told["model"], len(told["gpus"]), told["warmed_up"]) == ("noop", 2, 4)
    assert {request["order"]["width"] for request in told["requests"]} == {64, 128}
    for request in told["requests"]:
        job = request["job"]
        assert (job["state"], job["steps"], job["width"]) == (
            "done",
            request["order"]["steps"],
            request["order"]["width"],
        )
        assert job["created_at"] <= job["started_at"] <= job["ended_at"]
        assert 0.02 * job["steps"] <= job["engine_s"] <= request["ended_s"] - request["sent_s"]
    assert sum(gpu["pictures"] for gpu in figures["gpus"]) == 12
    assert all(gpu["busy_s"] > 0 for gpu in figures["gpus"])
    assert told["totals"] == {"submitted": 12, "done": 12, "failed": 0, "cancelled": 0, "refused": 0, "retried": 0}
    assert (figures["first_step"] is None) == (over == "http")  # the synchronous HTTP door shows no steps
    page = (tmp_path / "burst.html").read_text("utf-8")
    assert page.count('class="span') == 12
    assert re.search(
        r"warm-up: 4 of 4 .*\n(.*\n)*burst: 12 of 12", done.stderr
    )  # plain lines where there is no terminal


def test_a_request_without_a_picture_fails_the_command(noop_pair: Service) -> None:
    done = burst(noop_pair, "-n", "2", "--steps", "100", "--timeout", "1", "--warm-up", "0")
    assert done.returncode == 1
    assert "✘ 2 of 2 requests got no picture: 2 timeout" in done.stdout
    assert "2 of 2 requests got no picture" in done.stderr


def test_ctrl_c_cancels_what_is_open_and_tells_the_rest(noop_pair: Service) -> None:
    command = [GENSERVE, "burst", "--url", noop_pair.http_url, "--steps", "20", "--warm-up", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        before = noop_pair.get("/v1/status")[1]["stats"]["done_total"]
        wait_for("pictures", lambda: noop_pair.get("/v1/status")[1]["stats"]["done_total"] >= before + 4)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=WITHIN_S)
    told = json.loads(stdout)
    assert (process.returncode, told["interrupted"], told["summary"]["failed"]) == (130, True, 0)
    assert 0 < told["summary"]["done"] == len(told["requests"]) < 200
    assert told["summary"]["unknown_jobs"] == 0

    def idle() -> bool:
        stats = noop_pair.get("/v1/status")[1]["stats"]
        return stats["queued"] + stats["running"] == 0

    wait_for("end of what was open", idle, within_s=5.0)


def test_what_cannot_be_measured_is_said_before_it_begins(noop_pair: Service) -> None:
    cases = [
        (["--model", "sdxl"], "there is no model 'sdxl', only noop"),
        (["--url", f"http://127.0.0.1:{free_ports(1)}"], "or name what runs with --url http://HOST:PORT"),
        (["--sizes", "5x5"], "the warm-up failed, nothing was measured"),
    ]
    with ThreadPoolExecutor(len(cases)) as together:
        ends = list(together.map(lambda case: burst(noop_pair, *case[0]), cases))
    for done, (_, words) in zip(ends, cases, strict=True):
        assert words in done.stderr
        assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (1, "", False)
