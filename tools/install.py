"""Installs the project into the virtual environment that runs this file: `python tools/install.py [EXTRA…]`.

Standard library only, since it runs before anything is installed. What pip does is shown in a few lines:
each large download with its progress, then the installation; everything pip said is shown where it fails.
"""

import re
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
PIP = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
LARGE = re.compile(r"\s*Downloading (?P<file>[^\s/]+) \((?P<size>[\d.]+ [MG]B)\)")
PROGRESS = re.compile(r"Progress (?P<done>\d+) of (?P<total>\d+)")
SAID_LINES = 60  # of pip, told where it fails


class Line:
    """The line at the bottom: rewritten on a terminal, elsewhere printed once."""

    def __init__(self) -> None:
        self._moving = sys.stdout.isatty()

    def stage(self, text: str) -> None:
        """A new line."""
        self._write(("\r\033[K" if self._moving else "") + f"  {text}\n")

    def move(self, text: str) -> None:
        """The same line again; nothing where there is no terminal."""
        if self._moving:
            self._write(f"\r\033[K  {text}")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def install(extras: list[str]) -> int:
    """Install pip itself, then the project with `extras`, all as constraints.txt pins them; pip's exit status."""
    line = Line()
    line.stage("pip")
    own = subprocess.run(  # noqa: S603  # this interpreter's own pip
        [*PIP, "--quiet", "--constraint", str(CONSTRAINTS), "pip"], check=False
    )
    if own.returncode:
        return own.returncode
    target = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    pins = ["--constraint", str(CONSTRAINTS), "--build-constraint", str(CONSTRAINTS)]
    command = [*PIP, "--progress-bar", "raw", *pins, "--editable", target]
    said: deque[str] = deque(maxlen=SAID_LINES)
    line.stage(f"packages for {', '.join(extras) or 'the service'} (the first time this downloads up to 3 GB)")
    with subprocess.Popen(  # noqa: S603  # as above
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        _follow(process.stdout, line, said)
    line.move("")
    if process.returncode:
        sys.stdout.write("".join(said))
    return process.returncode


def _follow(output: IO[str], line: Line, said: deque[str]) -> None:
    file = ""
    for text in output:
        if progress := PROGRESS.match(text):
            done, total = int(progress["done"]), int(progress["total"])
            if file:
                line.move(f"{file}: {100 * done // max(total, 1)} % of {total // 1_000_000} MB")
            continue
        said.append(text)
        file = ""
        if large := LARGE.match(text):
            file = large["file"].split("-")[0]
            line.stage(f"downloading {file} ({large['size']})")
        elif text.startswith("Installing collected packages"):
            line.stage(f"installing {text.count(',') + 1} packages")
        elif text.startswith("Building editable"):
            line.move("building genserve")


if __name__ == "__main__":
    sys.exit(install(sys.argv[1:]))
