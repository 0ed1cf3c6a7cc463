"""What is true in the end: the clients' ledger against the router's own answers and against its journal.

The journal is read with the production reader, after its router has stopped. Every end but a picture is held
against the troubles of the storm: one that no trouble explains is a fault.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import structlog

from bench.chaos.faults import DISK_FULL, Fault
from bench.chaos.fleet import Fleet
from bench.chaos.ledger import CANCELLED, DONE, FAILED, REFUSED, Entry, Ledger
from common.messages import Cancelled, Failed, Fetch, JobReply, Message, Result
from common.process import EXIT_IOERR
from router.records import (
    JobAccepted,
    JobCancelled,
    JobDispatched,
    JobDone,
    JobFailed,
    JobRecord,
    JobRequeued,
    JobStarted,
    KeyTaken,
    Record,
)
from router.sqlite_journal import SqliteJournal

ENDS: Mapping[type[Record], str] = {JobDone: DONE, JobFailed: FAILED, JobCancelled: CANCELLED}
RETURNED = "returned:"  # begins the reason of a job that its daemon gave back without having begun it
NOTICED_S = 1.0  # so long after its end a process was seen to have ended
AFTER_S = 20.0  # so long after a trouble has ended something may still follow from it
LATE_KINDS_MAX = 4  # told of what came between a job and its deadline
BY_CHAOS = ("poison", "deadline_exceeded")  # reported apart
LOG_FAULTS = ("Traceback (most recent call last)", '"router.bug"', '"session.fault"')


@dataclass
class Verdict:
    """What was found."""

    faults: list[str] = field(default_factory=list)
    jobs: int = 0  # in the journal
    ends: Counter[str] = field(default_factory=Counter)  # by kind
    failures: list[str] = field(default_factory=list)  # one line a job that failed: why
    failed_codes: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)  # times a job went back into the queue, by cause
    dispatches: int = 0
    starts: int = 0
    without_room: int = 0  # times the router ended because its disk was full
    checked_again: int = 0  # ends asked for once more, on new connections


async def ask_again(fleet: Fleet, ledger: Ledger, verdict: Verdict) -> None:
    """Each job's end, and each picture, once more from the router: they are as they were told."""
    for entry in ledger.entries:
        if not entry.job_id:
            continue
        answer, payload = await fleet.ask(Fetch(rid="again", job_id=entry.job_id))
        verdict.checked_again += 1
        end, digest = _end_of(answer), sha256(payload).hexdigest() if payload else ""
        if (end, digest) != (entry.end, entry.sha256):
            verdict.faults.append(
                f"{entry.order.key} (job {entry.job_id}): its client was told {entry.end or 'nothing'} "
                f"{entry.sha256[:8]}, the router says {end} {digest[:8]}"
            )


def _end_of(answer: Message) -> str:
    match answer:
        case Result():
            return DONE
        case Failed():
            return FAILED
        case Cancelled():
            return CANCELLED
        case JobReply():
            return answer.job.state
    return answer.NAME.decode()


def read_journal(state_dir: Path) -> Sequence[Record]:
    """Every record that the stopped router has left."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    journal = SqliteJournal(state_dir, disk_free_min_mb=0, reserve_mb=1, logger=structlog.get_logger())
    try:
        return journal.replay()
    finally:
        journal.close()


def audit(
    records: Sequence[Record], ledger: Ledger, storm: Sequence[Fault], others: set[str], verdict: Verdict
) -> None:
    """The ledger against the journal. `others`: jobs that were no client's."""
    history: defaultdict[str, list[JobRecord]] = defaultdict(list)
    keys: dict[str, str] = {}
    for record in records:
        if isinstance(record, JobRecord):
            history[record.job_id].append(record)
        elif isinstance(record, KeyTaken):
            keys[record.key] = record.job_id
    verdict.jobs = len(history)
    known = set(others)
    for entry in ledger.entries:
        job_id = keys.get(entry.order.journal_key, "")
        known.add(job_id)
        _compare(entry, job_id, history.get(job_id, []), verdict)
        if job_id:
            _explain(entry, history[job_id], storm, verdict)
    verdict.faults += [f"job {job_id} is nobody's: drawn beside its key" for job_id in set(history) - known]


def _compare(entry: Entry, job_id: str, history: Sequence[JobRecord], verdict: Verdict) -> None:
    """Is what its client was told what the journal holds?"""
    ends = [ENDS[type(record)] for record in history if type(record) in ENDS]
    verdict.ends[ends[0] if ends else entry.end or "nothing"] += 1
    who = f"{entry.order.key} ({entry.order.door}, job {entry.job_id or job_id or '-'})"
    if entry.end == REFUSED and not job_id:
        return
    if not job_id:
        verdict.faults.append(f"{who}: lost: the journal has no such key")
    elif entry.job_id and entry.job_id != job_id:
        verdict.faults.append(f"{who}: lost: the journal's job of this key is {job_id}")
    elif len(ends) != 1:
        verdict.faults.append(f"{who}: ended {len(ends)} times in the journal: {ends}")
    elif entry.end and entry.end != ends[0]:
        verdict.faults.append(f"{who}: its client was told {entry.end}, the journal says {ends[0]}")


def _explain(entry: Entry, history: Sequence[JobRecord], storm: Sequence[Fault], verdict: Verdict) -> None:
    """Hold each misfortune of a job against the storm."""
    worker, deadline_at, blamed = "", 0.0, []
    for record in history:
        match record:
            case JobAccepted():
                deadline_at = record.deadline_at
            case JobDispatched():
                worker = record.worker_id
                verdict.dispatches += 1
            case JobStarted():
                verdict.starts += 1
            case JobRequeued():
                cause = record.reason.partition(":")[0]
                verdict.retried[cause] += 1
                if not record.reason.startswith(RETURNED):
                    blamed.append((cause, record.at, worker))
            case JobFailed():
                verdict.failed_codes[record.error.code] += 1
                blamed.append((record.error.code, record.ended_at, worker))
    begun = sum(isinstance(record, JobStarted) for record in history)
    if begun > 1 + sum(isinstance(record, JobRequeued) for record in history):
        verdict.faults.append(f"{entry.order.key} (job {history[0].job_id}): begun {begun} times without a cause")
    causes = []
    for code, at, where in blamed:
        if code == "deadline_exceeded" and entry.order.deadline_s and at >= deadline_at:
            causes.append(_late(entry, deadline_at, storm))
            continue
        found = [f for f in storm if f.target in (where, "router") and f.began_at <= at <= f.ended_at + AFTER_S]
        causes += [f"{f.kind} of {f.target} {at - f.began_at:.1f} s before" for f in found[-1:]]
        if not found:
            verdict.faults.append(
                f"{entry.order.key} (job {history[0].job_id}): {code} on {where}, and no trouble explains it"
            )
    if any(isinstance(record, JobFailed) for record in history):
        verdict.failures.append(f"{entry.order.key}: {blamed[-1][0]}: {'; '.join(causes)}")


def _late(entry: Entry, deadline_at: float, storm: Sequence[Fault]) -> str:
    """What came between a job and its deadline."""
    given_s = entry.order.deadline_s or 0.0
    hit = Counter(
        f.kind
        for f in storm
        if f.target.startswith(("router", "gpu-")) and f.began_at < deadline_at and f.ended_at > deadline_at - given_s
    )
    met = ", ".join(f"{count} {kind}" for kind, count in hit.most_common(LATE_KINDS_MAX)) or "a long queue"
    return f"its client gave it {given_s:g} s; meanwhile {met}"


def read_logs(fleet: Fleet, storm: Sequence[Fault], verdict: Verdict) -> None:
    """Whatever the parts say of bugs of their own, and ends that nobody asked for.

    A router that cannot write, not even from its reserve, must end: that is no fault while its disk is full.
    """
    for part in fleet.parts.values():
        for status, at in part.surprises:
            full = any(f.kind == DISK_FULL and f.began_at <= at <= f.ended_at + NOTICED_S for f in storm)
            if status == EXIT_IOERR and full:
                verdict.without_room += 1
            else:
                verdict.faults.append(f"{part.name} ended with status {status} at {at:.3f}, and nobody asked it to")
        found = part.log_lines(*LOG_FAULTS)
        verdict.faults += [f"{part.name}'s log: {line[:300]}" for line in found[:5]]
