"""A real router process is killed, stopped, started again: what it had accepted goes on where it stood."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.router.process import Daemon, Dealer, RouterProcess, router_process
from tests.service import wait_for

PARTS = (b"a" * 500_000, b"b" * 1000)


@pytest.fixture
def router(tmp_path: Path) -> Iterator[RouterProcess]:
    with router_process(tmp_path, GENSERVE_ROUTER_DRAIN_S="600") as router:
        yield router.start()


def _submit(client: Dealer, number: int, *, repeated: bool = False) -> str:
    """The job of this number, under a key of its own: new, or found again."""
    answer, _ = client.ask(b"SUBMIT", b"ACCEPTED", rid=str(number), key=f"k{number}", job={"prompt": str(number)})
    assert answer.get("repeated", False) == repeated
    job_id: str = answer["job_id"]
    return job_id


def _next_order(daemon: Daemon) -> Any:
    return daemon.until(b"DISPATCH")[0]["token"]


def _draw(daemon: Daemon, token: Any) -> None:
    daemon.started(token)
    daemon.done(token, *PARTS)
    assert daemon.until(b"RESULT_ACK")[0]["token"] == token
    daemon.grant()


def _history(client: Dealer, job_id: str) -> list[str]:
    answer, _ = client.ask(b"JOB", b"JOB", rid="h", job_id=job_id)
    return [moment["event"] for moment in answer["history"]]


def test_kill_9_loses_nothing_and_draws_nothing_twice(router: RouterProcess) -> None:
    client, daemon = router.client(), router.daemon()
    daemon.register()
    jobs = [_submit(client, number) for number in range(6)]
    _draw(daemon, _next_order(daemon))
    running = _next_order(daemon)
    daemon.started(running)
    client.until(b"RESULT")
    wait_for("running", lambda: "started" in _history(client, jobs[1]))
    router.kill()
    router.start()
    assert router.wait_event("journal.replayed")["live"] == 5
    client, daemon = router.client(), router.daemon()
    assert client.ask(b"PING", b"PONG", rid="p")
    assert client.ask(b"FETCH", b"RESULT", rid="f", job_id=jobs[0])[1] == list(PARTS)
    welcome = daemon.register((running, "running"), credit=1)
    assert welcome["keep"] == [running]
    assert [_submit(client, number, repeated=True) for number in range(1, 6)] == jobs[1:]
    daemon.done(running, *PARTS)
    assert daemon.until(b"RESULT_ACK")[0]["token"] == running
    daemon.grant()
    for number in range(2, 6):
        token = _next_order(daemon)
        assert (token["job_id"], token["dispatch"]) == (jobs[number], 1)
        _draw(daemon, token)
    ended = []
    while len(ended) < 5:
        result, payload = client.until(b"RESULT")
        assert payload == list(PARTS)
        ended.append(result["job_id"])
    assert sorted(ended) == sorted(jobs[1:])
    for job_id in jobs:
        assert _history(client, job_id) == ["accepted", "dispatched", "started", "done"]
    assert not router.events("router.bug")


def test_kill_9_again_and_again_while_jobs_are_accepted(router: RouterProcess) -> None:
    """Whatever was accepted is there afterwards; what was not said may be."""
    client = router.client()
    router.daemon().register(credit=0)
    accepted: dict[str, str] = {}
    for life in range(4):
        for number in range(12):
            client.send(b"SUBMIT", rid=f"{life}-{number}", key=f"{life}-{number}", job={"prompt": "x"})
        for _ in range(3 * life + 1):
            answer, _ = client.until(b"ACCEPTED")
            accepted[answer["rid"]] = answer["job_id"]
        router.kill()
        while client.socket.poll(100):
            name, answer, _ = client.receive()
            if name == b"ACCEPTED":
                accepted[answer["rid"]] = answer["job_id"]
        router.start()
        client = router.client()
        for rid, job_id in accepted.items():
            answer, _ = client.ask(b"SUBMIT", b"ACCEPTED", rid="r", key=rid, job={"prompt": "x"})
            assert (answer["job_id"], answer["repeated"]) == (job_id, True)
    assert len(accepted) >= 22


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_waits_for_nobody_and_the_rest_goes_on_at_the_next_start(
    router: RouterProcess, sig: signal.Signals
) -> None:
    client, daemon = router.client(), router.daemon()
    daemon.register()
    jobs = [_submit(client, number) for number in range(3)]
    running = _next_order(daemon)
    daemon.started(running)
    wait_for("running", lambda: "started" in _history(client, jobs[0]))
    assert (router.stop(sig), router.errors) == (0, "")  # in less than drain_s
    (drained,) = router.events("router.drained")
    assert (drained["level"], drained["jobs_left"]) == ("info", 3)
    assert not (router.state_dir / "journal.db-wal").stat().st_size
    router.start()
    client, daemon = router.client(), router.daemon()
    assert daemon.register((running, "ended"), credit=1)["keep"] == [running]
    daemon.done(running, *PARTS)
    daemon.until(b"RESULT_ACK")
    daemon.grant()
    for job_id in jobs[1:]:
        token = _next_order(daemon)
        assert (token["job_id"], token["dispatch"]) == (job_id, 1)
        _draw(daemon, token)
    for job_id in jobs:
        assert client.ask(b"FETCH", b"RESULT", rid="f", job_id=job_id)[1] == list(PARTS)


def test_a_commit_that_fails_ends_the_router_and_nothing_is_said(router: RouterProcess) -> None:
    client = router.client()
    router.daemon().register(credit=0)
    known = _submit(client, 1)
    assert router.process is not None
    size = (router.state_dir / "journal.db-wal").stat().st_size
    resource.prlimit(router.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    client.send(b"SUBMIT", rid="2", key="k2", job={"prompt": "2"})
    assert router.wait() == 74
    (failed,) = router.events("journal.failed")
    assert failed["level"] == "error"
    assert "SQLITE_IOERR_WRITE" in failed["cause"]
    assert "Traceback" not in router.errors
    while client.socket.poll(200):
        name, header, _ = client.receive()
        assert header["rid"] != "2", f"{name!r} answers what could not be written down"
    router.start()
    client = router.client()
    assert _submit(client, 1, repeated=True) == known
    _submit(client, 2)


def test_a_second_router_on_the_folder_is_refused(router: RouterProcess, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with router_process(tmp_path / "other", GENSERVE_ROUTER_STATE_DIR=str(router.state_dir)) as other:
        assert other.start(wait=False).wait() == 78
        assert f"another router uses the state folder {router.state_dir}" in other.errors
        assert "Traceback" not in other.errors


def test_a_journal_that_is_not_whole_stops_the_start_and_says_what_to_do(router: RouterProcess) -> None:
    client, daemon = router.client(), router.daemon()
    daemon.register()
    job_id = _submit(client, 1)
    _draw(daemon, _next_order(daemon))
    client.until(b"RESULT")
    router.kill()
    (router.state_dir / "pictures" / job_id[:2] / f"{job_id}.1").unlink()
    assert router.start(wait=False).wait() == 78
    assert f"the picture of job {job_id} is not as it was kept" in router.errors
    assert "  -> mend the router's state folder" in router.errors
    assert "Traceback" not in router.errors


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_flip, "has other bytes than were written"),
        (partial(os.truncate, length=5), "has 5 bytes where 501000 were written"),
        (os.unlink, "is missing"),
    ],
)
def test_a_damaged_picture_is_refused_and_given_again_once_it_is_put_back(
    router: RouterProcess, damage: Callable[[Path], None], words: str
) -> None:
    client, daemon = router.client(), router.daemon()
    daemon.register()
    job_id = _submit(client, 1)
    _draw(daemon, _next_order(daemon))
    client.until(b"RESULT")
    path = router.state_dir / "pictures" / job_id[:2] / f"{job_id}.1"
    damage(path)
    for question in (b"FETCH", b"WATCH"):
        error, payload = client.ask(question, b"ERROR", rid="f", job_id=job_id)
        assert (error["rid"], error["code"], payload) == ("f", "journal_failed", [])
        assert f"the picture of job {job_id} is damaged on the router's disk" in error["message"]
        assert f"pictures/{job_id[:2]}/{job_id}.1 {words}" in error["message"]
        assert "Put that file back from a copy" in error["message"]
        assert "with a new key" in error["message"]
    told = router.wait_event("picture.damaged")
    assert (told["level"], told["job_id"], told["path"]) == ("error", job_id, str(path))
    path.write_bytes(b"".join(PARTS))
    assert client.ask(b"FETCH", b"RESULT", rid="g", job_id=job_id)[1] == list(PARTS)


def test_a_picture_that_was_changed_while_the_router_stood_still_is_refused(router: RouterProcess) -> None:
    """The start looks at names and lengths only; the SHA-256 it was stored under comes from the journal."""
    client, daemon = router.client(), router.daemon()
    daemon.register()
    job_id = _submit(client, 1)
    _draw(daemon, _next_order(daemon))
    client.until(b"RESULT")
    router.kill()
    _flip(router.state_dir / "pictures" / job_id[:2] / f"{job_id}.1")
    router.start()
    error, _ = router.client().ask(b"FETCH", b"ERROR", rid="f", job_id=job_id)
    assert error["code"] == "journal_failed"
