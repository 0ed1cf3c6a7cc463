"""Structured logs: one event a line, JSON for machines, a readable form with icons for a person.

Every line has `event` (a stable dotted name; docs/logs.md lists them), `level`, `time` (UTC) and `process`. Lines about
a job carry `job_id` and `job`, its first eight characters; failures carry `traceback`. Prompts appear at debug only.
Under systemd each line begins with its priority, `<3>` to `<7>`, which the journal takes off again.
"""

import errno
import io
import json
import logging
import math
import os
import sys
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from common.priority import prioritized, to_journal
from common.settings import LogSettings

ICONS = {
    "job.started": "🚀",
    "device.set": "🎯",
    "job.done": "✅",
    "model.moved": "🔄",
    "error": "❌",
    "warning": "⚠️ ",
}
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FIRST = ("event", "level", "time", "process")
LINE_BYTES_MAX = 47 * 1024  # the journal cuts at LineMax, 48 KiB, wherever that is
CUT_BYTES_MIN = 64  # what stays of a field that is cut
_KEPT = (*_FIRST, "job_id", "job", "worker_id", "device")  # of a line that has too many fields
_FIRST_SHOWN = ("job", "device", "elapsed_s")  # of the fields, to a person
_READER_GONE = (errno.EPIPE, errno.EIO)  # of a pipe, of a terminal
_NOT_SHOWN = ("job_id", "job_ids", "worker_id", "request_id")  # said shorter by another field


def configure(process: str, settings: LogSettings, *, stream: TextIO | None = None) -> FilteringBoundLogger:
    """Make every later `get_logger()` of this process write to `stream`, else to stdout, as `settings` says."""
    stream = stream or sys.stdout
    readable = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    if isinstance(stream, io.TextIOWrapper):  # whatever the locale: a line with an odd character is still a line
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _ProcessName(process),
            _name_job,
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("event"),
            _traceback,
            _Line(_console if readable else json_line, marked=to_journal(stream)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Output(stream))),
        cache_logger_on_first_use=True,
    )
    return get_logger()


def get_logger() -> FilteringBoundLogger:
    """The process's logger."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def write(logger: FilteringBoundLogger, level: str, event: str, fields: Mapping[str, Any]) -> None:
    """Write one line that a pure room has decided on."""
    logger.log(_LEVELS[level], event, **fields)


def json_line(event: Mapping[str, Any]) -> str:
    """One JSON object of at most LINE_BYTES_MAX: of what is too long the middle is left out, and `cut` names it."""
    text = _json(event)
    if len(text) * 4 <= LINE_BYTES_MAX or _bytes(text) <= LINE_BYTES_MAX:
        return text
    # As much of each field as fits, equally for all: in bytes of JSON a character may be six times as long as it is.
    rooms = range(CUT_BYTES_MIN, LINE_BYTES_MAX, CUT_BYTES_MIN)
    wholes = {key: value if isinstance(value, str) else _json({"": value})[5:-1] for key, value in event.items()}
    fits = bisect_left(rooms, True, key=lambda room: _bytes(_json(_cut(event, wholes, room))) > LINE_BYTES_MAX)
    if fits:
        return _json(_cut(event, wholes, rooms[fits - 1]))
    return _json({**_cut({key: event[key] for key in _KEPT if key in event}, wholes, CUT_BYTES_MIN), "cut": ["…"]})


def _cut(event: Mapping[str, Any], wholes: Mapping[str, str], room: int) -> dict[str, Any]:
    """The event, of whose fields none but the heads is longer than `room` bytes; `wholes` are they as text."""
    long = [key for key in event if key not in _FIRST and _bytes(wholes[key]) > room]
    return {**event, **{key: _without_middle(wholes[key], room) for key in long}, "cut": long}


def _without_middle(text: str, bytes_max: int) -> str:
    """The beginning and, twice as long, the end: a traceback ends with what happened."""
    data = text.encode("utf-8", "replace")
    if len(data) <= bytes_max:
        return text
    first, last = bytes_max // 3, 2 * bytes_max // 3
    begin, end = (part.decode("utf-8", "ignore") for part in (data[:first], data[-last:]))
    return f"{begin} … {len(data) - first - last} bytes left out … {end}"


def _json(event: Mapping[str, Any]) -> str:
    try:
        return json.dumps(event, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:  # nan and the infinities, which are no JSON
        return json.dumps(_finite(event), ensure_ascii=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace"))


class _Line:
    """The last of the processors: an event as text, with its priority where the journal reads it."""

    def __init__(self, render: Callable[[EventDict], str], *, marked: bool) -> None:
        self._render = render
        self._marked = marked

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> str:
        level = str(event.get("level", ""))
        text = self._render(event)
        return prioritized(text, level) if self._marked else text


class _Output:
    """A stream until its reader has gone: a process goes on with its work though nobody reads its log any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except OSError as error:
            self._discard(error)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error: OSError) -> None:
        """Send this and all that follows to nowhere, for every writer of the stream's descriptor."""
        if error.errno not in _READER_GONE:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


class _ProcessName:
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["process"] = self.name
        return event


def _name_job(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    job_id = event.get("job_id")
    if isinstance(job_id, str):
        event["job"] = job_id[:8]
    return event


def _traceback(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if "exception" in event:
        event["traceback"] = event.pop("exception")
    return {**{key: event[key] for key in _FIRST if key in event}, **event}


def _console(event: EventDict) -> str:
    name, level = str(event.pop("event")), str(event.pop("level"))
    icon = ICONS.get(level) or ICONS.get(name) or "  "
    clock = str(event.pop("time"))[11:19]
    process, traceback = event.pop("process"), event.pop("traceback", "")
    if "device" not in event and "worker_id" in event:
        event["device"] = event["worker_id"]
    shown = {key: event[key] for key in (*_FIRST_SHOWN, *event) if key in event and key not in _NOT_SHOWN}
    fields = " ".join(f"{key}={_plain(value)}" for key, value in shown.items() if value != "")
    line = f"{clock} {icon} {process:<10} {name:<18} {fields}".rstrip()
    return f"{line}\n{traceback}" if traceback else line


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    text = str(value)
    if not text.isprintable():  # nobody writes lines of their own, or to the terminal
        return _escaped(text)
    return repr(text) if " " in text else text


def _escaped(text: str) -> str:
    escaped = (each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return f"'{''.join(escaped)}'"
