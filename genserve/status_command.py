"""`genserve status` on the command line: what can be said there, and nothing else."""

from typing import Annotated

import typer

from genserve.flags import ClientKey, Router, router_address

EVERY_S = 1.0


def status(
    every: Annotated[
        float | None,
        typer.Argument(
            metavar="[SECONDS]", min=0.1, max=3600, show_default=False, help="With --watch: how often. \\[default: 1]"
        ),
    ] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep looking, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the router's STATUS as JSON, for programs.")] = False,
    router_: Router = None,
    key_file: ClientKey = None,
) -> None:
    """Show the GPUs, what they do, the queues and the models.

    With --watch on a screen of its own, with rates and running steps, through
    restarts of the router; into a pipe or a file, one block each time.
    """
    if every is not None and not watch:
        raise typer.BadParameter("it goes with --watch, e.g. genserve status --watch 2", param_hint="SECONDS")
    if watch and as_json:
        raise typer.BadParameter("it goes without --watch", param_hint="--json")
    router = router_address(router_, key_file)
    if watch:
        from genserve.watch import watch as keep_looking  # noqa: PLC0415  # keeps --help quick

        raise typer.Exit(keep_looking(router, every_s=EVERY_S if every is None else every))
    from genserve.status import status as run  # noqa: PLC0415  # keeps --help quick

    raise typer.Exit(run(router, as_json=as_json))


def add_to(app: typer.Typer) -> None:
    """The command."""
    app.command(
        epilog="Examples:\n  genserve status\n  genserve status --watch\n  genserve status --watch 5 >> status.log\n"
        "  genserve status --json | jq .stats.running"
    )(status)
