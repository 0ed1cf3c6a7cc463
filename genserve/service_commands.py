"""The commands that make GenServe a service of this host: what can be said on the command line, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

PANEL = "This host's services"
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing: show all that would be written and run.")]


def install(
    *,
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus",
            metavar="DEVICES",
            show_default=False,
            help="All that this host is to serve, e.g. '0,1' or 'cpu,cpu'. "
            "\\[default: as installed before, else every GPU, else the CPU]",
        ),
    ] = None,
    router_host: Annotated[
        str | None,
        typer.Option(
            "--router-host", metavar="HOST", show_default=False, help="This host has only GPUs: its router is there."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="FILE", show_default=False, help="The key that the router's host made for this one."
        ),
    ] = None,
    gateway_host: Annotated[
        str | None,
        typer.Option(
            "--gateway-host",
            metavar="ADDRESS",
            show_default=False,
            help="Where HTTP is listened on, e.g. 0.0.0.0; others need keys then (genserve keys add-http). "
            "\\[default: gateway.host of the settings, else 127.0.0.1]",
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Make GenServe a service of this host, run by systemd, and start it.

    Run it as root from the environment that is to serve. Writes units, users, and
    /etc/genserve/genserve.toml where there is none. Said again, it changes only
    what differs.
    """
    from genserve.installation.install import install as run  # noqa: PLC0415  # keeps --help quick

    _exit(lambda: run(gpus=gpus, router_host=router_host, key=key, gateway_host=gateway_host, dry_run=dry_run))


def upgrade(*, dry_run: DryRun = False) -> None:
    """Let this environment's version take over, one process after another; no job is lost.

    Also brings changed settings into effect. Waits for each process to be ready
    before the next one is restarted; what was stopped stays so.
    """
    from genserve.installation.upgrade import upgrade as run  # noqa: PLC0415  # keeps --help quick

    _exit(lambda: run(dry_run=dry_run))


def uninstall(
    *,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove settings, keys, the queue, kept pictures and the users.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Stop GenServe's services and remove what install wrote.

    Settings, keys, the queue and kept pictures stay, unless --purge is said.
    """
    from genserve.installation.install import uninstall as run  # noqa: PLC0415  # keeps --help quick

    _exit(lambda: run(purge=purge, dry_run=dry_run))


def config() -> None:
    """Print a settings file: every setting at its default, with unit, range and variable."""
    from common.settings.reference import reference  # noqa: PLC0415  # keeps --help quick

    typer.echo(reference(), nl=False)


def add_to(app: typer.Typer) -> None:
    """All of them."""
    app.command(
        rich_help_panel=PANEL,
        epilog="Examples:\n"
        "  sudo genserve install                    every GPU of this host\n"
        "  sudo genserve install --gpus 0,1 --dry-run\n"
        "  sudo genserve install --gateway-host 0.0.0.0    for other machines too\n"
        "  sudo genserve install --router-host 10.0.0.5 --key host-b.key",
    )(install)
    app.command(rich_help_panel=PANEL, epilog="Example:\n  sudo /opt/genserve-0.2/bin/genserve upgrade")(upgrade)
    app.command(rich_help_panel=PANEL, epilog="Example:\n  sudo genserve uninstall --dry-run")(uninstall)
    app.command(rich_help_panel=PANEL, epilog="Example:\n  genserve config > genserve.toml")(config)


def _exit(run: Callable[[], int]) -> None:
    from genserve.installation.trouble import HostError  # noqa: PLC0415  # keeps --help quick

    try:
        raise typer.Exit(run())
    except HostError as error:
        typer.echo(f"genserve: {error}", err=True)
        raise typer.Exit(1) from None
