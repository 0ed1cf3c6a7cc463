"""Log lines as they come from files and from the journal, as one kind; and those that belong to one job's life.

Pure. Ours are JSON objects with an `event`, whatever stands before them on their line; `journalctl -o json` wraps each
in an object of its own (systemd.io/JOURNAL_EXPORT_FORMATS). What is neither is no line of ours.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from common.messages import JobMoment

PREFIX_CHARS_MIN = 8  # of a job's id
AFTER_S = 2.0  # a job has left a GPU: what is said there then may still be about it
LEVELS = {0: "error", 1: "error", 2: "error", 3: "error", 4: "warning", 5: "info", 6: "info", 7: "debug"}
HEADS = ("event", "level", "time", "process")
BESIDE = frozenset({"engine.started", "engine.ready", "engine.died", "engine.killed", "model.moved"})
GPU_PROCESSES = ("gpu-daemon", "engine", "systemd")
# A moment of a job's history, and the line that tells the same: whose, and which.
SAME = {
    "accepted": ("router", "job.accepted"),
    "started": ("gpu-daemon", "job.started"),
    "requeued": ("router", "job.requeued"),
    "done": ("router", "job.finished"),
    "failed": ("router", "job.failed"),
    "cancelled": ("router", "job.cancelled"),
}
SAME_S = 1.0  # apart at most: lines are written a moment later than things happen
HISTORY = "history"
SENT = re.compile(r"#(\d+) to (.+)", re.DOTALL)  # the detail of 'dispatched'


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. `at`: wall seconds; `host` is '' where it is not known; `fields` without the four heads."""

    at: float
    process: str
    level: str
    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    host: str = ""
    unit: str = ""
    source: str = ""  # the file that it was read from; '': the journal

    @property
    def origin(self) -> str:
        """What tells the lines of one host from those of another."""
        return self.host or self.source

    def job_ids(self) -> list[str]:
        """The jobs that it is about."""
        named = [self.fields.get("job_id"), self.fields.get("former"), *(self.fields.get("job_ids") or ())]
        return [job_id for job_id in named if isinstance(job_id, str)]

    def text(self, name: str) -> str:
        """A field that is a text, else ''."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""


def parse(text: str, *, source: str = "") -> LogLine | None:
    """A line of ours, or of systemd about one of our units; else None."""
    begin = text.find("{")
    if begin < 0:
        return None
    try:
        found = json.loads(text[begin:])
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    return _of_journal(found) if "MESSAGE" in found else _own(found, source=source)


def _own(
    found: Mapping[str, Any], *, host: str = "", unit: str = "", source: str = "", at: float | None = None
) -> LogLine | None:
    event, written = found.get("event"), found.get("time")
    if not isinstance(event, str) or not isinstance(written, str):
        return None
    try:
        told = datetime.fromisoformat(written).timestamp()
    except ValueError:
        if at is None:
            return None
        told = at
    fields = {key: value for key, value in found.items() if key not in HEADS}
    process, level = str(found.get("process", "")), str(found.get("level", "info"))
    return LogLine(told, process, level, event, fields, host, unit, source)


def _of_journal(entry: Mapping[str, Any]) -> LogLine | None:
    """An entry of `journalctl -o json`: texts that are no UTF-8 come as arrays of bytes, repeated fields as arrays."""
    try:
        at = int(_text(entry.get("__REALTIME_TIMESTAMP"))) / 1e6
        priority = int(_text(entry.get("PRIORITY")) or 6)
    except ValueError:
        return None
    host, message = _text(entry.get("_HOSTNAME")), _text(entry.get("MESSAGE"))
    unit = _text(entry.get("UNIT")) or _text(entry.get("_SYSTEMD_UNIT"))
    begin = message.find("{")
    if begin >= 0:
        try:
            found = json.loads(message[begin:])
        except ValueError:
            found = None
        if isinstance(found, dict):
            return _own(found, host=host, unit=unit, at=at)
    if not message or not unit.startswith("genserve"):
        return None
    process = _text(entry.get("SYSLOG_IDENTIFIER")) or _text(entry.get("_COMM"))
    return LogLine(at, process, LEVELS.get(priority, "info"), "", {"message": message}, host, unit)


def _text(value: Any) -> str:
    if isinstance(value, list):
        if value and all(isinstance(each, int) and 0 <= each < 256 for each in value):
            return bytes(value).decode("utf-8", "replace")
        return _text(value[0]) if value else ""
    return value if isinstance(value, str) else ""


def moment_line(moment: JobMoment, job_id: str) -> LogLine:
    """A moment of the router's own history of a job."""
    level = {"requeued": "warning", "failed": "error"}.get(moment.event, "info")
    fields: dict[str, Any] = {"job_id": job_id}
    if moment.event == "dispatched" and (sent := SENT.fullmatch(moment.detail)):
        fields |= {"dispatch": int(sent[1]), "worker_id": sent[2]}
    elif moment.detail:
        fields["detail"] = moment.detail
    return LogLine(moment.at, HISTORY, level, moment.event, fields)


# --- one job -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stay:
    """A job was with this daemon from then to then."""

    worker_id: str
    begin: float
    end: float


def names_of(lines: Iterable[LogLine], wanted: str) -> list[str]:
    """The whole ids that begin with `wanted`."""
    return sorted({job_id for line in lines for job_id in line.job_ids() if job_id.startswith(wanted)})


def is_about(line: LogLine, job_id: str) -> bool:
    """Is this job named in it?"""
    return job_id in line.job_ids()


def may_matter(line: LogLine) -> bool:
    """Could it stand beside a job's lines: something that happened on a GPU while it was there?"""
    if line.process not in (*GPU_PROCESSES, "router") or line.job_ids():
        return False
    return line.level in ("warning", "error") or line.event in BESIDE


def stays(history: Iterable[JobMoment], lines: Iterable[LogLine], *, now: float) -> list[Stay]:
    """Where the job was, and when: by its history, and by the lines of daemons that it is named in."""
    found: list[Stay] = []
    worker_id, begin = "", 0.0
    for moment in history:
        if moment.event == "started":
            continue
        if worker_id:
            found.append(Stay(worker_id, begin, moment.at))
            worker_id = ""
        if moment.event == "dispatched":
            sent = SENT.fullmatch(moment.detail)
            worker_id, begin = (sent[2] if sent else ""), moment.at
    if worker_id:
        found.append(Stay(worker_id, begin, now))
    told: dict[str, list[float]] = {}
    for line in lines:
        if line.process == "gpu-daemon" and line.text("worker_id"):
            told.setdefault(line.text("worker_id"), []).append(line.at)
    return found + [Stay(each, min(times), max(times)) for each, times in told.items()]


def beside(line: LogLine, where: Iterable[Stay], places: Mapping[str, tuple[str, str]]) -> bool:
    """Did it happen at one of these stays? `places`: worker_id -> (origin of its lines, device), as far as known."""
    if not may_matter(line):
        return False
    for stay in where:
        if not stay.begin <= line.at <= stay.end + AFTER_S:
            continue
        if line.text("worker_id"):
            if line.text("worker_id") == stay.worker_id:
                return True
            continue
        origin, device = places.get(stay.worker_id, ("", ""))
        number = device.rpartition(":")[2] if device else ""
        on_unit = line.process == "systemd" and bool(number) and line.unit.endswith(f"@{number}.service")
        on_device = bool(device) and line.text("device") == device
        if line.process != "router" and origin == line.origin and (on_unit or on_device):
            return True
    return False


def together(moments: Iterable[LogLine], lines: Iterable[LogLine]) -> tuple[list[LogLine], list[LogLine]]:
    """(lines, moments): the lines that tell a moment have its time, and the moments left are those that none tells."""
    told, untold = list(lines), []
    for moment in moments:
        process, event = SAME.get(moment.event, ("", ""))
        same = [at for at, line in enumerate(told) if (line.process, line.event) == (process, event)]
        nearest = min(same, key=lambda at: abs(told[at].at - moment.at), default=None)
        if nearest is None or abs(told[nearest].at - moment.at) > SAME_S:
            untold.append(moment)
        else:
            told[nearest] = replace(told[nearest], at=moment.at)
    return told, untold


def folded(lines: Iterable[tuple[LogLine, bool]]) -> list[tuple[LogLine, bool]]:
    """For a person: a client that looks after its job again and again is told once, with how often."""
    found: list[tuple[LogLine, bool]] = []
    first: dict[tuple[str, ...], int] = {}
    for line, about in lines:
        asked = tuple(str(line.fields.get(key)) for key in ("method", "path", "status"))
        if line.event != "http.request" or asked[0] != "GET":
            found.append((line, about))
        elif asked in first:
            kept = found[first[asked]][0]
            times = int(kept.fields.get("times", 1)) + 1
            found[first[asked]] = (replace(kept, fields={**kept.fields, "times": times}), about)
        else:
            first[asked] = len(found)
            found.append((line, about))
    return found


def in_order(lines: Iterable[LogLine]) -> list[LogLine]:
    """By time; what has the same time stays as it came."""
    return sorted(lines, key=lambda line: line.at)
