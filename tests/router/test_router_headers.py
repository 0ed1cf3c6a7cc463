"""Every answer fits one header, however long what peers say of themselves; and a refusal changes nothing."""

from collections.abc import Callable

import msgspec
import pytest

from common.codec import HEADER_BYTES_MAX, encode
from common.messages import (
    DeadLettersQuery,
    DeadLettersReply,
    DeviceInfo,
    ErrorReply,
    Heartbeat,
    JobQuery,
    JobReply,
    Message,
    Register,
    StatusQuery,
    StatusReply,
)
from router.commands import Append
from router.events import Unreadable, WorkerSaid
from router.views import TEXT_BYTES_MAX
from router.workers import MODELS_MAX
from tests.router.rig import Rig, card

LONG = "🦊"  # four bytes


def _fits(message: Message) -> None:
    assert len(encode(message)[2]) <= HEADER_BYTES_MAX


def _long_worker(rig: Rig, number: int) -> None:
    worker_id = f"{number:03}" + LONG * 125
    register = Register(
        worker_id=worker_id, boot_id="b", nonce="1", host=LONG * 128, model_path=LONG * 4000, version=LONG * 128,
        device=DeviceInfo(device=LONG * 128, kind="cuda", name=LONG * 128, uuid=LONG * 128),
        models=tuple(card(f"{n}-{'m' * 100}", description=LONG * 4000) for n in range(16)),
    )  # fmt: skip
    peer = worker_id.encode()
    rig.event(WorkerSaid(wall=rig.wall, peer=peer, message=register))
    (welcome,) = rig.to_worker(peer)
    beat = Heartbeat(epoch=welcome.epoch, state="broken", detail=LONG * 4000)
    rig.event(WorkerSaid(wall=rig.wall, peer=peer, message=beat))


def test_status_comes_in_pages_that_fit_however_long_its_texts(rig: Rig) -> None:
    for number in range(60):
        _long_worker(rig, number)
    seen: list[str] = []
    while True:
        (page,) = rig.say(StatusQuery(rid="s", workers_from=len(seen)))
        assert isinstance(page, StatusReply)
        _fits(page)
        assert page.workers
        assert all(len(worker.detail.encode()) <= TEXT_BYTES_MAX for worker in page.workers)
        seen += [worker.worker_id for worker in page.workers]
        if len(seen) == page.workers_total:
            break
    assert seen == sorted(set(seen))
    assert len(seen) == 60


def test_dead_letters_come_in_pages_that_fit(rig: Rig) -> None:
    worker = rig.worker("w", credit=100)
    for _ in range(10):
        job = rig.submit()
        for _ in range(2):
            rig.tick(70.0)  # after failures in a row it rests, and is then given one job
            worker.register()
            worker.ready(10)
            worker.fail(rig.job(job).token, "engine_died", message=LONG * 4000)
    seen = 0
    while True:
        (page,) = rig.say(DeadLettersQuery(rid="d", letters_from=seen))
        assert isinstance(page, DeadLettersReply)
        _fits(page)
        assert page.letters
        seen += len(page.letters)
        if seen == page.letters_total:
            break
    assert seen == 10


def test_the_longest_history_fits(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(attempts_max=100, retry_backoff_s=0.0, job_deadline_s=1e6)
    worker = rig.worker("w" + LONG * 127, credit=100)
    job = rig.submit()
    for _ in range(70):
        while rig.state(job) == "queued":
            rig.tick(2.0, step=2.0)
            worker.heartbeat()
        worker.fail(rig.job(job).token, "engine_error", message=LONG * 4000)
    (reply,) = rig.say(JobQuery(rid="j", job_id=job))
    assert isinstance(reply, JobReply)
    assert len(reply.history) == 64
    _fits(reply)


def test_a_register_that_is_refused_forgets_no_model(rig: Rig) -> None:
    holder = rig.worker("holder")
    for number in range(MODELS_MAX - 1):
        rig.worker("passing", cards=(card(f"old-{number}"),)).bye()
    known = dict(rig.broker.state.cards)
    assert len(known) == MODELS_MAX
    (refusal,) = rig.worker("holder", ready=False, boot_id="another", cards=(card("new"),)).register()
    assert isinstance(refusal, ErrorReply)
    assert refusal.code == "device_unavailable"
    assert not [c for c in rig.out if isinstance(c, Append)]
    assert rig.broker.state.cards == known
    assert holder.believed.boot_id == "b"


def test_models_that_a_register_brings_are_not_forgotten_to_make_room_for_it(rig: Rig) -> None:
    for number in range(MODELS_MAX):
        rig.worker("passing", cards=(card(f"old-{number}"),)).bye()
    rig.worker("back", cards=(card("old-0"), card("new")))
    cards = rig.broker.state.cards
    assert {"old-0", "new"} <= set(cards)
    assert "old-1" not in cards
    assert len(cards) == MODELS_MAX


@pytest.mark.parametrize("side", ["client", "worker"])
def test_an_error_that_cannot_be_read_is_counted_and_never_answered(rig: Rig, side: str) -> None:
    for answered in (False, True):
        rig.event(Unreadable(wall=rig.wall, side=side, peer=b"p", rid="", reason="?", answered=answered))
        assert len(rig.told(ErrorReply)) == answered
    assert rig.broker.state.totals.protocol_errors == 2


def test_a_card_without_any_pixels_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="pixels_max"):
        msgspec.convert({"name": "m", "pixels_max": 0}, type(card()))
