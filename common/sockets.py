"""The one place that makes ZeroMQ sockets: limits, heartbeats, reconnection, who may listen where.

Knows nothing of messages. The figures are measured: a ROUTER without ROUTER_MANDATORY loses messages in
silence at its high-water mark; with it a send gives EAGAIN (full) or EHOSTUNREACH (gone), never nothing.
"""

import ipaddress
import random

import zmq

from common.codec import PART_BYTES_MAX
from common.errors import GenServeError, SettingsError

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

Socket = zmq.Socket[bytes]


def router_socket(context: zmq.Context[Socket], endpoint: str) -> Socket:
    """A ROUTER bound to a loopback `endpoint`.

    Raises SettingsError for an address that others could reach, address_in_use where it is taken.
    """
    _check_loopback(endpoint)
    socket = context.socket(zmq.ROUTER)
    _limit(socket)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.BACKLOG, LISTEN_BACKLOG)
    _bind(socket, endpoint)
    return socket


def dealer_socket(context: zmq.Context[Socket], endpoint: str) -> Socket:
    """A DEALER that keeps connecting to `endpoint`. Its routing id is the peer's to choose."""
    socket = context.socket(zmq.DEALER)
    _limit(socket)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # queue nothing for a router that is not there
    socket.setsockopt(zmq.RECONNECT_IVL, random.randint(*RECONNECT_FIRST_MS))
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
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
            f"{endpoint} could be reached from other machines and connections are not authenticated yet; "
            "listen on tcp://127.0.0.1:PORT and reach it through an SSH tunnel or a VPN"
        )


def _bind(socket: Socket, endpoint: str) -> None:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        if error.errno == zmq.EADDRINUSE:
            raise GenServeError("address_in_use", f"{endpoint} is in use by another process") from None
        raise GenServeError("address_in_use", f"cannot listen on {endpoint}: {error.strerror}") from None
