"""A router of the test's own over a real ROUTER socket: it says what a script says."""

import hashlib
import threading
from collections.abc import Callable

import msgspec
import zmq

from common.codec import FROM_CLIENT, encode, part_sizes
from common.messages import JobView, Message, Picture, Result
from common.sockets import router_socket
from tests.ports import free_endpoint

JOB_ID = "ab" * 16
PICTURE = b"\x89PNG" + bytes(700_000)
Script = Callable[["FakeRouter", Message], None]


def view(state: str = "queued", **changes: object) -> JobView:
    made = JobView(
        job_id=JOB_ID,
        state=state,
        model="m",
        width=8,
        height=8,
        steps=4,
        seed=1,
        guidance_scale=1.0,
        priority=0,
        client="",
        deadline_at=0.0,
        created_at=1.0,
        started_at=0.0,
        ended_at=0.0,
        step=0,
        position=1,
        eta_s=None,
        attempts=0,
        worker_id="",
        device="",
        notes=(),
        error=None,
        picture=None,
        timings=None,
    )
    return msgspec.structs.replace(made, **changes)


class FakeRouter:
    """Answers as `script` says; keeps what it heard."""

    def __init__(self, script: Script, endpoint: str = "") -> None:
        self._script = script
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.endpoint = endpoint or free_endpoint()
        self._socket = router_socket(self._context, self.endpoint)
        self.heard: list[Message] = []
        self._peer = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def say(self, message: Message, payload: list[bytes] | None = None) -> None:
        self._socket.send_multipart([self._peer, *encode(message, payload or [])])

    def result(self, rid: str, data: bytes = PICTURE, sha256: str = "") -> None:
        parts = [data[:500_000], data[500_000:]]
        picture = Picture(
            format="png",
            width=8,
            height=8,
            drawn_width=8,
            drawn_height=8,
            bytes=len(data),
            sha256=sha256 or hashlib.sha256(data).hexdigest(),
        )
        self.say(Result(rid=rid, job_id=JOB_ID, job=view("done"), picture=picture, parts=part_sizes(parts)), parts)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(20):
                self._peer, *frames = self._socket.recv_multipart()
                message = FROM_CLIENT.decode(frames)
                self.heard.append(message)
                self._script(self, message)
