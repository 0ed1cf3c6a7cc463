"""What the checks look at: this machine, its settings, its devices, its model folder. Each found once, when asked for.

Where a fact cannot be had, NotChecked says why: the check that is about that fact tells what is wrong with it.
"""

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import GenServeError
from common.keys import load_client_key
from common.messages import DeviceInfo, StatusReply
from common.settings import (
    ClientSettings,
    Examined,
    GatewaySettings,
    GpuDaemonSettings,
    RouterSettings,
    UpSettings,
    examine_settings,
)
from common.sockets import connectable, is_loopback
from genserve.client import Client, RouterAddress
from genserve.diagnose.listeners import listeners, speaks_zeromq
from genserve.installation import layout
from gpu_daemon.device_lock import is_held
from gpu_daemon.devices import cpu, list_gpus, parse_devices
from gpu_daemon.model_check import PARTS, Checked, check_folder
from gpu_daemon.model_folder import EMBEDDED
from router.state_folder import state_folder

ROUTER_ANSWERS_WITHIN_S = 2.0
TOKENIZER = "tokenizer.json"
ROUTER_UNIT = layout.ROUTER


class NotChecked(Exception):  # noqa: N818  # nothing is wrong: there is nothing to be said
    """Why a check has nothing to say."""


@dataclass
class Host:
    """One machine as one diagnosis sees it. `flags` are settings from the command line, by section.

    `port`: as `genserve up --port` has it. `say` gets what a long check is doing.
    """

    env: Mapping[str, str]
    flags: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    port: int | None = None
    etc: Path = Path("/etc")
    systemd_runs: Path = Path("/run/systemd/system")  # sd_booted(3)
    say: Callable[[str], None] = lambda _text: None

    @cached_property
    def settings(self) -> Examined:
        """All settings, faults included."""
        flags = {**self.flags}
        if self.port is not None:
            flags["gateway"] = {**flags.get("gateway", {}), "port": self.port}
        return examine_settings(self.env, flags)

    def source(self, name: str) -> str:
        """Where a setting came from: 'default', a variable, a flag or a file."""
        return self.settings.sources[name]

    @property
    def router(self) -> RouterSettings:
        """The router's."""
        found = self.settings.sections["router"]
        assert isinstance(found, RouterSettings)
        return found

    @property
    def daemon(self) -> GpuDaemonSettings:
        """The GPU daemons'."""
        found = self.settings.sections["gpu_daemon"]
        assert isinstance(found, GpuDaemonSettings)
        return found

    @property
    def gateway(self) -> GatewaySettings:
        """The gateway's."""
        found = self.settings.sections["gateway"]
        assert isinstance(found, GatewaySettings)
        return found

    @property
    def client(self) -> ClientSettings:
        """Those of the operator's commands."""
        found = self.settings.sections["client"]
        assert isinstance(found, ClientSettings)
        return found

    @property
    def up(self) -> UpSettings:
        """Those of `genserve up`."""
        found = self.settings.sections["up"]
        assert isinstance(found, UpSettings)
        return found

    # --- addresses -----------------------------------------------------------------------------

    @property
    def client_endpoint(self) -> str:
        """Where this machine's router listens to clients."""
        return self._endpoint("client_endpoint", 1)

    @property
    def worker_endpoint(self) -> str:
        """Where this machine's router listens to GPU daemons."""
        return self._endpoint("worker_endpoint", 2)

    def _endpoint(self, key: str, offset: int) -> str:
        """As `genserve up` has it, which tells its router; services read the settings by themselves."""
        http = self.gateway.port if self.source("gateway.port") != "default" else 0
        up = self.port is not None or not (self.units / ROUTER_UNIT).exists()
        if http and up and self.source(f"router.{key}") == "default":
            return f"tcp://127.0.0.1:{http + offset}"
        value: str = getattr(self.router, key)
        return value

    @cached_property
    def router_elsewhere(self) -> str:
        """The worker endpoint of the router on another host that this one's daemons serve; '' where it is its own."""
        other = self.daemon.router_endpoint
        loopback = re.match(r"tcp://(127\.|localhost:|\[::1\])", other)
        return "" if loopback or other == self.router.worker_endpoint else other

    @cached_property
    def status(self) -> StatusReply | GenServeError:
        """What the router says of the service, or why it says nothing."""
        endpoint = connectable(self.client_endpoint)
        if self.source("gateway.router_endpoint") != "default" and self.router_elsewhere:
            endpoint = self.gateway.router_endpoint
        address, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        if is_loopback(address) and not (listeners(int(port)) and speaks_zeromq(address.strip("[]"), int(port))):
            return GenServeError("unavailable", f"nobody who listens at {endpoint} speaks ZeroMQ")
        try:
            key = load_client_key(self.client.key_file, self.env)
            with Client(RouterAddress(endpoint, key), answer_timeout_s=ROUTER_ANSWERS_WITHIN_S) as client:
                return client.status()
        except GenServeError as error:
            return error

    @cached_property
    def served(self) -> frozenset[str]:
        """The devices of this machine that daemons serve already, as far as the router or a lock tells."""
        held = {device.device for device in self.devices if device.kind == "cuda" and is_held(device)}
        workers = self.status.workers if isinstance(self.status, StatusReply) else ()
        return frozenset(held | {worker.device.device for worker in workers if worker.host == socket.gethostname()})

    # --- devices and model ---------------------------------------------------------------------

    @cached_property
    def gpus(self) -> list[DeviceInfo]:
        """The GPUs that may be used."""
        try:
            return list_gpus(self.env)
        except GenServeError:
            raise NotChecked("the driver does not answer: see gpus.driver") from None

    @cached_property
    def devices(self) -> list[DeviceInfo]:
        """Those that GenServe would serve, as the settings have it."""
        labels = self.up.gpus or self.daemon.device
        gpus = {} if labels and "cpu" in labels and "cuda" not in labels else {gpu.device: gpu for gpu in self.gpus}
        try:
            names = parse_devices(labels, list(gpus.values()))
        except GenServeError:
            raise NotChecked("the list of devices is not right: see gpus.assignment") from None
        return [gpus[name] if name in gpus else cpu(name) for name in names]

    @property
    def model_path(self) -> Path:
        """The folder that would be served."""
        given = self.daemon.model_path
        return Path(given).expanduser().absolute() if given else EMBEDDED

    @property
    def spared(self) -> frozenset[str]:
        """Packages that this model is drawn without: SentencePiece, where each tokenizer.json is there."""
        folders = (self.model_path / part for part in PARTS if PARTS[part].vocabularies)
        return frozenset(("sentencepiece",) if all((folder / TOKENIZER).exists() for folder in folders) else ())

    @cached_property
    def model(self) -> Checked:
        """What is to be said of that folder."""
        self.need_model()
        return check_folder(self.model_path)

    def need_model(self) -> None:
        """Raise NotChecked where no model is served."""
        if self.daemon.engine == "noop":
            raise NotChecked("gpu_daemon.engine = 'noop' draws without a model")

    # --- systemd -------------------------------------------------------------------------------

    @property
    def units(self) -> Path:
        """The folder of units that were installed."""
        return self.etc / "systemd" / "system"

    @cached_property
    def state_dir(self) -> Path:
        """The folder of the router's journal: of the installed unit where there is one, as the settings have it."""
        unit = self.units / ROUTER_UNIT
        if not self.router.state_dir and "STATE_DIRECTORY" not in self.env and unit.exists():
            named = re.search(r"^StateDirectory=(\S+)", unit.read_text("utf-8", "replace"), re.MULTILINE)
            if named:
                return Path("/var/lib") / named[1]
        port = int(self.client_endpoint.rpartition(":")[2])
        return state_folder(self.router.state_dir, port, self.env)
