"""Traces, as a collector receives them from a whole service: a request, its job and the steps are one trace."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.collector import Collector, Taken, collecting
from tests.rawclient import RawClient
from tests.service import Service, running, wait_for

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b7-00"
JOB_SPANS = {"job", "queue", "dispatch", "draw", "encode", "denoise", "decode", "save", "store"}
STEPS = 4
SLACK_S = 0.001  # one process's clock, read at two moments


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running_one:
        yield running_one


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Service]:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",  # ms
        "GENSERVE_GPU_DAEMON_NOOP_STEP_S": "0.08",
    }
    with running(tmp_path_factory.mktemp("traces"), "--engine", "noop", "--gpus", "cpu", env=env) as ready:
        yield ready


def whole(collector: Collector, trace_id: str, names: set[str]) -> dict[str, Taken]:
    """The trace, once all of it has come."""
    wait_for(f"trace {trace_id}", lambda: collector.trace(trace_id).keys() >= names)
    found = collector.trace(trace_id)
    assert found.keys() == names
    return found


def check_nested(spans: dict[str, Taken]) -> None:
    by_id = {span.span_id: span for span in spans.values()}
    for span in spans.values():
        assert span.began_at <= span.ended_at
        if span.parent_id in by_id:
            above = by_id[span.parent_id]
            assert above.began_at - SLACK_S <= span.began_at, (span, above)
            assert span.ended_at <= above.ended_at + SLACK_S, (span, above)


def test_a_request_its_job_and_its_steps_are_one_trace(service: Service, collector: Collector) -> None:
    body = {"prompt": "x", "size": "64x64", "num_inference_steps": STEPS}
    status, answer, headers = service.post("/v1/images/generations", body, headers={"traceparent": PARENT})
    assert status == 200
    http = "POST /v1/images/generations"
    spans = whole(collector, PARENT.split("-")[1], {http, *JOB_SPANS})
    assert (spans[http].service, spans[http].parent_id) == ("genserve-gateway", PARENT.split("-")[2])
    assert spans[http].attributes["http.response.status_code"] == 200
    assert spans[http].attributes["genserve.request.id"] == headers["X-Request-Id"]
    job, draw = spans["job"], spans["draw"]
    assert (job.service, job.parent_id) == ("genserve-router", spans[http].span_id)
    assert job.attributes["genserve.job.id"] == answer["data"][0]["genserve"]["job_id"]
    assert {spans[name].parent_id for name in ("queue", "dispatch", "draw", "store")} == {job.span_id}
    assert {spans[name].parent_id for name in ("encode", "denoise", "decode", "save")} == {draw.span_id}
    check_nested(spans)
    steps = spans["denoise"].events
    assert [name for name, _ in steps] == ["step"] * STEPS
    assert [at for _, at in steps] == sorted(at for _, at in steps)
    assert spans["denoise"].ended_at - spans["denoise"].began_at > 0.8 * STEPS * 0.08
    job_id = answer["data"][0]["genserve"]["job_id"]
    [line] = [line for line in service.events("job.started") if line["job_id"] == job_id]
    assert line["trace_id"] == PARENT.split("-")[1]


def test_a_job_asked_for_without_a_trace_has_its_own(service: Service, collector: Collector) -> None:
    with RawClient(service.client_endpoint) as client:
        _, result, _ = client.draw(prompt="x", width=64, height=64, steps=1)
    job_id = result["job_id"]
    spans = whole(collector, job_id, JOB_SPANS)
    assert spans["job"].parent_id == ""
    check_nested(spans)


def test_a_cancelled_job_says_so_and_an_unsampled_one_nothing(service: Service, collector: Collector) -> None:
    body = {"prompt": "x", "size": "64x64", "num_inference_steps": 50}
    _, unsampled, _ = service.post("/v1/jobs", body, headers={"traceparent": UNSAMPLED})
    service.delete(unsampled["links"]["self"])
    parent = PARENT.replace("4736", "4738")
    _, job, _ = service.post("/v1/jobs", body, headers={"traceparent": parent})
    wait_for("step", lambda: service.get(job["links"]["self"])[1]["step"])
    service.delete(job["links"]["self"])
    spans = whole(collector, parent.split("-")[1], {"POST /v1/jobs", "job", "queue", "dispatch", "draw"})
    assert spans["draw"].error == "cancelled"
    assert spans["job"].attributes["genserve.job.end"] == "cancelled"
    assert not collector.trace(UNSAMPLED.split("-")[1])  # it ended before the one that has come


def test_a_collector_that_is_gone_costs_no_picture(tmp_path: Path) -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",  # s
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with running(tmp_path, "--engine", "noop", "--gpus", "cpu", env=env) as service:
        assert service.post("/v1/jobs", {"prompt": "x", "size": "64x64"})[0] == 202
        assert service.post("/v1/images/generations", {"prompt": "x", "size": "64x64"})[0] == 200
        wait_for("a line in the log", lambda: service.events("traces.library"))
