"""How the attempts of a connecting socket end, in words: libzmq itself says nothing, and after some gives up for good.

A peer that is refused (no key, a wrong one, a revoked one) would else wait in silence for ever. Whoever owns the
socket asks now and then, says it, and makes the socket anew where `given_up`. Attempts come several times a second, so
what stays the same is not told each time.
"""

import struct

import zmq

from common.keys import KeyFile
from common.sockets import Socket, monitor_socket

_EVENTS = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
)
_DONTWAIT = int(zmq.DONTWAIT)
_MISMATCH = 0x11000002  # ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
_READ_MAX = 64  # events a look
_WAITING_MAX = 10_000  # a few hours of attempts that nobody looks at
TOLD_AGAIN_S = 10.0  # after which the same reason is told once more
SEE = "see docs/keys.md"


class Handshakes:
    """Of one connecting socket at a time, given to `watch` before it connects. To be closed before its context."""

    def __init__(self, context: zmq.Context[Socket], key: KeyFile | None) -> None:
        self._context = context
        self._key = key
        self.given_up = False  # libzmq tries no more
        self._told, self._told_now = "", 0.0

    def watch(self, socket: Socket) -> None:
        """From now on; a former one is closed."""
        self._socket, self.given_up = socket, False
        self._monitor = monitor_socket(self._context, socket, _EVENTS, _WAITING_MAX)

    def close(self) -> None:
        """Watch no more; before or after the socket is closed."""
        if not self._socket.closed:
            self._socket.monitor(None, 0)
        self._monitor.close(linger=0)

    def refusal(self, now: float) -> str:
        """Why the router did not let this peer in; '' where nothing was refused since the last call.

        A reason that stays the same is told every TOLD_AGAIN_S, however often the socket was made anew.
        """
        said = ""
        for _ in range(_READ_MAX):
            try:
                head, _endpoint = self._monitor.recv_multipart(_DONTWAIT)
            except zmq.Again:
                break
            event, value = struct.unpack("=HI", head)
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                said, self._told, self.given_up = "", "", False
                continue
            said = why_refused(event, value, self._key) or said
            self.given_up |= event != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        if said == self._told and now - self._told_now < TOLD_AGAIN_S:
            return ""
        if said:
            self._told, self._told_now = said, now
        return said


def why_refused(event: int, value: int, key: KeyFile | None) -> str:
    """What a handshake's failure means to the peer that connects; '' where that is nothing: a router that stops."""
    match event:
        case zmq.EVENT_HANDSHAKE_FAILED_AUTH if value == 400:
            return f"the router does not let the key {_name(key)} in here: unknown, revoked, or of another role; {SEE}"
        case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return f"the router cannot tell who may come in just now (status {value}); its log says why"
        case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL if value == _MISMATCH:
            if key is None:
                return f"the router lets nobody in without a key, and none is set; {SEE}"
            return f"the router uses no keys, and {_name(key)} is one: set router.server_key_file, or do without; {SEE}"
        case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return f"what listens there answers wrongly (error {value:#x}): it is no router, or not the one of this key"
        case _ if value in (zmq.EAGAIN, zmq.ETERM):
            return ""
        case _ if key is None:
            return (
                f"what listens there hung up: it lets nobody in without a key and none is set, or is no router; {SEE}"
            )
        case _:
            return f"the router hung up on the key {_name(key)}: is its router_public_key this router's? {SEE}"


def _name(key: KeyFile | None) -> str:
    return repr(key.name) if key else "''"
