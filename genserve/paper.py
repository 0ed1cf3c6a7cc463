"""Where a command's page goes: a terminal, as wide as it is; or a file, for which nothing is wrapped or cut.

`grep` finds there what a person would read in one line.
"""

import os
import sys
from typing import IO, Any, cast

from rich.console import Console

FILE_COLUMNS = 1000  # more than any page takes


def paper(*, highlight: bool = True) -> Console:
    """The console for what a command prints on stdout. COLUMNS, where it is set, is how wide it is in either case."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return Console(highlight=highlight)
    return Console(file=cast(IO[str], _Trimmed(sys.stdout)), width=FILE_COLUMNS, highlight=highlight)


class _Trimmed:
    """A file that is spared the blanks with which tables and paragraphs are filled up. Rich writes whole lines."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        self._file.write("\n".join(line.rstrip(" ") for line in text.split("\n")))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
