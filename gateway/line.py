"""A DEALER on the event loop: frames out and in, and what waits while no router is connected.

Knows no message's meaning. The socket's descriptor is edge-triggered: it is read until empty, and looked at
again after each send.
"""

import asyncio
from collections.abc import Callable, Sequence

import zmq

from common.clock import monotonic_s
from common.codec import Buffer, encode
from common.handshakes import Handshakes
from common.keys import KeyFile
from common.log import get_logger
from common.messages import ClientMessage
from common.sockets import UNSENDABLE_S_MAX, Socket, dealer_socket

HEAD_FRAMES = 3  # version, name, header; then the payload
DRAIN_MESSAGES_MAX = 256  # read before the loop does something else
CLOSE_LINGER_MS = 1000  # for the last CANCELs
_READ = int(zmq.POLLIN)  # as plain integers: these are asked for after each message
_READ_OR_WRITE = int(zmq.POLLIN | zmq.POLLOUT)
_WRITE = int(zmq.POLLOUT)
_DONTWAIT = int(zmq.DONTWAIT)
_SEND_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)


class Line:
    """One connection to `endpoint`, made again whenever it breaks. Each message goes to `on_frames`."""

    def __init__(self, endpoint: str, on_frames: Callable[[list[Buffer]], None], key: KeyFile | None = None) -> None:
        self.endpoint = endpoint
        self._key = key
        self._on_frames = on_frames
        self._unsent: dict[str, list[Buffer]] = {}  # by rid, in order; while no router is connected
        self._log = get_logger()
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[Socket] = zmq.Context()
        self._handshakes = Handshakes(self._context, key)
        self._connect()

    def _connect(self) -> None:
        self._socket = dealer_socket(self._context, self.endpoint, self._key, watch=self._handshakes.watch)
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        self._sendable_at = monotonic_s()
        self._loop.add_reader(self._descriptor, self._on_ready)
        self._turns = 0  # of reading
        self._turns_checked = -1  # when something was there to be read

    @property
    def connected(self) -> bool:
        """Is there a router that takes messages?"""
        if self._socket.closed:
            return False
        connected = bool(int(self._socket.getsockopt(zmq.EVENTS)) & _WRITE)
        self._look_again()
        return connected

    def check(self, _now: float) -> str:
        """What is wrong: what was there to be read at the last look is so still, and nothing was read since."""
        if self._socket.closed:
            return ""
        unread = bool(int(self._socket.getsockopt(zmq.EVENTS)) & _READ)
        stuck = unread and self._turns_checked == self._turns
        self._turns_checked = self._turns if unread else -1
        self._look_again()
        return "what the router says is not read" if stuck else ""

    def _disconnect(self, linger_ms: int) -> None:
        self._loop.remove_reader(self._descriptor)
        self._handshakes.close()
        self._socket.close(linger=linger_ms)

    def close(self) -> None:
        """Drop the connection; what is on its way is given CLOSE_LINGER_MS."""
        self._disconnect(CLOSE_LINGER_MS)
        self._context.term()

    def tend(self) -> str:
        """Connect anew where nothing could be sent for UNSENDABLE_S_MAX, or libzmq has given up after a refusal.

        Why the router refused us; '' where it did not. To be called every few seconds.
        """
        now = monotonic_s()
        refused = self._handshakes.refusal(now)
        if int(self._socket.getsockopt(zmq.EVENTS)) & int(zmq.POLLOUT):
            self._sendable_at = now
        unsendable = now - self._sendable_at > UNSENDABLE_S_MAX
        if unsendable:
            self._log.warning("router.unreachable", endpoint=self.endpoint, for_s=UNSENDABLE_S_MAX)
        if unsendable or self._handshakes.given_up:
            self._disconnect(0)  # what was on its way is asked for again: see link.py
            self._connect()
        self._look_again()
        return refused

    def send(self, message: ClientMessage, payload: Sequence[Buffer] = ()) -> None:
        """Send now, or as soon as a router is connected. Of one rid only the latest message waits."""
        frames = encode(message, payload)
        if self._unsent or not self._put(frames):
            self._unsent[message.rid] = frames
        self._look_again()

    def forget(self, rid: str) -> None:
        """What waits under this name is to be sent no more."""
        self._unsent.pop(rid, None)

    def _look_again(self) -> None:
        """Every call on the socket may have swallowed the descriptor's word that something happened."""
        wanted = _READ_OR_WRITE if self._unsent else _READ
        if int(self._socket.getsockopt(zmq.EVENTS)) & wanted:
            self._loop.call_soon(self._on_ready)

    def _put(self, frames: list[Buffer]) -> bool:
        """False where no router is connected, or its queue is full."""
        send, last = self._socket.send, len(frames) - 1
        try:
            for index, frame in enumerate(frames):
                send(frame, _DONTWAIT if index == last else _SEND_MORE, copy=index < HEAD_FRAMES)
        except zmq.Again:
            return False
        return True

    def _flush(self) -> None:
        while self._unsent:
            rid = next(iter(self._unsent))
            if not self._put(self._unsent[rid]):
                return
            del self._unsent[rid]

    def _on_ready(self) -> None:
        """Read until empty: the descriptor tells of changes only."""
        if self._socket.closed:  # a call that was due when the line was closed
            return
        self._turns += 1
        for _ in range(DRAIN_MESSAGES_MAX):
            try:
                frames = self._receive()
            except zmq.Again:
                break
            try:
                self._on_frames(frames)
            except Exception:  # the line must outlive a fault in handling one message
                self._log.exception("message.failed", name=repr(frames[1:2]))
        self._flush()
        self._look_again()

    def _receive(self) -> list[Buffer]:
        """One message; the frames of its payload are not copied."""
        frame = self._socket.recv(_DONTWAIT, copy=False)
        frames: list[Buffer] = [frame.bytes]
        while frame.more:
            frame = self._socket.recv(_DONTWAIT, copy=False)
            frames.append(frame.bytes if len(frames) < HEAD_FRAMES else frame.buffer)
        return frames
