"""The events of real jobs: the picture as it forms, and what a stream lives through."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.service import Service


@contextmanager
def events(service: Service, job_id: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The bodies of a job's events, as they come."""
    with urllib.request.urlopen(f"{service.http_url}/v1/jobs/{job_id}/events", timeout=60) as stream:
        yield (json.loads(line.removeprefix(b"data: ")) for line in stream if line.startswith(b"data: "))


def accepted(service: Service, **body: Any) -> str:
    status, answer, _ = service.post("/v1/jobs", {"prompt": "x", **body})
    assert status == 202
    return str(answer["id"])


def test_a_job_is_seen_as_it_waits_and_runs_and_ends(noop_pair: Service) -> None:
    before = [accepted(noop_pair, num_inference_steps=25) for _ in range(2)]
    job_id = accepted(noop_pair, num_inference_steps=25, previews=3)
    with events(noop_pair, job_id) as stream:
        told = list(stream)
    states = [event["job"]["state"] for event in told if event["type"] == "job.state"]
    assert states[0] == "queued"
    assert states[-1] == "running"
    running = next(
        event["job"] for event in told if event["type"] == "job.state" and event["job"]["state"] == "running"
    )
    assert running["started_at"]
    steps = [event["step"] for event in told if event["type"] == "job.step"]
    assert steps == sorted(steps)
    assert [event["index"] for event in told if event["type"] == "job.preview"] == [0, 1, 2]
    assert told[-1]["type"] == "job.done"
    assert told[-1]["job"]["id"] == job_id
    for each in before:
        with events(noop_pair, each) as stream:
            assert [event["type"] for event in stream][-1] == "job.done"


def test_a_cancel_is_the_last_event(noop_pair: Service) -> None:
    job_id = accepted(noop_pair, num_inference_steps=100)
    with events(noop_pair, job_id) as stream:
        assert next(event for event in stream if event["type"] == "job.step")["steps"] == 100
        request = urllib.request.Request(f"{noop_pair.http_url}/v1/jobs/{job_id}", method="DELETE")
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 200
        assert [event["type"] for event in stream][-1] == "job.cancelled"


def test_ones_jobs_are_listed_page_by_page(noop_pair: Service) -> None:
    jobs = [accepted(noop_pair, num_inference_steps=1) for _ in range(3)]
    with events(noop_pair, jobs[-1]) as stream:
        assert [event["type"] for event in stream][-1] == "job.done"
    seen: list[str] = []
    path = "/v1/jobs?limit=2&state=done,running"
    while len(seen) < 3:
        _, page = noop_pair.get(path)
        assert all(set(job) >= {"state", "links", "image"} for job in page["data"])
        seen += [job["id"] for job in page["data"]]
        path = page["next"]
    assert seen[:3] == jobs[::-1]
    for query, param in (("state=drawn", "state"), ("limit=0", "limit"), ("after=x", "after"), ("page=2", "page")):
        status, answer = noop_pair.get(f"/v1/jobs?{query}")
        assert (status, answer["error"]["param"]) == (400, param)


def test_a_stream_lives_through_the_routers_death(noop_pair: Service) -> None:
    job_id = accepted(noop_pair, num_inference_steps=100)
    with events(noop_pair, job_id) as stream:
        next(event for event in stream if event["type"] == "job.step")
        [router] = noop_pair.processes("genserve router")
        router.kill()
        last = list(stream)[-1]
    assert (last["type"], last["job"]["attempts"]) == ("job.done", 1)
