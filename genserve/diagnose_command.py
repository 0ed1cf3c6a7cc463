"""The command `genserve diagnose`: what can be said on the command line, and nothing else."""

import os
from typing import Annotated, Any

import typer

from common.settings import GatewaySettings, GpuDaemonSettings, RouterSettings, UpSettings
from genserve.flags import flag


def diagnose(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what takes long: importing torch, drawing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    only: Annotated[
        str, typer.Option(metavar="CHECKS", show_default=False, help="Only these, e.g. model or gpus,disk.journal.")
    ] = "",
    gpus: Annotated[str | None, flag(UpSettings, "gpus", metavar="DEVICES")] = None,
    model_path: Annotated[str | None, flag(GpuDaemonSettings, "model_path", metavar="FOLDER")] = None,
    port: Annotated[int | None, flag(GatewaySettings, "port", metavar="PORT")] = None,
    state_dir: Annotated[str | None, flag(RouterSettings, "state_dir", metavar="FOLDER")] = None,
) -> None:
    """Find out what is wrong on this machine, and which command mends it.

    Looks at the environment, GPUs, settings, model folder, memory, disk, ports,
    keys and services, then loads the model and draws a picture of one step. It
    changes nothing and ends with status 1 where a check fails. What only root
    may see needs root.
    """
    from genserve.diagnose.command import run  # noqa: PLC0415  # keeps --help quick

    flags: dict[str, dict[str, Any]] = {
        "up": {"gpus": gpus},
        "gpu_daemon": {"model_path": model_path},
        "router": {"state_dir": state_dir},
    }
    raise typer.Exit(run(os.environ, flags, port=port, only=only, quick=quick, as_json=as_json))


def add_to(app: typer.Typer) -> None:
    """The one command."""
    app.command(
        epilog="Examples:\n"
        "  genserve diagnose\n"
        "  genserve diagnose --quick --json | jq '.checks[] | select(.status != \"ok\")'\n"
        "  genserve diagnose --only model --model-path models/FLUX.1-dev"
    )(diagnose)
