"""What the start and the end of every GenServe process have in common: its name, its signals, its exit.

A process that cannot start because of something a person must mend ends with EXIT_CONFIG after one line
that says what; whoever starts processes does not start such a one again.
"""

import ctypes
import faulthandler
import os
import resource
import signal
import sys
from collections.abc import Callable
from types import FrameType

import setproctitle

from common.errors import GenServeError
from common.priority import prioritized, to_journal

EXIT_OK = 0
EXIT_IOERR = 74  # EX_IOERR of sysexits.h
EXIT_CONFIG = 78  # EX_CONFIG
PARENT_ENDED = signal.SIGUSR1  # from the kernel; it may come several times: see die_with_parent
OUTPUTS = (1, 2)
FILES_MAX = 65_536  # as the units allow
_PR_SET_PDEATHSIG = 1  # prctl(2)


def allow_files() -> None:
    """Let this process have as many open files as it may: each connection is one, and a shell's usual bound is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def name_process(title: str) -> None:
    """Show as `title`, e.g. 'genserve router', in ps; and say on stderr where it was, should a fatal signal end it.

    Such as systemd's SIGABRT for one whose loop does not turn any more.
    """
    setproctitle.setproctitle(title)
    if sys.stderr is not None:
        faulthandler.enable()


def on_stop_signals(
    first: Callable[[], None], again: Callable[[], None], *, orphaned: Callable[[], None] | None = None
) -> None:
    """Call `first` at the first SIGTERM or SIGINT, `again` at every later one. Main thread only.

    The parent's end counts as a first one (with `orphaned` called instead, if given): all its children stop
    now. So does a terminal that is closed (SIGHUP), unless the process was started to outlive it (nohup). It is
    nobody's wish in either to hurry what stops already.
    """
    seen = False
    terminals = [descriptor for descriptor in OUTPUTS if os.isatty(descriptor)]

    def handle(signal_: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if signal_ == signal.SIGHUP:
            _leave(terminals)
        if not seen:
            seen = True
            (orphaned if orphaned and signal_ == PARENT_ENDED else first)()
        elif signal_ not in (PARENT_ENDED, signal.SIGHUP):
            again()

    for signal_ in (signal.SIGTERM, signal.SIGINT, PARENT_ENDED):
        signal.signal(signal_, handle)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handle)


def _leave(terminals: list[int]) -> None:
    """A terminal that is gone fails every write to it: what is still to be said while stopping goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in terminals:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def die_with_parent(parent_pid: int, signal_: signal.Signals = PARENT_ENDED) -> None:
    """From now on the kernel sends this process `signal_` when its parent ends (Linux; elsewhere nothing happens).

    `parent_pid` is the parent that started it: where that one has ended already, this process ends here.
    When a parent with several threads is killed, the kernel hands its children from each dying thread to one
    that still lives, and signals them each time: hence a signal of its own, which is counted once.
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
    text = f"genserve: {explain(error)}"
    if to_journal(sys.stderr):
        text = prioritized(text, "error")
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # said to a person, not logged
    return EXIT_CONFIG
