"""The engine process: loads a backend, draws what its daemon hands it, and tells how that went.

One thread. It listens between two steps of a drawing and otherwise waits for its daemon, whom it never
outlives. It knows nothing of the router, and torch only through its backend.
"""

import faulthandler
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog
import zmq

from common.clock import monotonic_s, wall_s
from common.codec import HEAD_FRAMES, Buffer, Direction, divide, encode, part_sizes, split_payload
from common.errors import Fault, GenServeError
from common.log import configure, get_logger
from common.messages import DeviceInfo, DeviceLoad, Message, Note, Token
from common.process import die_with_parent, name_process
from common.settings import GpuDaemonSettings
from common.sockets import Socket, pair_connector
from gpu_daemon.engine.backend import Backend, EngineMustEnd, Painting, Preview, Stopped
from gpu_daemon.engine.saving import save_picture
from gpu_daemon.engine_messages import (
    CONTROL_TO_ENGINE,
    Begun,
    Broken,
    Draw,
    Drawn,
    EngineStart,
    Load,
    Loading,
    Quit,
    Ready,
    Step,
    Stop,
    Undrawn,
)

FROM_CONTROL = Direction("to an engine", CONTROL_TO_ENGINE)
TEXT_CHARS_MAX = 4000  # as common/messages has it
LOAD_INTERVAL_MS = 1000  # between two LOAD while nothing is drawn
STEP_LOAD_INTERVAL_S = 0.25  # least time between two looks at the memory while something is
QUIT_WAIT_S = 5.0  # for the daemon's QUIT after BROKEN


class Engine:
    """A backend and the socket to its daemon."""

    def __init__(self, socket: Socket, start: EngineStart) -> None:
        self._socket = socket
        self._start = start
        self._settings = start.settings
        self._log = get_logger()
        self._backend: Backend | None = None
        self._quitting = False
        self._began_at = monotonic_s()
        self._load = DeviceLoad()
        self._load_at = float("-inf")

    def run(self) -> int:
        """Until QUIT; the status to end with."""
        try:
            backend = self._load_backend()
        except Exception as error:  # whatever it is, the daemon has to hear of it
            code = error.code if isinstance(error, GenServeError) else "engine_error"
            message = error.message if isinstance(error, GenServeError) else f"{type(error).__name__}: {error}"
            self._log.error("engine.load_failed", code=code, exc_info=error)
            self._send(Broken(code=code, message=_text(f"the engine could not start: {message}")))
            self._await_quit()
            return 1
        self._backend = backend
        self._send(
            Ready(
                card=backend.card,
                device=backend.device,
                load=self._device_load(backend),
                load_s=monotonic_s() - self._began_at,
                offloaded=backend.offloaded,
            )
        )
        return self._serve(backend)

    def _load_backend(self) -> Backend:
        self._report("starting", 0.0)
        backend = make_backend(self._settings, self._start.device)
        backend.load(self._report)
        return backend

    def _serve(self, backend: Backend) -> int:
        idle_since, told_idle = monotonic_s(), False
        while not self._quitting:
            if self._socket.poll(LOAD_INTERVAL_MS):
                message, payload = self._receive()
                if isinstance(message, Draw):
                    if not self._draw(backend, message, payload):
                        return 1
                    idle_since, told_idle = monotonic_s(), False
                continue
            if os.getppid() != self._start.parent_pid:
                return 1
            if not told_idle and monotonic_s() - idle_since >= self._settings.idle_after_s:
                backend.became_idle()
                told_idle = True
            self._send(Load(load=self._device_load(backend)))
        return 0

    def _draw(self, backend: Backend, order: Draw, payload: Sequence[Buffer]) -> bool:
        """Draw one picture; can this process draw another?"""
        token, began_at = order.token, monotonic_s()
        self._send(Begun(token=token))
        self._log.debug("job.drawing", job_id=token.job_id, prompt=order.job.prompt, seed=order.job.seed)
        fault: Exception | None = None
        try:
            files = [b"".join(frames) for frames in divide(payload, [each.bytes for each in order.job.inputs])]
            painting = backend.draw(order.job, lambda *step: self._step(token, *step), files)
        except Stopped:
            self._undrawn(token, "cancelled", "stopped between two steps")
            return True
        except Exception as error:  # its traceback goes to the log, its code to the daemon
            fault, elapsed_s = error, round(monotonic_s() - began_at, 4)
            if isinstance(error, GenServeError) and error.kind.fault is Fault.CLIENT:  # what was sent: no bug of ours
                self._log.info(
                    "job.failed", job_id=token.job_id, elapsed_s=elapsed_s, code=error.code, message=error.message
                )
            else:
                self._log.error("job.failed", job_id=token.job_id, elapsed_s=elapsed_s, exc_info=error)
        else:
            self._drawn(backend, order, painting)
            return True
        usable = isinstance(fault, GenServeError) and not isinstance(fault, EngineMustEnd)
        code = fault.code if isinstance(fault, GenServeError) else "engine_error"
        message = fault.message if isinstance(fault, GenServeError) else f"drawing failed with {type(fault).__name__}"
        if usable:
            self._undrawn(token, code, message)
            return True
        # Nobody knows what state the backend is in. BROKEN comes first, so that no next job is sent here.
        self._send(Broken(code=code, message=_text(message)))
        self._undrawn(token, code, message)
        self._await_quit()
        return False

    def _step(self, token: Token, step: int, steps: int, step_s: float, preview: Preview | None) -> None:
        now = monotonic_s()
        if now >= self._load_at + STEP_LOAD_INTERVAL_S and self._backend is not None:
            self._device_load(self._backend)
        parts = split_payload(preview.data) if preview else ()
        said = Step(
            token=token,
            step=step,
            steps=steps,
            step_s=step_s,
            load=self._load,
            preview=preview.picture if preview else None,
            preview_index=preview.index if preview else 0,
            parts=part_sizes(parts),
        )
        self._send(said, parts, lossy=True)
        while self._socket.poll(0):
            message, _ = self._receive()
            if isinstance(message, Quit) or (isinstance(message, Stop) and message.token == token):
                raise Stopped

    def _drawn(self, backend: Backend, order: Draw, painting: Painting) -> None:
        notes = painting.notes
        if order.job.save or self._settings.save_images:
            notes += self._save(order, painting)
        parts = split_payload(painting.data)
        self._send(
            Drawn(
                token=order.token,
                picture=painting.picture,
                parts=part_sizes(parts),
                timings=painting.timings,
                notes=notes,
                load=self._device_load(backend),
            ),
            parts,
        )

    def _save(self, order: Draw, painting: Painting) -> tuple[Note, ...]:
        """Keep a copy. Its client still gets the picture where that fails, and is told."""
        folder = Path(self._settings.output_dir)
        try:
            path = save_picture(folder, painting, order.token, order.job, wall_s())
        except OSError as error:
            self._log.error("picture.save_failed", job_id=order.token.job_id, folder=str(folder), exc_info=error)
            return (Note(code="save_failed", message="the server could not keep its copy of this picture"),)
        self._log.info("picture.saved", job_id=order.token.job_id, path=str(path))
        return ()

    def _undrawn(self, token: Token, code: str, message: str) -> None:
        load = self._device_load(self._backend) if self._backend is not None and code != "engine_died" else self._load
        self._send(Undrawn(token=token, code=code, message=_text(message), load=load))

    def _report(self, stage: str, fraction: float) -> None:
        self._log.debug("engine.loading", stage=stage, fraction=fraction)
        self._send(Loading(stage=stage, fraction=fraction))

    def _await_quit(self) -> None:
        """The daemon has read everything once it answers QUIT; a process that ends earlier may not be heard."""
        until = monotonic_s() + QUIT_WAIT_S
        while not self._quitting and monotonic_s() < until:
            if self._socket.poll(100):
                self._receive()

    def _device_load(self, backend: Backend) -> DeviceLoad:
        self._load, self._load_at = backend.device_load(), monotonic_s()
        return self._load

    def _receive(self) -> tuple[Message, Sequence[Buffer]]:
        frames = self._socket.recv_multipart()
        message = FROM_CONTROL.decode(frames)
        if isinstance(message, Quit):
            self._quitting = True
        return message, frames[HEAD_FRAMES:]

    def _send(self, message: Message, payload: Sequence[Buffer] = (), *, lossy: bool = False) -> None:
        frames = encode(message, payload)
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT if lossy else 0, copy=not payload)
        except zmq.Again:
            assert lossy


def make_backend(settings: GpuDaemonSettings, device: DeviceInfo) -> Backend:
    """What `settings.engine` names. Torch is imported here and not before."""
    if settings.engine == "noop":
        from gpu_daemon.engine.noop import NoopBackend  # noqa: PLC0415  # only one of the two is ever needed

        return NoopBackend(settings, device)
    from gpu_daemon.engine.flux import FluxBackend  # noqa: PLC0415  # imports torch: seconds, and GPU memory

    return FluxBackend(settings, device)


def main(argument: str) -> int:
    """Run an engine as `argument`, an EngineStart in JSON, says; the status to end with."""
    start = msgspec.json.decode(argument, type=EngineStart)
    die_with_parent(start.parent_pid, signal.SIGKILL)
    # Whoever stops the service tells the daemon; what it has to say to its engine comes over the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    name_process(f"genserve engine {start.device.device}")
    configure("engine", start.log)
    structlog.contextvars.bind_contextvars(device=start.device.device)
    context: zmq.Context[Socket] = zmq.Context()
    socket = pair_connector(context, start.path)
    try:
        return Engine(socket, start).run()
    finally:
        socket.close(linger=0)
        context.term()


def _text(message: str) -> str:
    """As the wire takes it: valid Unicode of bounded length."""
    return message.encode("utf-8", "replace").decode()[:TEXT_CHARS_MAX]
