"""The router's loop: poll, receive, decode, handle, commit, send; decisions are the broker's.

One thread, in bounded batches. What was measured decides its shape: bare `recv` and `send` with integer
flags, payload frames passed on without copying, one journal commit a batch. Nothing is sent before
everything decided before it is committed. ROUTER_MANDATORY and DONTWAIT: a message that cannot be sent
becomes an event, never a silent loss.
"""

import random
import uuid
from collections import deque
from collections.abc import Sequence
from typing import Any

import zmq
from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from common import clock, log
from common.codec import FROM_CLIENT, FROM_WORKER, PARTS_MAX, Buffer, encode
from common.errors import GenServeError, ProtocolError
from common.messages import Dispatch, ErrorReply, Message, Requeue, Submit
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
)
from router.events import (
    ClientSaid,
    DrainAsked,
    Event,
    InputsLost,
    InputsStored,
    Replayed,
    ResultStored,
    SendFailed,
    Side,
    StorageChanged,
    Submitted,
    Tick,
    Unreadable,
    WorkerSaid,
)
from router.jobs import tell
from router.journal import INPUTS, Journal

DRAIN_MESSAGES_MAX = 256  # received from one socket before anything is sent
DRAIN_BYTES_MAX = 64 * 1024 * 1024  # the same, of payloads
TICK_S = 0.1
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
    ) -> None:
        """`level`: log lines below it are not even made."""
        self._broker = broker
        self._journal = journal
        self._sockets: dict[Side, Socket] = {"client": clients, "worker": workers}
        self._logger = logger
        self._levels = frozenset(LEVELS[LEVELS.index(level) :])
        self._random = random.Random()
        self._events: deque[Event] = deque()
        self._wall = clock.wall_s()
        self._ticked_now = clock.monotonic_s()
        self._drain_asked: DrainAsked | None = None
        self._storage_full = False
        self._running = True

    def drain(self, *, patient: bool = False) -> None:
        """Stop as soon as nothing is lost by it (see DrainAsked). Callable from a signal handler."""
        self._drain_asked = DrainAsked(wall=clock.wall_s(), patient=patient)

    def stop(self) -> None:
        """Stop now. Callable from a signal handler."""
        self._running = False

    def run(self) -> None:
        """Serve until drained or stopped.

        Raises JournalError where the journal can no longer be written, GenServeError where it makes no sense.
        """
        poller = zmq.Poller()
        for socket in self._sockets.values():
            poller.register(socket, _POLLIN)
        poller.register(self._journal.fileno(), _POLLIN)
        self._events.append(Replayed(wall=self._wall, records=self._journal.replay()))
        self._look_at_storage()
        self._work_off()
        while self._running:
            wait_s = self._ticked_now + TICK_S - clock.monotonic_s()
            ready = dict(poller.poll(max(0, int(wait_s * 1000) + 1)))
            self._wall = clock.wall_s()
            for side, socket in self._sockets.items():
                if socket in ready:
                    self._receive(side, socket)
            self._take_stored()
            self._take_time()
            self._work_off()

    # --- events --------------------------------------------------------------------------------

    def _take_time(self) -> None:
        now = clock.monotonic_s()
        if now - self._ticked_now >= TICK_S:
            self._ticked_now = now
            self._look_at_storage()
            self._events.append(Tick(wall=self._wall))
        if self._drain_asked is not None:
            self._events.append(replace(self._drain_asked, wall=self._wall))  # as of now, as every event
            self._drain_asked = None

    def _look_at_storage(self) -> None:
        storage = self._journal.storage()
        if storage.full != self._storage_full:
            self._storage_full = storage.full
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

    def _receive(self, side: Side, socket: Socket) -> None:
        receive = socket.recv
        drained_bytes = 0
        for _ in range(DRAIN_MESSAGES_MAX):
            if drained_bytes >= DRAIN_BYTES_MAX:
                return
            try:
                peer = receive(_DONTWAIT)
            except zmq.Again:
                return
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
            self._events.append(self._event(side, peer, head, payload))

    def _event(self, side: Side, peer: bytes, head: list[Buffer], payload: list[zmq.Frame]) -> Event:
        frames: list[Any] = [*head, *payload] if payload else head  # a Frame has len(), which is all that is asked
        try:
            message = (FROM_CLIENT if side == "client" else FROM_WORKER).decode(frames)
        except ProtocolError as error:
            return Unreadable(wall=self._wall, side=side, peer=peer, rid=error.rid, reason=error.message)
        if side == "worker":
            return WorkerSaid(wall=self._wall, peer=peer, message=message, payload=payload)
        if isinstance(message, Submit | Requeue):
            seed = self._random.getrandbits(SEED_BITS)
            job_id = uuid.uuid4().hex
            return Submitted(wall=self._wall, peer=peer, message=message, job_id=job_id, seed=seed, payload=payload)
        return ClientSaid(wall=self._wall, peer=peer, message=message)

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
            self._journal.commit()
            for command in later:
                self._carry_out(command)

    def _handle(self, event: Event, now: float) -> list[Command]:
        try:
            return self._broker.handle(event, now)
        except Exception as error:  # a bug must not end the service: the state is as before the impossible step
            if isinstance(event, Replayed):
                text = f"the journal's records contradict each other ({type(error).__name__}: {error})"
                raise GenServeError("journal_failed", text) from error
            self._logger.exception("router.bug", while_handling=type(event).__name__, story=self._story(event))
            if isinstance(event, Submitted | ClientSaid):
                rid = getattr(event.message, "rid", "")
                return [ToClient(event.peer, ErrorReply(rid=rid, code="internal", message="an internal error"))]
            return []

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
            case Stop():
                later.append(command)
            case _:
                raise TypeError(f"unknown command {command!r}")

    def _carry_out(self, command: Command) -> None:
        match command:
            case ToClient():
                self._send("client", command.peer, command.message, command.picture_of, command.payload)
            case ToWorker():
                self._send("worker", command.peer, command.message, payload=command.payload)
            case Log():
                log.write(self._logger, command.level, command.event, command.fields)
            case Stop():
                self._running = False

    def _with_inputs(self, command: ToWorker) -> list[Command]:
        """The command with what its job starts from; none where that cannot be read, which is an event."""
        assert isinstance(command.message, Dispatch)
        try:
            return [replace(command, payload=self._journal.fetch_inputs(command.inputs_of))]
        except GenServeError as error:
            token = command.message.token
            self._events.append(InputsLost(wall=self._wall, peer=command.peer, token=token, message=error.message))
            return []

    def _picture(self, job_id: str) -> Sequence[zmq.Frame]:
        found = self._journal.fetch(job_id)
        if found is None:
            raise GenServeError("not_found", f"the picture of job {job_id} is no longer kept")
        return found

    def _send(
        self, side: Side, peer: bytes, message: Message, picture_of: str = "", payload: Sequence[Any] = ()
    ) -> None:
        if picture_of:
            try:
                payload = self._picture(picture_of)
            except GenServeError as error:
                message = ErrorReply(rid=getattr(message, "rid", ""), code=error.code, message=error.message)
        try:
            frames = encode(message, payload)
        except ProtocolError as error:
            self._logger.exception("router.bug", while_sending=message.NAME.decode())
            frames = encode(ErrorReply(rid=getattr(message, "rid", ""), code="internal", message=error.message))
        send = self._sockets[side].send
        try:
            send(peer, _MORE)  # what can fail, fails here, before anything is on its way
            send(frames[0], _MORE)
            send(frames[1], _MORE)
            if not payload:
                send(frames[2], _DONTWAIT)
                return
            send(frames[2], _MORE)
            for part in payload[:-1]:
                send(part, _MORE, False, False)
            send(payload[-1], _DONTWAIT, False, False)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            gone = error.errno == zmq.EHOSTUNREACH
            self._events.append(SendFailed(wall=self._wall, side=side, peer=peer, name=message.NAME, gone=gone))
