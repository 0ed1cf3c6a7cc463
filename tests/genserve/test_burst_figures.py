"""The figures of a burst and what is made of them, from runs of a few made-up jobs."""

import re
from itertools import pairwise
from typing import Any

import pytest
from msgspec import structs
from rich.console import Console

from genserve.burst import timeline
from genserve.burst.orders import orders, warm_up_orders
from genserve.burst.page import page
from genserve.burst.plots import MARKS_MAX
from genserve.burst.record import FAILED, GAVE_UP, Run
from genserve.burst.statistics import duration, percent, percentile, spread, summary
from genserve.burst.tables import report
from genserve.burst.timeline import Depth
from genserve.burst.verdicts import Verdict, verdicts
from tests.genserve.burst_runs import OPTIONS, queue, request, run


def even(number: int) -> str:
    return "ab"[number % 2]


def said(made: Run) -> dict[str, Verdict]:
    return {verdict.name: verdict for verdict in verdicts(made, summary(made))}


# --- statistics --------------------------------------------------------------------------------


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 201)]
    assert [percentile(values, p) for p in (50, 90, 95, 99, 100)] == [100, 180, 190, 198, 200]
    assert [percentile([7.0], p) for p in (0, 50, 99)] == [7.0] * 3
    lies = spread([3.0, 1.0, 2.0])
    assert lies is not None
    assert (lies.count, lies.mean, lies.p50, lies.max) == (3, 2.0, 2.0, 3.0)
    assert spread([]) is None


def test_where_the_time_of_a_request_went() -> None:
    figures = summary(run([request(0, at=2.0, wait=3.0, took=1.0, elsewhere=0.25)]))
    shown = [each and round(each.p50, 6) for each in (figures.latency, figures.wait, figures.run, figures.outside)]
    assert shown == [4.25, 3.0, 1.0, 0.25]
    assert figures.duration_s == 6.25
    assert figures.pictures_per_s == pytest.approx(1 / 6.25)
    assert figures.steps_per_s == pytest.approx(4 / 6.25)


def test_what_each_gpu_did() -> None:
    drawn = [request(0, gpu="a", took=2.0), request(1, gpu="a", wait=2.0, took=2.0), request(2, gpu="b", took=2.0)]
    a, b = summary(run(drawn)).gpus
    assert (a.pictures, a.busy_share, a.idle_while_waiting_s, a.step_s) == (2, 1.0, 0.0, 0.5)
    assert (b.pictures, b.busy_share, b.idle_while_waiting_s) == (1, 0.5, 0.0)  # it was idle, but nothing waited
    assert (round(a.work_share, 3), round(b.work_share, 3)) == (0.667, 0.333)


def test_idle_while_something_waited() -> None:
    drawn = [request(0, gpu="a", took=4.0), request(1, gpu="a", wait=4.0, took=1.0), request(2, gpu="b", took=1.0)]
    figures = summary(run(drawn))
    assert [gpu.idle_while_waiting_s for gpu in figures.gpus] == [0.0, 3.0]
    assert figures.idle_while_waiting == pytest.approx(3 / 8)


def test_a_job_that_was_tried_again_says_nothing_of_idle_gpus() -> None:
    assert summary(run([request(0, wait=9.0, starts=2), request(1, gpu="b")])).waiting_s == 0.0


def test_failures_are_counted_by_code_and_given_up_is_none() -> None:
    made = [request(0), request(1, outcome=GAVE_UP, job=None)]
    made += [request(n, outcome=FAILED, code="poison", message=f"m{n}", job=None) for n in (2, 3)]
    made.append(request(4, tries=3, refusals=("queue_full", "connection")))
    figures = summary(run(made))
    assert (figures.done, figures.failed, figures.gave_up, figures.tries_again) == (2, 2, 1, 2)
    assert [(kind.code, kind.count, kind.message) for kind in figures.errors] == [("poison", 2, "m2")]
    assert {kind.code for kind in figures.refusals} == {"queue_full", "connection"}
    assert figures.outside is not None
    assert figures.outside.count == 1  # a request that was sent again says nothing of the way there


def test_nothing_at_all_has_figures_too() -> None:
    figures = summary(run([]))
    assert (figures.requests, figures.latency, figures.pictures_per_s, figures.busy) == (0, None, 0.0, 0.0)
    assert "<figure" not in page(run([]), figures, [])


def test_groups_only_where_there_is_more_than_one() -> None:
    made = [request(n, client=f"burst-{n % 2 + 1}", width=(64, 128)[n % 2]) for n in range(4)]
    names = [(group.kind, group.name) for group in summary(run(made)).groups]
    assert names == [
        ("shape", "64x128, 4 steps"), ("shape", "128x128, 4 steps"), ("client", "burst-1"), ("client", "burst-2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value_s", "words"), [(0.0034, "3.4 ms"), (0.043, "43 ms"), (0.9999, "1.0 s"), (1.25, "1.2 s"), (200, "3 m 20 s")]
)
def test_durations_in_words(value_s: float, words: str) -> None:
    assert duration(value_s) == words
    assert (percent(0.5), percent(0.052), percent(0)) == ("50 %", "5.2 %", "0 %")


# --- time --------------------------------------------------------------------------------------


def test_intervals() -> None:
    assert timeline.merged([(3, 4), (0, 2), (1, 2.5), (4, 5), (6, 6)]) == [(0, 2.5), (3, 5)]
    assert timeline.without([(0, 10)], [(1, 2), (4, 20)]) == [(0, 1), (2, 4)]
    assert timeline.without([(0, 1), (2, 3)], [(0, 3)]) == []
    assert timeline.without([(5, 6)], [(0, 1), (5.5, 5.7)]) == [(5, 5.5), (5.7, 6)]
    assert timeline.longest_gap_s([(0, 1), (3, 4), (4.5, 5)]) == 2


def test_waiting_and_running() -> None:
    made = run([request(0, took=2.0), request(1, wait=2.0, took=1.0)])
    assert timeline.depths(made) == [
        Depth(at_s=0.0, waiting=1, running=1), Depth(at_s=2.0, waiting=0, running=1),
        Depth(at_s=3.0, waiting=0, running=0),
    ]  # fmt: skip
    halves = timeline.averaged(timeline.depths(made), 2)
    assert [(each.waiting, each.running) for each in halves] == [(1, 1), (pytest.approx(1 / 3), 1), (0, 0)]


def test_the_average_loses_nothing() -> None:
    depths = timeline.depths(run(queue(even, {"a": 0.7, "b": 1.3})))
    for parts in (1, 7, 160):
        means = timeline.averaged(depths, parts)
        exact = sum(d.waiting * (after.at_s - d.at_s) for d, after in pairwise(depths))
        assert sum(d.waiting for d in means[:-1]) * depths[-1].at_s / parts == pytest.approx(exact)


def test_every_picture_is_in_one_bin() -> None:
    bins = timeline.throughput(run(queue(even, {"a": 0.7, "b": 1.3})))
    assert sum(each.pictures for each in bins) == 40
    assert bins[-1].begin_s + bins[-1].width_s == pytest.approx(20 * 1.3 + 0.01)
    assert len(bins) <= timeline.BINS_MAX
    assert [timeline.nice_step(length, 5) for length in (1, 26, 0.3)] == pytest.approx([0.2, 10, 0.1])


# --- verdicts ----------------------------------------------------------------------------------


def test_a_good_run() -> None:
    verdict = said(run(queue(even, {"a": 1.0, "b": 1.0})))
    assert {name: each.tone for name, each in verdict.items()} == dict.fromkeys(
        ("outcome", "balance", "idle", "busy", "doors"), "good"
    )
    assert verdict["outcome"].text == "all 40 pictures came"
    assert verdict["balance"].text == "the 2 GPUs share the work evenly: 50 % each"
    assert "no GPU stood idle" in verdict["idle"].text


def test_a_gpu_that_is_half_as_fast() -> None:
    verdict = said(run(queue(lambda n: "aab"[n % 3], {"a": 1.0, "b": 2.0}, 60)))["balance"]
    assert (verdict.tone, verdict.text) == (
        "note",
        "b does half of a's work (20 pictures beside 40): it was as busy and is slower, 500 ms a step beside 250 ms",
    )


def test_a_gpu_that_stood_idle_while_jobs_waited() -> None:
    verdict = said(run(queue(lambda n: "a" if n % 10 else "b", {"a": 1.0, "b": 1.0})))
    assert (verdict["balance"].tone, verdict["idle"].tone) == ("warn", "warn")
    assert (
        "b does 11 % of a's work (4 pictures beside 36): it stood idle for 31.0 s while jobs" in verdict["balance"].text
    )
    assert "the GPUs idle 44 % of the time in which jobs waited; most of all b" in verdict["idle"].text
    assert said(run(queue(lambda _: "a", {"a": 1.0}), gpus="ab"))["balance"].text.startswith(
        "b drew nothing (0 pictures"
    )


def test_too_little_to_do() -> None:
    verdict = said(run([request(n, gpu=even(n), at=3.0 * n) for n in range(40)]))
    assert (verdict["busy"].tone, verdict["busy"].advice) == (
        "note",
        "raise --concurrency to find out what this fleet can do",
    )
    assert "busy 17 % of the time" in verdict["busy"].text


def test_refusals_are_told_with_what_to_do() -> None:
    made = queue(even, {"a": 1.0, "b": 1.0})
    again = [structs.replace(each, tries=2, refusals=("queue_full",)) for each in made[:3]]
    verdict = said(run([*again, *made[3:]], rate_per_s=5.0, concurrency=0))["refused"]
    assert verdict.text == "the queue refused 3 of 43 asks; all were taken when sent again"
    assert "lower --rate, add GPUs, or raise router.global_queue_size (50)" in verdict.advice
    lost = [structs.replace(each, outcome=FAILED, code="queue_full", job=None) for each in made[:12]]
    verdict = said(run([*lost, *made[12:]]))
    assert verdict["refused"].text == "the queue refused 12 of 40 asks"
    assert (verdict["outcome"].tone, verdict["outcome"].text) == (
        "bad",
        "12 of 40 requests got no picture: 12 queue_full",
    )


def test_arrivals_faster_than_the_gpus() -> None:
    growing = [request(n, gpu=even(n), at=n * 0.4, wait=n * 0.1) for n in range(40)]
    verdict = said(run(growing, rate_per_s=2.5, concurrency=0))["keeps_up"]
    assert (verdict.tone, "grew from 600 ms to 3.3 s" in verdict.text) == ("warn", True)
    level = [request(n, gpu=even(n), at=n * 0.5) for n in range(40)]
    assert said(run(level, rate_per_s=2.0, concurrency=0))["keeps_up"].tone == "good"


def test_a_client_that_is_late_says_so() -> None:
    made = [request(n, at=n * 0.5) for n in range(40)]
    late = [structs.replace(each, sent_s=each.due_s + 0.3) for each in made]
    assert "one in a hundred was sent 300 ms late" in said(run(late, rate_per_s=2.0, concurrency=0))["late_client"].text
    assert "late_client" not in said(run(made, rate_per_s=2.0, concurrency=0))


def test_what_http_adds_to_zeromq() -> None:
    made = [request(n, gpu=even(n), door=("http", "zmq")[n % 2], elsewhere=(0.005, 0.002)[n % 2]) for n in range(40)]
    assert said(run(made, over="both"))["doors"].text == "HTTP adds 3.0 ms over ZeroMQ (median of 20 and 20 requests)"


@pytest.mark.parametrize(("waits", "tone"), [((2.0, 2.2), "good"), ((1.0, 4.0), "note")])
def test_fairness_between_clients(waits: tuple[float, float], tone: str) -> None:
    made = [request(n, gpu=even(n), client=f"burst-{n % 2 + 1}", wait=waits[n % 2]) for n in range(40)]
    verdict = said(run(made, clients=2))["fair"]
    assert verdict.tone == tone
    assert f"2 clients waited {waits[0]} s to {waits[1]} s on average" in verdict.text


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("started_again", {"starts": 2}, "40 jobs were started more than once"),
        ("slowed", {}, "a became slower: the same picture took 2.0 times as long"),
    ],
)
def test_a_gpu_in_trouble(name: str, changes: dict[str, Any], words: str) -> None:
    slowing = {"slowed": [1.0] * 20 + [2.0] * 20}.get(name, [1.0] * 40)
    verdict = said(run([request(n, at=3.0 * n, took=slowing[n], **changes) for n in range(40)], gpus="a"))
    assert words in verdict[name].text


def test_one_in_a_hundred_waits_much_longer() -> None:
    made = [request(n, gpu=even(n), wait=9.0 if n == 7 else 0.2) for n in range(100)]
    assert "tail" not in said(run(made))
    made[8] = request(8, wait=9.0)
    assert said(run(made))["tail"].text == "one job in a hundred waited 9.0 s or longer; half of them at most 200 ms"
    assert "tail" not in said(run([request(n, priority=n % 2, wait=9.0 if n > 90 else 0.2) for n in range(100)]))


def test_other_peoples_jobs_are_said_to_be_there() -> None:
    made = run(queue(even, {"a": 1.0, "b": 1.0}))
    busy = structs.replace(made, totals=structs.replace(made.totals, submitted=55))  # type: ignore[type-var]  # it has some
    assert said(busy)["others"].text.startswith("15 jobs of others")
    assert "restarted" in said(structs.replace(made, totals=None))["others"].text


def test_few_requests_are_not_judged() -> None:
    assert set(said(run([request(n) for n in range(19)]))) == {"outcome"}


# --- what is asked -----------------------------------------------------------------------------


def test_the_same_seed_asks_for_the_same() -> None:
    options = structs.replace(
        OPTIONS, over="both", requests=400, rate_per_s=5.0, sizes=((64, 64), (0, 0)), steps=(4, 20), clients=3,
        give_up_percent=10.0,
    )  # fmt: skip
    once = list(orders(options))
    assert list(orders(options)) == once
    assert list(orders(structs.replace(options, seed=2))) != once
    assert [order.number for order in once] == list(range(400))
    assert once[-1].at_s == pytest.approx(400 / 5, rel=0.2)
    assert all(a.at_s <= b.at_s for a, b in pairwise(once))
    assert {(order.door, order.client) for order in once} == {
        (door, f"burst-{n}") for door in ("http", "zmq") for n in (1, 2, 3)
    }
    assert {(order.width, order.steps) for order in once} == {(64, 4), (64, 20), (0, 4), (0, 20)}
    assert 20 <= sum(order.give_up_after_s is not None for order in once) <= 60
    assert len({order.prompt for order in once}) > 100


def test_the_warm_up_draws_each_size_once_a_gpu() -> None:
    options = structs.replace(OPTIONS, sizes=((64, 64), (128, 128)), steps=(4, 20))
    assert [(o.width, o.steps) for o in warm_up_orders(options, 2, 32)] == [(64, 4), (128, 4)] * 2
    assert len(warm_up_orders(options, 100, 32)) == 32
    assert warm_up_orders(structs.replace(options, warm_up=0), 2, 32) == []


# --- the report --------------------------------------------------------------------------------


def told(made: Run, width: int) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    figures = summary(made)
    with console.capture() as capture:
        console.print(report(made, figures, verdicts(made, figures)))
    return capture.get()


def mixed() -> Run:
    made = [
        request(
            n, gpu=even(n), wait=n * 0.1, width=(64, 128)[n % 2], client=f"burst-{n % 3}", door=("http", "zmq")[n % 2]
        )
        for n in range(38)
    ]
    made.append(request(38, outcome=FAILED, code="poison", message="<script>alert(1)</script>", job=None))
    made.append(request(39, outcome=GAVE_UP, job=None))
    return run(made, over="both", clients=3)


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(width: int) -> None:
    text = told(mixed(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for words in (
        "38 pictures in",
        "1 of 39 requests got no picture: 1 poison",
        "burst-2",
        "ZeroMQ",
        "64x128, 4 steps",
    ):
        assert words in text


def test_long_names_and_long_times_cut_nothing_at_80_columns() -> None:
    made = [
        request(
            n, gpu=even(n), at=n * 0.001, wait=100.0 + n, took=75.5, width=1024, steps=28, door=("http", "zmq")[n % 2]
        )
        for n in range(40)
    ]
    whole = run(made, over="both")
    names = [structs.replace(gpu, name=f"a-host-with-a-rather-long-name.example.org/cuda:{n}") for n, gpu in
             enumerate(whole.gpus)]  # fmt: skip
    text = told(structs.replace(whole, gpus=tuple(names)), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for words in ("share of the work", "idle*", "a step", "failed", "latency", "3 m 32 s"):
        assert words in text


def test_a_thousand_steps_a_second_are_told_as_a_number() -> None:
    made = run([request(n, gpu=even(n), at=0.0, took=1.0, steps=100) for n in range(40)])
    assert "39.6 a second, 3960 steps a second" in told(made, 80)


def test_with_keys_the_doors_are_told_to_be_two_owners() -> None:
    made = [request(n, gpu=even(n), door=("http", "zmq")[n % 2]) for n in range(40)]
    for over, keyed, said in (("both", True, 1), ("both", False, 0), ("http", True, 0)):
        whole = run(made, over=over, keyed=keyed)
        assert [each.name for each in verdicts(whole, summary(whole))].count("owners") == said


def test_the_page_needs_nothing_else_and_is_safe() -> None:
    made = mixed()
    html = page(made, summary(made), verdicts(made, summary(made)))
    assert html.count("<figure") == 5
    assert not re.search(r"<script|<link|<img|@import|url\(|\ssrc=|\shref=|\son\w+=", html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert len(re.findall(r"<circle", html)) == 39
    assert html.count('class="span') == 38
    assert (
        "genserve burst --requests 40 --concurrency 8 --over both --seed 1 --sizes 128x128 --steps 4 --clients 3"
        in html
    )
    for tag in ("svg", "figure", "table", "section", "div", "ul", "span"):
        assert len(re.findall(rf"<{tag}[\s>]", html)) == html.count(f"</{tag}>"), tag


def test_a_long_run_is_thinned_and_says_so() -> None:
    made = run(queue(even, {"a": 0.01, "b": 0.01}, 3 * MARKS_MAX))
    html = page(made, summary(made), [])
    assert "one in 3 is drawn" in html
    assert "neighbours are drawn as one" in html
    assert len(html) < 600_000
