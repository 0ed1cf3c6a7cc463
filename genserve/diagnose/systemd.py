"""GenServe's units: installed, of this version, and how systemd says they stand."""

import os
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from common.errors import SettingsError
from genserve.diagnose.finding import Note, check, fail, ok, quoted, warn
from genserve.diagnose.host import ROUTER_UNIT, Host, NotChecked
from genserve.diagnose.outside import said
from genserve.installation import layout, sources
from genserve.installation.door import http_address

FIELDS = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainStatus",
    "NRestarts",
    "StatusText",
    "UnitFileState",
    "NeedDaemonReload",
)
COMMAND = re.compile(r"^ExecStart=(\S+/genserve)\s", re.MULTILINE)  # genserve-devices runs only the system's
LISTEN = re.compile(r"^ListenStream=(\S+)", re.MULTILINE)
RESTARTS_MANY = 5
EXIT_CONFIG = "78"


@check("systemd.units", "The unit files on this machine, against those that this version ships")
def units(host: Host) -> Iterator[Note]:
    """Changes of one's own belong into drop-ins, which stay."""
    _need_systemd(host)
    shipped = {name: text for name, text in sources.shipped().items() if layout.place_of(name).parent == layout.UNITS}
    there = {name: host.units / name for name in shipped if (host.units / name).exists()}
    if not there:
        raise NotChecked(f"no unit of GenServe is installed in {host.units}: sudo genserve install")
    if masked := [name for name, path in there.items() if path.resolve() == Path("/dev/null")]:
        yield fail(f"{', '.join(masked)} masked: never started", f"sudo systemctl unmask {' '.join(masked)}")
    outdated = [name for name, path in there.items() if name not in masked and not _same(path, shipped[name])]
    if outdated:
        yield warn(
            f"{', '.join(outdated)} differ from those of this version ({version('genserve')})", "sudo genserve upgrade"
        )
    needed = {layout.TARGET, layout.GPU_TEMPLATE} & set(shipped)
    if missing := sorted(needed - set(there)):
        yield fail(f"{', '.join(missing)} not installed", "sudo genserve install")
    if not masked and not outdated and not missing:
        yield ok(f"{len(there)} files, as this version ships them")


@check("systemd.command", "What the units run: that it is there, and of this version")
def command(host: Host) -> Iterator[Note]:
    """Two installations again."""
    _need_systemd(host)
    found = {
        path.name: match[1]
        for path in sorted(host.units.glob("genserve-*.service"))
        if (match := COMMAND.search(_text(path)))
    }
    if not found:
        raise NotChecked("no unit of GenServe is installed")
    for name, program in found.items():
        if not os.access(program, os.X_OK):
            yield fail(f"{name} runs {program}, which is not there or may not be run", "sudo genserve install")
            return
    own = f"genserve {version('genserve')}"
    for program in sorted(set(found.values())):
        theirs = said(program, "--version", env=host.env, within_s=10).strip()
        if theirs != own:
            yield warn(
                f"the units run {program} ({theirs or 'it says no version'}); this is {own}", "sudo genserve upgrade"
            )
        else:
            yield ok(f"{program}, {theirs}")


@check(
    "systemd.state",
    "How systemd says each unit stands: failed, masked, started again and again, changed but not reloaded",
)
def state(host: Host) -> Iterator[Note]:
    """And what each says of itself."""
    _need_systemd(host)
    if not (host.units / ROUTER_UNIT).exists() and not list(host.units.glob("genserve-*")):
        raise NotChecked("no unit of GenServe is installed")
    text = said("systemctl", "show", "genserve*", "--all", f"--property={','.join(FIELDS)}", env=host.env)
    told = [
        dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.split("\n\n") if block.strip()
    ]
    loaded = [unit for unit in told if unit.get("Id", "").endswith((".service", ".socket"))]
    if not loaded:
        yield warn("no unit is loaded: nothing of GenServe was started", f"sudo systemctl start {layout.TARGET}")
    for unit in loaded:
        yield _unit(unit)


def _unit(unit: dict[str, str]) -> Note:
    name, active = unit["Id"], unit.get("ActiveState", "")
    says = f": {unit['StatusText']}" if unit.get("StatusText") else ""
    if unit.get("LoadState") == "masked":
        return fail(f"{name} is masked", f"sudo systemctl unmask {quoted(name)}")
    if active == "failed":
        if unit.get("ExecMainStatus") == EXIT_CONFIG:
            return fail(
                f"{name} cannot start until something is mended; its log says what",
                f"journalctl -u {quoted(name)} -n 20 -o cat; sudo systemctl restart {quoted(name)}",
            )
        why = f"{unit.get('Result', 'failed')}, status {unit.get('ExecMainStatus', '?')}"
        return fail(
            f"{name} has failed ({why})",
            f"sudo systemctl restart {quoted(name)}; journalctl -u {quoted(name)} -n 20 -o cat",
        )
    if unit.get("NeedDaemonReload") == "yes":
        return warn(
            f"{name} was changed on disk and not reloaded",
            f"sudo systemctl daemon-reload && sudo systemctl restart {quoted(name)}",
        )
    if int(unit.get("NRestarts") or 0) >= RESTARTS_MANY:
        return warn(
            f"{name} was started {unit['NRestarts']} times again{says}", f"journalctl -u {quoted(name)} -n 50 -o cat"
        )
    if active == "inactive" and unit.get("UnitFileState") == "enabled":
        return warn(f"{name} does not run, though it starts with the machine", f"sudo systemctl start {quoted(name)}")
    return ok(f"{name} {active}{says}")


@check("systemd.address", "Whether the gateway's socket listens where the settings say")
def address(host: Host) -> Iterator[Note]:
    """The unit has it from the settings of when it was written."""
    _need_systemd(host)
    listened = LISTEN.findall(_text(host.units / layout.GATEWAY_SOCKET))
    if not listened:
        raise NotChecked("no unit of the gateway is installed")
    try:
        wanted = http_address(host.gateway)
    except SettingsError as error:
        yield fail(error.message, "sudo ${EDITOR:-nano} /etc/genserve/genserve.toml && sudo genserve upgrade")
        return
    if wanted in listened:
        yield ok(wanted)
    else:
        yield warn(
            f"the settings say {wanted}, and {layout.GATEWAY_SOCKET} listens on {', '.join(listened)}",
            "sudo genserve upgrade",
        )


def _need_systemd(host: Host) -> None:
    if not host.systemd_runs.is_dir():
        raise NotChecked("systemd does not run this machine")


def _same(path: Path, shipped: str) -> bool:
    """But for what is this host's own: the environment's command, and the address of HTTP."""
    pattern = re.escape(shipped)
    for place in (sources.COMMAND_PLACE, sources.HTTP_PLACE):
        pattern = pattern.replace(re.escape(place), r"\S+")
    return re.fullmatch(pattern, _text(path)) is not None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


CHECKS = (units, command, address, state)
