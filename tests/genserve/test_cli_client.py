"""The raw client against a router of the test's own, over a real ROUTER socket: what is lost, late or broken."""

import _thread
from collections.abc import Callable

import msgspec
import pytest

from common.errors import GenServeError
from common.messages import (
    Accepted,
    CancelJob,
    Cancelled,
    ErrorInfo,
    ErrorReply,
    Failed,
    JobProgress,
    JobReply,
    JobSpec,
    Message,
    Rejected,
    StatusQuery,
    StatusReply,
    Submit,
    Watch,
)
from genserve import client as client_module
from genserve.client import Client, News
from tests.genserve.fake_router import JOB_ID, PICTURE, FakeRouter, view
from tests.genserve.test_cli_status import reply, worker


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WATCH_INTERVAL_S", 0.2)
    monkeypatch.setattr(client_module, "SEND_RETRY_S", 0.05)


def draw(endpoint: str, on_news: Callable[[News], None] = lambda _: None, **times: float) -> bytes:
    with Client(endpoint, **times) as client:
        return client.draw(JobSpec(prompt="x"), on_news).data


def accept(router: FakeRouter, message: Message) -> None:
    if isinstance(message, Submit):
        router.say(Accepted(rid=message.rid, job_id=JOB_ID, job=view()))


def test_a_picture_in_several_frames(start: Callable[..., FakeRouter]) -> None:
    def script(router: FakeRouter, message: Message) -> None:
        accept(router, message)
        assert isinstance(message, Submit)
        router.say(JobProgress(rid=message.rid, job_id=JOB_ID, state="running", step=2, steps=4))
        router.result(message.rid)

    news: list[News] = []
    assert draw(start(script).endpoint, news.append) == PICTURE
    assert [(item.state, item.step) for item in news] == [("queued", 0), ("running", 2)]


def test_a_submit_whose_answer_is_lost_is_repeated_under_its_key(start: Callable[..., FakeRouter]) -> None:
    def script(router: FakeRouter, message: Message) -> None:
        if len(router.heard) > 2:
            accept(router, message)
            router.result(message.rid)

    router = start(script)
    assert draw(router.endpoint) == PICTURE
    keys = {message.key for message in router.heard if isinstance(message, Submit)}
    assert len(router.heard) >= 3
    assert len(keys) == 1
    assert keys != {""}


def test_an_end_that_was_lost_comes_with_the_next_watch(start: Callable[..., FakeRouter]) -> None:
    def script(router: FakeRouter, message: Message) -> None:
        accept(router, message)
        watches = [heard for heard in router.heard if isinstance(heard, Watch)]
        if len(watches) == 1 and message is watches[0]:
            router.say(JobReply(rid=message.rid, job_id=JOB_ID, job=view("running")))
        elif isinstance(message, Watch):
            router.result(message.rid)

    router = start(script)
    assert draw(router.endpoint) == PICTURE
    assert {heard.job_id for heard in router.heard if isinstance(heard, Watch)} == {JOB_ID}


def test_a_router_that_comes_back_without_the_job_is_given_it_again(start: Callable[..., FakeRouter]) -> None:
    first = start(accept)

    def second(router: FakeRouter, message: Message) -> None:
        if isinstance(message, Watch):
            router.say(ErrorReply(rid=message.rid, code="not_found", message="no such job"))
        else:
            accept(router, message)
            assert isinstance(message, Submit)
            router.result(message.rid)

    routers: list[FakeRouter] = []

    def restart(_: News) -> None:
        if not routers:
            first.close()
            routers.append(start(second, first.endpoint))

    assert draw(first.endpoint, restart) == PICTURE
    (submit,) = [heard for heard in first.heard if isinstance(heard, Submit)]
    again = [heard for heard in routers[0].heard if isinstance(heard, Submit)]
    assert [(heard.key, heard.job) for heard in again] == [(submit.key, submit.job)]


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (lambda rid: Rejected(rid=rid, code="queue_full", message="55 wait", retry_after_s=3.0), "queue_full", "55"),
        (lambda rid: Rejected(rid=rid, code="of_the_future", message="new"), "internal", "new"),
        (
            lambda rid: Failed(rid=rid, job_id=JOB_ID, job=view("failed"), error=ErrorInfo(code="poison", message="2")),
            "poison",
            "2",
        ),
        (lambda rid: Cancelled(rid=rid, job_id=JOB_ID, job=view("cancelled")), "cancelled", "abab"),
        (lambda _: ErrorReply(code="protocol_error", message="no map"), "unavailable", "no map"),
    ],
)
def test_refusals_and_failures_keep_their_code(
    start: Callable[..., FakeRouter], answer: Callable[[str], Message], code: str, words: str
) -> None:
    def script(router: FakeRouter, message: Message) -> None:
        assert isinstance(message, Submit)
        router.say(answer(message.rid))

    with pytest.raises(GenServeError, match=words) as caught:
        draw(start(script).endpoint)
    assert caught.value.code == code


def test_a_damaged_picture_is_no_picture(start: Callable[..., FakeRouter]) -> None:
    def script(router: FakeRouter, message: Message) -> None:
        assert isinstance(message, Submit)
        router.result(message.rid, sha256="0" * 64)

    with pytest.raises(GenServeError, match="damaged"):
        draw(start(script).endpoint)


def test_no_router_says_how_to_start_one() -> None:
    with pytest.raises(GenServeError, match="genserve up") as caught:
        draw("tcp://127.0.0.1:9", answer_timeout_s=0.3)
    assert caught.value.code == "unavailable"


def test_an_answer_that_cannot_be_read_is_no_sign_of_another_port_once_a_router_was_met(
    start: Callable[..., FakeRouter],
) -> None:
    def script(router: FakeRouter, message: Message) -> None:
        accept(router, message)
        router.say(ErrorReply(rid=getattr(message, "rid", ""), code="protocol_error", message="no map"))

    with pytest.raises(GenServeError, match=r"^no map$") as caught:
        draw(start(script).endpoint)
    assert caught.value.code == "protocol_error"


def test_a_router_that_falls_silent_is_given_up(
    start: Callable[..., FakeRouter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SILENCE_S_MAX", 0.4)
    router = start(accept)
    with pytest.raises(GenServeError, match="no router answers"):
        draw(router.endpoint)
    assert any(isinstance(heard, Watch) for heard in router.heard)


def test_ctrl_c_cancels_the_job(start: Callable[..., FakeRouter]) -> None:
    def script(router: FakeRouter, message: Message) -> None:
        accept(router, message)
        if isinstance(message, CancelJob):
            router.say(Cancelled(rid=message.rid, job_id=JOB_ID, job=view("cancelled")))

    router = start(script)
    with pytest.raises(KeyboardInterrupt):
        draw(router.endpoint, lambda _: _thread.interrupt_main())
    assert [heard.job_id for heard in router.heard if isinstance(heard, CancelJob)] == [JOB_ID]


def test_status_gathers_all_pages(start: Callable[..., FakeRouter]) -> None:
    whole = reply(*(worker(number) for number in range(5)))

    def script(router: FakeRouter, message: Message) -> None:
        assert isinstance(message, StatusQuery)
        page = whole.workers[message.workers_from : message.workers_from + 2]
        router.say(msgspec.structs.replace(whole, rid=message.rid, workers=page))

    router = start(script)
    with Client(router.endpoint) as client:
        status = client.status()
    assert isinstance(status, StatusReply)
    assert status.workers == whole.workers
    assert len(router.heard) == 3
