"""Journals on disk for tests, and records to put into them."""

import hashlib
import select
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from msgspec import structs

from common.codec import split_payload
from common.log import get_logger
from common.messages import ErrorInfo, InputPicture, Note, Picture, Timings, Token
from common.models import ModelCard
from router.journal import Journal, Stored
from router.records import (
    JobAccepted,
    JobCancelled,
    JobDispatched,
    JobDone,
    JobFailed,
    JobRequeued,
    JobRevived,
    JobStarted,
    KeyTaken,
    ModelKnown,
)
from router.sqlite_journal import SqliteJournal
from tests.common.samples import ORDER


@contextmanager
def opened(folder: Path, *, disk_free_min_mb: int = 0, reserve_mb: int = 1) -> Iterator[SqliteJournal]:
    """A journal that is closed after the block."""
    journal = SqliteJournal(folder, disk_free_min_mb=disk_free_min_mb, reserve_mb=reserve_mb, logger=get_logger())
    try:
        yield journal
    finally:
        journal.close()


def stored(journal: Journal, count: int) -> list[Stored]:
    """What the journal reports until `count` have come, waiting on its descriptor as the loop does."""
    found: list[Stored] = []
    end = time.monotonic() + 10
    while len(found) < count and time.monotonic() < end:
        found += journal.stored()
        if len(found) < count:
            select.select([journal.fileno()], [], [], 1.0)
    return found


def job_id(number: int) -> str:
    return f"{number:032x}"


def picture(data: bytes, **wrong: Any) -> Picture:
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **wrong}
    return Picture(format="png", width=1, height=1, drawn_width=1, drawn_height=1, **facts)


def frames(*parts: bytes) -> list[zmq.Frame]:
    return [zmq.Frame(part) for part in parts]


def png(width: int = 3, noise: bytes = b"") -> bytes:
    """A PNG as far as its header says so, and whatever else."""
    size = struct.pack(">II", width, 2)
    rest = struct.pack(">I", len(noise)) + b"IDAT" + noise + bytes(4)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + size + bytes(9) + rest


def inputs(*files: bytes) -> tuple[InputPicture, ...]:
    """What is said of such files."""
    return tuple(
        InputPicture(kind="image", format="png", width=data[19], height=2, bytes=len(data), sha256=sha256_of(data))
        for data in files
    )


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def keep_inputs(journal: Journal, number: int, *files: bytes) -> list[Stored]:
    """What came of it."""
    parts = [part for data in files for part in split_payload(data)]
    journal.store_inputs(job_id(number), inputs(*files), [zmq.Frame(bytes(part)) for part in parts])
    return stored(journal, 1)


def accepted_with(number: int, *files: bytes, source: int | None = None) -> JobAccepted:
    """A job that starts from such files, kept under its id or another one's."""
    order = structs.replace(ORDER, inputs=inputs(*files))
    return structs.replace(accepted(number), order=order, inputs_of=job_id(number if source is None else source))


def accepted(number: int) -> JobAccepted:
    return JobAccepted(
        job_id=job_id(number),
        owner="local",
        order=ORDER,
        notes=(Note(code="enlarged", message="größer"),),
        sequence=number,
        created_at=1.5 + number,
        deadline_at=3601.5,
    )


def dispatched(number: int, dispatch: int = 1) -> JobDispatched:
    return JobDispatched(job_id=job_id(number), dispatch=dispatch, worker_id="h/cpu", device="cpu", at=2.25)


def started(number: int) -> JobStarted:
    return JobStarted(job_id=job_id(number), started_at=3.125)


def requeued(number: int) -> JobRequeued:
    return JobRequeued(
        job_id=job_id(number),
        settled=1,
        attempts=1,
        failures=2,
        returns=3,
        engine_deaths=1,
        memory_failures=0,
        barred=("a", "b"),
        lost=True,
        not_before_at=9.75,
        reason="worker_lost: it was silent",
        at=5.0,
    )


def done(number: int, *parts: bytes) -> JobDone:
    return JobDone(
        job_id=job_id(number),
        picture=picture(b"".join(parts)),
        parts=tuple(len(part) for part in parts),
        timings=Timings(denoise_s=1.5),
        notes=(),
        ended_at=7.0,
    )


def failed(number: int) -> JobFailed:
    error = ErrorInfo(code="poison", message="it ended two engines", fault="server", next_step="do not")
    return JobFailed(job_id=job_id(number), error=error, settled=2, ended_at=8.0)


def revived(number: int, as_number: int) -> JobRevived:
    return JobRevived(job_id=job_id(number), as_job_id=job_id(as_number), at=9.0)


def cancelled(number: int) -> JobCancelled:
    return JobCancelled(job_id=job_id(number), ended_at=8.5)


def model(name: str, steps: int = 4) -> ModelKnown:
    return ModelKnown(card=ModelCard(name=name, steps=steps), model_path="models/x")


def key(name: str, number: int) -> KeyTaken:
    return KeyTaken(owner="local", key=name, job_id=job_id(number), digest=bytes([number % 256]) * 16, taken_at=4.0)


def keep_picture(journal: Journal, number: int, *parts: bytes, dispatch: int = 1) -> None:
    """Its picture is kept, though no record says so yet."""
    token = Token(job_id=job_id(number), dispatch=dispatch)
    journal.store(token, picture(b"".join(parts)), frames(*parts))
    assert stored(journal, 1) == [Stored(token)]


def finish(journal: Journal, number: int, *parts: bytes) -> None:
    """One job from its acceptance to its picture, committed."""
    for record in (accepted(number), dispatched(number), started(number)):
        journal.append(record)
    keep_picture(journal, number, *parts)
    journal.append(done(number, *parts))
    journal.commit()
