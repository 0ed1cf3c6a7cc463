"""A real router process, and DEALERs played by hand that speak to it."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import zmq

from common.keys import KeyFile
from tests.keyring import come_in_with
from tests.ports import free_endpoint
from tests.service import wait_for

SOON_S = 10.0
CARD = {"name": "m", "width": 64, "height": 64, "side_min": 16, "steps": 4, "edits": True}
_CODE = (
    "import os, sys; from common.settings import RouterSettings, load_settings; from router.app import run;"
    "sys.exit(run(load_settings(RouterSettings, env=os.environ)))"
)


class Dealer:
    """Says anything; hears (NAME, header, payload)."""

    def __init__(self, context: Any, endpoint: str, receive_max: int = 1000, key: KeyFile | None = None) -> None:
        self.heard: list[tuple[bytes, dict[str, Any], list[bytes]]] = []  # and not asked for yet
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.RCVHWM, receive_max)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self.socket.setsockopt(zmq.RCVTIMEO, int(SOON_S * 1000))
        self.socket.setsockopt(zmq.SNDTIMEO, int(SOON_S * 1000))
        if key is not None:
            come_in_with(self.socket, key)
        self.socket.connect(endpoint)

    def send(self, name: bytes, *payload: bytes, **header: Any) -> None:
        self.socket.send_multipart([b"GS1", name, msgpack.packb(header), *payload])

    def receive(self) -> tuple[bytes, dict[str, Any], list[bytes]]:
        _, name, header, *payload = self.socket.recv_multipart()
        return name, msgpack.unpackb(header), payload

    def until(self, wanted: bytes) -> tuple[dict[str, Any], list[bytes]]:
        """The next message of this name; what comes before it is kept for later."""
        for at, (name, header, payload) in enumerate(self.heard):
            if name == wanted:
                del self.heard[at]
                return header, payload
        while True:
            name, header, payload = self.receive()
            if name == wanted:
                return header, payload
            self.heard.append((name, header, payload))

    def ask(self, name: bytes, answer: bytes, *payload: bytes, **header: Any) -> tuple[dict[str, Any], list[bytes]]:
        self.send(name, *payload, **header)
        return self.until(answer)


class Daemon(Dealer):
    """A GPU daemon: it registers with what the test says it holds."""

    def __init__(self, context: Any, endpoint: str, name: str = "w", key: KeyFile | None = None) -> None:
        super().__init__(context, endpoint, key=key)
        self.name = name
        self.card, self.boot_id = CARD, "b"
        self.nonces = 0
        self.epoch = 0
        self.granted = 0

    def register(self, *held: tuple[dict[str, Any], str], credit: int = 2) -> dict[str, Any]:
        """The WELCOME."""
        self.nonces += 1
        tokens = [{"token": token, "stage": stage} for token, stage in held]
        self.send(
            b"REGISTER", worker_id=self.name, boot_id=self.boot_id, nonce=str(self.nonces), host="h",
            device={"device": self.name, "kind": "cpu"}, models=[self.card], tokens=tokens,
        )  # fmt: skip
        while True:
            welcome, _ = self.until(b"WELCOME")
            if welcome["nonce"] == str(self.nonces):
                break
        self.epoch, self.granted = welcome["epoch"], 0
        self.send(b"HEARTBEAT", epoch=self.epoch, state="ready")
        self.grant(credit)
        return welcome

    def grant(self, more: int = 1) -> None:
        if more:
            self.granted += more
            self.send(b"CREDIT", epoch=self.epoch, granted_total=self.granted)

    def started(self, token: Any) -> None:
        self.send(b"STARTED", epoch=self.epoch, token=token)

    def done(self, token: Any, *parts: bytes) -> None:
        data = b"".join(parts)
        picture = {"format": "png", "width": 64, "height": 64, "drawn_width": 64, "drawn_height": 64}
        picture |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        sizes = [len(part) for part in parts]
        self.send(b"DONE", *parts, epoch=self.epoch, token=token, picture=picture, parts=sizes, timings={})


class RouterProcess:
    """A router in `folder`, its log in a file there; `start` may be called again after its end."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.clients, self.workers = free_endpoint(), free_endpoint()
        self.environment = {
            "GENSERVE_ROUTER_CLIENT_ENDPOINT": self.clients,
            "GENSERVE_ROUTER_WORKER_ENDPOINT": self.workers,
            "GENSERVE_ROUTER_STATE_DIR": str(self.state_dir),
            "GENSERVE_ROUTER_DISK_FREE_MIN_MB": "1",
            "GENSERVE_ROUTER_JOURNAL_RESERVE_MB": "1",
            "GENSERVE_LOG_FORMAT": "json",
            **environment,
        }
        self.lives = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.context: zmq.Context[Any] = zmq.Context()
        self.dealers: list[Dealer] = []  # kept: a socket must be closed before its context

    def start(self, *, wait: bool = True, file_bytes_max: int = resource.RLIM_INFINITY) -> "RouterProcess":
        self.lives += 1
        with self.log_path.open("wb") as log, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CODE],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
            )
        if file_bytes_max != resource.RLIM_INFINITY:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (file_bytes_max, resource.RLIM_INFINITY))
        if wait:
            self.wait_event("router.listening")
        return self

    @property
    def log_path(self) -> Path:
        return self.folder / f"router-{self.lives}.log"

    @property
    def _errors(self) -> Path:
        return self.folder / f"router-{self.lives}.err"

    @property
    def errors(self) -> str:
        """What this life has said on stderr."""
        return self._errors.read_text("utf-8")

    @property
    def log_text(self) -> str:
        """What this life has logged."""
        return self.log_path.read_text("utf-8")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The complete log lines of one event, of this life."""
        lines = self.log_path.read_text("utf-8").split("\n")[:-1]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def wait_event(self, name: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            events = self.events(name)
            assert self.process is not None
            if not events and self.process.poll() is not None and not self.events(name):
                raise AssertionError(f"the router ended with {self.process.returncode}: {self.errors}")
            return events[0] if events else None

        event: dict[str, Any] = wait_for(name, found, SOON_S)
        return event

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(sig)
        return self.wait()

    def wait(self) -> int:
        """Its exit status."""
        assert self.process is not None
        return self.process.wait(SOON_S)

    def client(self, key: KeyFile | None = None) -> Dealer:
        self.dealers.append(Dealer(self.context, self.clients, key=key))
        return self.dealers[-1]

    def daemon(self, name: str = "w", key: KeyFile | None = None) -> Daemon:
        daemon = Daemon(self.context, self.workers, name, key)
        self.dealers.append(daemon)
        return daemon


@contextmanager
def router_process(folder: Path, **environment: str) -> Iterator[RouterProcess]:
    """A router that is started inside the block by the test, and ended after it whatever happened."""
    router = RouterProcess(folder, **environment)
    try:
        yield router
    finally:
        if router.process is not None and router.process.poll() is None:
            router.kill()
        router.context.destroy(linger=0)
