"""What the router measures for a scrape, and the spans that it makes of an ended job."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from msgspec import structs

from common.messages import (
    Accepted,
    CancelJob,
    Dispatch,
    JobSpec,
    RouterMeasures,
    StatusQuery,
    StatusReply,
    Submit,
    Token,
)
from router.commands import Trace
from router.measures import BOUNDS_S, Times
from router.spans import Span, trace_of
from tests.common.samples import TRACEPARENT
from tests.router.rig import FakeWorker, Rig

TIMINGS = {"encode_s": 0.2, "denoise_s": 1.4, "preview_s": 0.1, "decode_s": 0.3, "save_s": 0.1, "total_s": 2.1}


def status(rig: Rig) -> StatusReply:
    [reply] = rig.say(StatusQuery(rid="s"))
    assert isinstance(reply, StatusReply)
    return reply


def measures(rig: Rig) -> RouterMeasures:
    return status(rig).measures


def later(rig: Rig, job_id: str) -> Token:
    """The token that the job has, or will have when it is sent for the first time."""
    return Token(job_id=job_id, dispatch=max(1, rig.job(job_id).dispatch))


def tick_with(rig: Rig, worker: FakeWorker, seconds: float) -> None:
    """Let time go by while the daemon is heard."""
    rig.tick(seconds)
    worker.heartbeat()


@pytest.mark.parametrize(("time_s", "index"), [(-1.0, 0), (0.0, 0), (0.005, 0), (0.0051, 1), (1800.0, 14), (1e9, 15)])
def test_a_class_holds_its_upper_bound(time_s: float, index: int) -> None:
    times = Times()
    times.add(time_s)
    assert [n for n, count in enumerate(times.counts) if count] == [index]
    assert times.sum_s == max(0.0, time_s)
    assert len(times.counts) == len(BOUNDS_S) + 1


def test_a_picture_is_measured_from_acceptance_to_its_end() -> None:
    rig = Rig()
    worker = rig.worker(ready=False)
    token = later(rig, rig.submit())
    rig.tick(3.0)
    assert measures(rig).oldest_wait_s == pytest.approx(3.0)
    worker.ready()
    worker.started(token)
    tick_with(rig, worker, 2.0)
    assert measures(rig).oldest_wait_s == 0
    worker.done(token, **TIMINGS)
    rig.stored()
    found = measures(rig)
    assert found.started_at == pytest.approx(rig.wall - 5.0)
    assert {stage: sum(times.counts) for stage, times in found.stages.items()} == dict.fromkeys(found.stages, 1)
    assert {stage: times.sum_s for stage, times in found.stages.items()} == pytest.approx(
        {"queue": 3.0, "encode": 0.2, "denoise": 1.4, "preview": 0.1, "decode": 0.3, "save": 0.1, "whole": 5.0}
    )
    assert (found.steps_total, found.failed, found.rejected) == (4, {}, {})
    assert status(rig).workers[0].drawing_s_total == pytest.approx(2.1)


def test_failures_and_refusals_are_counted_by_code() -> None:
    rig = Rig(attempts_max=1)
    worker = rig.worker()
    token = later(rig, rig.submit())
    worker.started(token)
    worker.fail(token)
    rig.submit(model="sdxl")
    found = measures(rig)
    assert found.failed == {"engine_error": 1}
    assert sum(found.failed.values()) == status(rig).stats.failed_total
    assert found.rejected == {"unknown_model": 1}
    assert sum(found.stages["whole"].counts) == 0


def test_a_second_start_is_no_second_wait() -> None:
    rig = Rig()
    workers = {name: rig.worker(name) for name in "ab"}
    job_id = rig.submit()
    for _ in range(2):
        worker = workers[rig.job(job_id).worker_id]
        worker.started(rig.job(job_id).token)
        worker.fail(rig.job(job_id).token)
    assert rig.job(job_id).starts == 2
    assert sum(measures(rig).stages["queue"].counts) == 1


# --- spans -------------------------------------------------------------------------------------


def traced(rig: Rig) -> dict[str, Span]:
    """The spans of the one job that has ended, by name; each has one parent before it and lies within it."""
    [job] = [command.job for command in rig.all if isinstance(command, Trace)]
    trace = trace_of(job)
    assert (trace.job_id, trace.traceparent) == (job.job_id, TRACEPARENT)
    for index, span in enumerate(trace.spans):
        assert span.began_at <= span.ended_at
        if span.parent is not None:
            assert span.parent < index
            above = trace.spans[span.parent]
            assert above.began_at <= span.began_at <= span.ended_at <= above.ended_at
    phases = [span for span in trace.spans if span.parent == 0]
    assert all(first.ended_at == then.began_at for first, then in pairwise(phases))
    assert (phases[0].began_at, phases[-1].ended_at) == (trace.spans[0].began_at, trace.spans[0].ended_at)
    return {f"{span.name}{'' if not n else n + 1}": span for span, n in _numbered(trace.spans)}


def _numbered(spans: Sequence[Span]) -> Iterator[tuple[Span, int]]:
    """Each with how many of its name came before it."""
    for index, span in enumerate(spans):
        yield span, sum(before.name == span.name for before in spans[:index])


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.broker.state.traced = True
    return rig


def submit(rig: Rig) -> str:
    return rig.submit_message(Submit(rid="1", job=JobSpec(prompt="x"), traceparent=TRACEPARENT))


def test_no_trace_is_made_where_nobody_asks() -> None:
    rig = Rig()
    worker = rig.worker()
    worker.draw(later(rig, rig.submit()))
    assert not [command for command in rig.all if isinstance(command, Trace)]


def test_a_picture_and_its_stages(rig: Rig) -> None:
    worker = rig.worker(ready=False)
    job_id = submit(rig)
    rig.tick(1.0)
    worker.ready()
    assert rig.told(Dispatch)[0].traceparent == TRACEPARENT
    rig.tick(0.5)
    began = rig.wall
    token = later(rig, job_id)
    worker.started(token)
    for step in (1, 2, 2, 4):
        tick_with(rig, worker, 0.5)
        worker.progress(token, step)
    tick_with(rig, worker, 1.0)
    worker.done(token, **TIMINGS)
    rig.stored()
    spans = traced(rig)
    assert list(spans) == ["job", "queue", "dispatch", "draw", "encode", "denoise", "decode", "save", "store"]
    lengths = {name: span.ended_at - span.began_at for name, span in spans.items()}
    assert lengths == pytest.approx(
        {"job": 4.5, "queue": 1.0, "dispatch": 0.5, "draw": 2.1, "encode": 0.2, "denoise": 1.5, "decode": 0.3,
         "save": 0.1, "store": 0.9}, abs=1e-6,
    )  # fmt: skip
    assert spans["draw"].began_at == began
    assert spans["draw"].attributes == {"genserve.worker": "w"}
    assert spans["denoise"].steps_at == ((1, began + 0.5), (2, began + 1.0), (4, began + 2.0))
    assert spans["job"].attributes["genserve.job.end"] == "done"
    assert not any(span.error for span in spans.values())


def test_word_of_the_start_that_came_late_shortens_the_way_there(rig: Rig) -> None:
    worker = rig.worker()
    token = later(rig, submit(rig))
    tick_with(rig, worker, 1.0)
    worker.started(token)
    tick_with(rig, worker, 2.0)
    worker.done(token, **TIMINGS)  # 2.1 s of drawing, 2 s after the start was heard of
    rig.stored()
    spans = traced(rig)
    assert spans["dispatch"].ended_at - spans["dispatch"].began_at == pytest.approx(0.9)
    assert spans["save"].ended_at == spans["draw"].ended_at == spans["job"].ended_at


def test_each_attempt_has_its_own(rig: Rig) -> None:
    workers = {name: rig.worker(name) for name in "ab"}
    job_id = submit(rig)
    worker = workers[rig.job(job_id).worker_id]
    worker.started(rig.job(job_id).token)
    worker.fail(rig.job(job_id).token)
    worker = workers[rig.job(job_id).worker_id]
    worker.draw(rig.job(job_id).token)
    spans = traced(rig)
    assert [name for name, span in spans.items() if span.parent == 0] == [
        "queue", "dispatch", "draw", "queue2", "dispatch2", "draw2", "store",
    ]  # fmt: skip
    assert spans["draw"].error.startswith("engine_error")
    assert spans["draw"].attributes != spans["draw2"].attributes


@pytest.mark.parametrize("state", ["queued", "dispatched", "running"])
def test_a_job_that_is_cancelled_ends_where_it_was(rig: Rig, state: str) -> None:
    worker = rig.worker(ready=state != "queued")
    job_id = submit(rig)
    if state == "running":
        worker.started(later(rig, job_id))
    rig.say(CancelJob(rid="2", job_id=job_id))
    spans = traced(rig)
    last = {"queued": "queue", "dispatched": "dispatch", "running": "draw"}[state]
    assert list(spans)[-1] == last
    assert spans[last].error == "cancelled"
    assert spans["job"].attributes["genserve.job.end"] == "cancelled"


def test_a_failed_job_says_why(rig: Rig) -> None:
    worker = rig.worker()
    token = later(rig, submit(rig))
    worker.started(token)
    worker.fail(token, "invalid_request", message="no")
    spans = traced(rig)
    assert spans["job"].error == "invalid_request: no"
    assert spans["draw"].error.startswith("invalid_request")


def test_a_trace_outlives_its_router_and_makes_no_other_job(rig: Rig) -> None:
    rig.worker(ready=False)
    message = Submit(rid="1", job=JobSpec(prompt="x"), key="k", traceparent=TRACEPARENT)
    job_id = rig.submit_message(message)
    rig.submit_message(structs.replace(message, traceparent=""))
    [again] = rig.told(Accepted)
    assert (again.job_id, again.repeated, again.job.traceparent) == (job_id, True, TRACEPARENT)
    after = Rig(first_epoch=2, records=rig.records)
    assert after.job(job_id).traceparent == TRACEPARENT
