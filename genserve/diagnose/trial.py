"""A real load and a real picture of one step, in an engine process started as its daemon would start it.

The engine is ended afterwards, whatever happens. A GPU that a daemon serves is left to it.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import zmq

from common.clock import monotonic_s
from common.codec import Direction, encode
from common.errors import ERRORS
from common.messages import DeviceInfo, JobOrder, Message, Token
from common.settings import LogSettings
from common.sockets import Socket, pair_listener
from genserve.diagnose.finding import Note, check, fail, ok
from genserve.diagnose.host import Host, NotChecked
from genserve.diagnose.model import fetch_weights
from genserve.diagnose.outside import SAID_CHARS_MAX
from gpu_daemon.devices import engine_environment
from gpu_daemon.engine_messages import (
    ENGINE_TO_CONTROL,
    Broken,
    Draw,
    Drawn,
    EngineStart,
    Loading,
    Quit,
    Ready,
    Step,
    Undrawn,
)
from gpu_daemon.supervisor import Supervisor

FROM_ENGINE = Direction("from an engine", ENGINE_TO_CONTROL)
TOKEN = Token(job_id="0" * 32, dispatch=1)
PROMPT, SEED = "a large red star on a yellow background", 7
DRAW_WITHIN_S = 120.0
POLL_MS = 100
MARGIN_S = 15.0
WRONG_NUMBERS = re.compile("are not finite numbers|all black picture")  # an engine_error that weights make
PNG = b"\x89PNG"
MENDS = {
    "device_unavailable": "nvidia-smi; genserve diagnose --only gpus,environment",
    "model_load_failed": "genserve diagnose --only environment,model,tokenizers",
    "out_of_memory": "export GENSERVE_GPU_DAEMON_OFFLOAD=on",
}


class EngineLost(Exception):  # noqa: N818  # says what happened
    """The engine did not do what it should: how so, and the command that helps."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.mend = mend


def _bound_s(host: Host) -> float:
    return max(1, len(host.devices)) * (host.daemon.engine_start_timeout_s + DRAW_WITHIN_S + MARGIN_S)


@check(
    "engine.draw",
    "An engine really started on each device: the model loaded, a picture of one step drawn",
    bound_s=_bound_s,
    slow=True,
)
def draw(host: Host) -> Iterator[Note]:
    """Processors are alike: of several CPU engines one is tried."""
    if host.daemon.engine == "flux" and host.model.faults:
        raise NotChecked("the model folder has faults: see `--only model`")
    tried = {device.device if device.kind == "cuda" else "cpu": device for device in host.devices}
    for device in tried.values():
        if device.kind == "cuda" and device.device in host.served:
            yield ok(f"{device.device}: not tried, a daemon serves it now")
            continue
        trial = Trial(host, device)
        try:
            yield ok(f"{device.device}: {trial.run()}")
        except EngineLost as lost:
            yield fail(f"{device.device}: {lost}", lost.mend)
        finally:
            trial.close()


class Trial:
    """One engine, from its start to its end."""

    def __init__(self, host: Host, device: DeviceInfo) -> None:
        self._host = host
        self._device = device
        self._ready = False
        self._aside = tempfile.TemporaryDirectory(prefix="genserve-trial-")  # torch leaves folders behind
        self._said = Path(self._aside.name, "said")
        self._supervisor = Supervisor(
            self._command,
            engine_environment(device, {**host.env, "TMPDIR": self._aside.name}),
            start_timeout_s=host.daemon.engine_start_timeout_s,
        )
        self._context: zmq.Context[Socket] = zmq.Context()
        self._socket: Socket | None = None

    def run(self) -> str:
        """Load, draw, and how long each took. Raises EngineLost."""
        began = monotonic_s()
        path = self._supervisor.new_path()
        self._socket = pair_listener(self._context, path)
        self._supervisor.start(path, began)
        ready, _ = self._await(Ready, began + self._host.daemon.engine_start_timeout_s)
        loaded = monotonic_s()
        self._supervisor.ready(loaded)
        self._ready = True
        card = ready.card
        width, height = card.nearest_native(card.side_min, card.side_min, area=card.side_min**2)
        order = JobOrder(
            prompt=PROMPT, negative_prompt="", model=card.name, width=width, height=height, drawn_width=width,
            drawn_height=height, steps=1, guidance_scale=card.guidance_scale, true_cfg_scale=1.0, seed=SEED, priority=0,
            client="", save=False,
        )  # fmt: skip
        self._socket.send_multipart(encode(Draw(token=TOKEN, job=order)), zmq.DONTWAIT)
        drawn, payload = self._await(Drawn, loaded + DRAW_WITHIN_S)
        data = b"".join(payload)
        if not data.startswith(PNG) or hashlib.sha256(data).hexdigest() != drawn.picture.sha256:
            raise EngineLost("what the engine drew is no picture", "genserve diagnose --only environment,engine")
        how = ", offloaded" if ready.offloaded else ""
        return (
            f"{card.name} loaded in {loaded - began:.1f} s{how}, {width}x{height} in one step drawn in "
            f"{drawn.timings.total_s:.2f} s"
        )

    def close(self) -> None:
        """Leave no process and no socket behind."""
        if self._socket is not None and self._ready:
            with suppress(zmq.Again):  # it does not read any more: it is killed below
                self._socket.send_multipart(encode(Quit()), zmq.DONTWAIT)
        self._supervisor.close(wait=self._ready)
        if self._socket is not None:
            self._socket.close(linger=0)
        self._context.term()
        self._aside.cleanup()

    def _command(self, path: str) -> Sequence[str]:
        start = EngineStart(
            path=path,
            parent_pid=os.getpid(),
            settings=self._host.daemon,
            log=LogSettings(level="error", format="json"),
            device=self._device,
        )
        # What it logs is not a person's to read here: the message says what is wrong.
        aside = ["/bin/sh", "-c", 'exec "$@" >"$0" 2>&1', str(self._said)]
        return [*aside, sys.executable, "-P", "-m", "gpu_daemon.engine", msgspec.json.encode(start).decode()]

    def _last_words(self) -> str:
        lines = self._said.read_text("utf-8", "replace").split("\n") if self._said.exists() else []
        last = next((line for line in reversed(lines) if line.strip()), "")
        with suppress(ValueError, TypeError, KeyError):  # not of our own log, or without a traceback
            last = json.loads(last)["traceback"].strip().split("\n")[-1]
        return f": {last[:SAID_CHARS_MAX]}" if last else ""

    def _await(self, kind: type[Any], until: float) -> tuple[Any, list[bytes]]:
        """The next message of a kind, and its payload. Raises EngineLost."""
        assert self._socket is not None
        while monotonic_s() < until:
            if self._socket.poll(POLL_MS):
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
                self._supervisor.connected()
                message = FROM_ENGINE.decode(frames)
                if isinstance(message, kind):
                    return message, frames[3:]
                self._heed(message)
            elif how := self._supervisor.reap(monotonic_s()):
                raise EngineLost(
                    f"the engine {how}{self._last_words()}", "genserve diagnose --only environment,memory,gpus"
                )
        raise EngineLost(
            f"nothing came of it in time ({kind.__name__.lower()}): gpu_daemon.engine_start_timeout_s = "
            f"{self._host.daemon.engine_start_timeout_s:g}",
            "genserve diagnose --only memory,gpus,disk",
        )

    def _heed(self, message: Message) -> None:
        match message:
            case Loading():
                self._host.say(f"{self._device.device}: {message.stage}, {message.fraction:.0%}")
            case Step():
                self._host.say(f"{self._device.device}: drawing")
            case Broken() | Undrawn() if message.code == "engine_error":
                text = f"{message.code}: {message.message}"
                if WRONG_NUMBERS.search(message.message):  # of weights that look whole
                    raise EngineLost(text, fetch_weights(self._host.model_path))
                raise EngineLost(f"{text}{self._last_words()}", "genserve diagnose --only environment,model,tokenizers")
            case Broken() | Undrawn():
                mend = MENDS.get(message.code, "genserve diagnose --only environment,model,tokenizers")
                next_step = ERRORS[message.code].next_step if message.code in ERRORS else ""
                raise EngineLost(f"{message.code}: {message.message}{f' ({next_step})' if next_step else ''}", mend)


CHECKS = (draw,)
