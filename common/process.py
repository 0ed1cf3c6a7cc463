"""What the start and the end of every GenServe process have in common: its name, its signals, its exit.

A process that cannot start because of something a person must mend ends with EXIT_CONFIG after one line
that says what; whoever starts processes does not start such a one again.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

import setproctitle

from common.errors import GenServeError

EXIT_OK = 0
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h
_PR_SET_PDEATHSIG = 1  # prctl(2)


def name_process(title: str) -> None:
    """Show as `title`, e.g. 'genserve router', in ps."""
    setproctitle.setproctitle(title)


def on_stop_signals(first: Callable[[], None], again: Callable[[], None]) -> None:
    """Call `first` at the first SIGTERM or SIGINT, `again` at every later one. Main thread only."""
    seen = False

    def handle(_signal: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            again()
        else:
            seen = True
            first()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def die_with_parent(parent_pid: int, signal_: signal.Signals) -> None:
    """From now on the kernel sends this process `signal_` when its parent ends (Linux; elsewhere nothing happens).

    `parent_pid` is the parent that started it: where that one has ended already, this process ends here.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal_), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        raise SystemExit(EXIT_OK)


def explain(error: GenServeError) -> str:
    """One paragraph for a person: what is wrong and what to do now."""
    return f"{error.message}\n  -> {error.kind.next_step}"


def exit_config(error: GenServeError) -> int:
    """Tell a person on stderr why this process cannot start; the status to end with."""
    print(f"genserve: {explain(error)}", file=sys.stderr, flush=True)  # noqa: T201  # said to a person, not logged
    return EXIT_CONFIG
