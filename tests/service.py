"""A whole GenServe on this machine, started as its user would start it: `genserve up`.

Every instance gets ports, a folder and a log file of its own; stopping it checks that it leaves nothing.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.ports import free_ports

GENSERVE = str(Path(sys.executable).parent / "genserve")
READY_WITHIN_S = 120.0
STOPPED_WITHIN_S = 90.0
POLL_S = 0.02


def wait_for(what: str, probe: Callable[[], Any], within_s: float = 30.0) -> Any:
    """The first true value of `probe`; fails with `what` when there is none in time."""
    end = time.monotonic() + within_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {within_s} s")
        time.sleep(POLL_S)


def clean_environment() -> dict[str, str]:
    """That of this process without any setting of GenServe's."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("GENSERVE_", "FLUX_", "SAVE_TEST"))}


class Log:
    """A file that a process writes its log to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self, name: str) -> list[dict[str, Any]]:
        """The complete JSON lines of one event."""
        lines = self.path.read_text("utf-8", errors="replace").split("\n")[:-1]
        entries = (json.loads(line) for line in lines if f'"{name}"' in line and line.startswith("{"))
        return [entry for entry in entries if entry["event"] == name]


class Service:
    """A running `genserve up`."""

    def __init__(self, folder: Path, *args: str, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_ports()
        self.http_url = f"http://127.0.0.1:{self.port}"
        self.client_endpoint = f"tcp://127.0.0.1:{self.port + 1}"
        self.worker_endpoint = f"tcp://127.0.0.1:{self.port + 2}"
        self.log_path = folder / "service.log"
        self.state_dir = folder / "state"  # kept: another service in this folder takes it up
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [GENSERVE, "up", "--port", str(self.port), "--no-first-picture", *args],
                cwd=folder,
                env={
                    **clean_environment(),
                    "GENSERVE_LOG_LEVEL": "debug",
                    "GENSERVE_ROUTER_STATE_DIR": str(self.state_dir),
                    "XDG_STATE_HOME": str(folder / "xdg"),
                    **(env or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._seen: dict[int, psutil.Process] = {}

    # --- reading -------------------------------------------------------------------------------

    def get(self, path: str, timeout_s: float = 30.0) -> tuple[int, Any]:
        """(status, JSON body) of a GET."""
        return self._open(urllib.request.Request(self.http_url + path), timeout_s)[:2]

    def post(
        self, path: str, body: Any, timeout_s: float = 300.0, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """(status, JSON body, headers) of a POST of `body`: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.http_url + path, data=data, headers={"Content-Type": "application/json", **(headers or {})}
        )
        return self._open(request, timeout_s)

    def delete(self, path: str, timeout_s: float = 30.0) -> tuple[int, Any, dict[str, str]]:
        """(status, JSON body, headers) of a DELETE."""
        return self._open(urllib.request.Request(self.http_url + path, method="DELETE"), timeout_s)

    @staticmethod
    def _open(request: urllib.request.Request, timeout_s: float) -> tuple[int, Any, dict[str, str]]:
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, json.loads(answer.read()), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read()), dict(error.headers)

    def log_text(self) -> str:
        """All that the processes have written."""
        return self.log_path.read_text("utf-8", errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The JSON log lines of one event."""
        found = []
        for line in self.log_text().splitlines():
            if f'"{name}"' in line and line.startswith("{"):
                entry = json.loads(line)
                if entry["event"] == name:
                    found.append(entry)
        return found

    def processes(self, title: str) -> list[psutil.Process]:
        """The living processes of this service whose command line holds `title`."""
        found = []
        for process in [psutil.Process(self.process.pid), *self._descendants()]:
            try:
                if title in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def _descendants(self) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        self._seen.update({child.pid: child for child in children})
        return children

    # --- its life ------------------------------------------------------------------------------

    def wait_ready(self, workers: int = 1) -> "Service":
        """Until `workers` GPUs have drawn their warm-up picture."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"genserve up ended with {self.process.returncode}:\n{self.log_text()[-4000:]}")
            try:
                status, body = self.get("/health", timeout_s=5.0)
            except OSError:
                return False
            return status == 200 and body["workers_ready"] >= workers

        try:
            wait_for("ready service", ready, READY_WITHIN_S)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.log_text()[-4000:]}") from None
        self._descendants()
        return self

    def stop(self, sig: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop, wait until it has, and check that nothing of it is left; its exit status."""
        self._descendants()
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            status = self.process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not stop in {STOPPED_WITHIN_S} s:\n{self.log_text()[-4000:]}") from None
        left = [child for child in self._seen.values() if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        assert not left, f"left behind: {left}"
        return status

    def kill(self) -> None:
        """End everything at once, whatever state it is in."""
        self._descendants()
        for process in [*self._seen.values(), self.process]:
            try:
                process.kill()
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        self.process.wait()


@contextmanager
def running(
    folder: Path, *args: str, workers: int = 1, env: dict[str, str] | None = None, clean_log: bool = True
) -> Iterator[Service]:
    """A service that is ready inside the block, and stopped and checked after it.

    `clean_log`: its log must hold no traceback.
    """
    service = Service(folder, *args, env=env)
    try:
        yield service.wait_ready(workers)
        assert service.process.poll() is None, f"it ended by itself:\n{service.log_text()[-4000:]}"
        assert service.stop() == 0, service.log_text()[-4000:]
        assert not clean_log or "Traceback (most recent call last)" not in service.log_text(), service.log_text()
    finally:
        if service.process.poll() is None:
            service.kill()
