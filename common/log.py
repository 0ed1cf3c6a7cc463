"""Structured logs: one event a line, JSON for machines, a readable form with icons for a person.

Every line has `event` (a stable dotted name), `level`, `time` (UTC) and `process`. Lines about a job carry
`job_id` and `job`, its first eight characters; failures carry `traceback`. Prompts appear at debug only.
"""

import errno
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

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
_FIRST_SHOWN = ("job", "device", "elapsed_s")  # of the fields, to a person
_READER_GONE = (errno.EPIPE, errno.EIO)  # of a pipe, of a terminal
_NOT_SHOWN = ("job_id", "job_ids", "worker_id", "request_id")  # said shorter by another field


def configure(process: str, settings: LogSettings) -> FilteringBoundLogger:
    """Make every later `get_logger()` of this process write to stdout as `settings` says."""
    readable = settings.format == "console" or (settings.format == "auto" and sys.stdout.isatty())
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
            _console if readable else structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Output(sys.stdout))),
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


def _console(_: WrappedLogger, __: str, event: EventDict) -> str:
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
    return repr(text) if " " in text and "\n" not in text else text
