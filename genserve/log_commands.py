"""The command that reads logs: what can be said on the command line, and nothing else."""

import re
from pathlib import Path
from typing import Annotated

import typer

from genserve.flags import ClientKey, Router, router_address

JobPrefix = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's id, or at least its first 8 digits.", show_default=False)
]
Files = Annotated[
    list[Path] | None,
    typer.Option("--file", metavar="FILE", show_default=False, help="Log lines instead of the journal; - is stdin."),
]
MoreFiles = Annotated[
    list[Path] | None, typer.Argument(metavar="MORE_FILES", show_default=False, help="More of --file.")
]


def logs(
    job: JobPrefix,
    more: MoreFiles = None,
    *,
    file: Files = None,
    journal: Annotated[bool, typer.Option("--journal", help="Read the journal as well as the files.")] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="The journals of other hosts too, as far as they are collected here.")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", show_default=False, help="Journals in this folder instead of this host's."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job has ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
    router_: Router = None,
    key_file: ClientKey = None,
) -> None:
    """Show one job's whole life: every line of every process about it, by time.

    Reads the system journal, or files, and the router's own history of the
    job. Says in the end what it could not see, and how that can be seen.
    """
    if not re.fullmatch(r"[0-9a-f]{8,32}", job):
        raise typer.BadParameter(f"{job!r} is no job id: at least its first 8 digits 0-9 a-f are needed")
    from genserve.journald import Journal  # noqa: PLC0415  # keeps --help quick
    from genserve.logs import logs as run  # noqa: PLC0415  # keeps --help quick

    files = [*(file or ()), *(more or ())]
    reads_journal = journal or merge or directory is not None or not files
    raise typer.Exit(
        run(
            router_address(router_, key_file),
            job,
            files=files,
            journal=Journal(merge=merge, directory=directory) if reads_journal else None,
            as_json=as_json,
            follow=follow,
        )
    )


def add_to(app: typer.Typer) -> None:
    """It."""
    app.command(
        epilog="Examples:\n"
        "  genserve logs 1a2b3c4d\n"
        "  genserve logs 1a2b3c4d --follow\n"
        "  genserve logs 1a2b3c4d --file genserve.log other-host.log"
    )(logs)
