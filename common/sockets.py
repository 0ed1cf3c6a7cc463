"""The one place that makes ZeroMQ sockets: limits, heartbeats, reconnection, CURVE, who may listen where.

Knows nothing of messages, nor of who may come in: that is asked of whoever serves the `zap_socket`. The figures are
measured: a ROUTER without ROUTER_MANDATORY loses messages in silence at its high-water mark; with it a send gives
EAGAIN (full) or EHOSTUNREACH (gone), never nothing.
"""

import ipaddress
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import zmq

from common.codec import PART_BYTES_MAX
from common.errors import GenServeError, SettingsError
from common.keys import KeyFile

FRAME_BYTES_MAX = PART_BYTES_MAX + 1024
SEND_HIGH_WATER_MESSAGES = 1000
RECEIVE_HIGH_WATER_MESSAGES = 1000
LISTEN_BACKLOG = 1024
HEARTBEAT_INTERVAL_MS = 2000
HEARTBEAT_TIMEOUT_MS = 6000
HANDSHAKE_TIMEOUT_MS = 3000
RECONNECT_FIRST_MS = (150, 300)  # drawn at random, so that a fleet does not come back as one
RECONNECT_MAX_MS = 2000
# A DEALER that could send nothing for so long is made anew: where its peer has once spoken what is no ZMTP (another
# program on that port, a router with other keys), libzmq gives the connection up for good instead of trying again.
UNSENDABLE_S_MAX = 10.0

ZAP_ENDPOINT = "inproc://zeromq.zap.01"  # where libzmq asks who may come in (ZeroMQ RFC 27)

_monitors = itertools.count()  # a former one's name is free some time after its end

Socket = zmq.Socket[bytes]
Watch: TypeAlias = Callable[[Socket], None]


@dataclass(frozen=True)
class Curve:
    """How a listening socket demands CURVE. `domain` tells its endpoint to whoever serves the zap_socket."""

    key: KeyFile
    domain: str


def router_socket(
    context: zmq.Context[Socket], endpoint: str, curve: Curve | None = None, *, watch: Watch | None = None
) -> Socket:
    """A ROUTER bound to `endpoint`: a loopback one, or with `curve` any. `watch` is given it before it is bound.

    Raises SettingsError for an address that others could reach, address_in_use where it is taken.
    """
    if curve is None:
        _check_loopback(endpoint)
    socket = context.socket(zmq.ROUTER)
    _limit(socket)
    _speak_ipv6(socket, endpoint)
    if curve is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, curve.key.secret_key.encode())
        socket.setsockopt(zmq.ZAP_DOMAIN, curve.domain.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a handler nobody comes in
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.BACKLOG, LISTEN_BACKLOG)
    if watch is not None:
        watch(socket)
    _bind(socket, endpoint)
    return socket


def zap_socket(context: zmq.Context[Socket]) -> Socket:
    """Where libzmq asks for each CURVE peer of this context whether it may come in. To be made before those listen."""
    socket = context.socket(zmq.ROUTER)  # not REP: one request that is answered late, or never, holds up no other
    socket.setsockopt(zmq.LINGER, 0)
    _bind(socket, ZAP_ENDPOINT)
    return socket


def dealer_socket(
    context: zmq.Context[Socket], endpoint: str, key: KeyFile | None = None, *, watch: Watch | None = None
) -> Socket:
    """A DEALER that keeps connecting to `endpoint`, with CURVE where it has a `key`.

    Its routing id is the peer's to choose. A handshake that is refused ends its attempts (see common/handshakes.py):
    `watch` is given it before it connects, so that nothing escapes.
    """
    socket = context.socket(zmq.DEALER)
    _limit(socket)
    _speak_ipv6(socket, endpoint)
    if key is not None:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public_key.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret_key.encode())
        socket.setsockopt(zmq.CURVE_SERVERKEY, key.router_public_key.encode())
    socket.setsockopt(zmq.IMMEDIATE, 1)  # queue nothing for a router that is not there
    socket.setsockopt(zmq.RECONNECT_IVL, random.randint(*RECONNECT_FIRST_MS))
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    if watch is not None:
        watch(socket)
    socket.connect(endpoint)
    return socket


def monitor_socket(context: zmq.Context[Socket], watched: Socket, events: int, waiting_max: int) -> Socket:
    """A PAIR on which libzmq tells of `events` of a socket's connections. Unread, it makes libzmq wait in the end."""
    endpoint = f"inproc://monitor-{next(_monitors)}"
    watched.monitor(endpoint, events)
    socket = context.socket(zmq.PAIR)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, waiting_max)
    socket.connect(endpoint)
    return socket


def pair_listener(context: zmq.Context[Socket], path: str) -> Socket:
    """A PAIR bound to the ipc `path`, for the one process that will connect to it."""
    socket = context.socket(zmq.PAIR)
    _limit(socket)
    _bind(socket, f"ipc://{path}")
    return socket


def pair_connector(context: zmq.Context[Socket], path: str) -> Socket:
    """The other end of `pair_listener`."""
    socket = context.socket(zmq.PAIR)
    _limit(socket)
    socket.connect(f"ipc://{path}")
    return socket


def is_loopback(host: str) -> bool:
    """Can nobody but this machine reach `host`?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def connectable(endpoint: str) -> str:
    """Where a peer on this machine connects to what listens on `endpoint`."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return f"tcp://{bracketed(reached_at(host))}:{port}"


def reached_at(host: str) -> str:
    """Where this machine reaches what listens on `host`, which may be all of its addresses; without brackets."""
    bare = host.strip("[]")
    return {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(bare, bare)  # noqa: S104  # not listened on


def bracketed(host: str) -> str:
    """As it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _limit(socket: Socket) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, RECEIVE_HIGH_WATER_MESSAGES)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT_MS)
    if socket.type != zmq.PAIR:  # between two processes of one machine: a pause of one must not part them
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_INTERVAL_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)


def _check_loopback(endpoint: str) -> None:
    host = endpoint.removeprefix("tcp://").rpartition(":")[0]
    if not is_loopback(host):
        raise SettingsError(
            f"{endpoint} could be reached from other machines, and without keys anybody there could use it. Run "
            "`genserve keys init` and set router.server_key_file (docs/keys.md), or listen on tcp://127.0.0.1:PORT"
        )


def _speak_ipv6(socket: Socket, endpoint: str) -> None:
    if "[" in endpoint:
        socket.setsockopt(zmq.IPV6, 1)


def _bind(socket: Socket, endpoint: str) -> None:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        if error.errno == zmq.EADDRINUSE:
            raise GenServeError("address_in_use", f"{endpoint} is in use by another process") from None
        raise GenServeError("address_in_use", f"cannot listen on {endpoint}: {error.strerror}") from None
