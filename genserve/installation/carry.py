"""Does the steps of an installation, or shows them: the only place of this folder that changes the host's files."""

import difflib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from genserve.files import write_atomically
from genserve.installation.layout import WANTS
from genserve.installation.steps import SECRET_FILE, File, Folder, Host, Kept, Note, Present, Remove, Run, Step
from genserve.installation.trouble import HostError

STYLES = {
    "new": "green",
    "changed": "yellow",
    "unchanged": "dim",
    "kept": "dim",
    "removed": "red",
    "run": "cyan",
    "note": "bold",
}
VERB_COLUMNS = 10


def look(paths: Iterable[Path]) -> Host:
    """What is at these paths now, and which units start at boot. What root alone may see is missed by others."""
    present = {}
    for path in paths:
        try:
            if path.is_symlink() and not path.exists():
                present[path] = Present(0o777, b"")  # leads nowhere, but is there
                continue
            mode = path.stat().st_mode
            present[path] = Present(stat.S_IMODE(mode), None if stat.S_ISDIR(mode) else path.read_bytes())
        except (FileNotFoundError, PermissionError):
            continue
    links = [link for folder in WANTS if folder.is_dir() for link in folder.iterdir()]
    return Host(present, frozenset(link.name for link in links if link.name.startswith("genserve")))


def carry(steps: Sequence[Step], console: Console, *, dry_run: bool) -> None:
    """Do each step in turn and say so; with `dry_run` only say, with all that would be written.

    Raises HostError at the first that fails: what was done before stays, and a second try goes on from there.
    """
    for step in steps:
        _say(step, console, dry_run=dry_run)
        if not dry_run:
            try:
                _do(step)
            except (OSError, subprocess.CalledProcessError) as error:
                raise HostError(_failure(error)) from None


def _do(step: Step) -> None:
    match step:
        case Folder(path, mode):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)
        case File(path, data, mode):
            write_atomically(path, data, mode=mode)
            os.chown(path, 0, 0)
        case Remove(path) if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        case Remove(path):
            path.unlink(missing_ok=True)
        case Run(argv, may_fail):
            run(argv, check=not may_fail)
        case Kept() | Note():
            pass


def run(argv: Sequence[str], *, check: bool = True) -> str:
    """What a command of the system says on stdout. Raises CalledProcessError, OSError."""
    done = subprocess.run(argv, capture_output=True, text=True, check=check)  # noqa: S603  # fixed words, no shell
    return done.stdout


def _failure(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or error}: {error.strerror}. Mend that and say the same again"
    said = (error.stderr or error.stdout or "").strip()
    return f"`{' '.join(error.cmd)}` ended with {error.returncode}: {said or 'it said nothing'}"


def _say(step: Step, console: Console, *, dry_run: bool) -> None:
    match step:
        case Folder(path, mode, before):
            _line(console, "changed" if before else "new", f"{path}/ (root, {mode:04o})")
        case File(path, _, mode, before):
            _line(console, "changed" if before else "new", f"{path} (root, {mode:04o})")
            if dry_run:
                console.print(_content(step), soft_wrap=True, highlight=False)
        case Kept(path, why):
            _line(console, "unchanged" if why == "unchanged" else "kept", f"{path}{_because(why)}")
        case Remove(path):
            _line(console, "removed", str(path))
        case Run(argv):
            _line(console, "run", " ".join(argv))
        case Note(text):
            _line(console, "note", text)


def _because(why: str) -> str:
    return "" if why == "unchanged" else f" ({why})"


def _line(console: Console, verb: str, text: str) -> None:
    console.print(Text.assemble((f"  {verb:<{VERB_COLUMNS}}", STYLES[verb]), text), soft_wrap=True)


def _content(step: File) -> Text:
    """The whole of a new file, what changes in an old one, and of a secret neither."""
    if step.mode == SECRET_FILE:
        return Text(f"      ({len(step.data)} bytes that stay secret)\n", style="dim")
    after = step.data.decode().splitlines()
    if step.before is None or step.before.data is None:
        return Text("\n".join(["", *(f"      {line}".rstrip() for line in after), ""]), style="dim")
    before = step.before.data.decode("utf-8", "replace").splitlines()
    lines = list(difflib.unified_diff(before, after, "now", "then", lineterm=""))
    return Text("\n".join(["", *(f"      {line}" for line in lines or ["(only its mode)"]), ""]), style="dim")
