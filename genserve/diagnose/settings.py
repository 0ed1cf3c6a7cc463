"""The settings: everything wrong with them, what contradicts what, and where each value came from."""

import difflib
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from common.settings import DEFAULT_FILE, OLDER_NAMES, PREFIX, SettingFault
from common.sockets import connectable
from genserve.diagnose.finding import Note, check, fail, ok, quoted, warn
from genserve.diagnose.host import ROUTER_UNIT, Host
from genserve.diagnose.mend import edit, in_file, line_of, root, setting

OLDER = re.compile(r"^(FLUX_|SAVE_TEST)")


@check(
    "settings.file", "The settings file: that it can be read, is TOML, and knows only what there is; who may change it"
)
def file(host: Host) -> Iterator[Note]:
    """The one that GENSERVE_CONFIG names, else the default one where it is there."""
    path = host.env.get(f"{PREFIX}CONFIG", "") or str(DEFAULT_FILE)
    faults = [fault for fault in host.settings.faults if fault.source == path]
    for fault in faults:
        yield fail(fault.message, _mend_file(fault))
    if not Path(path).exists():
        if not faults:
            yield ok(f"there is no {path}: defaults, and what the environment says")
        return
    try:
        open_to_others = Path(path).stat().st_mode & stat.S_IWOTH
    except OSError:
        open_to_others = 0
    if open_to_others:
        yield warn(f"everybody on this machine may change {path}", f"{root(path)}chmod o-w {quoted(path)}")
    if not faults:
        count = sum(source == path for source in host.settings.sources.values())
        yield ok(f"{path} sets {count} value{'' if count == 1 else 's'}")


def _mend_file(fault: SettingFault) -> str:
    path = fault.source
    table, _, key = fault.place.partition(".")
    if not fault.place:  # it could not be read at all
        if not Path(path).exists():
            return f"unset {PREFIX}CONFIG"
        if Path(path).is_dir():
            inside = Path(path, DEFAULT_FILE.name)
            return f"export {PREFIX}CONFIG={quoted(inside)}" if inside.is_file() else f"unset {PREFIX}CONFIG"
        if "Permission" in fault.message:
            return f"sudo chmod a+r {quoted(path)}"
        at = re.search(r"at line (\d+)", fault.message)
        return edit(path, int(at[1]) if at else 1)
    if not key:
        return _mend_table(fault)
    if fault.near:  # where both are there, the right one stays
        return in_file(path, table, key, "d" if line_of(path, table, fault.near) else f"s|{key}|{fault.near}|")
    if "no such setting" in fault.message:
        return in_file(path, table, key, "d")
    return edit(path, line_of(path, table, key) or 1)


def _mend_table(fault: SettingFault) -> str:
    """A table of an unknown name, or one that contradicts itself."""
    if fault.near:
        script = rf"s|^\s*\[{fault.place}\]|[{fault.near}]|"
        return f"{root(fault.source)}sed -i {quoted(script)} {quoted(fault.source)}"
    return edit(fault.source)


@check("settings.environment", "GENSERVE_ variables: that each is one, with a value that is right")
def environment(host: Host) -> Iterator[Note]:
    """Flags are told here as well."""
    path = host.env.get(f"{PREFIX}CONFIG", "") or str(DEFAULT_FILE)
    faults = [fault for fault in host.settings.faults if fault.source != path]
    for fault in faults:
        yield fail(fault.message, _mend_variable(fault))
    if not faults:
        count = sum(source.startswith(PREFIX) for source in host.settings.sources.values())
        yield ok(f"{count} variables, all understood")


def _mend_variable(fault: SettingFault) -> str:
    if fault.source.startswith("--"):
        return f"genserve diagnose --help   # {fault.source}"
    names = [name.strip() for name in fault.source.split(",")]
    if fault.near:
        return f'export {fault.near}="${names[0]}"; unset {names[0]}'
    variables = [name for name in names if name.startswith(PREFIX) or name in OLDER_NAMES]
    return f"unset {' '.join(variables)}" if variables else edit(names[0])


@check("settings.older", "The three older names, and variables that look like them and are read by nobody")
def older(host: Host) -> Iterator[Note]:
    """FLUX_GPU instead of FLUX_GPUS is passed over in silence, for others use such names too."""
    strangers = [name for name in sorted(host.env) if OLDER.match(name) and name not in OLDER_NAMES]
    for name in strangers:
        near = difflib.get_close_matches(name, OLDER_NAMES, n=1)
        meant = f"; did you mean {near[0]}?" if near else f"; GenServe reads {', '.join(OLDER_NAMES)}"
        mend = f'export {near[0]}="${name}"; unset {name}' if near else f"unset {name}"
        yield warn(f"{name} is set and GenServe does not read it{meant}", mend)
    for name, place in OLDER_NAMES.items():
        newer = f"{PREFIX}{place[0]}_{place[1]}".upper()
        old, new = host.env.get(name, "").strip(), host.env.get(newer)
        if old and new is not None and old != new:
            yield warn(f"{newer} = {new!r} wins over {name} = {old!r}", f"unset {name}")
    used = [name for name in OLDER_NAMES if host.env.get(name, "").strip()]
    if not strangers:
        yield ok(", ".join(used) if used else "none is set")


@check("settings.conflicts", "Settings that contradict each other: addresses, ports, devices")
def conflicts(host: Host) -> Iterator[Note]:
    """Each is right by itself."""
    http = host.gateway.port
    ports = {"router.client_endpoint": host.client_endpoint, "router.worker_endpoint": host.worker_endpoint}
    listening = {name: int(value.rpartition(":")[2]) for name, value in ports.items()} | {"gateway.port": http}
    found = False
    for name, other in (
        ("router.worker_endpoint", "router.client_endpoint"),
        ("router.client_endpoint", "gateway.port"),
        ("router.worker_endpoint", "gateway.port"),
    ):
        if listening[name] == listening[other] != 0:
            found = True
            both, listening[name] = listening[name], max(listening.values()) + 1  # the next mend leaves it alone
            mended = f"{ports[name].rpartition(':')[0]}:{listening[name]}"
            yield fail(f"{name} and {other} are both port {both}", setting(host, name, mended))
    for name, wanted, whose in (
        ("gateway.router_endpoint", host.client_endpoint, "router.client_endpoint"),
        ("gpu_daemon.router_endpoint", host.worker_endpoint, "router.worker_endpoint"),
    ):
        section, _, key = name.partition(".")
        given, reached = getattr(host.settings.sections[section], key), connectable(wanted)
        # One that listens everywhere is met at any address of its port.
        apart = given != wanted if reached == wanted else given.rpartition(":")[2] != wanted.rpartition(":")[2]
        # `genserve up` tells its parts where the router listens; units read it from the settings.
        said = "default" not in (host.source(name), host.source(whose)) or (host.units / ROUTER_UNIT).exists()
        if apart and said and host.port is None and not host.router_elsewhere:
            found = True
            yield fail(f"{name} is {given}, and {whose} {wanted}: they would not meet", setting(host, name, reached))
    if host.up.gpus and host.daemon.device:
        yield warn(
            f"up.gpus = {host.up.gpus!r} wins over gpu_daemon.device = {host.daemon.device!r} in `genserve up`",
            setting(host, "gpu_daemon.device", ""),
        )
        found = True
    if not found:
        yield ok("none")


@check("settings.values", "Every value that is not the default, and where it came from")
def values(host: Host) -> Iterator[Note]:
    """For a person who wonders."""
    told = [(name, source) for name, source in host.settings.sources.items() if source != "default"]
    for name, source in told:
        section, _, key = name.partition(".")
        yield ok(f"{name} = {getattr(host.settings.sections[section], key)!r} ({source})")
    if not told:
        yield ok("all settings have their defaults")


CHECKS = (file, environment, older, conflicts, values)
