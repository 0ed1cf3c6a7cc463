"""The commands about single jobs: what can be said on the command line, and nothing else."""

from typing import Annotated

import typer

from genserve.flags import ClientKey, Router, router_address

JOBS_MAX = 10_000
JobId = Annotated[
    str, typer.Argument(metavar="ID", help="The job's id, or its first 8 digits or more.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

jobs = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Look at jobs, or cancel one.")


@jobs.command(epilog="Examples:\n  genserve jobs show 0123456789abcdef0123456789abcdef\n  genserve jobs show 01234567")
def show(job_id: JobId, *, as_json: AsJson = False, router_: Router = None, key_file: ClientKey = None) -> None:
    """Show how a job stands, and what happened to it."""
    from genserve.jobs import show as run  # noqa: PLC0415  # keeps --help quick

    raise typer.Exit(run(router_address(router_, key_file), job_id, as_json=as_json))


@jobs.command("list", epilog="Examples:\n  genserve jobs list\n  genserve jobs list --state queued --state running")
def list_(
    *,
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="Only jobs in this state (queued, running, done, failed, cancelled); may be said several times."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many, at most.", min=1, max=JOBS_MAX)] = 20,
    as_json: AsJson = False,
    router_: Router = None,
    key_file: ClientKey = None,
) -> None:
    """List the newest jobs: your own, or everyone's with an admin's key."""
    from genserve.jobs import listed  # noqa: PLC0415  # keeps --help quick

    raise typer.Exit(listed(router_address(router_, key_file), state or (), limit=limit, as_json=as_json))


@jobs.command(epilog="Example:\n  genserve jobs cancel 0123456789abcdef0123456789abcdef")
def cancel(job_id: JobId, *, router_: Router = None, key_file: ClientKey = None) -> None:
    """Cancel a job, whether it waits or runs: its GPU is free after the present step."""
    from genserve.jobs import cancel as run  # noqa: PLC0415  # keeps --help quick

    raise typer.Exit(run(router_address(router_, key_file), job_id))


def dead_letters(*, as_json: AsJson = False, router_: Router = None, key_file: ClientKey = None) -> None:
    """List the jobs that were given up because each ended two engines."""
    from genserve.jobs import dead_letters as run  # noqa: PLC0415  # keeps --help quick

    raise typer.Exit(run(router_address(router_, key_file), as_json=as_json))


def requeue(job_id: JobId, *, router_: Router = None, key_file: ClientKey = None) -> None:
    """Draw a job of `genserve dead-letters` after all; prints the new job's id.

    For when what was wrong has been mended. The old job leaves the list; it stays failed, under its id and its key,
    as long as any other result, and its history names the new one.
    """
    from genserve.jobs import requeue as run  # noqa: PLC0415  # keeps --help quick

    raise typer.Exit(run(router_address(router_, key_file), job_id))


def add_to(app: typer.Typer) -> None:
    """All of them."""
    app.add_typer(jobs, name="jobs")
    app.command("dead-letters", epilog="Examples:\n  genserve dead-letters\n  genserve dead-letters --json")(
        dead_letters
    )
    app.command(epilog="Example:\n  genserve requeue 0123456789abcdef0123456789abcdef")(requeue)
