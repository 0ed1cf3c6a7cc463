"""A scrape of a whole service: clean, true, and none the worse for a gateway that was killed."""

import urllib.request
from pathlib import Path

import pytest

from tests.gateway.metrics_lint import faults
from tests.service import Service, running, wait_for

IMAGES = {"prompt": "x", "size": "64x64", "num_inference_steps": 3, "n": 2}


def scrape(service: Service) -> dict[str, float]:
    """Every series and its value, of a scrape that is clean."""
    with urllib.request.urlopen(f"{service.http_url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert faults(text) == []
    samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {series: float(value) for series, _, value in samples}


def test_the_router_counts_on_while_gateways_come_and_go(tmp_path: Path) -> None:
    with running(tmp_path, "--engine", "noop", "--gpus", "cpu,cpu", workers=2) as service:
        before = scrape(service)
        assert service.post("/v1/images/generations", IMAGES)[0] == 200
        assert service.post("/v1/jobs", {"prompt": "x", "model": "sdxl"})[0] == 404
        drawn = scrape(service)
        done = 'genserve_jobs_ended_total{code="",end="done"}'
        assert drawn[done] - before[done] == 2
        assert drawn["genserve_steps_total"] - before["genserve_steps_total"] == 6
        assert drawn['genserve_jobs_rejected_total{code="unknown_model"}'] == 1
        for stage in ("queue", "encode", "denoise", "decode", "save"):
            count = f'genserve_job_stage_seconds_count{{stage="{stage}"}}'
            assert drawn[count] - before[count] == 2
        denoise = 'genserve_job_stage_seconds_sum{stage="denoise"}'
        busy = [value for name, value in drawn.items() if name.startswith("genserve_worker_drawing_seconds_total")]
        assert 0 < drawn[denoise] <= sum(busy)
        ready = [value for name, value in drawn.items() if 'genserve_worker_state{state="ready"' in name]
        assert ready == [1, 1]
        requests = 'genserve_http_requests_total{method="POST",route="/v1/images/generations",status="200"}'
        assert drawn[requests] == 1
        [gateway] = service.processes("genserve gateway")
        gateway.kill()
        wait_for("another gateway", lambda: [p for p in service.processes("genserve gateway") if p.pid != gateway.pid])
        after = scrape(service.wait_ready(2))
        assert requests not in after
        same = {name for name in drawn if name.startswith(("genserve_job", "genserve_steps", "genserve_router_start"))}
        assert {name: after[name] for name in same} == {name: drawn[name] for name in same}
        assert after[denoise] == pytest.approx(drawn[denoise])
