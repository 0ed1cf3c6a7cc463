"""The tables of `genserve status`, from a STATUS as the router sends it."""

from typing import Any

import msgspec
import pytest
from rich.console import Console

from common.messages import (
    DeviceInfo,
    DeviceLoad,
    FailureView,
    ModelView,
    RouterLimits,
    RouterStats,
    StatusReply,
    WorkerView,
)
from common.models import ModelCard
from genserve.status import seconds, tables

NOW = 1_000_000.0


def worker(number: int, **changes: Any) -> WorkerView:
    view = WorkerView(
        worker_id=f"host/cuda:{number}",
        host="host",
        device=DeviceInfo(device=f"cuda:{number}", kind="cuda", name="GPU", total_mb=143_360),
        load=DeviceLoad(allocated_mb=33_000, cached_mb=2_000, free_mb=108_360),
        state="ready",
        detail="",
        models=("flux1-dev",),
        busy=True,
        job_id="ab12cd34" * 4,
        step=12,
        steps=28,
        queue_size=5,
        credit=1,
        granted_total=9,
        dispatched_total=8,
        done_total=1234,
        failed_total=3,
        last_used_at=NOW - 100,
        step_s=0.132,
        job_timeout_s=600,
        version="0.1",
        pid=7,
    )
    return msgspec.structs.replace(view, **changes)


def reply(*workers: WorkerView) -> StatusReply:
    return StatusReply(
        rid="1",
        workers=workers,
        workers_total=len(workers),
        models=(ModelView(card=ModelCard(name="flux1-dev"), workers=len(workers), model_path="/models/FLUX.1-dev"),),
        default_model="flux1-dev",
        stats=RouterStats(
            uptime_s=12_345,
            submitted_total=2000,
            done_total=1888,
            failed_total=31,
            cancelled_total=22,
            rejected_total=13,
            queue_full_total=10,
            protocol_errors_total=1,
            retried_total=44,
            queued=17,
            running=2,
            overflow=6,
        ),
        limits=RouterLimits(
            gpu_queue_size=5, global_queue_size=50, job_deadline_s=3600, result_ttl_s=3600, attempts_max=3
        ),
    )


def shown(status: StatusReply, width: int) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(tables(status, now=NOW, width=width))
    return capture.get()


def test_a_disk_that_is_full_is_told() -> None:
    full = msgspec.structs.replace(reply(worker(0)), storage_full="12 MiB are free in /var/lib/genserve")
    assert "No new jobs are taken: 12 MiB are free in /var/lib/genserve" in shown(full, 80)
    assert "No new jobs" not in shown(reply(worker(0)), 80)


@pytest.mark.parametrize("width", [80, 120])
def test_every_fact_fits(width: int) -> None:
    loading = worker(1, state="loading", detail="loading transformer", busy=False, last_used_at=0.0, step_s=0.0)
    text = shown(reply(worker(0), loading), width)
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.split()}
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert [word for word in ("ready", "flux1-dev", "12/28", "5", "34/140", "1234") if word not in rows["cuda:0"]] == []
    assert "idle" in rows["cuda:1"]
    assert "cuda:1: loading transformer" in text
    assert "2       11  6 of 50  1888      31         22       13       44" in text
    assert "flux1-dev (default)" in text
    assert ("0.132 s" in text) == ("1 m 40 s ago" in text) == (width == 120)


def test_hosts_of_one_name_are_told_apart_by_their_ids() -> None:
    mine, theirs = worker(0), worker(0, worker_id="host-b/cuda:0")
    text = shown(reply(mine, theirs, worker(1)), 120)
    assert [line.split()[0] for line in text.splitlines() if "cuda:" in line] == [
        "host-b/cuda:0",
        "host/cuda:0",
        "cuda:1",
    ]


def test_hosts_are_named_where_there_are_several() -> None:
    assert "other/cuda:0" in shown(reply(worker(0), worker(0, host="other", worker_id="other/cuda:0")), 120)


def test_gpus_come_in_the_order_of_their_numbers() -> None:
    text = shown(reply(*(worker(number) for number in (10, 2, 0))), 80)
    assert [line.split()[0] for line in text.splitlines() if line.strip().startswith("cuda:")] == [
        "cuda:0",
        "cuda:2",
        "cuda:10",
    ]


def test_no_gpu_says_how_to_start_one() -> None:
    assert "genserve gpu-daemon" in shown(reply(), 80)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0432, "0.043 s"),
        (12.34, "12.3 s"),
        (200, "3 m 20 s"),
        (3600, "1 h 0 m"),
        (18_720, "5 h 12 m"),
        (183_600, "2 d 3 h"),
    ],
)
def test_durations(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize("width", range(80, 160, 5))
def test_no_heading_is_cut_while_a_gpu_works(width: int) -> None:
    text = shown(reply(worker(0, busy=True, step=57, steps=100, models=("genserve-shapes",))), width)
    for heading in ("device", "state", "waiting", "memory", "done"):
        assert heading in text
    assert "ready" in text
    assert "GiB" in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_last_failures_are_told_whole(width: int) -> None:
    failure = FailureView(
        at=NOW - 12,
        job_id="ab" * 16,
        worker_id="host/cuda:0",
        code="poison",
        message="it ended two engines: " + "x" * 150,
    )
    elsewhere = msgspec.structs.replace(failure, worker_id="", code="deadline_exceeded", message="too late")
    status = msgspec.structs.replace(reply(worker(0)), failures=(failure, elsewhere))
    text = shown(status, width)
    assert max(map(len, text.splitlines())) <= width
    assert f"poison on cuda:0, 12.0 s ago, job {failure.job_id}" in text
    assert "deadline_exceeded, 12.0 s ago" in text
    assert "".join(text.split()).count("x" * 150) == 1


def test_of_many_gpus_the_first_are_shown_and_the_rest_counted() -> None:
    status = reply(*(worker(number) for number in range(12)))
    console = Console(width=100, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(tables(status, now=NOW, width=100, workers_max=3))
    assert "cuda:2 " in capture.get()
    assert "cuda:3 " not in capture.get()
    assert "and 9 GPUs more" in capture.get()
