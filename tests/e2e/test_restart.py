"""The whole service with a router that is killed, stopped or without room: what was accepted ends once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.rawclient import RawClient
from tests.service import Service, running, wait_for
from tests.small_disk import fill, small_disk

NOOP = ("--engine", "noop", "--gpus", "cpu")
SLOW = {"GENSERVE_GPU_DAEMON_NOOP_STEP_S": "0.1"}


def _drawn(service: Service) -> list[str]:
    """The jobs that an engine has begun, once for each time."""
    return [line["job_id"] for line in service.events("job.started") if line["process"] == "gpu-daemon"]


def _submit(client: RawClient, number: int, steps: int = 4) -> str:
    client.send(b"SUBMIT", rid=str(number), key=f"key-{number}", job={"prompt": str(number), "steps": steps})
    while True:
        name, header, _ = client.receive()
        if name == b"ACCEPTED" and header["rid"] == str(number):
            job_id: str = header["job_id"]
            return job_id
        assert name in (b"ACCEPTED", b"PROGRESS", b"RESULT"), (name, header)


def _fetch(client: RawClient, job_id: str) -> bytes:
    """Its picture, once it is there."""

    def found() -> bytes:
        name, header, picture = client.ask(b"FETCH", rid="fetch", job_id=job_id)
        assert header.get("rid") == "fetch" or name in (b"PROGRESS", b"RESULT"), (name, header)
        assert name in (b"RESULT", b"JOB", b"PROGRESS"), (name, header)
        return picture if name == b"RESULT" and header["job_id"] == job_id else b""

    picture: bytes = wait_for(f"picture of {job_id}", found, 60)
    return picture


def test_kill_9_of_the_router_in_the_middle_of_everything(tmp_path: Path) -> None:
    with running(tmp_path, "--engine", "noop", "--gpus", "cpu,cpu", workers=2, env=SLOW) as service:
        with RawClient(service.client_endpoint) as client:
            jobs = [_submit(client, number) for number in range(8)]
            answers: list[Any] = []
            ask = {"prompt": "over HTTP", "size": "64x64", "num_inference_steps": 10}
            waiting = threading.Thread(target=lambda: answers.append(service.post("/v1/images/generations", ask)))
            waiting.start()
            wait_for("running jobs", lambda: len(_drawn(service)) >= 3)
            (router,) = service.processes("genserve router")
            router.kill()
        (replayed,) = wait_for("new router", lambda: service.events("journal.replayed"))
        assert replayed["live"] > 0
        with RawClient(service.client_endpoint) as client:
            assert [_submit(client, number) for number in range(8)] == jobs  # its keys mean the same jobs
        with RawClient(service.client_endpoint) as client:
            assert all(_fetch(client, job_id).startswith(b"\x89PNG") for job_id in jobs)
        waiting.join(60)
        (status, body, _), *_ = answers
        assert status == 200, body
        drawn = _drawn(service)
        assert len(drawn) == len(set(drawn)) == 9
        assert not service.events("router.bug")


def test_what_waits_when_everything_stops_is_drawn_after_the_next_start(tmp_path: Path) -> None:
    service = Service(tmp_path, *NOOP, env={"GENSERVE_GPU_DAEMON_NOOP_STEP_S": "0.5"})
    try:
        service.wait_ready()
        with RawClient(service.client_endpoint) as client:
            jobs = [_submit(client, number) for number in range(4)]
            wait_for("running job", lambda: _drawn(service))
        assert service.stop(signal.SIGINT) == 0
        assert "3 jobs wait for the next start" in service.log_text()
        assert [line["jobs"] for line in service.events("up.jobs_left")] == [3]
        assert _drawn(service) == jobs[:1]  # what ran was finished
    finally:
        service.kill()
    with running(tmp_path, *NOOP) as again, RawClient(again.client_endpoint) as client:
        assert all(_fetch(client, job_id).startswith(b"\x89PNG") for job_id in jobs)
        assert sorted(_drawn(again)) == sorted(jobs[1:])


@contextmanager
def _on(disk: Path, folder: Path) -> Iterator[Service]:
    env = {
        "GENSERVE_ROUTER_STATE_DIR": str(disk / "state"),
        "GENSERVE_ROUTER_DISK_FREE_MIN_MB": "0",
        "GENSERVE_ROUTER_JOURNAL_RESERVE_MB": "1",
        "GENSERVE_GPU_DAEMON_NOOP_STEP_S": "0.2",
    }
    with running(folder, *NOOP, env=env) as service:
        yield service


def test_a_picture_that_finds_no_room_is_kept_by_its_daemon_and_not_drawn_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as disk, _on(disk, tmp_path) as service:
        with RawClient(service.client_endpoint) as client:
            job_id = _submit(client, 1, steps=25)  # as long as the disk takes to fill, on a busy machine too
            wait_for("running job", lambda: _drawn(service))
            filler = fill(disk)
            wait_for("full disk", lambda: service.events("storage.full"))
            status, body, _ = service.post("/v1/images/generations", {"prompt": "x", "size": "64x64"})
            assert (status, body["error"]["code"]) == (507, "storage_full")
            wait_for("held picture", lambda: service.events("router.resync"))
            filler.unlink()
            wait_for("room", lambda: service.events("storage.free"))
            name, header, picture = client.end_of("1")
            assert (name, header["job_id"], picture[:4]) == (b"RESULT", job_id, b"\x89PNG")
        assert _drawn(service) == [job_id]
        status, body, _ = service.post("/v1/images/generations", {"prompt": "x", "size": "64x64"})
        assert status == 200, body
