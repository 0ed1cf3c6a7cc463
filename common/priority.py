"""What the system journal is told of a line: its priority (sd-daemon(3)); and whether it is listening at all."""

import os
from typing import TextIO

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def to_journal(stream: TextIO) -> bool:
    """Does the system journal read this stream? It says so in JOURNAL_STREAM (systemd.exec(5))."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return os.environ.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"


def prioritized(text: str, level: str) -> str:
    """`text` as the journal reads it: each of its lines begins with the priority."""
    mark = f"<{_PRIORITIES.get(level, _PRIORITIES['info'])}>"
    return "\n".join(mark + line for line in text.split("\n"))
