"""What `genserve jobs show` and `genserve dead-letters` print, and what the raw client asks for them."""

from collections.abc import Callable
from typing import Any

import pytest
import typer
from msgspec import structs
from rich.console import Console, RenderableType

from common.errors import GenServeError
from common.messages import (
    Accepted,
    CancelJob,
    Cancelled,
    DeadLettersQuery,
    DeadLettersReply,
    ErrorInfo,
    ErrorReply,
    JobMoment,
    JobQuery,
    JobReply,
    JobSpec,
    JobsQuery,
    JobsReply,
    JobView,
    Message,
    Note,
    Pong,
    Rejected,
    Requeue,
    Submit,
)
from genserve.client import Client
from genserve.jobs import check_id, job_page, letters_page, whole_id
from tests.common.samples import JOB, PICTURE
from tests.genserve.fake_router import JOB_ID, FakeRouter, view

NOW = 1_790_000_000.0
OTHER_ID = "cd" * 16
GPU = "a-host-with-a-rather-long-name.example.org/cuda:11"
HISTORY = (
    JobMoment(at=NOW - 75.2, event="accepted"),
    JobMoment(at=NOW - 70.0, event="started", detail=GPU),
    JobMoment(
        at=NOW - 62.0, event="requeued", detail=f"engine_died: the engine of {GPU} ended with signal 9 (SIGKILL)"
    ),
    JobMoment(at=NOW - 60.0, event="started", detail=GPU),
)


def _job(**changes: Any) -> JobView:
    fields = {"created_at": NOW - 75.2, "started_at": NOW - 60, "deadline_at": NOW + 3500, "notes": (), **changes}
    return structs.replace(JOB, **fields)


def _shown(page: RenderableType, width: int) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(page)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text


def _page(job: JobView, width: int, history: tuple[JobMoment, ...] = ()) -> str:
    return _shown(job_page(JobReply(rid="1", job_id=job.job_id, job=job, history=history), now=NOW), width)


def _words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", [80, 120])
def test_a_running_job(width: int) -> None:
    text = _words(_page(_job(client="studio", priority=5, attempts=2, worker_id=GPU), width, HISTORY))
    for fact in (
        f"Job {JOB.job_id}", "state running", "3/28", "model flux1-dev", "1024x1024 · 28 steps · seed 7 · guidance 3.5",
        f"GPU {GPU}, started 2 times", "priority +5", "client studio", "1 m 15 s ago", "left about 4.5 s",
        "in 58 m 20 s", "0.000 s accepted", f"5.2 s started {GPU}", "13.2 s requeued engine_died: the engine of",
        "signal 9 (SIGKILL)",
    ):  # fmt: skip
        assert fact.replace(" ", "") in text.replace(" ", "")  # a long name of a GPU may be folded


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"state": "queued", "position": 4, "device": "", "started_at": 0.0}, ("state queued, number 4 in line",)),
        ({"state": "queued", "position": 1, "device": "", "eta_s": None}, ("state queued, next in line",)),
        ({"state": "done", "ended_at": NOW - 2, "picture": PICTURE}, ("state done", "bytes of PNG", "after 1 m 13 s")),
        ({"state": "cancelled", "ended_at": NOW - 2, "notes": (Note(code="x", message="cut to 512 tokens"),)},
         ("state cancelled", "⚠ cut to 512 tokens")),
        ({"state": "failed", "ended_at": NOW - 2, "error": ErrorInfo(code="x", message="two deaths", next_step="read")},
         ("state failed", "two deaths -> read")),
    ],
)  # fmt: skip
def test_every_state(changes: dict[str, Any], facts: tuple[str, ...]) -> None:
    text = _words(_page(_job(**changes), 80))
    assert [fact for fact in facts if fact not in text] == []
    assert ("left about" in text) == (changes["state"] == "queued" and "eta_s" not in changes)
    assert "History" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_dead_letters_are_listed_with_their_whole_ids(width: int) -> None:
    error = ErrorInfo(code="poison", message=f"it ended two engines: {GPU} (signal 9), {GPU} (signal 11)")
    letter = _job(state="failed", ended_at=NOW - 7000, error=error, model="m" * 60, client="studio")
    text = _shown(letters_page([letter, structs.replace(letter, job_id=OTHER_ID, client="")], now=NOW), width)
    lines = [line.strip() for line in text.splitlines()]
    assert lines.index(JOB.job_id) < lines.index(OTHER_ID)
    assert "2 jobs given up as poison" in text
    assert f"{'m' * 60} · studio · 1 h 56 m ago" in _words(text)
    assert _words(text).count("(signal 11)") == 2
    assert "genserve requeue ID" in text


def test_no_dead_letters() -> None:
    assert "No job was given up" in _shown(letters_page([], now=NOW), 80)


def test_what_is_no_id() -> None:
    assert check_id(JOB_ID) == JOB_ID
    assert check_id(JOB_ID[:8]) == JOB_ID[:8]
    for text in ("", JOB_ID[:7], JOB_ID.upper(), JOB_ID + "0", "x" * 32):
        with pytest.raises(typer.BadParameter, match="no job id"):
            check_id(text)


def test_the_first_digits_of_an_id_are_enough(start: Callable[..., FakeRouter]) -> None:
    """Those that logs show: found among the jobs that one may see, and the dead letters."""
    ids = [JOB_ID, "abababab" + "0" * 24, OTHER_ID]

    def answer(message: Any) -> Message:
        if isinstance(message, DeadLettersQuery):
            return DeadLettersReply(rid=message.rid, letters=(view("failed", job_id="ef" * 16),), letters_total=1)
        assert isinstance(message, JobsQuery)
        return JobsReply(rid=message.rid, jobs=tuple(view(job_id=job_id) for job_id in ids), next_before=0)

    router = _answers(start, answer)
    with Client(router.endpoint) as client:
        assert whole_id(client, OTHER_ID[:8]) == OTHER_ID
        assert whole_id(client, JOB_ID[:9]) == JOB_ID
        assert whole_id(client, "efefefef") == "ef" * 16
        with pytest.raises(typer.BadParameter, match=f"begins the ids of 2 jobs: {ids[1]}, {ids[0]}"):
            whole_id(client, JOB_ID[:8])
        with pytest.raises(GenServeError, match="genserve jobs list") as raised:
            whole_id(client, "12345678")
        assert raised.value.code == "not_found"
        heard = len(router.heard)
        assert whole_id(client, "12" * 16) == "12" * 16
        assert len(router.heard) == heard


# --- the raw client ----------------------------------------------------------------------------


def _answers(start: Callable[..., FakeRouter], answer: Callable[[Any], Message]) -> FakeRouter:
    return start(lambda router, message: router.say(answer(message)))


def test_a_job_and_its_history(start: Callable[..., FakeRouter]) -> None:
    router = _answers(start, lambda m: JobReply(rid=m.rid, job_id=JOB_ID, job=view("running"), history=HISTORY))
    with Client(router.endpoint) as client:
        assert client.job(JOB_ID).history == HISTORY
    assert isinstance(router.heard[0], JobQuery)


def test_a_job_that_is_not_there(start: Callable[..., FakeRouter]) -> None:
    router = _answers(start, lambda m: ErrorReply(rid=m.rid, code="not_found", message="no such job"))
    with Client(router.endpoint) as client:
        for ask in (client.job, client.cancel):
            with pytest.raises(GenServeError, match="no such job") as raised:
                ask(JOB_ID)
            assert raised.value.code == "not_found"


def test_cancelling(start: Callable[..., FakeRouter]) -> None:
    ended = False

    def answer(message: CancelJob) -> Message:
        kind = JobReply if ended else Cancelled
        return kind(rid=message.rid, job_id=JOB_ID, job=view("done" if ended else "cancelled"))

    router = _answers(start, answer)
    with Client(router.endpoint) as client:
        assert client.cancel(JOB_ID).job.state == "cancelled"
        ended = True
        with pytest.raises(GenServeError, match=r"ended before \(done\)"):
            client.cancel(JOB_ID)


def test_dead_letters_come_in_pages(start: Callable[..., FakeRouter]) -> None:
    letters = tuple(view("failed", job_id=f"{number:032x}") for number in range(19))

    def answer(message: DeadLettersQuery) -> Message:
        page = letters[message.letters_from : message.letters_from + 8]
        return DeadLettersReply(rid=message.rid, letters=page, letters_total=len(letters))

    router = _answers(start, answer)
    with Client(router.endpoint) as client:
        assert client.dead_letters() == list(letters)
    assert [message.letters_from for message in router.heard if isinstance(message, DeadLettersQuery)] == [0, 8, 16]


def test_requeueing(start: Callable[..., FakeRouter]) -> None:
    known = True

    def answer(message: Requeue) -> Message:
        if known:
            return Accepted(rid=message.rid, job_id=OTHER_ID, job=view(job_id=OTHER_ID))
        return Rejected(rid=message.rid, code="not_found", message="none of the poison jobs", param="job_id")

    router = _answers(start, answer)
    with Client(router.endpoint) as client:
        assert client.requeue(JOB_ID).job_id == OTHER_ID
        known = False
        with pytest.raises(GenServeError, match="none of the poison jobs"):
            client.requeue(JOB_ID)


def test_an_answer_of_another_kind_is_a_fault(start: Callable[..., FakeRouter]) -> None:
    router = _answers(start, lambda m: Pong(rid=m.rid))
    with Client(router.endpoint) as client, pytest.raises(GenServeError, match="answered JOB with PONG"):
        client.job(JOB_ID)


def test_a_key_of_ones_own_is_sent(start: Callable[..., FakeRouter]) -> None:
    def script(router: FakeRouter, message: Message) -> None:
        if isinstance(message, Submit):
            router.say(Accepted(rid=message.rid, job_id=JOB_ID, job=view(), repeated=True))
            router.result(message.rid)

    router = start(script)
    with Client(router.endpoint) as client:
        client.draw(JobSpec(prompt="x"), lambda _news: None, key="mine")
        client.draw(JobSpec(prompt="x"), lambda _news: None)
    own, made_up = [message.key for message in router.heard if isinstance(message, Submit)]
    assert (own, len(made_up)) == ("mine", 32)
