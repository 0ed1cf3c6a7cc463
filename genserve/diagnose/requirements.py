"""What packages GenServe needs, by its pyproject.toml in a checkout, else by its wheel; and what is installed."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from genserve.diagnose.finding import pip_install, quoted

NAME = "genserve"
CHECKOUT = Path(__file__).resolve().parents[2]
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:>=\s*(?P<least>\d[\d.]*))?(?P<rest>.*)")
_EXTRA = re.compile(r"""extra\s*==\s*["'](\w+)["']""")


@dataclass(frozen=True)
class Requirement:
    """A package, and the least version of it ('' for any)."""

    name: str
    least: str

    def __str__(self) -> str:
        return f"{self.name}>={self.least}" if self.least else self.name


def required(extra: str = "") -> list[Requirement]:
    """What GenServe itself needs; with `extra`, what that adds."""
    if table := _project():
        texts: Iterable[str] = table["optional-dependencies"][extra] if extra else table["dependencies"]
        return [_parse(text) for text in texts]
    try:
        declared = metadata.requires(NAME) or []
    except metadata.PackageNotFoundError:
        return []
    return [_parse(text) for text in declared if _extra_of(text) == extra]


def package(extra: str = "") -> str:
    """GenServe itself as pip takes it: the checkout that runs, else the package."""
    return (str(CHECKOUT) if _project() else NAME) + (f"[{extra}]" if extra else "")


def restore(folder: Path) -> str:
    """The command that puts a folder of GenServe's own back as it was shipped."""
    if _project():
        return quoted("git", "-C", CHECKOUT, "checkout", "--", folder.relative_to(CHECKOUT))
    return pip_install(NAME, options="--force-reinstall --no-deps")


def newer() -> str:
    """The command that gets the newest GenServe."""
    if _project():
        return f"{quoted('git', '-C', CHECKOUT, 'pull')} && {pip_install(package())}"
    return pip_install(NAME, options="--upgrade")


def _project() -> dict[str, Any]:
    """The project's table in the checkout that runs; empty where it is an installed wheel."""
    project = CHECKOUT / "pyproject.toml"
    table: dict[str, Any] = tomllib.loads(project.read_text("utf-8")).get("project", {}) if project.exists() else {}
    return table if table.get("name") == NAME else {}


def installed() -> Mapping[str, str]:
    """Version by name, in small letters, of everything that can be imported here; the first on the path counts."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(_plain(name), distribution.version or "")
    return found


def lacking(requirements: Iterable[Requirement], there: Mapping[str, str]) -> list[tuple[Requirement, str]]:
    """Those that are not met, each with the version that is there instead, '' for none."""
    return [
        (wanted, have)
        for wanted in requirements
        if not (have := there.get(_plain(wanted.name), "")) or release(have) < release(wanted.least)
    ]


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without trailing zeros: 2.13.0+cpu is (2, 13)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _parse(text: str) -> Requirement:
    found = _REQUIREMENT.match(text)
    assert found, text
    return Requirement(found["name"], found["least"] or "")


def _extra_of(text: str) -> str:
    found = _EXTRA.search(text)
    return found[1] if found else ""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
