"""The router's loop: poll, receive, decode, handle, commit, send; decisions are the broker's.

One thread, in bounded batches. What was measured decides its shape: bare `recv` and `send` with integer
flags, payload frames passed on without copying, one journal commit a batch. Nothing is sent before
everything decided before it is committed. ROUTER_MANDATORY and DONTWAIT: a message that cannot be sent
becomes an event, never a silent loss.
"""

import random
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import zmq
from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from common import clock, log
from common.codec import FROM_CLIENT, FROM_WORKER, PARTS_MAX, Buffer
from common.errors import GenServeError, ProtocolError
from common.flood import Flood
from common.health import Check, Pulse
from common.messages import ErrorReply, Requeue, Submit
from common.roles import LOCAL, Identity, Side
from common.sockets import Socket
from router.broker import Broker
from router.commands import (
    Append,
    Command,
    DropInputs,
    DropResult,
    Log,
    Stop,
    StoreInputs,
    StoreResult,
    ToClient,
    ToWorker,
    Trace,
)
from router.door import Door
from router.events import (
    ClientSaid,
    DrainAsked,
    Event,
    InputsStored,
    Replayed,
    ResultStored,
    StorageChanged,
    Submitted,
    Tick,
    Unreadable,
    WorkerSaid,
)
from router.jobs import tell
from router.journal import INPUTS, Journal, Storage
from router.outgoing import Outgoing
from router.tracing import TraceWriter

DRAIN_MESSAGES_MAX = 256  # received from one socket before anything is sent
DRAIN_BYTES_MAX = 64 * 1024 * 1024  # the same, of payloads
TICK_S = 0.1
TICKS_MISSED_S_MAX = 10.0  # a bug in one tick is survived; when all of them fail, systemd starts us anew
HEAD_FRAMES = 3
SEED_BITS = 32
LEVELS = ("debug", "info", "warning", "error")

_DONTWAIT = int(zmq.DONTWAIT)
_MORE = int(zmq.DONTWAIT) | int(zmq.SNDMORE)
_POLLIN = int(zmq.POLLIN)


class Loop:
    """Runs a broker between two ROUTER sockets and a journal."""

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        clients: Socket,
        workers: Socket,
        *,
        logger: FilteringBoundLogger,
        level: str = "info",
        door: Door | None = None,
        traces: TraceWriter | None = None,
    ) -> None:
        """`level`: log lines below it are not even made. `door`: who may come in; None: everyone on this machine."""
        self._traces = traces
        self._door = door
        self._broker = broker
        self._journal = journal
        self._sockets: dict[Side, Socket] = {"client": clients, "worker": workers}
        self._outgoing = Outgoing(self._sockets, journal, logger)
        self._logger = logger
        self._levels = frozenset(LEVELS[LEVELS.index(level) :])
        self._random = random.Random()
        self._events: deque[Event] = deque()
        self._wall = clock.wall_s()
        self._ticked_now = clock.monotonic_s()
        self._drain_asked: DrainAsked | None = None
        self._storage = Storage(full=False)  # as the broker knows it
        self._flood = Flood()
        self._ticks = Pulse("no tick has been handled", TICKS_MISSED_S_MAX, self._ticked_now)
        self._committed = False  # the last batch that there was
        self._running = True

    def drain(self, *, patient: bool = False) -> None:
        """Stop as soon as nothing is lost by it (see DrainAsked). Callable from a signal handler."""
        self._drain_asked = DrainAsked(wall=clock.wall_s(), patient=patient)

    def alive(self) -> bool:
        """Can everyone who may come in do so? The loop itself is alive where this can be asked in its turns."""
        return self._door is None or self._door.alive()

    def stop(self) -> None:
        """Stop now. Callable from a signal handler."""
        self._running = False

    def checks(self) -> dict[str, Check]:
        """What must be well while it runs."""
        return {"loop": self._ticks, "journal": self._journal_check, "authentication": self._door_check}

    def run(self, on_tick: Callable[[float], None] = lambda _now: None) -> None:
        """Serve until drained or stopped; `on_tick(now)` is called after every batch that held a tick.

        Raises JournalError where the journal can no longer be written, GenServeError where it makes no sense.
        """
        poller = zmq.Poller()
        for socket in self._sockets.values():
            poller.register(socket, _POLLIN)
        for socket in self._door.sockets if self._door is not None else ():
            poller.register(socket, _POLLIN)
        poller.register(self._journal.fileno(), _POLLIN)
        self._events.append(Replayed(wall=self._wall, records=self._journal.replay()))
        self._look_at_storage()
        self._work_off()
        on_tick(clock.monotonic_s())
        while self._running:
            wait_s = self._ticked_now + TICK_S - clock.monotonic_s()
            ready = dict(poller.poll(max(0, int(wait_s * 1000) + 1)))
            self._wall = clock.wall_s()
            if self._door is None:
                for side, socket in self._sockets.items():
                    if socket in ready:
                        self._receive(side, socket)
            else:
                self._receive_known(self._door, ready)
            self._take_stored()
            ticked = self._take_time()
            self._work_off()
            if ticked:
                on_tick(clock.monotonic_s())
        self._write_held_back(inf)

    def _journal_check(self, _now: float) -> str:
        return "" if self._committed else "the last commit has not succeeded"

    def _door_check(self, _now: float) -> str:
        return "" if self._door is None or self._door.alive() else "who may come in could not be judged"

    # --- events --------------------------------------------------------------------------------

    def _take_time(self) -> bool:
        now = clock.monotonic_s()
        ticked = now - self._ticked_now >= TICK_S
        if ticked:
            self._ticked_now = now
            self._look_at_storage()
            self._events.append(Tick(wall=self._wall))
            self._write_held_back(now)
        if self._drain_asked is not None:
            self._events.append(replace(self._drain_asked, wall=self._wall))  # as of now, as every event
            self._drain_asked = None
        return ticked

    def _look_at_storage(self) -> None:
        storage = self._journal.storage()
        if storage.full != self._storage.full or (storage.full and storage != self._storage):
            self._storage = storage
            self._events.append(StorageChanged(wall=self._wall, full=storage.full, detail=storage.detail))

    def _take_stored(self) -> None:
        found = self._journal.stored()
        if any(stored.deferred for stored in found):
            self._look_at_storage()  # before it is told: what is sent again at once finds no room either
        for stored in found:
            token, refusal, deferred = stored.token, stored.refusal, stored.deferred
            event: Event = ResultStored(wall=self._wall, token=token, refusal=refusal, deferred=deferred)
            if token.dispatch == INPUTS:
                event = InputsStored(wall=self._wall, job_id=token.job_id, refusal=refusal, deferred=deferred)
            self._events.append(event)

    def _receive_known(self, door: Door, ready: Mapping[Any, int]) -> None:
        """The same with keys: who asks is let in first; who has left is told of when all its words are read."""
        door.serve(ready, clock.monotonic_s())
        unread: dict[Side, bool] = {}
        for side, socket in self._sockets.items():
            if socket in ready or door.parted(side):
                unread[side] = self._receive(side, socket)
        self._events += door.changes(self._wall, unread)

    def _receive(self, side: Side, socket: Socket) -> bool:
        """Messages of one socket, a bounded number. Are there more?"""
        receive, door, who = socket.recv, self._door, LOCAL
        drained_bytes = 0
        for _ in range(DRAIN_MESSAGES_MAX):
            if drained_bytes >= DRAIN_BYTES_MAX:
                return True
            try:
                peer = receive(_DONTWAIT)
            except zmq.Again:
                return False
            head: list[Buffer] = []
            payload: list[zmq.Frame] = []
            more = True
            while more:  # to its last frame, however many there are
                frame: zmq.Frame = receive(0, False, False)
                more = bool(frame.more)
                if len(head) < HEAD_FRAMES:
                    head.append(frame.bytes)
                elif len(payload) <= PARTS_MAX:
                    payload.append(frame)
                    drained_bytes += len(frame)
            if door is not None:
                known = door.whose(side, peer, frame, self._ticked_now)
                if known is None:
                    continue
                who = known
            self._events.append(self._event(side, peer, head, payload, who))
        return True

    def _event(
        self, side: Side, peer: bytes, head: list[Buffer], payload: list[zmq.Frame], who: Identity = LOCAL
    ) -> Event:
        frames: list[Any] = [*head, *payload] if payload else head  # a Frame has len(), which is all that is asked
        try:
            message = (FROM_CLIENT if side == "client" else FROM_WORKER).decode(frames)
        except ProtocolError as error:
            answered = head[1:2] != [ErrorReply.NAME]
            return Unreadable(
                wall=self._wall, side=side, peer=peer, who=who, rid=error.rid, reason=error.message, answered=answered
            )
        if side == "worker":
            return WorkerSaid(wall=self._wall, peer=peer, who=who, message=message, payload=payload)
        if isinstance(message, Submit | Requeue):
            return Submitted(
                wall=self._wall,
                peer=peer,
                who=who,
                message=message,
                job_id=uuid.uuid4().hex,
                seed=self._random.getrandbits(SEED_BITS),
                payload=payload,
            )
        return ClientSaid(wall=self._wall, peer=peer, who=who, message=message)

    # --- one batch -----------------------------------------------------------------------------

    def _work_off(self) -> None:
        """Handle all events, commit once, send; what could not be sent makes the next batch."""
        while self._events:
            later: list[Command] = []
            now = clock.monotonic_s()
            while self._events:
                event = self._events.popleft()
                for command in self._handle(event, now):
                    self._write_down(command, later)
                self._take_stored()
            self._committed = False
            self._journal.commit()
            self._committed = True
            for command in later:
                self._carry_out(command)

    def _handle(self, event: Event, now: float) -> list[Command]:
        try:
            commands = self._broker.handle(event, now)
        except Exception as error:  # a bug must not end the service: the state is as before the impossible step
            if isinstance(event, Replayed):
                text = f"the journal's records contradict each other ({type(error).__name__}: {error})"
                raise GenServeError("journal_failed", text) from error
            self._logger.exception("router.bug", while_handling=type(event).__name__, story=self._story(event))
            if isinstance(event, Submitted | ClientSaid):
                rid = getattr(event.message, "rid", "")
                return [ToClient(event.peer, ErrorReply(rid=rid, code="internal", message="an internal error"))]
            return []
        if isinstance(event, Tick):
            self._ticks.beat(now)
        return commands

    def _story(self, event: Event) -> str:
        message = getattr(event, "message", event)
        job_id = getattr(getattr(message, "token", message), "job_id", "")
        job = self._broker.state.jobs.get(job_id)
        return "" if job is None else tell(job)

    def _write_down(self, command: Command, later: list[Command]) -> None:
        match command:
            case ToWorker() if command.inputs_of:
                later += self._with_inputs(command)
            case ToClient() | ToWorker():
                later.append(command)
            case Log():
                if command.level in self._levels:
                    later.append(command)
            case Append():
                self._journal.append(command.record)
            case StoreResult():
                self._journal.store(command.token, command.picture, command.payload)
            case DropResult():
                self._journal.drop(command.job_id)
            case StoreInputs():
                self._journal.store_inputs(command.job_id, command.inputs, command.payload)
            case DropInputs():
                self._journal.drop_inputs(command.job_id)
            case Stop() | Trace():
                later.append(command)
            case _:
                raise TypeError(f"unknown command {command!r}")

    def _with_inputs(self, command: ToWorker) -> list[ToWorker]:
        given = self._outgoing.with_inputs(command, self._wall)
        if isinstance(given, ToWorker):
            return [given]
        self._events.append(given)
        return []

    def _carry_out(self, command: Command) -> None:
        match command:
            case ToClient() | ToWorker():
                failed = self._outgoing.send(command, self._wall)
                if failed is not None:
                    self._events.append(failed)
            case Log():
                if self._flood.passes(command.level, command.event, command.fields, clock.monotonic_s()):
                    log.write(self._logger, command.level, command.event, command.fields)
            case Trace():
                assert self._traces is not None
                self._traces.write(command.job)
            case Stop():
                self._running = False

    def _write_held_back(self, now: float) -> None:
        for level, event, fields in self._flood.due(now):
            log.write(self._logger, level, event, fields)
