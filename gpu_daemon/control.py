"""The daemon's loop: carries events to the session and its commands to the router, the engine and the log.

It decides nothing that the session or the supervisor can decide, and never imports torch. One thread and
one poll over the router's socket, the engine's socket, the engine's end (a pidfd) and the operator's wish.

Shutdown, in order: the first signal drains (the session gives back what has not started, lets what runs
finish, waits for the acknowledgements, says BYE); then the engine ends, then the sockets, then the lock on
the GPU. A second signal skips the draining.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import msgspec
import structlog
import zmq

from common import log
from common.clock import monotonic_s
from common.codec import TO_WORKER, Buffer, Direction, encode
from common.errors import GenServeError, ProtocolError
from common.flood import Flood
from common.handshakes import Handshakes
from common.health import Pulse, Standing
from common.keys import DAEMON_FILE, KeyFile, load_key
from common.messages import ErrorReply, Message, Register
from common.notify import Systemd
from common.process import EXIT_OK, exit_config, name_process, on_stop_signals
from common.restarts import Restarts
from common.settings import GpuDaemonSettings, Loaded, LogSettings
from common.sockets import UNSENDABLE_S_MAX, Socket, dealer_socket, pair_listener
from gpu_daemon.device_lock import DeviceLock
from gpu_daemon.devices import engine_environment, find_device
from gpu_daemon.engine_messages import ENGINE_TO_CONTROL, EngineStart, Quit, Ready
from gpu_daemon.events import (
    Command,
    DrainAsked,
    EngineDied,
    EngineSaid,
    EngineStarted,
    Event,
    KillEngine,
    Leave,
    Log,
    Reconnect,
    RouterSaid,
    Tick,
    ToEngine,
    ToRouter,
)
from gpu_daemon.introduction import introduce
from gpu_daemon.outbox import Outbox
from gpu_daemon.session import Session
from gpu_daemon.standing import standing
from gpu_daemon.supervisor import Supervisor
from gpu_daemon.utilization import Utilization

FROM_ENGINE = Direction("from an engine", ENGINE_TO_CONTROL)
TICK_MS = 100  # how late a timeout may be noticed; everything else wakes the loop
MESSAGES_A_TURN_MAX = 256  # from one socket, before the others get their turn
LAST_WORDS_MS = 2000  # for what is still to be sent when leaving
ERROR_CHARS_MAX = 500
TURNS_MISSED_S_MAX = 10.0  # turns that fail are survived; when all of them fail, systemd starts us anew
_DONTWAIT = int(zmq.DONTWAIT)  # as plain integers: combining flags is slow, and done for each message
_POLLIN, _POLLOUT = int(zmq.POLLIN), int(zmq.POLLOUT)


def run(loaded: Loaded[GpuDaemonSettings]) -> int:
    """Serve one device until told to stop; the status to end with."""
    settings = loaded.settings
    try:
        device = find_device(settings.device)
        name_process(f"genserve gpu-daemon {device.device}")
        logger = log.configure("gpu-daemon", loaded.log)
        systemd, restarts = Systemd(), Restarts()
        restarts.hold_back(systemd)
        key = load_key(settings.key_file, os.environ, DAEMON_FILE, "daemon")
        introduction = introduce(settings, device, key)
        structlog.contextvars.bind_contextvars(device=device.device, worker_id=introduction.worker_id)
        with DeviceLock(device):
            control = Control(settings, loaded.log, introduction, systemd, key)
            logger.info("daemon.started", model=introduction.models[0].name, router=settings.router_endpoint)
            try:
                on_stop_signals(control.ask_to_drain, control.ask_to_stop)
                control.serve()
            finally:
                control.close()
            logger.info("daemon.stopped")
        restarts.ended_well()
        systemd.end()
    except GenServeError as error:
        return exit_config(error)
    return EXIT_OK


class Control:
    """The sockets and the process of one daemon, and the loop over them."""

    def __init__(
        self,
        settings: GpuDaemonSettings,
        log_settings: LogSettings,
        introduction: Register,
        systemd: Systemd,
        key: KeyFile | None = None,
    ) -> None:
        self._settings = settings
        self._key = key
        self._log_settings = log_settings
        self._device = introduction.device
        self._utilization = Utilization(self._device)
        self._log = log.get_logger()
        self._flood = Flood()
        self._session = Session(introduction, settings)
        self._supervisor = Supervisor(
            self._engine_command,
            engine_environment(self._device, os.environ),
            start_timeout_s=settings.engine_start_timeout_s,
        )
        self._context: zmq.Context[Socket] = zmq.Context()
        self._handshakes = Handshakes(self._context, key)
        self._connect()
        self._sendable_at = monotonic_s()  # when its router's connection last took something, or would have
        self._engine: Socket | None = None
        self._outbox = Outbox(self._send_to_router)
        self._turns = Pulse("no turn of the loop has succeeded", TURNS_MISSED_S_MAX, monotonic_s())
        self._engine_started_now = monotonic_s()
        self._systemd = systemd
        systemd.watch({"loop": self._turns, "engine": self._session.work.stuck})
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._watched: tuple[object, ...] = ()  # what the poller was made for
        self._poller = zmq.Poller()
        self._drain_asked = False
        self._stopping = False
        self._last_words_ms = 0

    def ask_to_drain(self) -> None:
        """Finish what runs, then leave. Made for signal handlers."""
        self._drain_asked = True
        os.eventfd_write(self._wake, 1)

    def ask_to_stop(self) -> None:
        """Leave at once. Made for signal handlers."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def serve(self) -> None:
        """Until everything is said and done, or the operator insists."""
        while not self._stopping:
            self._turn()
        self._write_held_back(inf)

    def close(self) -> None:
        """Leave no process, no socket and no file behind."""
        listening = self._last_words_ms > 0 and self._session.work.state == "ready"
        if listening:  # drained: the engine may end by itself
            self._to_engine(Quit())
        self._supervisor.close(wait=listening)
        self._drop_engine()
        self._handshakes.close()
        self._router.close(linger=self._last_words_ms)
        self._context.term()
        os.close(self._wake)

    # --- one turn ------------------------------------------------------------------------------

    def _turn(self) -> None:
        now = monotonic_s()
        if self._supervisor.start_due(now):
            self._start_engine(now)
        reason = self._supervisor.overdue(now)
        if reason:
            self._kill(reason)
        self._look_at_connection(now)
        awake = self._wait()
        if self._wake in awake:
            os.eventfd_read(self._wake)
        if self._drain_asked:
            self._drain_asked = False
            self._handle(DrainAsked())
        if self._router in awake:
            self._outbox.flush()
            self._read_router()
        if refused := self._handshakes.refusal(now):  # the session makes the connection anew
            self._log.warning("router.refused", message=refused, router=self._settings.router_endpoint)
        self._read_engine()
        self._reap()
        if self._handle(Tick()):
            self._turns.beat(now)
        self._write_held_back(now)
        self._systemd.tend(now, self._standing)

    def _standing(self) -> Standing:
        return standing(self._session, self._engine_started_now, monotonic_s())

    def _wait(self) -> set[object]:
        watched = (self._router, bool(self._outbox), self._engine, self._supervisor.pidfd)
        if watched != self._watched:
            self._watched, self._poller = watched, zmq.Poller()
            self._poller.register(self._wake, _POLLIN)
            self._poller.register(self._router, _POLLIN | _POLLOUT if self._outbox else _POLLIN)
            if self._engine is not None:
                self._poller.register(self._engine, _POLLIN)
            if self._supervisor.pidfd >= 0:
                self._poller.register(self._supervisor.pidfd, _POLLIN)
        return {who for who, _ in self._poller.poll(TICK_MS)}

    def _handle(self, event: Event) -> bool:
        """False where it came to grief."""
        try:
            commands = self._session.handle(event, monotonic_s())
        except Exception:
            # A fault of our own. What the daemon holds is fenced by its tokens, so going on does less harm
            # than dying; the log has what it takes to mend it.
            self._log.exception("session.fault", happened=type(event).__name__)
            return False
        for command in commands:
            self._carry_out(command)
        return True

    def _carry_out(self, command: Command) -> None:
        match command:
            case ToRouter():
                self._outbox.say(self._utilization.told(command.message), command.payload)
            case ToEngine():
                self._to_engine(command.message, command.payload)
            case Log():
                self._write(command.level, command.event, command.fields)
            case KillEngine():
                self._kill(command.reason)
            case Reconnect():
                self._reconnect()
            case Leave():
                self._stopping, self._last_words_ms = True, LAST_WORDS_MS

    def _write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        if self._flood.passes(level, event, fields, monotonic_s()):
            log.write(self._log, level, event, fields)

    def _write_held_back(self, now: float) -> None:
        for level, event, fields in self._flood.due(now):
            log.write(self._log, level, event, fields)

    # --- the router ----------------------------------------------------------------------------

    def _connect(self) -> None:
        endpoint, watch = self._settings.router_endpoint, self._handshakes.watch
        self._router = dealer_socket(self._context, endpoint, self._key, watch=watch)

    def _send_to_router(self, frames: Sequence[Buffer]) -> bool:
        try:
            self._router.send_multipart(frames, _DONTWAIT, copy=False)
        except zmq.Again:
            return False
        self._sendable_at = monotonic_s()
        return True

    def _look_at_connection(self, now: float) -> None:
        if now - self._sendable_at <= UNSENDABLE_S_MAX:
            return
        if not self._router.poll(0, _POLLOUT):
            self._log.warning("router.unreachable", endpoint=self._settings.router_endpoint, for_s=UNSENDABLE_S_MAX)
            self._reconnect()
        self._sendable_at = now

    def _reconnect(self) -> None:
        self._handshakes.close()
        self._router.close(linger=0)
        self._connect()

    def _read_router(self) -> None:
        for _ in range(MESSAGES_A_TURN_MAX):
            try:
                frames = [frame.buffer for frame in self._router.recv_multipart(_DONTWAIT, copy=False)]
            except zmq.Again:
                return
            try:
                message = TO_WORKER.decode(frames)
            except ProtocolError as error:
                self._write("warning", "router.malformed", {"message": error.message[:ERROR_CHARS_MAX]})
                if frames[1:2] != [ErrorReply.NAME]:  # an ERROR is never answered
                    self._outbox.say(ErrorReply(code=error.code, message=error.message[:ERROR_CHARS_MAX]))
            else:
                self._handle(RouterSaid(message, frames[3:]))

    # --- the engine ----------------------------------------------------------------------------

    def _start_engine(self, now: float) -> None:
        self._engine_started_now = now
        path = self._supervisor.new_path()
        self._engine = pair_listener(self._context, path)
        self._handle(EngineStarted(self._supervisor.start(path, now)))

    def _engine_command(self, path: str) -> Sequence[str]:
        start = EngineStart(
            path=path,
            parent_pid=os.getpid(),
            settings=self._settings,
            log=self._log_settings,
            device=self._device,
        )
        # -P: the working directory is the operator's; no file in it may be taken for a module.
        return [sys.executable, "-P", "-m", "gpu_daemon.engine", msgspec.json.encode(start).decode()]

    def _to_engine(self, message: Message, payload: Sequence[Buffer] = ()) -> None:
        if isinstance(message, Quit):
            self._supervisor.quitting(monotonic_s())
        if self._engine is None:
            return
        try:
            self._engine.send_multipart(encode(message, payload), _DONTWAIT, copy=not payload)
        except zmq.Again:  # it takes nothing any more: it is dying, and that will be noticed
            self._log.warning("engine.deaf", said=message.NAME.decode())

    def _read_engine(self) -> None:
        for _ in range(MESSAGES_A_TURN_MAX):
            if self._engine is None:
                return
            try:
                frames = [frame.buffer for frame in self._engine.recv_multipart(_DONTWAIT, copy=False)]
            except zmq.Again:
                return
            self._supervisor.connected()
            try:
                message = FROM_ENGINE.decode(frames)
            except ProtocolError as error:
                self._kill(f"it does not speak our protocol: {error.message[:ERROR_CHARS_MAX]}")
                return
            if isinstance(message, Ready):
                self._supervisor.ready(monotonic_s())
            self._handle(EngineSaid(message, frames[3:]))

    def _kill(self, reason: str) -> None:
        self._log.warning("engine.killed", reason=reason)
        self._supervisor.kill()

    def _reap(self) -> None:
        how = self._supervisor.reap(monotonic_s())
        if how:
            self._read_engine()  # its last words
            self._drop_engine()
            self._handle(EngineDied(how))

    def _drop_engine(self) -> None:
        if self._engine is not None:
            self._engine.close(linger=0)
            self._engine = None
