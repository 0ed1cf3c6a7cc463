"""A real daemon process with a real no-op engine process, whose router a test plays."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

from tests.gpu_daemon.fake_router import FakeRouter

RUN = (
    "import os, sys\nfrom common.settings import GpuDaemonSettings, load_settings\nfrom gpu_daemon.control import run\n"
    "sys.exit(run(load_settings(GpuDaemonSettings, env=os.environ)))"
)


class Daemon:
    """One daemon process; its log lines and its temporary folder are its own."""

    def __init__(self, router: FakeRouter, folder: Path, **settings: object) -> None:
        self.router = router
        self.tmp = Path(tempfile.mkdtemp(prefix="genserve-test-"))  # in a short path, since it holds a socket
        weakref.finalize(self, shutil.rmtree, self.tmp)
        self.log_path = folder / "log"
        usual: dict[str, object] = {"engine": "noop", "device": "cpu", "router_endpoint": router.endpoint}
        env = {name: value for name, value in os.environ.items() if not name.startswith("GENSERVE_")}
        env |= {f"GENSERVE_GPU_DAEMON_{key.upper()}": str(value) for key, value in (usual | settings).items()}
        env |= {"TMPDIR": str(self.tmp), "GENSERVE_LOG_LEVEL": "debug", "GENSERVE_LOG_FORMAT": "json"}
        with self.log_path.open("wb") as out:
            self.process = subprocess.Popen([sys.executable, "-c", RUN], env=env, stdout=out, stderr=out, cwd=folder)

    def engine_pid(self) -> int:
        self.router.wait_state("ready")
        assert self.router.heartbeat is not None
        return self.router.heartbeat.engine_pid

    def log(self, event: str) -> list[dict[str, Any]]:
        lines = self.log_path.read_text("utf-8").splitlines()
        return [line for line in map(json.loads, filter(lambda text: text[:1] == "{", lines)) if line["event"] == event]

    def wait_end(self) -> int:
        """Its exit status, while the router keeps listening."""
        self.router.wait("the daemon's end", lambda: self.process.poll() is not None)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
