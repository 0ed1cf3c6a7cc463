"""A real router and what jobs start from: it outlives the router and goes with each dispatch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.codec import PART_BYTES_MAX
from tests.router import journals as j
from tests.router.process import Dealer, RouterProcess, router_process
from tests.service import wait_for

IMAGE, MASK = j.png(7, b"i" * (PART_BYTES_MAX + 9)), j.png(7, b"m")
INPUTS = [
    {**msgspec.to_builtins(facts), "kind": kind}
    for facts, kind in zip(j.inputs(IMAGE, MASK), ("image", "mask"), strict=True)
]
JOB = {"prompt": "x", "inputs": INPUTS}
FRAMES = [IMAGE[:PART_BYTES_MAX], IMAGE[PART_BYTES_MAX:], MASK]


@pytest.fixture
def router(tmp_path: Path) -> Iterator[RouterProcess]:
    with router_process(tmp_path) as router:
        yield router.start()


def _submit(
    client: Dealer, answer: bytes = b"ACCEPTED", *, job: Any = JOB, frames: Any = FRAMES, key: str = "k"
) -> Any:
    sizes = [len(frame) for frame in frames]
    return client.ask(b"SUBMIT", answer, *frames, rid="1", key=key, job=job, parts=sizes)[0]


def _kept(router: RouterProcess) -> list[str]:
    return sorted(path.name for path in (router.state_dir / "pictures").rglob("*") if path.is_file())


def test_after_kill_9_the_dispatch_carries_what_the_job_starts_from(router: RouterProcess) -> None:
    router.daemon().register(credit=0)
    job_id = _submit(router.client())["job_id"]
    assert _kept(router) == [f"{job_id}.0"]
    for _ in range(2):  # killed while it waits, then while a daemon has it
        router.kill()
        router.start()
        client, daemon = router.client(), router.daemon()
        client.ask(b"WATCH", b"JOB", rid="1", job_id=job_id)
        daemon.register()
        order, frames = daemon.until(b"DISPATCH")
        assert frames == FRAMES
        assert [each["kind"] for each in order["job"]["inputs"]] == ["image", "mask"]
        assert order["parts"] == [len(frame) for frame in FRAMES]
    again = _submit(client)
    assert (again["job_id"], again["repeated"]) == (job_id, True)
    daemon.started(order["token"])
    daemon.done(order["token"], b"picture")
    client.until(b"RESULT")
    wait_for("removal", lambda: _kept(router) == [f"{job_id}.{order['token']['dispatch']}"])
    assert not router.events("router.bug")


def test_one_that_fails_is_sent_again_with_them_and_a_cancel_removes_them(router: RouterProcess) -> None:
    client, daemon = router.client(), router.daemon()
    daemon.register()
    job_id = _submit(client)["job_id"]
    order, _ = daemon.until(b"DISPATCH")
    daemon.started(order["token"])
    daemon.send(b"FAIL", epoch=daemon.epoch, token=order["token"], code="engine_error", message="once")
    daemon.grant()
    order, frames = daemon.until(b"DISPATCH")
    assert (order["token"]["dispatch"], frames) == (2, FRAMES)
    client.ask(b"CANCEL", b"CANCELLED", rid="2", job_id=job_id)
    wait_for("removal", lambda: _kept(router) == [])


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([IMAGE[:PART_BYTES_MAX], IMAGE[PART_BYTES_MAX:], MASK[:-1] + b"x"], "inputs[1]: its bytes do not match"),
        ([IMAGE[:100], MASK], "input 0 has"),
        ([IMAGE[:PART_BYTES_MAX], IMAGE[PART_BYTES_MAX:] + MASK], "input 0 has"),
        ([], "input 0 has 0 bytes"),
    ],
)
def test_what_is_not_as_told_is_refused_and_nothing_stays(
    router: RouterProcess, frames: list[bytes], words: str
) -> None:
    client = router.client()
    router.daemon().register()
    wait_for("model", lambda: client.ask(b"STATUS", b"STATUS", rid="s")[0]["models"])
    answer = _submit(client, b"REJECTED", frames=frames)
    assert answer["code"] == "invalid_request"
    assert answer["param"] in ("parts", "inputs")
    assert words in answer["message"]
    assert _kept(router) == []


def test_damaged_ones_fail_their_job_and_the_daemon_goes_on(router: RouterProcess) -> None:
    client, daemon = router.client(), router.daemon()
    daemon.register(credit=0)
    job_id = _submit(client)["job_id"]
    path = router.state_dir / "pictures" / job_id[:2] / f"{job_id}.0"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    daemon.grant(2)
    failed, _ = client.until(b"FAILED")
    assert failed["error"]["code"] == "journal_failed"
    assert "the inputs of" in failed["error"]["message"]
    daemon.until(b"RESYNC")
    daemon.register()
    assert _submit(client, key="another")["job_id"] != job_id
    assert daemon.until(b"DISPATCH")[1] == FRAMES
