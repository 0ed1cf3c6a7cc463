"""Ports: who listens where GenServe would, whether its router and gateway answer, who could reach them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import GenServeError
from common.messages import StatusReply
from common.settings import GatewaySettings
from common.sockets import is_loopback, reached_at
from gateway.listener import needs_keys
from genserve.diagnose.finding import Note, check, fail, ok, warn
from genserve.diagnose.host import Host, NotChecked
from genserve.diagnose.keys import ADD_HTTP, http_keys_path
from genserve.diagnose.listeners import Listener, get, listeners, speaks_zeromq
from genserve.diagnose.mend import setting
from genserve.status import seconds

PORT_STEP = 1000  # to the next port that is proposed
PORT_MAX = 65533
BROKEN, SUSPECT = "broken", "suspect"


@check("network.gateway", "The HTTP port: free, or listened on by GenServe's gateway")
def gateway(host: Host) -> Iterator[Note]:
    """`genserve up` needs it free; where GenServe runs it is its own."""
    address, port = host.gateway.host, host.gateway.port
    there = _bound(address, port)
    if not there:
        yield ok(f"{address}:{port} is free: no gateway runs here")
        return
    told = _told(host, "/health/live")
    if told.get("status") == "live" or there[0].ours or there[0].pid == 1:  # 1: systemd holds the gateway's socket
        yield ok(f"{there[0]}" if told else f"{there[0]}, which does not answer now")
    else:
        yield fail(f"{there[0]} has the gateway's port", setting(host, "gateway.port", _another(port)))


@check("network.clients", "The port where the router listens to clients: free, or the router's")
def clients(host: Host) -> Iterator[Note]:
    """An answer to STATUS tells whose it is."""
    yield from _router_port(host, "client_endpoint", host.client_endpoint)


@check("network.workers", "The port where the router listens to GPU daemons: free, or the router's")
def workers(host: Host) -> Iterator[Note]:
    """It speaks ZeroMQ, and its process is a GenServe's where that can be seen."""
    yield from _router_port(host, "worker_endpoint", host.worker_endpoint)


def _router_port(host: Host, key: str, endpoint: str) -> Iterator[Note]:
    if host.router_elsewhere:
        raise NotChecked(f"this machine serves the router at {host.router_elsewhere}")
    address, _, text = endpoint.removeprefix("tcp://").rpartition(":")
    port = int(text)
    there = _bound(address, port)
    if not there:
        yield ok(f"{endpoint} is free: no router runs here")
        return
    if there[0].ours or (key == "client_endpoint" and isinstance(host.status, StatusReply)):
        yield ok(str(there[0]))
    elif speaks_zeromq(reached_at(address), port) and not there[0].pid:
        yield ok(f"{there[0]}; it speaks ZeroMQ")
    else:
        another = f"tcp://{address}:{_another(port)}"
        yield fail(f"{there[0]} has the router's port", setting(host, f"router.{key}", another))


def _bound(address: str, port: int) -> list[Listener]:
    """Those that would keep one from listening there."""
    everywhere = ("0.0.0.0", "::")  # noqa: S104  # compared with, not listened on
    mine = {"localhost": "127.0.0.1"}.get(address, address.strip("[]"))
    found = listeners(port) if port else []
    return [there for there in found if there.address in (mine, *everywhere) or mine in (*everywhere, "*")]


def _told(host: Host, path: str) -> dict[str, Any]:
    """The JSON object at a path of the gateway; empty where it gives none."""
    try:
        told = json.loads(get(reached_at(host.gateway.host), host.gateway.port, path))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _another(port: int) -> int:
    candidate = port
    while candidate + PORT_STEP <= PORT_MAX:
        candidate += PORT_STEP
        if not listeners(candidate):
            return candidate
    return port


@check("network.router", "Whether the router answers, and how it is")
def router(host: Host) -> Iterator[Note]:
    """Where none is to run yet, nothing is wrong."""
    if isinstance(host.status, GenServeError):
        port = int(host.client_endpoint.rpartition(":")[2])
        if host.router_elsewhere:
            yield fail(
                f"the router at {host.gateway.router_endpoint} does not answer: it does not run, a firewall is "
                "between, or it does not know this machine's key",
                "genserve status   # and on the router's host: sudo genserve diagnose --only network,keys",
            )
        elif any(there.ours for there in listeners(port)):
            yield fail(
                f"it listens and does not answer: {host.status.message.splitlines()[0]}",
                "journalctl -u genserve-router -n 50 -o cat",
            )
        else:
            raise NotChecked("no router runs here now")
        return
    if host.status.storage_full:
        yield fail(
            f"it takes no new jobs: {host.status.storage_full}", f"du -xh -d1 {host.state_dir}; df -h {host.state_dir}"
        )
    stats = host.status.stats
    yield ok(
        f"up {seconds(stats.uptime_s)}, {stats.running} running, {stats.queued} waiting, {stats.failed_total} failed"
    )


@check("network.fleet", "The GPUs that the router knows: broken ones, silent ones, none at all")
def fleet(host: Host) -> Iterator[Note]:
    """As `genserve status` shows them."""
    if isinstance(host.status, GenServeError):
        raise NotChecked("no router runs here now")
    if not host.status.workers:
        yield warn(
            "no GPU daemon is registered: every job waits",
            "genserve gpu-daemon   # or: sudo systemctl start 'genserve-gpu@*'",
        )
        return
    for worker in host.status.workers:
        words = f"{worker.worker_id}: {worker.state}{f': {worker.detail}' if worker.detail else ''}"
        if worker.state == BROKEN:
            yield fail(words, f"genserve diagnose --only gpus,model,memory,engine   # on {worker.host}")
        elif worker.state == SUSPECT:
            yield warn(words, "genserve status")
    ready = sum(worker.state == "ready" for worker in host.status.workers)
    yield ok(f"{ready} of {len(host.status.workers)} ready")


@check("network.health", "Whether the gateway finds its router and a GPU that is ready")
def health(host: Host) -> Iterator[Note]:
    """GET /health."""
    if not _bound(host.gateway.host, host.gateway.port):
        raise NotChecked("no gateway runs here now")
    told = _told(host, "/health")
    if "workers_ready" not in told:
        raise NotChecked("no gateway of GenServe answers there: see network.gateway")
    if told["status"] == "healthy":
        yield ok(f"healthy, {told['workers_ready']} of {told['workers_total']} GPUs ready")
    else:
        yield warn(f"no pictures are drawn now: {'; '.join(told['reasons'])}", "genserve status")


@check("network.exposure", "Addresses that other machines could reach, and whether there are keys for them")
def exposure(host: Host) -> Iterator[Note]:
    """Without keys, GenServe refuses to listen there."""
    key = getattr(host.router, "server_key_file", "") or str(host.etc / "genserve" / "keys" / "server.key")
    open_ = {
        name: endpoint
        for name, endpoint in {
            "router.client_endpoint": host.client_endpoint,
            "router.worker_endpoint": host.worker_endpoint,
        }.items()
        if not is_loopback(endpoint.removeprefix("tcp://").rpartition(":")[0])
    }
    for name, endpoint in open_.items():
        if not _there(key):
            port = endpoint.rpartition(":")[2]
            yield fail(
                f"{name} = {endpoint} can be reached by others and there is no key ({key}): the router will not start",
                f"sudo genserve keys init   # or, to stay alone: {setting(host, name, f'tcp://127.0.0.1:{port}')}",
            )
    http = f"gateway.host = {host.gateway.host}"
    if is_loopback(host.gateway.host):
        http = ""
    elif not needs_keys(host.gateway):
        yield warn(f"{http} can be reached by others, and asks for no keys", setting(host, "gateway.auth", "keys"))
        http = ""
    elif not http_keys_path(host).exists():
        alone = setting(host, "gateway.host", GatewaySettings().host)
        yield fail(
            f"{http} can be reached by others and there are no keys ({http_keys_path(host)}): the gateway will not "
            "start",
            f"{ADD_HTTP}   # or, to stay alone: {alone}",
        )
    if reached := [*open_.values(), *([http] if http else [])]:
        yield ok(f"{', '.join(reached)}, with keys")
    else:
        yield ok("only this machine reaches the router and the gateway")


def _there(path: str) -> bool:
    try:
        return Path(path).exists()
    except PermissionError:  # a folder that only root sees, which is how it should be
        return True


CHECKS = (gateway, clients, workers, router, fleet, health, exposure)
