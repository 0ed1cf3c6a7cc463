"""A router made by hand over a real ROUTER socket: it says what a test tells it to and checks the grammar."""

import time
from collections.abc import Callable
from typing import TypeVar

import zmq

from common.codec import FROM_WORKER, encode
from common.messages import (
    Credit,
    Dispatch,
    Heartbeat,
    JobOrder,
    Message,
    Register,
    Returned,
    Token,
    Welcome,
    WorkerMessage,
)
from common.sockets import Socket, router_socket
from tests.ports import free_endpoint

M = TypeVar("M", bound=Message)
WITHIN_S = 15.0


def job_order(**changes: object) -> JobOrder:
    """A small job."""
    usual: dict[str, object] = {
        "prompt": "a red square",
        "negative_prompt": "",
        "model": "noop",
        "width": 64,
        "height": 48,
        "drawn_width": 64,
        "drawn_height": 48,
        "steps": 4,
        "guidance_scale": 3.5,
        "true_cfg_scale": 1.0,
        "seed": 7,
        "priority": 0,
        "client": "",
        "save": False,
    }
    return JobOrder(**(usual | changes))


def token(number: int, dispatch: int = 1) -> Token:
    """A token that is easy to tell from others."""
    return Token(job_id=f"{number:032x}", dispatch=dispatch)


class FakeRouter:
    """One ROUTER socket; the last daemon heard is the one spoken to."""

    def __init__(self, endpoint: str = "") -> None:
        self._context: zmq.Context[Socket] = zmq.Context()
        self.endpoint = endpoint or free_endpoint()
        self._socket = router_socket(self._context, self.endpoint)
        self.epoch = 0
        self.heard: list[Message] = []  # not yet asked for, less heartbeats
        self.payloads: dict[Token, bytes] = {}
        self.heartbeat: Heartbeat | None = None
        self.granted = 0
        self.dispatched = 0
        self._peer = b""

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()

    def say(self, message: Message) -> None:
        self.say_raw(encode(message))

    def say_raw(self, frames: list[bytes]) -> None:
        self._socket.send_multipart([self._peer, *frames])

    def welcome(self, register: Register, **fields: object) -> None:
        """Begin a new epoch; keeps every token unless told otherwise."""
        self.epoch += 1
        self.granted = self.dispatched = 0
        kept = {"keep": tuple(held.token for held in register.tokens)} | fields
        self.say(Welcome(nonce=register.nonce, epoch=self.epoch, heartbeat_interval_s=0.2, dead_after_s=3.0, **kept))

    def dispatch(self, token_: Token, remaining_s: float = 600.0, **changes: object) -> None:
        self.dispatched += 1
        self.say(Dispatch(epoch=self.epoch, token=token_, job=job_order(**changes), remaining_s=remaining_s))

    def pump(self, timeout_ms: int = 50) -> None:
        """Read what is there and hold it to the grammar."""
        if not self._socket.poll(timeout_ms):
            return
        self._peer, *frames = self._socket.recv_multipart()
        message = FROM_WORKER.decode(frames)
        if isinstance(message, WorkerMessage) and message.epoch == self.epoch:
            if isinstance(message, Heartbeat):
                self.heartbeat = message
                return
            if isinstance(message, Credit):
                assert message.granted_total > self.granted, "credit only rises"
                self.granted = message.granted_total
                assert self.granted - self.dispatched <= 2
        if getattr(message, "parts", ()):
            self.payloads[message.token] = b"".join(frames[3:])
        self.heard.append(message)

    def expect(self, kind: type[M], within_s: float = WITHIN_S) -> M:
        """The next message of this kind; others stay for later."""
        until = time.monotonic() + within_s
        while True:
            for message in self.heard:
                if isinstance(message, kind):
                    self.heard.remove(message)
                    return message
            assert time.monotonic() < until, f"no {kind.__name__}; heard {self.heard}, {self.heartbeat}"
            self.pump()

    def wait(self, what: str, probe: Callable[[], object], within_s: float = WITHIN_S) -> None:
        until = time.monotonic() + within_s
        while not probe():
            assert time.monotonic() < until, f"not {what}; heard {self.heard}, {self.heartbeat}"
            self.pump()

    def wait_state(self, state: str) -> Heartbeat:
        self.heartbeat = None
        self.wait(f"state {state}", lambda: self.heartbeat is not None and self.heartbeat.state == state)
        assert self.heartbeat is not None
        return self.heartbeat

    def admit(self) -> Register:
        """Register the daemon and wait until it is ready and has granted its credit."""
        register = self.expect(Register)
        self.welcome(register)
        self.wait("ready", lambda: self.heartbeat is not None and self.heartbeat.state == "ready")
        self.wait("credit", lambda: self.granted - self.dispatched == 2 - len(register.tokens))
        return register

    def no_more(self, kind: type[Message], for_s: float = 0.3) -> None:
        """Nothing of this kind is there or comes while the daemon shows that it lives."""
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            self.pump()
        assert not [message for message in self.heard if isinstance(message, kind)]


__all__ = ["FakeRouter", "Returned", "job_order", "token"]
