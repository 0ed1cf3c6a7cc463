"""Commands that change one setting where it was set: in the shell, or in its line of the settings file.

They are shown to a person; nothing here runs them.
"""

import re
from pathlib import Path
from typing import Any

from common.settings import OLDER_NAMES, PREFIX
from genserve.diagnose.finding import quoted
from genserve.diagnose.host import Host


def setting(host: Host, name: str, value: Any) -> str:
    """The command that gives the setting `name` ('router.client_endpoint') this value."""
    source = host.source(name)
    section, _, key = name.partition(".")
    if source.startswith("--"):
        return f"genserve up {source} {quoted(str(value))}"
    if source.startswith(PREFIX) or source in OLDER_NAMES:
        return f"export {source}={quoted(str(value))}" if value != "" else f"unset {source}"
    if source == "default":
        return f"export {PREFIX}{section.upper()}_{key.upper()}={quoted(str(value))}"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return in_file(source, section, key, f"s|=.*|= {text}|")


def in_file(path: str, section: str, key: str, script: str) -> str:
    """The command that lets sed run `script` on the line of a key; an editor where no such line is found."""
    number = line_of(path, section, key)
    return f"{root(path)}sed -i {quoted(f'{number}{script}')} {quoted(path)}" if number else edit(path)


def edit(path: str, line: int = 1) -> str:
    """The command that opens a file at a line."""
    return f"{root(path)}${{EDITOR:-nano}} +{line} {quoted(path)}"


def root(path: str) -> str:
    """'sudo ' for what lies where only root writes."""
    return "sudo " if path.startswith(("/etc/", "/var/")) else ""


def line_of(path: str, section: str, key: str) -> int:
    """In which line, from 1, a TOML file sets a key of a table; 0 where it does not."""
    table = ""
    try:
        lines = Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return 0
    for number, line in enumerate(lines, start=1):
        if head := re.match(r"\s*\[([^\]]+)\]", line):
            table = head[1].strip()
        elif table == section and re.match(rf"\s*{re.escape(key)}\s*=", line):
            return number
    return 0
