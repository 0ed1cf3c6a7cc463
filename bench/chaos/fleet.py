"""The service under test: a router, GPU daemons with no-op engines and a gateway, all behind proxies of ours."""

import asyncio
import os
import resource
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import zmq
import zmq.asyncio

from bench.chaos.parts import Kept
from bench.chaos.proxy import Proxy
from bench.service_cost import free_port
from common.clock import monotonic_s
from common.codec import TO_CLIENT, encode
from common.messages import ClientMessage, Message, Ping, StatusQuery, StatusReply
from common.sockets import FRAME_BYTES_MAX
from genserve.parts import Part

STEP_S = (0.08, 0.15, 0.25)  # of the GPUs' engines: they are unequal
STATE_DISK_MB = 64
DISK_FREE_MIN_MB = 16
RESERVE_MB = 4
STOP_S = 30.0
READY_WITHIN_S = 60.0
ASK_TIMEOUT_S = 5.0
LOOK_S = 0.05


class Fleet:
    """All parts, by name: 'router', 'gpu-0' …, 'gateway'."""

    def __init__(self, folder: Path) -> None:
        base = free_port()
        self.folder = folder
        self.http_url = f"http://127.0.0.1:{base + 2}"
        self.client_endpoint = f"tcp://127.0.0.1:{base}"
        self.proxies = {f"gpu-{n}": Proxy(f"gpu-{n}", base + 1) for n in range(len(STEP_S))}
        self.proxies |= {name: Proxy(name, base) for name in ("gateway", "raw clients")}
        self.disk = Disk(folder / "disk")
        self.parts: dict[str, Kept] = {}
        self._ports = base
        self._context = zmq.asyncio.Context()
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def daemons(self) -> list[Kept]:
        """Of the GPUs."""
        return [part for name, part in self.parts.items() if name.startswith("gpu-")]

    @property
    def state_dir(self) -> Path:
        """The router's."""
        return self.disk.folder / "state"

    async def start(self) -> None:
        """Start everything; returns when each GPU is ready and the gateway answers."""
        for proxy in self.proxies.values():
            await proxy.open()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("GENSERVE_", "FLUX_", "SAVE_TEST"))}
        env |= {"GENSERVE_LOG_FORMAT": "json", "GENSERVE_LOG_LEVEL": "debug"}
        router = {
            "GENSERVE_ROUTER_STATE_DIR": str(self.state_dir),
            "GENSERVE_ROUTER_DISK_FREE_MIN_MB": str(DISK_FREE_MIN_MB if self.disk.mounted else 1),
            "GENSERVE_ROUTER_JOURNAL_RESERVE_MB": str(RESERVE_MB),
        }
        worker_endpoint = f"tcp://127.0.0.1:{self._ports + 1}"
        endpoints = ("--client-endpoint", self.client_endpoint, "--worker-endpoint", worker_endpoint)
        self._add("router", ("router", *endpoints), env | router)
        for number, step_s in enumerate(STEP_S):
            name = f"gpu-{number}"
            arguments = ("--device", f"cpu:{number}", "--engine", "noop", "--worker-id", name)
            own = ("--router-endpoint", self.proxies[name].endpoint)
            self._add(name, ("gpu-daemon", *arguments, *own), env | {"GENSERVE_GPU_DAEMON_NOOP_STEP_S": str(step_s)})
        port = str(self._ports + 2)
        link = ("--router-endpoint", self.proxies["gateway"].endpoint)
        self._add("gateway", ("gateway", "--port", port, *link), env)
        self._keepers = [asyncio.create_task(part.keep()) for part in self.parts.values()]
        await self.ready()

    def _add(self, name: str, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        self.parts[name] = Kept(Part(name, arguments, STOP_S), env, self.folder)

    async def ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Until every GPU is ready for jobs and the gateway listens. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                with suppress(TimeoutError, ConnectionError):
                    status = await self.status()
                    _, writer = await asyncio.open_connection("127.0.0.1", self._ports + 2)
                    writer.close()
                    if sum(worker.state == "ready" for worker in status.workers) == len(STEP_S):
                        return
                await asyncio.sleep(LOOK_S)

    async def status(self) -> StatusReply:
        """The router's. Raises TimeoutError."""
        answer, _ = await self.ask(StatusQuery(rid="status"))
        assert isinstance(answer, StatusReply), answer
        return answer

    async def ask(self, question: ClientMessage, timeout_s: float = ASK_TIMEOUT_S) -> tuple[Message, bytes]:
        """The direct answer of the router, on a connection of its own past all proxies. Raises TimeoutError."""
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        socket.connect(self.client_endpoint)
        try:
            async with asyncio.timeout(timeout_s):
                await socket.send_multipart(encode(question))
                while True:
                    frames = await socket.recv_multipart()
                    answer = TO_CLIENT.decode(frames)
                    if getattr(answer, "rid", "") == question.rid and answer.NAME != b"PROGRESS":
                        return answer, b"".join(frames[3:])
        finally:
            socket.close()

    async def serving_after_s(self, began: float, within_s: float = READY_WITHIN_S) -> float:
        """Seconds from `began` until a router answers a new client. Raises TimeoutError."""
        await self.ask(Ping(rid="ping"), within_s)
        return monotonic_s() - began

    async def stop(self) -> list[str]:
        """Stop everything, in the order of `genserve up`; what was left behind."""
        await self.parts["gateway"].end()
        await asyncio.gather(*(daemon.end() for daemon in self.daemons))
        await self.parts["router"].end()
        await asyncio.gather(*self._keepers)
        left = await asyncio.gather(*(daemon.left_behind() for daemon in self.daemons))
        return [
            f"an engine of {d.name} outlived it: {pid}"
            for d, pids in zip(self.daemons, left, strict=True)
            for pid in pids
        ]

    async def close(self) -> None:
        """Leave nothing, whatever happened before."""
        for part in self.parts.values():
            part.end_at_once()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for proxy in self.proxies.values():
            proxy.close()
        self._context.destroy(linger=0)
        self.disk.close()


class Disk:
    """The file system of the router's state: a small one where this user may mount one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        command = ["mount", "-t", "tmpfs", "-o", f"size={STATE_DISK_MB}m", "none", str(folder)]
        self.mounted = (
            bool(shutil.which("mount")) and subprocess.run(command, capture_output=True, check=False).returncode == 0
        )

    @property
    def how(self) -> str:
        """How it is filled, in words."""
        if self.mounted:
            return f"a tmpfs of {STATE_DISK_MB} MiB"
        return "RLIMIT_FSIZE of the router, for want of the right to mount"

    def fill(self, router_pid: int) -> None:
        """Take all room; or, without a disk of our own, let the present router write no file beyond its size."""
        if not self.mounted:
            resource.prlimit(router_pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            return
        facts = os.statvfs(self.folder)
        with (self.folder / "filler").open("wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, facts.f_bavail * facts.f_frsize))

    def free(self, router_pid: int) -> None:
        """Give the room back."""
        if self.mounted:
            (self.folder / "filler").unlink(missing_ok=True)
        elif router_pid:
            with suppress(ProcessLookupError):
                resource.prlimit(router_pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self) -> None:
        """Unmount."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
