"""What a check is, and what it finds: ok, warn or fail, the cause in words, and the command that mends it.

Knows nothing of what is checked or how it is shown.
"""

import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from genserve.diagnose.host import Host, NotChecked

Status: TypeAlias = Literal["ok", "warn", "fail"]
WORSE: tuple[Status, ...] = ("ok", "warn", "fail")
BOUND_S = 10.0
LINES_MAX = 40  # of the details and of the commands of one check


@dataclass(frozen=True)
class Note:
    """One thing that a check has to say. A `fix` is for a shell; what is not ok has one."""

    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Finding:
    """What became of a check. `skipped`: nothing could be said, for the reason in `detail`."""

    name: str
    status: Status
    detail: str
    fix: str = ""
    skipped: bool = False


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis. `about` says in one sentence what it looks at; `name` is group.name.

    `bound_s` is how long it may take; `slow` ones are left out with --quick.
    """

    name: str
    about: str
    look: Callable[[Host], Iterable[Note]]
    bound_s: Callable[[Host], float]
    slow: bool = False

    @property
    def group(self) -> str:
        """What it belongs to."""
        return self.name.partition(".")[0]


Look: TypeAlias = Callable[[Host], Iterable[Note]]


def check(
    name: str, about: str, *, bound_s: float | Callable[[Host], float] = BOUND_S, slow: bool = False
) -> Callable[[Look], Check]:
    """Makes a check of a function that yields notes. Raising NotChecked says why it has nothing to say."""
    bound = bound_s if callable(bound_s) else (lambda _host: bound_s)
    return lambda look: Check(name, about, look, bound, slow)


def ok(detail: str) -> Note:
    """Nothing to do."""
    return Note("ok", detail)


def warn(detail: str, fix: str) -> Note:
    """It works, but not as it should."""
    return Note("warn", detail, fix)


def fail(detail: str, fix: str) -> Note:
    """GenServe cannot serve so."""
    return Note("fail", detail, fix)


def merged(name: str, notes: Iterable[Note]) -> Finding:
    """One finding of all that a check has said: the worst status; what is wrong before what is right."""
    said = sorted(notes, key=lambda note: -WORSE.index(note.status))
    if not said:
        raise NotChecked("there is nothing to look at")
    fixes = list(dict.fromkeys(note.fix for note in said if note.fix))
    return Finding(name, said[0].status, _lines([note.detail for note in said]), _lines(fixes, comment=True))


def _lines(texts: list[str], *, comment: bool = False) -> str:
    more = len(texts) - LINES_MAX
    shown = texts[:LINES_MAX] + ([f"{'# ' if comment else ''}and {more} more"] if more > 0 else [])
    return "\n".join(shown)


def quoted(*words: str | Path) -> str:
    """Words as a shell takes them."""
    return shlex.join(map(str, words))


def pip_install(*requirements: str, options: str = "") -> str:
    """The command that installs into the environment that runs this."""
    words = [sys.executable, "-m", "pip", "install", *options.split(), *requirements]
    return quoted(*words)


def mib(size: float) -> str:
    """Bytes in MiB or GiB."""
    value = size / 2**20
    return f"{value / 1024:.1f} GiB" if value >= 1024 else f"{value:.0f} MiB" if value >= 10 else f"{value:.1f} MiB"
