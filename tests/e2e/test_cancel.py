"""A picture that nobody wants any more frees its GPU within a step, on every door."""

import http.client
import json
from typing import Any

from tests.rawclient import RawClient
from tests.service import Service, wait_for

LONG = {"prompt": "a long walk", "width": 256, "height": 256, "steps": 100}


def _busy(service: Service) -> list[str]:
    _, status = service.get("/status")
    instances = [i for many in status["concurrent_manager"]["model_instances"].values() for i in many]
    return [instance["current_task"] for instance in instances if instance["is_busy"]]


def _cancelled(service: Service) -> Any:
    _, status = service.get("/status")
    return status["concurrent_manager"]["stats"]["cancelled_tasks"]


def test_a_raw_cancel_stops_a_running_job(service: Service) -> None:
    with RawClient(service.client_endpoint) as client:
        client.send(b"SUBMIT", rid="1", job=LONG)
        _, accepted, _ = client.receive()
        while client.receive()[1].get("step", 0) < 1:
            pass
        client.send(b"CANCEL", rid="2", job_id=accepted["job_id"])
        seen = set()
        while seen != {("1", b"CANCELLED"), ("2", b"CANCELLED")}:
            name, header, _ = client.receive()
            if name != b"PROGRESS":
                seen.add((header["rid"], name))
        name, header, _ = client.draw(rid="3", prompt="next", width=64, height=64, steps=1)
        assert name == b"RESULT"
    stopped = [line for line in service.events("job.stopped") if line["job_id"] == accepted["job_id"]]
    assert len(stopped) == 1, "the engine was stopped, not left to draw on"


def test_a_client_that_hangs_up_frees_its_gpu(service: Service) -> None:
    before = _cancelled(service)
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    body = {"prompt": "a long walk", "size": "256x256", "num_inference_steps": 100}
    connection.request("POST", "/v1/images/generations", json.dumps(body), {"Content-Type": "application/json"})
    job_id = wait_for("running job", lambda: _busy(service))[0]
    connection.close()
    wait_for("cancelled job", lambda: _cancelled(service) == before + 1)
    wait_for("free GPU", lambda: not _busy(service))
    assert [line for line in service.events("job.cancelled") if line["job_id"] == job_id]
