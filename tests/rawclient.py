"""A raw ZeroMQ client of the tests, of pyzmq and msgpack alone: what a stranger would write."""

from types import TracebackType
from typing import Any, Self

import msgpack
import zmq

ENDS = (b"RESULT", b"FAILED", b"CANCELLED", b"REJECTED", b"ERROR")


class RawClient:
    """One DEALER. Every answer is (NAME, header, payload bytes)."""

    def __init__(self, endpoint: str, timeout_s: float = 120.0, key: dict[str, str] | None = None) -> None:
        """`key`: a key file as tomllib reads it."""
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(timeout_s * 1000))
        if key is not None:
            self.socket.curve_serverkey = key["router_public_key"].encode()
            self.socket.curve_publickey = key["public_key"].encode()
            self.socket.curve_secretkey = key["secret_key"].encode()
        self.socket.connect(endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(linger=0)

    def send(self, name: bytes, **header: Any) -> None:
        """Send one message."""
        self.socket.send_multipart([b"GS1", name, msgpack.packb(header)])

    def receive(self) -> tuple[bytes, dict[str, Any], bytes]:
        """The next message; raises zmq.Again when none comes in time."""
        version, name, header, *payload = self.socket.recv_multipart()
        assert version == b"GS1"
        return name, msgpack.unpackb(header), b"".join(payload)

    def ask(self, name: bytes, **header: Any) -> tuple[bytes, dict[str, Any], bytes]:
        """Send one message and take the next answer."""
        self.send(name, **header)
        return self.receive()

    def end_of(self, rid: str) -> tuple[bytes, dict[str, Any], bytes]:
        """The end of the job that was submitted or watched as `rid`."""
        while True:
            name, header, payload = self.receive()
            if name in ENDS and header["rid"] == rid:
                return name, header, payload

    def draw(self, rid: str = "1", **job: Any) -> tuple[bytes, dict[str, Any], bytes]:
        """Submit one job and wait for its end."""
        self.send(b"SUBMIT", rid=rid, job=job)
        return self.end_of(rid)
