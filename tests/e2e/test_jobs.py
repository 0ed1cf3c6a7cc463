"""/v1/jobs and Idempotency-Key with real processes: nothing accepted is lost, whoever hangs up or is killed."""

import hashlib
import http.client
import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.rawclient import RawClient
from tests.service import GENSERVE, Service, running, wait_for

JOBS, IMAGES = "/v1/jobs", "/v1/images/generations"
SHORT = {"prompt": "a quiet harbour", "size": "64x64", "num_inference_steps": 2}
LONG = {"prompt": "a long walk", "size": "64x64", "num_inference_steps": 100}
STEP_S = 0.05
LONG_S = 100 * STEP_S


@pytest.fixture(scope="module")
def noop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One daemon whose step takes 50 ms."""
    env = {"GENSERVE_GPU_DAEMON_NOOP_STEP_S": str(STEP_S)}
    folder = Path(tmp_path_factory.mktemp("jobs"))
    with running(folder, "--gpus", "cpu", "--engine", "noop", env=env) as started:
        yield started


def _submit(service: Service, body: Any, key: str = "") -> tuple[int, Any]:
    status, job, _ = service.post(JOBS, body, headers={"Idempotency-Key": key} if key else {})
    return status, job


def _job(service: Service, job_id: str) -> Any:
    status, job = service.get(f"{JOBS}/{job_id}")
    assert status == 200, job
    return job


def _until(service: Service, job_id: str, *states: str) -> Any:
    return wait_for(f"job that is {states}", lambda: (job := _job(service, job_id))["state"] in states and job)


def _image(service: Service, job_id: str) -> tuple[bytes, str]:
    with urllib.request.urlopen(f"{service.http_url}{JOBS}/{job_id}/image", timeout=30) as answer:
        return answer.read(), answer.headers["ETag"]


def test_the_picture_keeps_its_format_to_its_last_reader(noop: Service) -> None:
    with RawClient(noop.client_endpoint) as client:
        name, header, data = client.draw(prompt="x", width=64, height=64, format="jpeg", quality=70)
        assert (name, header["picture"]["format"], data[:3]) == (b"RESULT", "jpeg", b"\xff\xd8\xff")
        assert client.ask(b"FETCH", rid="2", job_id=header["job_id"])[2] == data
    with urllib.request.urlopen(f"{noop.http_url}{JOBS}/{header['job_id']}/image", timeout=30) as answer:
        assert answer.read() == data
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["ETag"] == f'"{header["picture"]["sha256"]}"'
        assert answer.headers["Content-Disposition"].endswith('.jpg"')


def _accepted(service: Service) -> list[str]:
    """The ids of the jobs that the router has accepted, in order."""
    return [line["job_id"] for line in service.events("job.accepted")]


def _post_and_leave(service: Service, body: Any, headers: dict[str, str]) -> str:
    """Hang up while the only job that runs is that of `body`; its id."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    before = set(_accepted(service))
    connection.request("POST", IMAGES, json.dumps(body), {"Content-Type": "application/json", **headers})
    [job_id] = wait_for("new job", lambda: set(_accepted(service)) - before)
    _until(service, job_id, "running")
    connection.close()
    return str(job_id)


def _genserve(service: Service, *words: str) -> str:
    command = [GENSERVE, *words, "--router", service.client_endpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_its_submission_to_its_picture(noop: Service) -> None:
    status, job = _submit(noop, {**SHORT, "seed": 7})
    assert status == 202
    done = _until(noop, job["id"], "done")
    assert [moment["event"] for moment in done["history"]] == ["accepted", "dispatched", "started", "done"]
    assert [moment["at"] for moment in done["history"]] == sorted(moment["at"] for moment in done["history"])
    data, tag = _image(noop, job["id"])
    assert data.startswith(b"\x89PNG")
    assert tag == f'"{hashlib.sha256(data).hexdigest()}"' == f'"{done["image"]["sha256"]}"'
    shown = _genserve(noop, "jobs", "show", job["id"])
    assert job["id"] in shown
    assert "accepted" in shown
    assert json.loads(_genserve(noop, "jobs", "show", job["id"], "--json"))["job"]["state"] == "done"


def test_delete_frees_the_gpu_within_a_step(noop: Service) -> None:
    _, job = _submit(noop, LONG)
    wait_for("step", lambda: _job(noop, job["id"])["step"] >= 1)
    status, cancelled, _ = noop.delete(f"{JOBS}/{job['id']}")
    assert (status, cancelled["state"]) == (200, "cancelled")
    _, after = _submit(noop, SHORT)
    _until(noop, after["id"], "done")
    [stopped] = [line for line in noop.events("job.stopped") if line["job_id"] == job["id"]]
    assert stopped["elapsed_s"] < LONG_S, "stopped between two steps, not drawn on"
    assert not noop.events("engine.died")
    status, body, _ = noop.delete(f"{JOBS}/{after['id']}")
    assert (status, "ended before" in body["error"]["message"]) == (409, True)


def test_one_key_at_one_time_is_one_job(noop: Service) -> None:
    headers = {"Idempotency-Key": "at-once"}
    before = len(_accepted(noop))
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: _submit(noop, SHORT, "at-once"), range(8)))
        answers = list(pool.map(lambda _: noop.post(IMAGES, {**SHORT, "n": 2}, headers=headers), range(8)))
    assert sorted(status for status, _ in jobs) == [200] * 7 + [202]
    assert len({job["id"] for _, job in jobs}) == 1
    assert {status for status, *_ in answers} == {200}
    assert len({json.dumps(body["data"]) for _, body, _ in answers}) == 1
    assert len(_accepted(noop)) == before + 1 + 2
    for path, other in ((JOBS, {**SHORT, "seed": 1}), (IMAGES, SHORT), (IMAGES, {**SHORT, "n": 3})):
        status, body, _ = noop.post(path, other, headers=headers)
        assert (status, body["error"]["code"], body["error"]["param"]) == (422, "key_conflict", "Idempotency-Key")
    assert len(_accepted(noop)) == before + 1 + 2


def test_hanging_up_cancels_and_with_a_key_it_does_not(noop: Service) -> None:
    left = _post_and_leave(noop, LONG, {})
    _until(noop, left, "cancelled")
    body = {**LONG, "num_inference_steps": 40}
    kept = _post_and_leave(noop, body, {"Idempotency-Key": "my-retry"})
    status, again, _ = noop.post(IMAGES, body, headers={"Idempotency-Key": "my-retry"})
    assert (status, again["data"][0]["genserve"]["job_id"]) == (200, kept)
    assert [moment["event"] for moment in _job(noop, kept)["history"]].count("started") == 1, "drawn once"


def _kill_gateway(service: Service) -> None:
    [gateway] = service.processes("genserve gateway")
    gateway.send_signal(signal.SIGKILL)
    gateway.wait(10)


def _answers_again(service: Service) -> bool:
    try:
        return service.get("/health/live", timeout_s=5.0)[0] == 200
    except OSError:
        return False


def test_a_gateway_that_is_killed_cancels_nothing(noop: Service) -> None:
    key = {"Idempotency-Key": "through-the-kill"}
    bodies = [({**LONG, "num_inference_steps": 40, "seed": 1}, key), ({**SHORT, "seed": 2}, {})]
    before = set(_accepted(noop))
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(noop.post, IMAGES, body, headers=headers) for body, headers in bodies]
        wait_for("two jobs", lambda: len(set(_accepted(noop)) - before) == 2)
        ids = [job_id for job_id in _accepted(noop) if job_id not in before]
        _kill_gateway(noop)
        for each in asked:
            with pytest.raises((OSError, http.client.HTTPException)):
                each.result()
    wait_for("another gateway", lambda: _answers_again(noop))
    status, again, _ = noop.post(IMAGES, bodies[0][0], headers=key)
    assert status == 200
    assert again["data"][0]["genserve"]["job_id"] in ids
    for job_id in ids:
        done = _until(noop, job_id, "done")
        assert [moment["event"] for moment in done["history"]].count("started") == 1, "drawn once"
    assert len(set(_accepted(noop)) - before) == 2


def test_a_router_that_is_killed_is_waited_for(noop: Service) -> None:
    body = {**LONG, "num_inference_steps": 40}
    with ThreadPoolExecutor(3) as pool:
        waiting = pool.submit(noop.post, IMAGES, body)
        keyed = pool.submit(noop.post, IMAGES, body, headers={"Idempotency-Key": "through-the-restart"})
        wait_for("running job", lambda: noop.get("/status")[1]["concurrent_manager"]["busy_instances"])
        [router] = noop.processes("genserve router")
        router.send_signal(signal.SIGKILL)
        router.wait(10)
        during = pool.submit(_submit, noop, SHORT, "in-the-outage")
        assert waiting.result()[0] == keyed.result()[0] == 200
        status, job = during.result()
    assert status == 202
    _until(noop, job["id"], "done")
    assert _submit(noop, SHORT, "in-the-outage")[1]["id"] == job["id"]


def test_a_damaged_picture_is_never_given_as_good(noop: Service) -> None:
    _, job = _submit(noop, SHORT, "damaged")
    _until(noop, job["id"], "done")
    before, _ = _image(noop, job["id"])
    [path] = (noop.state_dir / "pictures" / job["id"][:2]).glob(f"{job['id']}.*")
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    status, answer = noop.get(f"{JOBS}/{job['id']}/image")
    assert (status, answer["error"]["code"]) == (500, "journal_failed")
    assert f"the picture of job {job['id']} is damaged on the router's disk" in answer["error"]["message"]
    assert noop.events("picture.damaged")[-1]["job_id"] == job["id"]
    path.write_bytes(before)
    assert _image(noop, job["id"])[0] == before


def test_a_synchronous_request_repeated_for_a_damaged_picture_is_told(noop: Service) -> None:
    headers = {"Idempotency-Key": "damaged, synchronous"}
    status, _, _ = noop.post(IMAGES, SHORT, headers=headers)
    assert status == 200
    job_id = _accepted(noop)[-1]
    [path] = (noop.state_dir / "pictures" / job_id[:2]).glob(f"{job_id}.*")
    path.write_bytes(bytes(path.stat().st_size))
    status, answer, _ = noop.post(IMAGES, SHORT, headers=headers)
    assert (status, answer["error"]["code"]) == (500, "journal_failed")
    assert "with a new key" in answer["error"]["message"]
    status, _, _ = noop.post(IMAGES, SHORT, headers={"Idempotency-Key": "damaged, a new key"})
    assert status == 200


def _is_drawn(service: Service, job_id: str, attempt: int) -> bool:
    job = _job(service, job_id)
    return job["attempts"] == attempt and job["step"] >= 1


def test_a_poison_job_is_listed_and_drawn_after_all(noop: Service) -> None:
    body = {**LONG, "num_inference_steps": 100}
    _, job = _submit(noop, body, "poison")
    for death in (1, 2):
        wait_for(f"step of attempt {death}", partial(_is_drawn, noop, job["id"], death))
        [engine] = noop.processes("genserve engine")
        engine.send_signal(signal.SIGKILL)
        engine.wait(10)
    failed = _until(noop, job["id"], "failed")
    assert failed["error"]["code"] == "poison"
    assert job["id"] in _genserve(noop, "dead-letters")
    assert [letter["job_id"] for letter in json.loads(_genserve(noop, "dead-letters", "--json"))] == [job["id"]]
    new_id = _genserve(noop, "requeue", job["id"]).strip()
    assert new_id != job["id"]
    assert "No job was given up" in _genserve(noop, "dead-letters")
    former = _job(noop, job["id"])
    assert former["history"][-1]["event"] == "requeued_as"
    assert former["history"][-1]["detail"] == new_id
    assert {**former, "history": failed["history"]} == failed
    status, repeated = _submit(noop, body, "poison")
    assert (status, repeated["id"]) == (200, job["id"])
    assert new_id in _genserve(noop, "jobs", "show", job["id"])
    wait_for("running job", lambda: _job(noop, new_id)["state"] == "running")
    assert "is cancelled" in _genserve(noop, "jobs", "cancel", new_id)
    assert _job(noop, new_id)["state"] == "cancelled"


@pytest.mark.parametrize("offset", [0, 2], ids=["http", "daemons"])
def test_a_port_that_is_not_for_clients_is_told_from_one_that_is(noop: Service, offset: int, tmp_path: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{noop.port + offset}"
    for words in (["status"], ["generate", "x"], ["jobs", "list"]):
        done = subprocess.run(
            [GENSERVE, *words, "--router", endpoint],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=30,
        )
        assert done.returncode == 1, words
        wrong = f"genserve: what listens at {endpoint} is no router's client port: `genserve up` has that one above"
        assert done.stderr.startswith(wrong), done.stderr
        assert done.stderr.count("\n") == 1


def test_a_burst_names_once_what_does_not_answer_as_it_should(noop: Service) -> None:
    done = subprocess.run(
        [GENSERVE, "burst", "--url", f"http://127.0.0.1:{noop.port + 1}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert f"what answers at http://127.0.0.1:{noop.port + 1} does not speak HTTP" in done.stderr
    assert done.stderr.count(str(noop.port + 1)) == 1
