"""The command `genserve`: what can be said on the command line, and nothing else.

Each command imports what it needs when it runs, so that --help is quick and only the engine needs torch.
"""

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from common.errors import GenServeError
from common.process import die_with_parent, exit_config, explain
from common.settings import (
    GatewaySettings,
    GpuDaemonSettings,
    Loaded,
    LogSettings,
    RouterSettings,
    S,
    UpSettings,
    load_settings,
)
from genserve import (
    burst_command,
    diagnose_command,
    generate_command,
    job_commands,
    key_commands,
    log_commands,
    service_commands,
    status_command,
)
from genserve.flags import flag

EXIT_FAILED = 1
CONFIG_CODES = ("invalid_settings", "address_in_use", "device_unavailable", "model_load_failed")

app = typer.Typer(
    name="genserve",
    help="Turns prompts into pictures on a fleet of GPUs. `genserve up` starts everything on this machine.",
    epilog="Each setting is also a key of the TOML file that GENSERVE_CONFIG names and an environment variable, "
    "shown in brackets. A flag wins over the environment, the environment over the file.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

LOGS = "Logs"
LogLevel = Annotated[str | None, flag(LogSettings, "level", name="--log-level", metavar="LEVEL", panel=LOGS)]
LogFormat = Annotated[str | None, flag(LogSettings, "format", name="--log-format", metavar="FORMAT", panel=LOGS)]
NoAuth = Annotated[bool, typer.Option("--no-auth", help="Ask for no keys, whoever can reach it: gateway.auth = none.")]
RouterEndpoint = Annotated[
    str | None, typer.Option("--router", hidden=True, help="as --router-endpoint; the other commands call it so")
]
ParentPid = Annotated[int | None, typer.Option("--parent-pid", hidden=True, help="end when this parent has ended")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed  # noqa: PLC0415  # keeps --help quick

        typer.echo(f"genserve {installed('genserve')}")
        raise typer.Exit


@app.command(
    epilog="Examples:\n"
    "  genserve up                           every GPU, else the CPU\n"
    "  genserve up --gpus 0,1 --model-path /models/FLUX.1-dev\n"
    "  genserve up --gpus cpu,cpu            a fleet of two, to try it\n"
    "  genserve up --engine noop --port 0    no model: the service itself\n"
    "  genserve up --host 0.0.0.0            HTTP for other machines: each needs a key"
)
def up(
    *,
    gpus: Annotated[str | None, flag(UpSettings, "gpus", metavar="DEVICES")] = None,
    host: Annotated[str | None, flag(GatewaySettings, "host", metavar="ADDRESS")] = None,
    port: Annotated[int | None, flag(GatewaySettings, "port", metavar="PORT")] = None,
    model_path: Annotated[str | None, flag(GpuDaemonSettings, "model_path", metavar="FOLDER")] = None,
    engine: Annotated[str | None, flag(GpuDaemonSettings, "engine", metavar="flux|noop")] = None,
    state_dir: Annotated[str | None, flag(RouterSettings, "state_dir", metavar="FOLDER")] = None,
    no_auth: NoAuth = False,
    no_first_picture: Annotated[
        bool, typer.Option("--no-first-picture", help="Do not draw OUTPUT/first-picture.png as proof.")
    ] = False,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Start everything on this machine: the router, one daemon for each GPU, and the gateway.

    Serves until Ctrl-C, which lets what runs finish; a second one stops at once.
    What then still waits is taken up by the next start on the same port. A part
    that dies is started again. The router listens to clients on the port after
    the HTTP port and to GPU daemons on the one after that, unless the settings
    name its endpoints.
    """
    from genserve.up import up as run  # noqa: PLC0415  # keeps --help quick

    raise typer.Exit(
        run(
            env=os.environ,
            gpus=gpus,
            host=host,
            port=port,
            no_auth=no_auth,
            state_dir=state_dir,
            daemon_flags={"model_path": model_path, "engine": engine},
            log_flags={"level": log_level, "format": log_format},
            first_picture=not no_first_picture,
        )
    )


@app.command(epilog="Example:\n  genserve router --log-format json")
def router(
    *,
    client_endpoint: Annotated[str | None, flag(RouterSettings, "client_endpoint", metavar="ENDPOINT")] = None,
    worker_endpoint: Annotated[str | None, flag(RouterSettings, "worker_endpoint", metavar="ENDPOINT")] = None,
    server_key_file: Annotated[str | None, flag(RouterSettings, "server_key_file", metavar="FILE")] = None,
    peers_file: Annotated[str | None, flag(RouterSettings, "peers_file", metavar="FILE")] = None,
    state_dir: Annotated[str | None, flag(RouterSettings, "state_dir", metavar="FOLDER")] = None,
    gpu_queue_size: Annotated[int | None, flag(RouterSettings, "gpu_queue_size", metavar="JOBS")] = None,
    global_queue_size: Annotated[int | None, flag(RouterSettings, "global_queue_size", metavar="JOBS")] = None,
    default_model: Annotated[str | None, flag(RouterSettings, "default_model", metavar="MODEL")] = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    parent_pid: ParentPid = None,
) -> None:
    """Start the router, which keeps the queue and gives each job to a GPU.

    Ctrl-C stops it; what it has accepted is taken up by its next start. With
    journal = memory it first lets accepted jobs end; a second Ctrl-C stops at
    once.
    """
    _follow_parent(parent_pid)
    from router.app import run  # noqa: PLC0415  # keeps --help quick

    flags = {
        "client_endpoint": client_endpoint,
        "worker_endpoint": worker_endpoint,
        "server_key_file": server_key_file,
        "peers_file": peers_file,
        "state_dir": state_dir,
        "gpu_queue_size": gpu_queue_size,
        "global_queue_size": global_queue_size,
        "default_model": default_model,
    }
    raise typer.Exit(run(_load(RouterSettings, flags, log_level, log_format)))


@app.command(
    "gpu-daemon",
    epilog="Examples:\n"
    "  genserve gpu-daemon --device cuda:0 --model-path /models/FLUX.1-dev\n"
    "  genserve gpu-daemon --device cpu --engine noop",
)
def gpu_daemon(
    *,
    device: Annotated[str | None, flag(GpuDaemonSettings, "device", metavar="DEVICE")] = None,
    router_endpoint: Annotated[str | None, flag(GpuDaemonSettings, "router_endpoint", metavar="ENDPOINT")] = None,
    router_: RouterEndpoint = None,
    key_file: Annotated[str | None, flag(GpuDaemonSettings, "key_file", metavar="FILE")] = None,
    model_path: Annotated[str | None, flag(GpuDaemonSettings, "model_path", metavar="FOLDER")] = None,
    model_name: Annotated[str | None, flag(GpuDaemonSettings, "model_name", metavar="NAME")] = None,
    engine: Annotated[str | None, flag(GpuDaemonSettings, "engine", metavar="flux|noop")] = None,
    worker_id: Annotated[str | None, flag(GpuDaemonSettings, "worker_id", metavar="NAME")] = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    parent_pid: ParentPid = None,
) -> None:
    """Start the daemon of one GPU (or of the CPU) and the engine process that draws on it.

    An engine that dies is started again. Ctrl-C lets the running job finish;
    a second one stops at once.
    """
    _follow_parent(parent_pid)
    flags = {
        "device": device,
        "router_endpoint": router_endpoint or router_,
        "key_file": key_file,
        "model_path": model_path,
        "model_name": model_name,
        "engine": engine,
        "worker_id": worker_id,
    }
    loaded = _load(GpuDaemonSettings, flags, log_level, log_format)
    from genserve.parts import need_engine_packages  # noqa: PLC0415  # keeps --help quick
    from gpu_daemon.control import run  # noqa: PLC0415  # keeps --help quick

    need_engine_packages(loaded.settings.engine)
    raise typer.Exit(run(loaded))


@app.command(epilog="Example:\n  genserve gateway --port 8080")
def gateway(
    *,
    host: Annotated[str | None, flag(GatewaySettings, "host", metavar="ADDRESS")] = None,
    port: Annotated[int | None, flag(GatewaySettings, "port", metavar="PORT")] = None,
    router_endpoint: Annotated[str | None, flag(GatewaySettings, "router_endpoint", metavar="ENDPOINT")] = None,
    router_: RouterEndpoint = None,
    key_file: Annotated[str | None, flag(GatewaySettings, "key_file", metavar="FILE")] = None,
    no_auth: NoAuth = False,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    parent_pid: ParentPid = None,
) -> None:
    """Start the HTTP gateway: the OpenAI images dialect and the older GenServe one.

    Ctrl-C lets open requests finish; a second one stops at once.
    """
    _follow_parent(parent_pid)
    from gateway.app import run  # noqa: PLC0415  # keeps --help quick

    auth = "none" if no_auth else None
    flags = {
        "host": host,
        "port": port,
        "router_endpoint": router_endpoint or router_,
        "key_file": key_file,
        "auth": auth,
    }
    raise typer.Exit(run(_load(GatewaySettings, flags, log_level, log_format)))


def _load(section: type[S], flags: Mapping[str, Any], level: str | None, format_: str | None) -> Loaded[S]:
    return load_settings(section, env=os.environ, flags=flags, log_flags={"level": level, "format": format_})


def _follow_parent(pid: int | None) -> None:
    if pid is not None:
        die_with_parent(pid)


for commands in (
    generate_command,
    status_command,
    job_commands,
    diagnose_command,
    burst_command,
    log_commands,
    key_commands,
    service_commands,
):
    commands.add_to(app)


def main() -> None:
    """Run one command and exit with its status; what a person must mend is told without a traceback."""
    try:
        app()
    except GenServeError as error:
        if error.code in CONFIG_CODES:
            sys.exit(exit_config(error))
        # a router that does not answer is told with what to do: see genserve/client.py
        typer.echo(f"genserve: {error.message if error.code == 'unavailable' else explain(error)}", err=True)
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
