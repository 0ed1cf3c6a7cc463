"""Runs checks one after another, each within its bound: neither a hang nor a crash of one ends the diagnosis."""

import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from genserve.diagnose.finding import Check, Finding, merged, quoted
from genserve.diagnose.host import Host, NotChecked


def diagnose(checks: Iterable[Check], host: Host, *, quick: bool = False) -> Iterator[Finding]:
    """What each check finds, as soon as it is known."""
    for check in checks:
        if quick and check.slow:
            yield Finding(check.name, "ok", "not checked: --quick leaves it out", skipped=True)
        else:
            yield _within_bound(check, host)


def _within_bound(check: Check, host: Host) -> Finding:
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.append(_outcome(check, host)), name=check.name, daemon=True)
    thread.start()
    try:
        bound_s = check.bound_s(host)
    except Exception:  # the same fault ends the check itself, which tells it
        bound_s = 1.0
    thread.join(bound_s)
    if found:
        return found[0]
    return Finding(
        check.name,
        "fail",
        f"it did not end within {bound_s:g} s{_where(thread)}: something it looks at does not answer",
        quoted("genserve", "diagnose", "--only", check.name),
    )


def _outcome(check: Check, host: Host) -> Finding:
    try:
        return merged(check.name, list(check.look(host)))
    except NotChecked as why:
        return Finding(check.name, "ok", f"not checked: {why}", skipped=True)
    except Exception as error:  # a fault of the check's own must not hide what the others find
        at = traceback.extract_tb(error.__traceback__)[-1]
        return Finding(
            check.name,
            "fail",
            f"the check itself failed: {type(error).__name__}: {error} ({Path(at.filename).name}:{at.lineno}). "
            "Please report it",
            quoted("genserve", "diagnose", "--only", check.name, "--json"),
        )


def _where(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)  # the only way to see another thread
    if frame is None:
        return ""
    return f" (it is in {frame.f_code.co_name}, {Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
