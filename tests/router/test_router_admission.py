"""What becomes of a request by its model's card, and how many may wait."""

from collections.abc import Callable
from typing import Any

import pytest

from common.messages import Accepted, JobSpec, Rejected
from router.admission import RETRY_AFTER_MAX_S
from tests.router.rig import FakeWorker, Rig, card


def _answer(rig: Rig, **spec: Any) -> Accepted | Rejected:
    rig.submit(**spec)
    (answer,) = [m for m in rig.to_client() if isinstance(m, Accepted | Rejected)]
    return answer


def _order(rig: Rig, **spec: Any) -> Any:
    return rig.job(rig.submit(**spec)).order


def test_what_is_left_out_is_the_models_own(rig: Rig) -> None:
    rig.worker("w", cards=(card(guidance_scale=2.5),))
    order = _order(rig)
    assert (order.width, order.height, order.drawn_width, order.drawn_height) == (64, 64, 64, 64)
    assert (order.steps, order.guidance_scale, order.true_cfg_scale) == (4, 2.5, 1.0)
    assert 0 <= order.seed < 2**32


def test_what_is_given_is_kept(rig: Rig) -> None:
    rig.worker("w")
    order = _order(
        rig, width=128, height=32, steps=7, guidance_scale=0.0, seed=2**63 - 1, priority=3, client="me", save=True
    )
    assert (order.width, order.height, order.steps, order.guidance_scale) == (128, 32, 7, 0.0)
    assert (order.seed, order.priority, order.client, order.save) == (2**63 - 1, 3, "me", True)


@pytest.mark.parametrize(
    ("negative", "scale", "expected"), [("", None, 1.0), ("ugly", None, 4.0), ("ugly", 2.0, 2.0), ("ugly", 1.0, 1.0)]
)
def test_negative_prompts(rig: Rig, negative: str, scale: float | None, expected: float) -> None:
    rig.worker("w")
    assert _order(rig, negative_prompt=negative, true_cfg_scale=scale).true_cfg_scale == expected


@pytest.mark.parametrize(
    ("spec", "code", "param"),
    [
        ({"prompt": "  \n"}, "invalid_request", "prompt"),
        ({"width": 64}, "invalid_request", "size"),
        ({"height": 64}, "invalid_request", "size"),
        ({"width": 65, "height": 64}, "invalid_request", "size"),
        ({"width": 4096, "height": 4096}, "invalid_request", "size"),
        ({"steps": 51}, "invalid_request", "steps"),
        ({"true_cfg_scale": 2.0}, "invalid_request", "true_cfg_scale"),
        ({"format": "webp"}, "unsupported", "format"),  # an older daemon's card lists png alone
        ({"quality": 80}, "invalid_request", "quality"),
        ({"model": "other"}, "unknown_model", "model"),
    ],
)
def test_refusals_name_the_field(rig: Rig, spec: dict[str, Any], code: str, param: str) -> None:
    rig.worker("w")
    answer = _answer(rig, **spec)
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.param, answer.retry_after_s) == (code, param, None)
    assert not rig.broker.state.jobs
    assert rig.broker.state.totals.rejected == 1


def test_a_format_that_the_engine_writes_is_ordered_with_its_quality(rig: Rig) -> None:
    rig.worker("w", cards=(card(formats=("png", "jpeg", "webp"), enlarges=True, enlarged_side_max=16384),))
    assert (_order(rig).format, _order(rig).quality) == ("png", None)
    order = _order(rig, format="webp", quality=100)
    assert (order.format, order.quality) == ("webp", 100)
    answer = _answer(rig, format="webp", width=16384, height=16384)
    assert isinstance(answer, Rejected)
    assert answer.param == "size"
    assert _order(rig, format="jpeg", width=16384, height=16384).format == "jpeg"


def test_guidance_is_refused_where_the_model_takes_none(rig: Rig) -> None:
    rig.worker("w", cards=(card(guided=False),))
    answer = _answer(rig, guidance_scale=3.0)
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.param) == ("unsupported", "guidance_scale")
    assert isinstance(_answer(rig), Accepted)


def test_unknown_models_are_answered_with_the_list(rig: Rig) -> None:
    rig.worker("w", cards=(card("a"), card("b")))
    answer = _answer(rig, model="c")
    assert isinstance(answer, Rejected)
    assert "a, b" in answer.message
    assert rig.logged("model.unknown")


def test_before_any_model_is_known_there_is_nothing_to_refuse_by(rig: Rig) -> None:
    for spec in ({}, {"model": "m"}):
        answer = _answer(rig, **spec)
        assert isinstance(answer, Rejected)
        assert answer.code == "unavailable"
        assert answer.retry_after_s is not None
        assert answer.retry_after_s >= 1


def test_a_model_nobody_serves_now_is_queued_for_with_a_note(rig: Rig) -> None:
    rig.worker("w").bye()
    answer = _answer(rig)
    assert isinstance(answer, Accepted)
    assert [note.code for note in answer.job.notes] == ["model_not_served"]
    assert rig.logged("model.no_instance")
    assert list(rig.worker("w").believed.hand) == [answer.job_id]


def test_the_default_model_is_the_oldest_that_is_served(rig: Rig) -> None:
    a = rig.worker("a", cards=(card("a"),))
    rig.worker("b", cards=(card("b"),))
    assert _order(rig).model == "a"
    a.bye()
    assert _order(rig).model == "b"


def test_the_default_model_may_be_set(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(default_model="b")
    rig.worker("a", cards=(card("a"),))
    answer = _answer(rig)
    assert isinstance(answer, Rejected)
    assert (answer.code, "'b'" in answer.message) == ("unavailable", True)
    rig.worker("b", cards=(card("b"),))
    assert _order(rig).model == "b"


def test_a_larger_size_is_drawn_natively_and_enlarged_with_a_note(rig: Rig) -> None:
    rig.worker("w", cards=(card(enlarges=True, pixels_max=64 * 64, enlarged_side_max=256),))
    answer = _answer(rig, width=256, height=128)
    assert isinstance(answer, Accepted)
    order = rig.job(answer.job_id).order
    assert (order.width, order.height) == (256, 128)
    assert order.drawn_width * order.drawn_height <= 64 * 64
    assert [note.code for note in answer.job.notes] == ["enlarged"]


# --- room --------------------------------------------------------------------------------------


def _fill(rig: Rig) -> int:
    """Submit until refused; how many were taken."""
    for taken in range(1000):
        if isinstance(_answer(rig, steps=50), Rejected):
            return taken
    raise AssertionError("never full")


@pytest.mark.parametrize(("workers", "places"), [(0, 50), (1, 56), (2, 62)])
def test_room_is_for_each_gpu_one_and_five_and_fifty_behind(rig: Rig, workers: int, places: int) -> None:
    rig.worker("gone").bye()
    for n in range(workers):
        rig.worker(str(n))
    assert _fill(rig) == places
    answer = _answer(rig)
    assert isinstance(answer, Rejected)
    assert answer.code == "queue_full"
    assert answer.retry_after_s is not None
    assert answer.retry_after_s >= 1
    assert rig.broker.state.totals.queue_full == 2


def test_each_model_has_its_own_places_and_all_share_the_rest(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(gpu_queue_size=1, global_queue_size=2)
    rig.worker("a", cards=(card("a"),))
    rig.worker("b", cards=(card("b"),))
    assert [type(_answer(rig, model="a")).__name__ for _ in range(5)] == ["Accepted"] * 4 + ["Rejected"]
    assert [type(_answer(rig, model="b")).__name__ for _ in range(3)] == ["Accepted"] * 2 + ["Rejected"]


def test_the_reserve_is_for_clients_below_their_equal_share(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(gpu_queue_size=1, global_queue_size=4, global_queue_reserve=3)
    rig.worker("w")
    taken = [isinstance(_answer(rig, client="a"), Accepted) for _ in range(8)]
    assert taken == [True] * 6 + [False] * 2  # who is alone has all places but the reserve
    refused = _answer(rig, client="a")
    assert isinstance(refused, Rejected)
    assert refused.message == (
        "every place in the queue is taken: 6 jobs run or wait (1 may wait for each of 1 GPUs that serve m, and 4 "
        "behind them); what is left is kept for clients with fewer jobs than an equal share, which is 3 now: a has 6"
    )
    assert [type(_answer(rig, client=c)).__name__ for c in "bbb"] == ["Accepted"] * 3  # b's third is still below 3
    last = _answer(rig, client="c")
    assert isinstance(last, Rejected)
    assert (last.code, "what is left" in last.message) == ("queue_full", False)
    assert last.retry_after_s is not None


def test_a_share_is_smaller_the_more_clients_there_are(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(gpu_queue_size=1, global_queue_size=4, global_queue_reserve=3)
    rig.worker("w")
    for client in "aabbcc":
        assert isinstance(_answer(rig, client=client), Accepted)
    assert isinstance(_answer(rig, client="c"), Rejected)  # it has two of six
    assert isinstance(_answer(rig, client="d"), Accepted)
    assert isinstance(_answer(rig, client="d"), Accepted)  # one is below 6 / 4
    assert isinstance(_answer(rig, client="d"), Rejected)


def test_a_finished_drawing_frees_its_place(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(gpu_queue_size=0, global_queue_size=0)
    worker = rig.worker("w")
    first = _answer(rig)
    assert isinstance(_answer(rig), Rejected)
    token = rig.job(first.job_id).token  # type: ignore[union-attr]  # it was accepted
    worker.started(token)
    worker.done(token)
    assert isinstance(_answer(rig), Accepted)


def test_retry_after_is_when_the_running_job_will_have_ended(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(gpu_queue_size=0, global_queue_size=0)
    worker = rig.worker("w")
    learnt = rig.submit(steps=4)
    _run(worker, learnt)
    running = rig.submit(steps=10)
    worker.started(rig.job(running).token)
    worker.progress(rig.job(running).token, 2, step_s=3.0)
    answer = _answer(rig)
    assert isinstance(answer, Rejected)
    assert answer.retry_after_s == 24.0
    answers = [_answer(rig) for _ in range(3)]  # whoever is refused later is told to come back later
    assert [a.retry_after_s for a in answers if isinstance(a, Rejected)] == [54.0, 84.0, 114.0]
    assert isinstance(last := _answer(rig), Rejected)
    assert last.retry_after_s == RETRY_AFTER_MAX_S


def _run(worker: FakeWorker, job_id: str) -> None:
    token = worker.rig.job(job_id).token
    worker.started(token)
    worker.progress(token, 1, step_s=3.0)
    worker.done(token)
    worker.rig.stored()
    worker.grant()


def test_a_spec_of_the_wire_is_enough_for_an_order(rig: Rig) -> None:
    rig.worker("w")
    assert _order(rig).prompt == JobSpec(prompt="x").prompt
