"""The link itself: reconnections, restarts, silence, late words and nonsense."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from common.clock import monotonic_s
from common.errors import GenServeError
from common.messages import CancelJob, JobSpec, Ping, Pong, Rejected, Submit, Watch
from gateway import line as line_module
from gateway import link as link_module
from gateway.dialects.keys import RequestKey
from gateway.drawing import draw
from gateway.link import RouterLink
from tests.gateway.conftest import until
from tests.gateway.fake_router import FakeRouter, picture_bytes

SPEC = JobSpec(prompt="a fox", seed=3)
KEY = RequestKey(endpoint="images", name="mine", digest="d" * 64)


@asynccontextmanager
async def linked(router: FakeRouter, answer_timeout_s: float = 5.0) -> AsyncIterator[RouterLink]:
    link = RouterLink(router.endpoint, answer_timeout_s=answer_timeout_s)
    link.open()
    try:
        yield link
    finally:
        await link.close()
        assert not link._submitted
        assert not link._followed
        assert not link._asked


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "WATCH_INTERVAL_S", 0.05)


async def test_ping(router: FakeRouter) -> None:
    async with linked(router) as link:
        answer, payload = await link.ask(Ping(rid=link.new_rid()))
        assert isinstance(answer, Pong)
        assert payload == b""


async def test_a_question_waits_for_a_router_that_comes_back(router: FakeRouter) -> None:
    router.stop()
    async with linked(router) as link:
        asking = asyncio.ensure_future(link.ask(Ping(rid=link.new_rid())))
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await asyncio.sleep(0)
        router.start()
        assert isinstance((await asking)[0], Pong)
        assert (await drawing)[0].data == picture_bytes(3)


async def test_whatever_answered_where_the_router_was_the_router_is_found_again(
    router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libzmq gives a connection up for good whose other end has once spoken what is no ZMTP."""
    monkeypatch.setattr(line_module, "UNSENDABLE_S_MAX", 0.2)
    router.stop()
    host, _, port = router.endpoint.removeprefix("tcp://").rpartition(":")
    async with linked(router) as link:
        with socket.create_server((host, int(port))) as stranger:
            stranger.setblocking(False)
            peer, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(stranger), 10)
            with peer:
                peer.send(bytes(100))
                assert await asyncio.wait_for(_until_closed(peer), 10)
        router.start()
        assert isinstance((await link.ask(Ping(rid=link.new_rid()), timeout_s=10))[0], Pong)


async def _until_closed(peer: socket.socket) -> bool:
    peer.setblocking(False)
    with suppress(ConnectionResetError):
        while await asyncio.get_running_loop().sock_recv(peer, 4096):
            pass
    return True


async def test_a_job_is_found_again_after_a_reconnection(router: FakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.link.WATCH_INTERVAL_S", 0.5)  # beside reconnecting, which may take seconds
    router.draws = lambda _spec: False
    async with linked(router) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await until(lambda: router.jobs, "a job")
        router.stop()  # watchers are forgotten with the connection
        router.start()
        await until(lambda: any(job.watchers for job in router.jobs.values()), "a WATCH from the new connection")
        [job_id] = router.jobs
        router.finish(job_id)
        assert (await drawing)[0].data == picture_bytes(3)
        assert router.count(Submit) == 1


async def test_an_end_that_was_missed_comes_with_the_next_watch(router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with linked(router) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await until(lambda: router.jobs, "a job")
        [job_id] = router.jobs
        router.jobs[job_id].watchers.clear()
        router.silent.add(Watch)
        router.finish(job_id)
        await until(lambda: router.states() == ["done"], "the end that nobody is told of")
        router.silent.clear()
        assert (await drawing)[0].job.job_id == job_id


async def test_a_router_that_lost_the_job_is_given_it_again(router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with linked(router) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await until(lambda: router.jobs, "a job")
        [first] = router.jobs
        router.stop()
        router.forget()
        router.draws = lambda _spec: True
        router.start()
        [drawn] = await drawing
        assert drawn.data == picture_bytes(3)
        assert drawn.job.job_id != first
        asked = [message for message in router.received if isinstance(message, Submit)]
        assert len(asked) >= 2
        assert asked == [asked[0]] * len(asked)  # the same job by the same key
        assert (asked[0].job, len(asked[0].key)) == (SPEC, 32)


async def test_a_router_that_loses_it_each_time_is_given_up(router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with linked(router) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        for submits in range(1, link_module.RESUBMITS_MAX + 2):
            await until(lambda n=submits: router.count(Submit) >= n and router.jobs, "a submission")
            router.forget()
        with pytest.raises(GenServeError, match="lost the job") as raised:
            await drawing
        assert raised.value.code == "unavailable"


async def test_a_restarted_router_may_not_know_its_daemons_yet(router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with linked(router) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await until(lambda: router.jobs, "a job")
        router.refuse = lambda _spec: Rejected(rid="", code="unknown_model", message="there are none yet")
        router.forget()
        await until(lambda: router.count(Submit) >= 3, "the job to be offered again and again")
        router.draws, router.refuse = lambda _spec: True, lambda _spec: None
        assert (await drawing)[0].data == picture_bytes(3)


async def test_whoever_waits_is_told_of_a_silent_router(router: FakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "ROUTER_SILENCE_S_MAX", 0.2)
    router.draws = lambda _spec: False
    async with linked(router) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await until(lambda: router.jobs, "a job")
        await until(lambda: router.count(Watch) > 5, "WATCH to be answered for longer than that")
        assert not drawing.done()
        router.stop()
        with pytest.raises(GenServeError, match="does not answer"):
            await drawing


async def test_a_lost_job_that_nobody_waits_for_is_offered_again_but_not_for_ever(
    router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "ROUTER_SILENCE_S_MAX", 0.3)
    router.draws = lambda _spec: False
    async with linked(router) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10, key=KEY))
        await until(lambda: link._followed, "a job")
        router.refuse = lambda _spec: Rejected(rid="", code="unknown_model", message="there are none yet")
        router.forget()
        await until(lambda: router.count(Submit) >= 2, "the job to be offered again")
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)
        assert len(link._submitted) == 1
        router.stop()
        await until(lambda: not link._submitted, "it to be given up")


async def test_no_answer_in_time_is_unavailable_and_a_late_one_cancelled(router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with linked(router, answer_timeout_s=0.2) as link:
        await link.ask(Ping(rid=link.new_rid()), timeout_s=5)  # connected: what is submitted is sent
        submission = link.submit(SPEC)
        link.release(submission, cancel=True)  # before its ACCEPTED is read
        await until(lambda: router.states() == ["cancelled"], "the orphan to be cancelled")
        router.silent.add(Submit)
        with pytest.raises(GenServeError) as raised:
            await draw(link, [SPEC], wait_s=10)
        assert raised.value.code == "unavailable"


async def test_cancel_is_repeated_until_it_is_answered(router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with linked(router) as link:
        router.silent.add(CancelJob)
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await until(lambda: router.jobs and link._followed, "a job")
        drawing.cancel()
        await until(lambda: router.count(CancelJob) >= 3, "CANCEL again and again")
        assert router.states() == ["running"]
        router.silent.clear()
        await until(lambda: router.states() == ["cancelled"], "the job to be cancelled")
        await until(lambda: not link._cancelling, "the answer to be heard")


async def test_closing_cancels_nothing(router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with linked(router) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await until(lambda: link._followed, "a job")
        link.keep_jobs()
    with pytest.raises(asyncio.CancelledError):
        await drawing
    async with linked(router) as other:
        await other.ask(Ping(rid=other.new_rid()))
    assert (router.states(), router.count(CancelJob)) == (["running"], 0)
    with pytest.raises(GenServeError, match="stopping"):
        link.submit(SPEC)


async def test_a_job_that_another_cancels(router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with linked(router) as link, linked(router) as other:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await until(lambda: router.jobs, "a job")
        [job_id] = router.jobs
        await other.ask(CancelJob(rid=other.new_rid(), job_id=job_id))
        with pytest.raises(GenServeError) as raised:
            await drawing
        assert raised.value.code == "cancelled"


async def test_while_stopping_a_silent_router_is_not_waited_for(router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with linked(router, answer_timeout_s=0.6) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=60))
        await until(lambda: link._followed, "a job")
        watches = router.count(Watch)
        link.drain()
        await until(lambda: router.count(Watch) > watches + 10, "a router that answers to be waited for")
        assert not drawing.done()
        router.stop()
        with pytest.raises(GenServeError) as raised:
            await asyncio.wait_for(drawing, 10)
        assert raised.value.code == "unavailable"


async def test_a_router_long_silent_is_given_up_when_stopping_begins(
    router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.draws = lambda _spec: False
    router.silent.add(Watch)
    async with linked(router, answer_timeout_s=0.2) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=60))
        await until(lambda: link._followed, "a job")
        await until(lambda: monotonic_s() - link._heard_at > 0.25, "silence")
        [submission] = link._submitted.values()
        assert not submission.ended.done()
        link.drain()
        assert submission.ended.done()
        with pytest.raises(GenServeError, match="does not answer"):
            await drawing


@pytest.mark.parametrize(
    "frames",
    [[b""], [b"GS1", b"RESULT"], [b"GS2", b"PONG", b"\x80"], [b"GS1", b"PONG", b"\xc1"], [b"GS1", b"NEWS", b"\x80"],
     [b"GS1", b"ERROR", b"\x82\xa4code\xa1x\xa7message\xa1y"]],
)  # fmt: skip
async def test_nonsense_from_the_router_is_survived(router: FakeRouter, frames: list[bytes]) -> None:
    router.draws = lambda _spec: False
    async with linked(router) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await until(lambda: link._followed, "a job")
        router.send_all(frames)
        [job_id] = router.jobs
        router.finish(job_id)
        assert (await drawing)[0].data == picture_bytes(3)


async def test_a_submit_whose_answer_is_lost_is_sent_again_and_drawn_once(router: FakeRouter) -> None:
    async with linked(router) as link:
        router.silent.add(Submit)
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await until(lambda: router.count(Submit) >= 2, "SUBMIT again and again")
        router.stop()
        router.silent.clear()
        router.start()
        assert (await drawing)[0].data == picture_bytes(3)
        keys = {message.key for message in router.received if isinstance(message, Submit)}
        assert len(keys) == len(router.jobs) == 1


async def test_a_router_that_is_stopping_is_followed_by_the_next(router: FakeRouter) -> None:
    stopping = Rejected(rid="", code="unavailable", message="the router is stopping", retry_after_s=5.0)
    router.refuse = lambda _spec: stopping
    async with linked(router) as link:
        drawing = asyncio.ensure_future(draw(link, [SPEC], wait_s=10))
        await until(lambda: router.count(Submit) >= 2, "SUBMIT again and again")
        router.refuse = lambda _spec: None
        assert (await drawing)[0].data == picture_bytes(3)
    router.refuse = lambda _spec: stopping
    async with linked(router, answer_timeout_s=0.2) as link:
        with pytest.raises(GenServeError, match="stopping") as raised:
            await draw(link, [SPEC], wait_s=10)
        assert (raised.value.code, raised.value.retry_after_s) == ("unavailable", 5.0)


async def test_two_who_wait_for_one_job_are_both_told(router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with linked(router) as link:
        drawing = [asyncio.ensure_future(draw(link, [SPEC], wait_s=10, key=KEY)) for _ in range(3)]
        await until(lambda: router.count(Submit) == 3 and len(router.jobs) == 1, "one job")
        await until(lambda: [len(waiting) for waiting in link._followed.values()] == [3], "three to follow it")
        drawing.pop().cancel()
        await until(lambda: [len(waiting) for waiting in link._followed.values()] == [2], "one to leave")
        router.stop()
        router.start()
        await until(lambda: router.jobs and any(job.watchers for job in router.jobs.values()), "a WATCH")
        router.finish(*router.jobs)
        for each in drawing:
            assert (await each)[0].data == picture_bytes(3)
        assert router.count(CancelJob) == 0


async def test_a_job_with_a_key_of_its_own_is_never_cancelled(router: FakeRouter) -> None:
    router.draws = lambda _spec: False
    async with linked(router, answer_timeout_s=0.3) as link:
        await link.ask(Ping(rid=link.new_rid()))
        left = asyncio.ensure_future(draw(link, [SPEC], wait_s=10, key=KEY))
        await until(lambda: link._submitted, "a submission")
        left.cancel()  # before its ACCEPTED is read
        await until(lambda: router.jobs, "a job")
        with pytest.raises(GenServeError, match="no picture within"):
            await draw(link, [SPEC], wait_s=0.1, key=KEY)
        router.silent.add(Submit)
        router.forget()
        with pytest.raises(GenServeError, match="does not answer"):
            await draw(link, [SPEC], wait_s=10, key=KEY)
        assert not link._submitted
        late = next(message for message in reversed(router.received) if isinstance(message, Submit))
        router.accept_late(late)
        await link.ask(Ping(rid=link.new_rid()))
        await link.ask(Ping(rid=link.new_rid()))
        assert (router.states(), router.count(CancelJob)) == (["running"], 0)


async def test_a_repetition_that_comes_too_late_is_told_so(router: FakeRouter) -> None:
    async with linked(router) as link:
        [drawn] = await draw(link, [SPEC], wait_s=10, key=KEY)
        router.expire(drawn.job.job_id)
        with pytest.raises(GenServeError, match="no longer kept") as raised:
            await draw(link, [SPEC], wait_s=10, key=KEY)
        assert raised.value.code == "not_found"


async def test_a_picture_that_has_gone_before_its_job_is_told_so(router: FakeRouter) -> None:
    async with linked(router) as link:
        await draw(link, [SPEC], wait_s=10, key=KEY)
        router.lost_pictures = True
        with pytest.raises(GenServeError, match="no longer kept") as raised:
            await draw(link, [SPEC], wait_s=10, key=KEY)
        assert raised.value.code == "not_found"
        assert len(router.jobs) == 1


async def test_no_message_is_left_unread(router: FakeRouter) -> None:
    """More than one batch of answers, submissions sent between them: the edge-triggered descriptor misses none."""
    async with linked(router) as link:
        for _ in range(3):
            specs = [JobSpec(prompt="a fox", seed=seed) for seed in range(400)]
            drawn = await asyncio.wait_for(draw(link, specs, wait_s=30), 30)
            assert [each.data for each in drawn] == [picture_bytes(seed) for seed in range(400)]
