"""The chaos driver, short: it finds nothing on the service as it is. And it is no driver that finds nothing ever."""

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.chaos.audit import Verdict, audit
from bench.chaos.faults import Fault
from bench.chaos.ledger import Entry, Ledger
from bench.chaos.orders import make_orders, picture_fault
from common.messages import DeviceInfo, ErrorInfo
from common.settings import GpuDaemonSettings
from gpu_daemon.engine.noop import NoopBackend
from router.records import JobCancelled, JobDispatched, JobFailed, KeyTaken, Record
from tests.router import journals as j

ROOT = Path(__file__).resolve().parents[2]
ENDED_WITHIN_S = 240.0


def _chaos(*words: str) -> None:
    """It must find nothing."""
    ran = subprocess.run(
        [sys.executable, "-m", "bench.chaos", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=ENDED_WITHIN_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "clean" in ran.stdout


def test_nothing_is_lost_in_a_short_storm() -> None:
    _chaos(
        *("--jobs", "40", "--clients", "8", "--faults", "16", "--minutes", "0.2"),
        *("--stops", "1", "2", "--drills", "0", "--seed", "51"),
    )


def test_a_rolling_restart_under_load_is_not_felt() -> None:
    _chaos("--rolling", "--jobs", "40", "--clients", "8", "--minutes", "0.3")


# --- it bites ----------------------------------------------------------------------------------

JOB = "a" * 32
ORDER = make_orders(1, 1, 1.0, seed=1)[0]
KEY = KeyTaken(owner="local", key=ORDER.journal_key, job_id=JOB, digest=b"", taken_at=1.0)
ACCEPTED = replace(j.accepted(0), job_id=JOB, created_at=1.0, deadline_at=3601.0)
DISPATCHED = JobDispatched(job_id=JOB, dispatch=1, worker_id="gpu-0", device="cpu", at=2.0)
CANCELLED = JobCancelled(job_id=JOB, ended_at=3.0)
FAILED = JobFailed(job_id=JOB, error=ErrorInfo(code="worker_lost", message=""), settled=1, ended_at=3.0)
KILLED = Fault("kill -9 daemon", "gpu-0", began_at=2.5, ended_at=2.6)


def _found(records: list[Record], end: str, storm: list[Fault]) -> list[str]:
    verdict = Verdict()
    audit(records, Ledger(entries=[Entry(ORDER, job_id=JOB, end=end)]), storm, set(), verdict)
    return verdict.faults


def test_what_is_as_promised_is_no_fault() -> None:
    assert not _found([KEY, ACCEPTED, CANCELLED], "cancelled", [])
    assert not _found([KEY, ACCEPTED, DISPATCHED, FAILED], "failed", [KILLED])


@pytest.mark.parametrize(
    ("records", "end", "storm", "fault"),
    [
        ([], "cancelled", [], "lost"),
        ([replace(KEY, job_id="b" * 32), replace(ACCEPTED, job_id="b" * 32)], "cancelled", [], "lost"),
        ([KEY, ACCEPTED], "cancelled", [], "ended 0 times"),
        ([KEY, ACCEPTED, CANCELLED, FAILED], "cancelled", [KILLED], "ended 2 times"),
        ([KEY, ACCEPTED, CANCELLED], "done", [], "its client was told done"),
        ([KEY, ACCEPTED, DISPATCHED, FAILED], "failed", [], "no trouble explains it"),
        (
            [KEY, ACCEPTED, DISPATCHED, FAILED],
            "failed",
            [Fault("SIGSTOP", "gpu-1", 2.5, 2.6)],
            "no trouble explains it",
        ),
        (
            [KEY, ACCEPTED, DISPATCHED, FAILED],
            "failed",
            [Fault("SIGSTOP", "gpu-0", 3.5, 3.6)],
            "no trouble explains it",
        ),
        ([KEY, ACCEPTED, CANCELLED, replace(ACCEPTED, job_id="b" * 32)], "cancelled", [], "is nobody's"),
    ],
)
def test_what_is_not_as_promised_is_a_fault(records: list[Record], end: str, storm: list[Fault], fault: str) -> None:
    found = _found(records, end, storm)
    assert any(fault in text for text in found), found


def test_a_picture_of_another_order_or_not_whole_is_a_fault() -> None:
    backend = NoopBackend(GpuDaemonSettings(), DeviceInfo(device="cpu", kind="cpu"))
    order = replace(ACCEPTED.order, width=ORDER.width, height=ORDER.height, seed=ORDER.seed)
    right = backend.draw(order, lambda *_: None).data
    assert picture_fault(ORDER, right) == ""
    assert "colour" in picture_fault(ORDER, backend.draw(replace(order, seed=5), lambda *_: None).data)
    assert "it is" in picture_fault(ORDER, backend.draw(replace(order, width=17), lambda *_: None).data)
    assert "damaged" in picture_fault(ORDER, right[:-5])
    assert "damaged" in picture_fault(ORDER, right[:50] + b"x" + right[51:])
    assert "no PNG" in picture_fault(ORDER, b"")


def test_a_client_that_is_told_two_things_is_a_fault() -> None:
    ledger, entry = Ledger(), Entry(ORDER)
    ledger.accepted(entry, JOB)
    ledger.ended(entry, "cancelled")
    ledger.ended(entry, "cancelled")
    assert not ledger.faults
    ledger.accepted(entry, "b" * 32)
    ledger.ended(entry, "failed", "poison")
    assert ["is also job" in ledger.faults[0], "ended twice" in ledger.faults[1]] == [True, True]
