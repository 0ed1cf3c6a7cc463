"""`genserve upgrade`: this environment's version takes over from the one that runs, one process after another.

The router first, since it understands older peers and its queue survives it; then the gateway, whose socket systemd
keeps open; then each GPU, which finishes what it draws. The next one waits until the last one is ready again.
"""

from collections.abc import Sequence

from rich.console import Console

from common.clock import monotonic_s
from common.settings.reference import digest_line, reference
from genserve.installation import checks, door, sources, systemd
from genserve.installation.carry import carry, look
from genserve.installation.install import follow, listed, units_for
from genserve.installation.layout import GATEWAY, GATEWAY_SOCKET, ROUTER, by_number, device_of
from genserve.installation.steps import installed, paths_read
from genserve.installation.trouble import HostError


def upgrade(*, dry_run: bool) -> int:
    """Restart what runs in this environment's version; the exit status. Raises HostError, GenServeError."""
    console, command = Console(), sources.command()
    faults = [
        *([] if dry_run else checks.need_root(command, "upgrade")),
        *checks.need_systemd(),
        *checks.need_environment(command),
        *checks.need_settings(),
    ]
    host = look(paths_read(sources.shipped()))
    gateway = door.gateway_settings(None) if ROUTER in host.enabled else None
    if gateway is not None and not faults:
        faults += door.need_door(gateway)
    if faults:
        raise HostError(listed(faults))
    units = units_for(command, door.http_address(gateway) if gateway is not None else None)
    standing = systemd.look_at(_in_order([*systemd.running_units(), *host.enabled]))
    if not standing:
        raise HostError(f"nothing of GenServe is installed on this host: sudo {command} install")
    former = sorted({unit.command for unit in standing} - {"", str(command)})
    console.print(f"From {former[0]} to {command}" if former else f"Anew from {command}", highlight=False)
    carry(installed(units, reference(), digest_line(), None, host), console, dry_run=dry_run)
    for unit in standing:
        names = [GATEWAY_SOCKET, GATEWAY] if unit.name == GATEWAY and door.moved() else [unit.name]
        if not unit.wanted_up and unit.active != "failed":
            console.print(f"  {unit.name:<28}[dim]is stopped and stays so[/]")
            if len(names) > 1:
                _restart(console, names[:1], former)
        elif dry_run:
            console.print(f"  [cyan]{'run':<10}[/]systemctl restart {' '.join(names)}", highlight=False)
        else:
            _restart(console, names, former)
    return 0


def _restart(console: Console, names: Sequence[str], former: Sequence[str]) -> None:
    began = monotonic_s()
    systemd.begin("restart", names)
    try:
        follow(console, names)
    except HostError as error:
        back = f"To go back: sudo {former[0]} upgrade" if former else f"Mend it, then: sudo {sources.command()} upgrade"
        raise HostError(f"{error}\nThe other services were left as they are. {back}") from None
    console.print(f"  {names[-1]:<28}[green]new after {systemd.seconds_since(began)}[/]", highlight=False)


def _in_order(names: Sequence[str]) -> list[str]:
    """The services among these units that have a process of ours: router, gateway, GPUs."""

    def place(name: str) -> tuple[int, str, int]:
        return (0 if name == ROUTER else 1 if name == GATEWAY else 2, *by_number(device_of(name)))

    return sorted({name for name in names if name in (ROUTER, GATEWAY) or device_of(name)}, key=place)
