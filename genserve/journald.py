"""The system journal, read by `journalctl -o json`: which entries, and the command that reads them elsewhere.

Knows nothing of jobs but the first eight characters of an id.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

UNITS = "genserve*"
MARGIN_S = 5.0  # before a job was accepted and after it has ended
ERROR_LINES_MAX = 3


@dataclass(frozen=True)
class Window:
    """Which entries: those of our units, of a time, with a word in them. Wall seconds; None: no bound."""

    since: float | None = None
    until: float | None = None
    word: str = ""


@dataclass(frozen=True)
class Journal:
    """Where the journal is: this host's, all that `journalctl --merge` sees, or a folder of journals."""

    merge: bool = False
    directory: Path | None = None

    def command(self, window: Window, *, follow: bool = False) -> list[str]:
        """The argv that reads it."""
        command = ["journalctl", "-o", "json", "--all", "--no-pager", "-u", UNITS]
        if self.merge:
            command.append("--merge")
        if self.directory is not None:
            command += ["--directory", os.fspath(self.directory)]
        if window.since is not None:
            command += ["--since", f"@{int(window.since - MARGIN_S)}"]
        if window.until is not None:
            command += ["--until", f"@{int(window.until + MARGIN_S) + 1}"]
        if window.word:
            command += ["--grep", window.word]
        return [*command, "--follow", "--lines", "all"] if follow else command

    def read(self, window: Window, troubles: list[str]) -> Iterator[str]:
        """The entries, one JSON object each. What went wrong is added to `troubles`, for a person."""
        if shutil.which("journalctl") is None:
            troubles.append("there is no journalctl on this host: name files of log lines with --file")
            return
        with self.start(window) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            yield from process.stdout
            said = [line.strip() for line in process.stderr if line.strip()]
        if process.returncode and window.word and any("pattern matching" in line for line in said):
            yield from self.read(replace(window, word=""), troubles)  # compiled without it: read everything
        elif any("filter for units" in line for line in said):
            troubles.append(f"this host's journal has no entry of a unit {UNITS}")
        elif said and "-- No entries --" not in said[0]:
            troubles.append("journalctl says: " + " ".join(said[:ERROR_LINES_MAX]))

    def start(self, window: Window, *, follow: bool = False) -> "subprocess.Popen[str]":
        """The process that reads it."""
        return subprocess.Popen(  # noqa: S603  # our own arguments, of which the user's are one word each
            self.command(window, follow=follow),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )


def elsewhere(host: str, window: Window, file_name: str) -> str:
    """The command that brings another host's entries into a file here."""
    remote = shlex.join(Journal().command(window))
    return f"ssh {shlex.quote(host)} {shlex.quote(remote)} > {shlex.quote(file_name)}"
