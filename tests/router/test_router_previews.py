"""Previews on their way through the router: to those who watch, as they came, and to nobody and nowhere else."""

from typing import Any

import pytest

from common.messages import JobProgress, Picture, Watch, WorkerProgress
from router.commands import Append, StoreResult, ToClient
from tests.router.rig import FakeWorker, Rig

PREVIEW = Picture(format="jpeg", width=64, height=64, drawn_width=64, drawn_height=64, bytes=5, sha256="ab" * 32)
FRAMES = [b"abc", b"de"]


@pytest.fixture
def worker(rig: Rig) -> FakeWorker:
    return rig.worker()


def _running(rig: Rig, worker: FakeWorker, **spec: Any) -> str:
    job = rig.submit(steps=20, **spec)
    worker.started(rig.job(job).token)
    return job


def _preview(rig: Rig, worker: FakeWorker, job: str, step: int, index: int) -> list[ToClient]:
    """What is sent to clients on a step with a preview."""
    message = WorkerProgress(
        epoch=worker.epoch, token=rig.job(job).token, step=step, steps=20, preview=PREVIEW, preview_index=index,
        parts=(3, 2),
    )  # fmt: skip
    worker.say(message, FRAMES)
    return [command for command in rig.out if isinstance(command, ToClient)]


def test_a_preview_reaches_every_watcher_with_the_frames_that_came(rig: Rig, worker: FakeWorker) -> None:
    job = _running(rig, worker, previews=3)
    rig.say(Watch(rid="w", job_id=job), peer=b"other")
    sent = _preview(rig, worker, job, 5, 1)
    assert sorted(command.peer for command in sent) == [b"c", b"other"]
    for command in sent:
        assert command.payload is FRAMES, "neither copied nor cut anew"
        assert isinstance(command.message, JobProgress)
        assert (command.message.step, command.message.steps, command.message.state) == (5, 20, "running")
        assert (command.message.preview, command.message.preview_index, command.message.parts) == (PREVIEW, 1, (3, 2))


def test_previews_are_not_thinned_and_stand_for_the_step_they_come_with(rig: Rig, worker: FakeWorker) -> None:
    job = _running(rig, worker, previews=20)
    assert [len(_preview(rig, worker, job, step, step - 1)) for step in range(1, 11)] == [1] * 10
    assert not rig.told(StoreResult)
    worker.progress(rig.job(job).token, 11, steps=20)
    assert rig.to_client() == [], "a plain step is, for the last preview has just told"


def test_nothing_is_written_of_them(rig: Rig, worker: FakeWorker) -> None:
    job = _running(rig, worker, previews=3)
    before = list(rig.records)
    _preview(rig, worker, job, 5, 0)
    assert rig.records == before
    assert not [command for command in rig.out if isinstance(command, Append | StoreResult)]


def test_who_asked_for_none_gets_none(rig: Rig, worker: FakeWorker) -> None:
    job = _running(rig, worker)
    rig.tick(1.0)
    (command,) = _preview(rig, worker, job, 5, 0)
    assert isinstance(command.message, JobProgress)
    assert (command.message.step, command.message.preview, command.message.parts) == (5, None, ())
    assert command.payload == ()


def test_a_preview_that_a_client_does_not_take_is_lost_and_no_more(rig: Rig, worker: FakeWorker) -> None:
    job = _running(rig, worker, previews=3)
    _preview(rig, worker, job, 5, 0)
    rig.send_failed("client", b"c", b"PROGRESS", gone=False)
    assert rig.out == []
    assert len(_preview(rig, worker, job, 10, 1)) == 1, "the next one is tried again"
    worker.done(rig.job(job).token)
    rig.stored()
    assert rig.state(job) == "done"
