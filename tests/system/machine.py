"""A machine that systemd really boots: a container with Debian and the wheel of this checkout in it.

Debian's files are fetched once and kept (ROOTS); each machine writes to a layer of its own in memory, which ends with
it. It has a network of its own, in which the default ports are free. Needs root, systemd-nspawn and debootstrap.
"""

import ctypes
import fcntl
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.service import wait_for

ROOT = Path(__file__).resolve().parents[2]
ROOTS = Path(os.environ.get("GENSERVE_SYSTEM_ROOTS", "/var/cache/genserve-tests"))
SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}  # Debian with the Python that this environment's packages are for
MIRROR = "http://deb.debian.org/debian"
INCLUDED = "systemd,systemd-sysv,dbus,python3,python3-venv"
COMMAND = "/opt/genserve/bin/genserve"
WHEEL_FOLDER, PACKAGES_FOLDER = "/opt/wheel", "/opt/packages"  # of this environment, to be read in the machine
PACKAGES = ("zmq", "torch")  # found where the other dependencies are
BOOTED_WITHIN_S = 60.0
ENDED_WITHIN_S = 60.0
CALL_TIMEOUT_S = 150.0
CALLERS = 16  # threads that speak HTTP in the machine's network
CLONE_NEWNET = 0x40000000  # setns(2)
R = TypeVar("R")


def why_not() -> str:
    """What is missing to boot a machine here; '' where nothing is."""
    if os.geteuid() != 0:
        return "only root may boot a container: sudo make test-system"
    for tool, package in (("systemd-nspawn", "systemd-container"), ("debootstrap", "debootstrap")):
        if shutil.which(tool) is None:
            return f"{tool} is not installed: apt-get install {package}"
    if sys.version_info[:2] not in SUITES:
        return f"no Debian here has Python {sys.version_info.major}.{sys.version_info.minor}"
    try:
        debian = _debian()
    except subprocess.CalledProcessError as error:
        return f"debootstrap could not fetch Debian: {error.stdout[-300:]}"
    tried = subprocess.run([*_nspawn(debian, "genserve-try"), "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"systemd-nspawn cannot start a container here: {tried.stderr.strip()}"


def _debian() -> Path:
    """The kept root of a Debian, fetched now where it is not there yet."""
    suite = SUITES[sys.version_info[:2]]
    kept = ROOTS / suite
    ROOTS.mkdir(parents=True, exist_ok=True)
    with (ROOTS / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            half = ROOTS / f"{suite}.half"
            shutil.rmtree(half, ignore_errors=True)
            command = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", suite, str(half), MIRROR]
            subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
            half.rename(kept)
    return kept


def _nspawn(debian: Path, name: str, *options: str) -> list[str]:
    own = ["--register=no", "--keep-unit", "--volatile=overlay", "--private-network"]
    return [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "systemd-nspawn",
        "--quiet",
        *own,
        f"--machine={name}",
        f"--directory={debian}",
        *options,
    ]


def _wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("genserve-*.whl")
    return wheel


def _package_folders() -> list[Path]:
    """Where this environment keeps what GenServe depends on."""
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    return sorted({Path(spec.origin).parents[1] for spec in specs if spec and spec.origin})


class Machine:
    """A booted container. Use `booted`."""

    def __init__(self, process: psutil.Process, console: Path, wheel: str) -> None:
        self._process, self._console, self._wheel = process, console, wheel
        self._init = wait_for("init of the container", lambda: _init_below(process), BOOTED_WITHIN_S)
        self.callers = ThreadPoolExecutor(CALLERS, initializer=_enter_network, initargs=(self._init.pid,))

    def run(self, *words: str, check: bool = True, stdin: str = "") -> str:
        """What a command in the machine, as root, says on stdout; with `check` it must end with 0."""
        done = self.try_(*words, stdin=stdin)
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def try_(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """The same with its exit status."""
        enter = ["nsenter", "-t", str(self._init.pid), "-m", "-u", "-i", "-n", "-p", "--"]
        clean = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "COLUMNS": "200"}
        return subprocess.run(
            [*enter, *words],
            env=clean,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=CALL_TIMEOUT_S,
        )

    def genserve(self, *words: str) -> str:
        """What `genserve` there says; it must end with 0."""
        return self.run(COMMAND, *words)

    def write(self, path: str, text: str) -> None:
        """A file in the machine, with its folders."""
        self.run("sh", "-c", f"mkdir -p $(dirname {path}) && cat > {path}", stdin=text)

    def environment(self, folder: str) -> str:
        """A virtual environment with the wheel installed; its command."""
        self.run("python3", "-m", "venv", "--without-pip", folder)
        python = f"{folder}/bin/python"
        site = self.run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        self.write(f"{site}/packages.pth", self.run("sh", "-c", f"ls -d {PACKAGES_FOLDER}/*"))
        pip = (python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--root-user-action=ignore")
        self.run(*pip, f"{WHEEL_FOLDER}/{self._wheel}")
        return f"{folder}/bin/genserve"

    def property(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()

    def journal(self, *words: str) -> list[dict[str, Any]]:
        """Entries of the journal, oldest first."""
        said = self.run("journalctl", "--output=json", "--no-pager", *words)
        return [json.loads(line) for line in said.splitlines()]

    def call(self, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> "Future[tuple[int, Any]]":
        """(status, JSON body) of a request to the gateway, to come. A `body` is posted."""
        return self.callers.submit(_call, path, body, headers or {})

    def in_network(self, work: Callable[[], R]) -> R:
        """What `work` returns, done in the machine's network."""
        return self.callers.submit(work).result(CALL_TIMEOUT_S)

    def console(self) -> str:
        """What the machine wrote on its console while booting."""
        return self._console.read_text("utf-8", "replace")

    def off(self) -> None:
        """Power off, and wait until it is."""
        self.callers.shutdown(cancel_futures=True)
        self.run("systemctl", "poweroff", check=False)
        try:
            self._process.wait(ENDED_WITHIN_S)
        except psutil.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"the machine did not power off:\n{self.console()[-2000:]}") from None


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """A machine with the wheel installed in /opt/genserve, off again after the block."""
    wheel, console = _wheel(folder), folder / "console.log"
    bound = {str(path): f"{PACKAGES_FOLDER}/{index}" for index, path in enumerate(_package_folders())}
    binds = [f"--bind-ro={source}:{place}" for source, place in {**bound, str(folder): WHEEL_FOLDER}.items()]
    command = _nspawn(_debian(), f"genserve-{uuid.uuid4().hex[:8]}", *binds, "--boot")
    with console.open("wb") as out:
        process = psutil.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        machine = Machine(process, console, wheel.name)
        try:
            wait_for("booted system", lambda: _is_up(machine), BOOTED_WITHIN_S)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{machine.console()[-4000:]}") from None
        assert machine.environment("/opt/genserve") == COMMAND
        yield machine
        machine.off()
    finally:
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            process.kill()
        process.wait()


def _init_below(process: psutil.Process) -> psutil.Process | None:
    """The process that is number 1 in the container; nspawn has other children before it."""
    for child in process.children(recursive=True):
        try:
            status = Path(f"/proc/{child.pid}/status").read_text("ascii", "replace")
            if child.name() == "systemd" and re.search(r"^NSpid:.*\t1$", status, re.MULTILINE):
                return child
        except (OSError, psutil.NoSuchProcess):
            continue
    return None


def _is_up(machine: Machine) -> bool:
    return machine.try_("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")


def _enter_network(pid: int) -> None:
    """Of the thread that runs this: what it connects from now on lies in the network of process `pid`."""
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns failed")
    finally:
        os.close(descriptor)


def _call(path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:12411{path}", data=data, headers={"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=CALL_TIMEOUT_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
