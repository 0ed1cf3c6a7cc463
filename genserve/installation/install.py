"""`genserve install` and `genserve uninstall`: this host's services, set up from the environment that runs them.

Every fault is told before anything is changed. A second run changes only what differs, and says so.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from rich.console import Console

from common.errors import SettingsError
from common.keys import read_key, render_key
from common.settings import DEFAULT_FILE, Endpoint, GpuDaemonSettings, RouterSettings, load_settings
from common.settings.reference import digest_line, reference
from common.sockets import is_loopback
from genserve.installation import checks, door, sources, systemd
from genserve.installation.carry import carry, look
from genserve.installation.layout import DAEMON_KEY, GATEWAY, GATEWAY_SOCKET, ROUTER, TARGET, by_number, device_of
from genserve.installation.steps import (
    WHOLE_HOST,
    Host,
    Note,
    installed,
    paths_read,
    removed,
    switched_on,
    wanted_units,
)
from genserve.installation.trouble import HostError
from gpu_daemon.devices import parse_devices

WORKER_PORT = RouterSettings().worker_endpoint.rpartition(":")[2]


def install(
    *, gpus: str | None, router_host: str | None, key: Path | None, gateway_host: str | None, dry_run: bool
) -> int:
    """Set up and start this host's services; the exit status. Raises HostError, GenServeError."""
    console, command = Console(), sources.command()
    endpoint = _endpoint(router_host) if router_host is not None else None
    units = units_for(command, None if endpoint else door.http_address(door.gateway_settings(gateway_host)))
    host = look(paths_read(units))
    devices = _devices(gpus, host)
    faults = [
        *([] if dry_run else checks.need_root(command, "install")),
        *checks.need_systemd(),
        *checks.need_environment(command),
        *checks.need_settings(),
        *_router_faults(endpoint, key, host),
        *(checks.told(lambda: _key(key)) if endpoint else ()),
    ]
    faults += _door_faults(endpoint, gateway_host)
    if endpoint is None and not faults:
        faults += checks.need_free_ports()
    if faults and not dry_run:
        raise HostError(listed(faults))
    values = {("gpu_daemon", "router_endpoint"): endpoint, ("gateway", "host"): gateway_host}
    wanted = wanted_units(devices, router_elsewhere=endpoint is not None)
    steps = installed(units, reference(values), digest_line(), None if faults else _key(key), host)
    steps += switched_on(wanted, host)
    stale = _running_otherwise(command, wanted) if not faults else []
    if stale:
        steps += [Note(f"{', '.join(stale)} still run what was installed before: sudo {command} upgrade")]
    console.print(f"GenServe in {command.parent.parent}, serving {', '.join(devices)}")
    carry(steps, console, dry_run=dry_run)
    return _dry_end(console, wanted, faults) if dry_run else start(console, wanted)


def uninstall(*, purge: bool, dry_run: bool) -> int:
    """Stop and remove this host's services; the exit status. Raises HostError."""
    console, command = Console(), sources.command()
    units = sources.shipped()  # where they lie, whatever they say
    host = look(paths_read(units))
    faults = [*([] if dry_run else checks.need_root(command, "uninstall")), *checks.need_systemd()]
    if faults and not dry_run:
        raise HostError(listed(faults))
    steps = removed(units, systemd.running_units() if not faults else (), host, purge=purge)
    if not steps:
        console.print("Nothing of GenServe is installed on this host.")
    carry(steps, console, dry_run=dry_run)
    if not dry_run:
        console.print(f"The environment {command.parent.parent} stays; remove it when no host needs it any more.")
    return _dry_end(console, (), faults) if dry_run else 0


def units_for(command: Path, http: str | None) -> Mapping[str, str]:
    """The texts of the units of a host with HTTP at `http`, or, with None, of one whose router is elsewhere."""
    skipped = WHOLE_HOST if http is None else frozenset()
    return {name: text for name, text in sources.rendered(command, http or "").items() if name not in skipped}


def start(console: Console, wanted: Iterable[str]) -> int:
    """Start these units, wait for them, and say how each stands."""
    names = [name for name in wanted if name != TARGET]
    if GATEWAY in names and door.moved():
        systemd.begin("restart", [GATEWAY_SOCKET, GATEWAY])
    systemd.begin("start", [TARGET, *names])
    follow(console, names)
    console.print("\nReady. Look at it with `genserve status`, at its logs with `journalctl -u 'genserve*' -f`.")
    return 0


def follow(console: Console, names: Iterable[str]) -> None:
    """Wait until these units are up, showing what they say of themselves."""

    def news(unit: systemd.Unit) -> None:
        style = "green" if unit.up else "red" if unit.active == "failed" else "cyan"
        words = "ready" if unit.up else unit.active
        console.print(
            f"  {unit.name:<28}[{style}]{words}[/]{f': {unit.status}' if unit.status else ''}", soft_wrap=True
        )

    systemd.wait_until_up(list(names), news)


def listed(faults: Iterable[str]) -> str:
    """Several faults for a person."""
    return "\n".join(["nothing was changed:", *(f"  - {fault}" for fault in faults)])


def _devices(gpus: str | None, host: Host) -> list[str]:
    """What is asked for; else what is served already; else every GPU, or the CPU."""
    if gpus is None and (served := sorted(filter(None, map(device_of, host.enabled)), key=by_number)):
        return served
    return parse_devices(gpus or "")


def _endpoint(router_host: str) -> str:
    name, _, port = router_host.rpartition(":") if ":" in router_host else (router_host, "", WORKER_PORT)
    try:
        return msgspec.convert(f"tcp://{name}:{port}", Endpoint)
    except msgspec.ValidationError:
        raise SettingsError(f"--router-host {router_host!r} is not HOST or HOST:PORT, e.g. 10.0.0.5") from None


def _router_faults(endpoint: str | None, key: Path | None, host: Host) -> Iterable[str]:
    """A host that serves a router elsewhere, and one that has its own, are not turned into each other unnoticed."""
    gpus_only = any(map(device_of, host.enabled)) and ROUTER not in host.enabled
    if endpoint is None:
        if key is not None:
            yield "--key goes with --router-host: on the router's own host `genserve keys init` puts the keys in place"
        if gpus_only:
            yield f"this host serves the router at {_configured()}: say --router-host again, or uninstall first"
        return
    if ROUTER in host.enabled:
        yield "this host has a router of its own: uninstall first, or leave --router-host out"
    if DEFAULT_FILE.exists() and _configured() != endpoint:
        yield f"{DEFAULT_FILE} says gpu_daemon.router_endpoint = {_configured()!r}, not {endpoint!r}: change it there"
    if key is None and DAEMON_KEY not in host.present and not is_loopback(endpoint):
        yield (
            "a router on another host lets nobody in without a key: make one there with `genserve keys new NAME --role "
            f"daemon -o NAME.key`, bring its file here and say --key FILE ({DAEMON_KEY} is not there yet)"
        )


def _door_faults(endpoint: str | None, gateway_host: str | None) -> Iterable[str]:
    """Where HTTP is to be listened on: said once, this host's, and with keys where others can reach it."""
    if endpoint is None:
        yield from door.need_one_host(gateway_host)
        yield from door.need_door(door.gateway_settings(gateway_host))
    elif gateway_host is not None:
        yield "--gateway-host goes without --router-host: the gateway is on the router's host"


def _configured() -> str:
    try:
        return load_settings(GpuDaemonSettings, env={}).settings.router_endpoint
    except SettingsError:
        return "what its settings file says"  # which is told of as a fault of its own


def _key(path: Path | None) -> bytes | None:
    """The daemon key in `path`, as it is to lie on this host. Raises SettingsError for a file that is none."""
    if path is None:
        return None
    try:
        return render_key(read_key(path, roles=("daemon",))).encode()
    except SettingsError as error:
        raise SettingsError(f"--key: {error.message}; name the key file made for this host") from None


def _running_otherwise(command: Path, wanted: Iterable[str]) -> list[str]:
    """Units that run, but from another environment."""
    there = systemd.look_at([name for name in wanted if name.endswith(".service")])
    return [unit.name for unit in there if unit.up and unit.command != str(command)]


def _dry_end(console: Console, wanted: Iterable[str], faults: Iterable[str]) -> int:
    if names := " ".join(wanted):
        console.print(f"  [cyan]{'run':<10}[/]systemctl start {names}", soft_wrap=True, highlight=False)
    told = [*faults, *checks.need_root(sources.command(), "…")] if os.geteuid() else [*faults]
    console.print("\nNothing was changed." + ("" if not told else " It would be refused:"))
    for fault in told:
        console.print(f"  - {fault}", soft_wrap=True, highlight=False)
    return 1 if told else 0
