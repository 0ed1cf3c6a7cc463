"""`genserve upgrade`: this environment's version takes over from the one that runs, one process after another.

The router first, since it understands older peers and its queue survives it; then the gateway, whose socket systemd
keeps open; then each GPU, which finishes what it draws. The next one waits until the last one is ready again.
"""

from collections.abc import Sequence

from rich.console import Console

from common.clock import monotonic_s
from common.settings.reference import digest_line, reference
from genserve.installation import checks, sources, systemd
from genserve.installation.carry import carry, look
from genserve.installation.install import follow, listed, units_for
from genserve.installation.layout import GATEWAY, ROUTER, by_number, device_of
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
    if faults:
        raise HostError(listed(faults))
    host = look(paths_read(sources.shipped()))
    units = units_for(command, router_elsewhere=ROUTER not in host.enabled)
    standing = systemd.look_at(_in_order([*systemd.running_units(), *host.enabled]))
    if not standing:
        raise HostError(f"nothing of GenServe is installed on this host: sudo {command} install")
    former = sorted({unit.command for unit in standing} - {"", str(command)})
    console.print(f"From {former[0]} to {command}" if former else f"Anew from {command}", highlight=False)
    carry(installed(units, reference(), digest_line(), None, host), console, dry_run=dry_run)
    for unit in standing:
        if not unit.wanted_up and unit.active != "failed":
            console.print(f"  {unit.name:<28}[dim]is stopped and stays so[/]")
        elif dry_run:
            console.print(f"  [cyan]{'run':<10}[/]systemctl restart {unit.name}", highlight=False)
        else:
            _restart(console, unit.name, former)
    return 0


def _restart(console: Console, name: str, former: Sequence[str]) -> None:
    began = monotonic_s()
    systemd.begin("restart", [name])
    try:
        follow(console, [name])
    except HostError as error:
        back = f"To go back: sudo {former[0]} upgrade" if former else f"Mend it, then: sudo {sources.command()} upgrade"
        raise HostError(f"{error}\nThe other services were left as they are. {back}") from None
    console.print(f"  {name:<28}[green]new after {systemd.seconds_since(began)}[/]", highlight=False)


def _in_order(names: Sequence[str]) -> list[str]:
    """The services among these units that have a process of ours: router, gateway, GPUs."""

    def place(name: str) -> tuple[int, str, int]:
        return (0 if name == ROUTER else 1 if name == GATEWAY else 2, *by_number(device_of(name)))

    return sorted({name for name in names if name in (ROUTER, GATEWAY) or device_of(name)}, key=place)
