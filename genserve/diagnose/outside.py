"""Other programs that a check asks, each within a bound: our own probes in processes of their own, and the system's.

What they import or load never lies in the diagnosis itself, and may crash.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from genserve.diagnose.host import NotChecked

SAID_CHARS_MAX = 400


class ProbeFailed(Exception):  # noqa: N818  # says what happened
    """A probe that ended without an answer: how, and its last words."""


def probe(module: str, arguments: Sequence[str], env: Mapping[str, str], *, within_s: float) -> Any:
    """The JSON that `python -m module` prints. Raises ProbeFailed."""
    command = [sys.executable, "-P", "-m", module, *arguments]
    with tempfile.TemporaryDirectory(prefix="genserve-probe-") as aside:  # torch leaves folders behind
        try:
            done = subprocess.run(  # noqa: S603  # our own module
                command,
                env={"PATH": os.defpath, **env, "TMPDIR": aside},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=within_s,
            )
        except subprocess.TimeoutExpired:
            raise ProbeFailed(f"it did not answer within {within_s:g} s") from None
    if done.returncode == 0 and done.stdout.strip():
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        how = f"it was ended by {signal.Signals(-done.returncode).name}"
    else:
        how = f"it ended with status {done.returncode}"
    last = (done.stderr.strip().splitlines() or [""])[-1][:SAID_CHARS_MAX]
    raise ProbeFailed(f"{how}: {last}" if last else how)


def said(*command: str, env: Mapping[str, str], within_s: float = 5.0) -> str:
    """What a command of the system prints, whatever its status. Raises NotChecked where it is not there or hangs."""
    program = shutil.which(command[0], path=env.get("PATH", os.defpath))
    if program is None:
        raise NotChecked(f"there is no {command[0]} on this machine")
    try:
        done = subprocess.run(  # noqa: S603  # fixed words, no shell
            [program, *command[1:]],
            env={"LC_ALL": "C", "PATH": os.defpath, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=within_s,
        )
    except subprocess.TimeoutExpired:
        raise NotChecked(f"{command[0]} did not answer within {within_s:g} s") from None
    except OSError as error:
        raise NotChecked(f"{command[0]} cannot be run: {error.strerror}") from None
    return done.stdout
