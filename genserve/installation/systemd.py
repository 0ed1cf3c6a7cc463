"""What systemd says of GenServe's units, and waiting until one is what it should be.

Only `systemctl` and `journalctl` are spoken to.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.clock import monotonic_s
from genserve.installation.carry import run
from genserve.installation.trouble import HostError

PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "Result", "StatusText", "NRestarts", "Job", "ExecStart")
LOOK_INTERVAL_S = 0.2
RESTARTS_MAX = 3  # ends of a unit that is just starting, after which nobody waits for it any more
LOG_LINES = 8


@dataclass(frozen=True)
class Unit:
    """How one unit stands."""

    name: str
    there: bool  # its file is
    active: str  # 'active', 'activating', 'deactivating', 'failed', 'inactive'
    sub: str
    result: str
    status: str  # in its own words
    restarts: int
    busy: bool  # systemd is about to start or stop it
    command: str  # that it starts

    @property
    def up(self) -> bool:
        """Ready, and not about to be anything else."""
        return self.active == "active" and not self.busy

    @property
    def wanted_up(self) -> bool:
        """Runs, or is tried again and again."""
        return self.active not in ("inactive", "failed") or self.sub == "auto-restart"


def look_at(names: Sequence[str]) -> list[Unit]:
    """How these units stand, in this order."""
    if not names:
        return []
    said = run(("systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *names))
    return [_unit(block) for block in said.strip().split("\n\n")]


def running_units() -> list[str]:
    """Every unit of GenServe that systemd has in memory and that is not simply off."""
    said = run(("systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", "genserve*"))
    names = [line.split()[0] for line in said.splitlines() if line.strip()]
    return [unit.name for unit in look_at(names) if unit.wanted_up or unit.active == "failed"]


def listens(socket: str) -> list[str]:
    """The addresses that a socket unit names, as systemd has read it last, e.g. '127.0.0.1:12411', '[::]:12411'."""
    said = run(("systemctl", "show", "--property=Listen", "--value", "--", socket))
    return [line.rpartition(" (")[0] for line in said.splitlines() if line.endswith("(Stream)")]


def begin(verb: str, names: Sequence[str]) -> None:
    """Have systemd start or restart units, without waiting for it."""
    run(("systemctl", verb, "--no-block", "--", *names))


def wait_until_up(names: Sequence[str], news: Callable[[Unit], None]) -> None:
    """Until each of these is ready. `news` is called whenever one stands differently, its numbers aside.

    Bounded by the units' own start and stop timeouts. Raises HostError for one that fails, or ends again and
    again while it starts, with what it said last.
    """
    first = {unit.name: unit for unit in look_at(names)}
    told: dict[str, tuple[str, ...]] = {}
    while True:
        units = look_at(names)
        for unit in units:
            stands = (unit.active, str(unit.up), re.sub(r"\d+", "", unit.status))
            if told.get(unit.name) != stands:
                told[unit.name] = stands
                news(unit)
            if unit.active == "failed" and not unit.busy:
                raise HostError(f"{unit.name} failed ({unit.result}). {_last_words(unit.name)}")
            if unit.restarts - first[unit.name].restarts >= RESTARTS_MAX:
                raise HostError(f"{unit.name} ends whenever it starts. {_last_words(unit.name)}")
            if unit.active == "inactive" and not unit.busy and unit.sub != "auto-restart":
                raise HostError(f"{unit.name} was stopped by someone else")
        if all(unit.up for unit in units):
            return
        time.sleep(LOOK_INTERVAL_S)


def seconds_since(began: float) -> str:
    """For people."""
    return f"{monotonic_s() - began:.1f} s"


def _unit(block: str) -> Unit:
    facts = dict(line.partition("=")[::2] for line in block.splitlines())
    _, _, command = facts.get("ExecStart", "").partition("argv[]=")
    return Unit(
        name=facts["Id"],
        there=facts["LoadState"] == "loaded",
        active=facts["ActiveState"],
        sub=facts["SubState"],
        result=facts.get("Result", ""),
        status=facts.get("StatusText", ""),
        restarts=int(facts.get("NRestarts", "0") or 0),
        busy=facts.get("Job", "") not in ("", "0"),
        command=command.split(" ")[0] if command else "",
    )


def _last_words(name: str) -> str:
    """What its process wrote last; what systemd says of it, where it wrote nothing: it may not have come to run."""
    run(("journalctl", "--sync"), check=False)
    read = ("journalctl", "--unit", name, "--lines", str(LOG_LINES), "--output=cat", "--no-pager")
    said = run((*read, "_TRANSPORT=stdout"), check=False).strip() or run(read, check=False).strip()
    lines = "".join(f"\n    {line}" for line in said.splitlines())
    return f"Its last lines (more: journalctl -u {name} -e):{lines}"
