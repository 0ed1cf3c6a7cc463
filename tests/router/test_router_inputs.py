"""What jobs start from: stored before they are accepted, sent with each dispatch, let go when nobody needs it."""

from collections.abc import Callable
from typing import Any

import pytest

from common.messages import Accepted, CancelJob, Dispatch, InputSpec, Rejected, Requeue, Resync
from router.commands import Append, StoreInputs, ToWorker
from router.events import InputsLost
from router.inputs import RECEIVING_MAX
from tests.router.rig import Rig, card

EDITOR = card(edits=True, formats=("png", "jpeg", "webp"))
FILES = (b"image", b"mask")
MIB = 1024 * 1024


def told(kind: str = "image", size: int = 5, width: int = 64, height: int = 64) -> InputSpec:
    return InputSpec(kind=kind, format="png", width=width, height=height, bytes=size, sha256="ab" * 32)


IMAGE, MASK = told(), told("mask", 4)


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    rig = make_rig(retry_backoff_s=0.0)
    rig.worker(cards=(EDITOR,))
    return rig


def _edit(rig: Rig, *inputs: InputSpec, files: tuple[bytes, ...] = FILES, **spec: Any) -> str:
    return rig.submit(inputs=inputs or (IMAGE, MASK), files=files, **spec)


def _accepted(rig: Rig, **spec: Any) -> str:
    job = _edit(rig, **spec)
    rig.inputs_stored(job)
    assert rig.job(job)
    return job


def _rejected(rig: Rig) -> Rejected:
    (answer,) = rig.to_client()
    assert isinstance(answer, Rejected), answer
    return answer


def test_nothing_is_said_or_written_before_the_inputs_are_stored(rig: Rig) -> None:
    job = _edit(rig)
    (store,) = [command for command in rig.out if isinstance(command, StoreInputs)]
    assert (store.job_id, tuple(store.payload)) == (job, FILES)
    assert [each.kind for each in store.inputs] == ["image", "mask"]
    assert rig.to_client() == []
    assert not [command for command in rig.out if isinstance(command, Append)]
    assert job not in rig.broker.state.jobs
    out = rig.inputs_stored(job)
    kinds = [type(c.record).__name__ if isinstance(c, Append) else type(getattr(c, "message", c)).__name__ for c in out]
    assert [kind for kind in kinds if kind != "Log"] == ["JobAccepted", "Accepted", "JobDispatched", "Dispatch"]


def test_a_dispatch_carries_them_each_time(rig: Rig) -> None:
    job = _accepted(rig)
    (worker,) = rig.workers
    for dispatches in (1, 2):
        sent = [c for c in rig.all if isinstance(c, ToWorker) and isinstance(c.message, Dispatch)]
        assert [(c.inputs_of, c.message.parts) for c in sent] == [(job, (5, 4))] * dispatches
        worker.started(rig.job(job).token)
        worker.fail(rig.job(job).token)
        assert rig.dropped_inputs() == []


@pytest.mark.parametrize("how", ["done", "failed", "cancelled"])
def test_they_are_let_go_with_the_jobs_end(rig: Rig, how: str) -> None:
    job = _accepted(rig)
    token = rig.job(job).token
    worker = rig.workers[-1]
    if how == "cancelled":
        rig.say(CancelJob(rid="2", job_id=job))
    elif how == "failed":
        worker.fail(token, "invalid_request")
    else:
        worker.started(token)
        worker.done(token)
        assert rig.dropped_inputs() == []
        rig.stored()
    assert rig.state(job) == how
    assert rig.dropped_inputs() == [job]
    assert rig.broker.state.inputs.kept_bytes == 0


def _poison(rig: Rig) -> str:
    job = _accepted(rig)
    for _ in range(2):
        worker = rig.workers[-1]
        worker.started(rig.job(job).token)
        worker.fail(rig.job(job).token, "engine_died")
        worker.heartbeat()
        worker.grant()
        rig.tick(1.0)
    assert rig.job(job).error.code == "poison"
    return job


def test_a_dead_letter_keeps_its_inputs_and_gives_them_to_the_job_that_draws_it_anew(rig: Rig) -> None:
    dead = _poison(rig)
    assert rig.job(dead).inputs_of == dead
    anew = rig.submit_message(Requeue(rid="9", job_id=dead))
    assert (rig.job(anew).inputs_of, rig.job(dead).inputs_of) == (dead, "")
    rig.tick(1.0)
    (sent,) = [c for c in rig.all if isinstance(c, ToWorker) and isinstance(c.message, Dispatch)][-1:]
    assert (sent.message.token.job_id, sent.inputs_of) == (anew, dead)
    rig.say(CancelJob(rid="2", job_id=anew))
    assert rig.dropped_inputs() == [dead]


def test_a_replay_knows_whose_they_are(rig: Rig) -> None:
    dead, live, ended = _poison(rig), _accepted(rig), _accepted(rig)
    rig.say(CancelJob(rid="2", job_id=ended))
    again = Rig(records=list(rig.records), wall=rig.wall, first_epoch=9)
    assert {job: again.job(job).inputs_of for job in (dead, live, ended)} == {dead: dead, live: live, ended: ""}
    assert again.broker.state.inputs.kept_bytes == rig.broker.state.inputs.kept_bytes == 18


def test_the_same_key_sent_again_meanwhile_is_the_same_job(rig: Rig) -> None:
    first, second = _edit(rig, key="k"), _edit(rig, key="k", rid="2")
    rig.inputs_stored(second)
    (accepted,) = [m for m in rig.to_client() if isinstance(m, Accepted)]
    assert (accepted.job_id, accepted.repeated) == (second, False)
    rig.inputs_stored(first)
    (accepted,) = [m for m in rig.to_client() if isinstance(m, Accepted)]
    assert (accepted.rid, accepted.job_id, accepted.repeated) == ("1", second, True)
    assert rig.dropped_inputs() == [first]
    _edit(rig, key="k", rid="3")
    (accepted,) = [m for m in rig.to_client() if isinstance(m, Accepted)]
    assert accepted.repeated, "known by its key: its inputs are not stored again"
    assert not [command for command in rig.out if isinstance(command, StoreInputs)]
    _edit(rig, told(size=5), key="k", files=FILES[:1])
    assert _rejected(rig).code == "key_conflict"


@pytest.mark.parametrize(
    ("inputs", "files", "spec", "code", "param"),
    [
        ((MASK,), (b"mask",), {}, "unsupported", "inputs"),
        ((IMAGE, IMAGE), (b"image", b"image"), {}, "unsupported", "inputs"),
        ((IMAGE, told("mask", 4, 32, 64)), FILES, {}, "invalid_request", "inputs"),
        ((told(width=4096, height=4097),), (b"image",), {}, "too_large", "inputs"),
        ((IMAGE,), (b"imag",), {}, "invalid_request", "parts"),
        ((IMAGE,), (b"image", b"more"), {}, "invalid_request", "parts"),
        ((IMAGE, MASK), (b"imagemask",), {}, "invalid_request", "parts"),
        ((), (b"image",), {}, "invalid_request", "parts"),
        ((), (), {"strength": 0.5}, "invalid_request", "strength"),
    ],
)
def test_refusals_name_the_field(rig: Rig, inputs: Any, files: Any, spec: Any, code: str, param: str) -> None:
    rig.submit(inputs=inputs, files=files, **spec)
    answer = _rejected(rig)
    assert (answer.code, answer.param) == (code, param)
    assert not [command for command in rig.out if isinstance(command, StoreInputs)]


def test_a_model_that_draws_from_prompts_alone_says_so(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.worker()
    _edit(rig)
    assert (_rejected(rig).code, _rejected(rig).param) == ("unsupported", "inputs")


def test_bytes_that_are_not_as_told_are_refused_and_nothing_stays(rig: Rig) -> None:
    job = _edit(rig)
    rig.inputs_stored(job, "inputs[1]: its bytes do not match its sha256")
    answer = _rejected(rig)
    assert (answer.code, answer.param) == ("invalid_request", "inputs")
    assert "inputs[1]" in answer.message
    assert not rig.broker.state.inputs.receiving


def test_a_disk_without_room_is_said_as_for_other_jobs(rig: Rig) -> None:
    job = _edit(rig)
    rig.inputs_stored(job, "no room for 9 bytes", deferred=True)
    answer = _rejected(rig)
    assert (answer.code, answer.retry_after_s) == ("storage_full", 30.0)
    job = _edit(rig)
    rig.storage(full=True)
    rig.inputs_stored(job)
    assert _rejected(rig).code == "storage_full"
    assert rig.dropped_inputs() == [job]


def test_all_together_have_a_bound_and_dead_letters_make_room(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(inputs_mb_max=64, retry_backoff_s=0.0)
    rig.worker(cards=(EDITOR,))
    dead = _poison(rig)
    size = 25 * MIB
    big = [rig.submit(inputs=(told(size=size),), files=(b"x" * size,)) for _ in range(2)]
    assert dead in rig.broker.state.jobs
    third = 14 * MIB - 4  # with the dead letter's nine bytes there is no room for it
    rig.submit(inputs=(told(size=third),), files=(b"x" * third,))
    assert rig.dropped_inputs() == [dead]
    rig.submit(inputs=(IMAGE,), files=(b"image",))
    assert "inputs_mb_max" in _rejected(rig).message
    for job in big:
        rig.inputs_stored(job)
    assert rig.broker.state.inputs.kept_bytes == 50 * MIB


def test_only_so_many_are_received_at_once(rig: Rig) -> None:
    for _ in range(RECEIVING_MAX):
        _edit(rig)
        assert rig.to_client() == []
    _edit(rig)
    answer = _rejected(rig)
    assert (answer.code, answer.retry_after_s) == ("unavailable", 1.0)


def test_damaged_inputs_fail_their_job_and_the_daemon_tells_its_credit_anew(rig: Rig) -> None:
    job = _accepted(rig)
    token = rig.job(job).token
    rig.event(InputsLost(wall=rig.wall, peer=b"peer-w", token=token, message="the inputs are damaged"))
    assert (rig.state(job), rig.job(job).error.code) == ("failed", "journal_failed")
    assert isinstance(rig.to_worker(b"peer-w")[-1], Resync)
    rig.event(InputsLost(wall=rig.wall, peer=b"peer-w", token=token, message="twice"))
    assert rig.state(job) == "failed"


@pytest.mark.parametrize(
    ("inputs", "given", "strength", "drawn"),
    [
        ((), None, 1.0, 20),
        ((IMAGE,), None, 0.6, 12),
        ((IMAGE, MASK), None, 1.0, 20),
        ((IMAGE,), 0.01, 0.01, 1),
        ((IMAGE,), 0.5, 0.5, 10),
        ((IMAGE,), 1.0, 1.0, 20),
    ],
)
def test_strength_says_how_many_steps_are_drawn(
    rig: Rig, inputs: Any, given: float | None, strength: float, drawn: int
) -> None:
    job = rig.submit(inputs=inputs, files=FILES[: len(inputs)], strength=given, steps=20)
    if inputs:
        rig.inputs_stored(job)
    order = rig.job(job).order
    assert (order.strength, order.steps, order.drawn_steps) == (strength, 20, drawn)
    assert rig.broker.state.view(rig.job(job)).steps == drawn


@pytest.mark.parametrize(
    ("size", "asked", "drawn", "stretched"),
    [
        ((640, 640), (0, 0), (64, 64), False),
        ((1200, 600), (0, 0), (96, 48), False),
        ((600, 1200), (128, 64), (128, 64), True),
    ],
)
def test_the_size_is_the_one_asked_for_or_of_the_images_shape(
    rig: Rig, size: tuple[int, int], asked: tuple[int, int], drawn: tuple[int, int], stretched: bool
) -> None:
    image = told(width=size[0], height=size[1])
    job = rig.submit(inputs=(image,), files=FILES[:1], width=asked[0], height=asked[1])
    rig.inputs_stored(job)
    order = rig.job(job).order
    assert (order.width, order.height) == (order.drawn_width, order.drawn_height) == drawn
    notes = {note.code: note.message for note in rig.job(job).notes}
    assert ("stretched" in notes) is stretched
    if stretched:
        assert notes["stretched"] == "the image of 600x1200 is stretched to the picture's 128x64"
