"""What `genserve up` starts: which processes, with which arguments, at which addresses.

Decides and checks before anything runs; starts nothing itself.
"""

import importlib.util
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import GenServeError, SettingsError
from common.keys import CLIENT_FILE, DAEMON_FILE, GATEWAY_FILE, SERVER_FILE, KeyFile, find_key, read_key
from common.settings import (
    GatewaySettings,
    GpuDaemonSettings,
    Loaded,
    LogSettings,
    RouterSettings,
    UpSettings,
    load_settings,
)
from common.sockets import bracketed, connectable, reached_at
from gateway.listener import check_reach, needs_keys
from gpu_daemon.devices import parse_devices

HTTP_PORT_MAX = 65535 - 2  # the two ZeroMQ ports follow the HTTP port
FREE_PORT_TRIES = 50


@dataclass(frozen=True)
class Part:
    """One process: its name to people and the arguments of `genserve` that start it."""

    name: str  # 'router', 'gateway', or the device of a GPU daemon
    arguments: tuple[str, ...]
    stop_s: float  # how long it may take to drain


@dataclass(frozen=True)
class Plan:
    """Everything that `genserve up` needs to know before it starts."""

    router: Part
    daemons: tuple[Part, ...]
    gateway: Part
    http_host: str  # where this machine reaches it
    http_keys: bool  # are asked for by HTTP
    http_port: int
    client_endpoint: str
    client_key_file: str | None  # what a person on this host may connect with, where there are keys
    client_key: KeyFile | None  # of the gateway: what this command asks the router with
    log: LogSettings
    output_dir: str
    queue_outlives: bool  # the router's end: what still waits then is taken up by the next one

    @property
    def http_url(self) -> str:
        """Where a browser goes."""
        return f"http://{bracketed(self.http_host)}:{self.http_port}"

    @property
    def parts(self) -> tuple[Part, ...]:
        """All processes, in the order in which they start."""
        return (self.router, *self.daemons, self.gateway)


def plan(
    *,
    env: Mapping[str, str],
    gpus: str | None = None,
    host: str | None = None,
    port: int | None = None,
    no_auth: bool = False,
    state_dir: str | None = None,
    daemon_flags: Mapping[str, str | None],
    log_flags: Mapping[str, str | None],
    watched: bool = False,
) -> Plan:
    """The processes for these flags and settings. `watched`: a person reads the logs on a terminal.

    The ZeroMQ ports follow the HTTP port unless the settings name endpoints. Raises GenServeError for
    settings that contradict each other, unknown devices, missing packages and addresses in use.
    """
    router = load_settings(RouterSettings, env=env, flags={"state_dir": state_dir}, log_flags=log_flags)
    http_flags = {"host": host, "port": port, "auth": "none" if no_auth else None}
    gateway = load_settings(GatewaySettings, env=env, flags=http_flags).settings
    daemon = load_settings(GpuDaemonSettings, env=env, flags=daemon_flags).settings
    up = load_settings(UpSettings, env=env, flags={"gpus": gpus}).settings
    check_reach(gateway, gateway.host, f"gateway.host = {gateway.host!r}")
    devices = _devices(up, daemon)
    http_port = gateway.port or _free_ports(gateway.host)
    if http_port > HTTP_PORT_MAX:
        raise SettingsError(f"port {http_port} leaves no room for the two ports after it; at most {HTTP_PORT_MAX}")
    keys = _keys_beside(router.settings, gateway, daemon, env)
    client, worker = _endpoints(router, http_port)
    for address in (f"{gateway.host}:{http_port}", client, worker):
        _check_free(address.removeprefix("tcp://"))
    log_format = "console" if watched and router.log.format == "auto" else router.log.format
    common = ("--log-level", router.log.level, "--log-format", log_format)
    daemon_arguments, state = _given({**daemon_flags, "key_file": keys.daemon}), _given({"state_dir": state_dir})
    client_at, worker_at = connectable(client), connectable(worker)
    return Plan(
        router=Part(
            "router",
            ("router", "--client-endpoint", client, "--worker-endpoint", worker, *state, *common),
            router.settings.drain_s,
        ),
        daemons=tuple(
            Part(
                device,
                ("gpu-daemon", "--device", device, "--router-endpoint", worker_at, *daemon_arguments, *common),
                daemon.drain_s + daemon.job_stop_grace_s,
            )
            for device in devices
        ),
        gateway=_gateway_part(gateway, http_port, client_at, (*_given({"key_file": keys.gateway}), *common)),
        http_host=reached_at(gateway.host),
        http_keys=needs_keys(gateway),
        http_port=http_port,
        client_endpoint=client_at,
        client_key_file=keys.client,
        client_key=keys.gateway_key,
        log=router.log,
        output_dir=daemon.output_dir,
        queue_outlives=router.settings.journal == "sqlite",
    )


def _gateway_part(gateway: GatewaySettings, http_port: int, router_at: str, more: tuple[str, ...]) -> Part:
    where = ("--host", gateway.host, "--port", str(http_port), "--router-endpoint", router_at)
    auth = ("--no-auth",) if gateway.auth == "none" else ()
    return Part("gateway", ("gateway", *where, *auth, *more), gateway.drain_s)


def _endpoints(router: Loaded[RouterSettings], http_port: int) -> tuple[str, str]:
    """Where the router listens to clients and to GPU daemons."""
    client, worker = (
        getattr(router.settings, key)
        if router.sources[f"router.{key}"] != "default"
        else f"tcp://127.0.0.1:{http_port + offset}"
        for key, offset in (("client_endpoint", 1), ("worker_endpoint", 2))
    )
    return client, worker


def command_line(part: Part, parent_pid: int) -> list[str]:
    """The argv of a part's process. `-P`: a folder named like one of our packages must not be imported instead."""
    return [sys.executable, "-P", "-m", "genserve", *part.arguments, "--parent-pid", str(parent_pid)]


def need_engine_packages(engine: str) -> None:
    """Raise SettingsError where `engine` needs torch and it is not installed. Does not import it."""
    if engine == "flux" and importlib.util.find_spec("torch") is None:
        raise SettingsError(
            "drawing needs torch and diffusers, which are not installed: pip install 'genserve[gpu]' "
            "(or try the service without a model: --engine noop)"
        )


@dataclass(frozen=True)
class _Keys:
    """The key files that the parts are told of; '' without keys."""

    gateway: str = ""
    daemon: str = ""
    client: str | None = None  # of this host's operator, where init has made one
    gateway_key: KeyFile | None = None


def _keys_beside(
    router: RouterSettings, gateway: GatewaySettings, daemon: GpuDaemonSettings, env: Mapping[str, str]
) -> _Keys:
    """With a router key every part needs its own: those that the settings name, else those beside the router's."""
    found = find_key(router.server_key_file, env, SERVER_FILE)
    if found is None:
        return _Keys()
    beside, guarded = found
    parts = ((gateway.key_file, GATEWAY_FILE, "gateway"), (daemon.key_file, DAEMON_FILE, "daemon"))
    paths = [Path(setting) if setting else beside.with_name(name) for setting, name, _ in parts]
    keys = [
        read_key(path, roles=(role,), guarded=guarded and not setting)
        for path, (setting, _, role) in zip(paths, parts, strict=True)
    ]
    client = beside.with_name(CLIENT_FILE)
    return _Keys(str(paths[0]), str(paths[1]), str(client) if client.exists() else None, keys[0])


def _devices(up: UpSettings, daemon: GpuDaemonSettings) -> list[str]:
    need_engine_packages(daemon.engine)
    devices = parse_devices(up.gpus or daemon.device)
    if daemon.worker_id and len(devices) > 1:
        raise SettingsError(
            f"gpu_daemon.worker_id = {daemon.worker_id!r} names one daemon, but {len(devices)} would start "
            f"({', '.join(devices)}): leave it out, or name one device with --gpus"
        )
    return devices


def _check_free(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        with listening(host, int(port)):
            pass
    except OSError as error:
        raise GenServeError(
            "address_in_use",
            f"{address} cannot be listened on ({error.strerror}). Is GenServe running already? To run another one "
            "beside it: genserve up --port 13000 (13001 and 13002 are used as well)",
        ) from None


def _free_ports(host: str) -> int:
    """A port that is free together with the two after it."""
    for _ in range(FREE_PORT_TRIES):
        with listening(host, 0) as first:
            port: int = first.getsockname()[1]
            try:
                with listening("127.0.0.1", port + 1), listening("127.0.0.1", port + 2):
                    return port
            except (OSError, OverflowError):
                continue
    raise GenServeError("address_in_use", "no three free ports in a row were found: name one with --port")


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there, to see whether one can. Raises OSError."""
    host = "0.0.0.0" if host == "*" else host  # noqa: S104  # the settings say so, and the router checks that it may
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def _given(flags: Mapping[str, str | None]) -> list[str]:
    return [word for key, value in flags.items() if value for word in (f"--{key.replace('_', '-')}", value)]
