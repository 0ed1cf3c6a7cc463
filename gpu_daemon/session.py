"""A daemon's side of its conversation with the router: registration, epochs, credit, ends, draining.

Pure: events in, commands out, time is an argument. It never sends, waits, logs or reads a clock, and knows
neither sockets nor torch. What happens between the daemon and its engine is decided in work.py.

After each event everything that now follows is settled at once: what cannot run is given back, the next
job is handed to the engine, free slots are granted, a changed state is shown, a drained daemon leaves.
"""

from collections.abc import Sequence

import msgspec

from common.codec import Buffer
from common.messages import (
    Bye,
    CancelToken,
    Credit,
    Dispatch,
    Done,
    Drain,
    Draining,
    ErrorReply,
    Fail,
    Fenced,
    Heartbeat,
    Message,
    Register,
    ResultAck,
    Resync,
    Returned,
    Started,
    Token,
    Welcome,
    WorkerMessage,
)
from common.settings import GpuDaemonSettings
from gpu_daemon.engine_messages import Ready
from gpu_daemon.events import (
    Command,
    DrainAsked,
    EngineDied,
    EngineSaid,
    EngineStarted,
    Event,
    Leave,
    Log,
    Reconnect,
    RouterSaid,
    Tick,
    ToRouter,
)
from gpu_daemon.hand import CAPACITY_JOBS, Held
from gpu_daemon.work import Work

REGISTER_FIRST_S = 1.0  # wait for a WELCOME before REGISTER is repeated; doubles
REGISTER_MAX_S = 8.0
SILENCE_S = 10.0  # what the router owes an answer to is overdue; until a WELCOME names dead_after_s


class Session:
    """One daemon. `handle(event, now)` returns what to do, `now` being monotonic seconds.

    `introduction` is its REGISTER, less nonce and tokens.
    """

    def __init__(self, introduction: Register, settings: GpuDaemonSettings) -> None:
        self.work = Work(introduction.device.device, settings)
        self.draining = False
        self.left = False
        self._introduction = introduction
        self._settings = settings
        self._out: list[Command] = []
        # registration
        self._epoch: int | None = None  # None: not registered
        self._registrations = 0
        self._nonce = ""
        self._register_at = float("-inf")  # when to send REGISTER next
        self._register_wait_s = REGISTER_FIRST_S
        self._connected_at = 0.0  # since when this connection has not brought a WELCOME
        # of this epoch
        self._granted = 0
        self._received = 0
        self._heartbeat_interval_s = 1.0
        self._silence_s = SILENCE_S
        self._heartbeat_at = 0.0
        self._shown_state = ""
        self._heard_at = 0.0
        # draining
        self._drain_at = 0.0
        self._idle_at = 0.0  # since when nothing is left to draw

    @property
    def introduction(self) -> Register:
        """Who this daemon is, as far as it is known by now."""
        return self._introduction

    @property
    def registered(self) -> bool:
        """Has the router welcomed it?"""
        return self._epoch is not None

    def handle(self, event: Event, now: float) -> list[Command]:
        """What to do about `event`."""
        if self.left:
            return []
        match event:
            case Tick():
                self._tick(now)
            case RouterSaid():
                self._heard_at = now
                self._router_said(event, now)
            case EngineStarted():
                self.work.engine_started(event)
            case EngineSaid():
                self.work.engine_said(event, now)
                if isinstance(event.message, Ready):
                    self._introduce(event.message, now)
            case EngineDied():
                self.work.engine_died(event, now)
            case DrainAsked():
                self._drain(now)
        self._settle(now)
        out, self._out = self._out, []
        return out

    def check_invariants(self) -> None:
        """Raise AssertionError where this state could not have come to be."""
        self.work.hand.check()
        counts = (self._granted, self._received, len(self.work.hand), self._epoch, self.draining)
        if self._epoch is not None:
            outstanding = max(0, self._granted - self._received)
            assert outstanding + len(self.work.hand) <= CAPACITY_JOBS, counts
            if self.work.state == "ready" and not self.draining:
                assert outstanding + len(self.work.hand) == CAPACITY_JOBS, counts
                assert self.work.hand.running() is not None or not self.work.hand.waiting(), counts
        assert not self.draining or not self.work.hand.waiting(), counts
        assert self.work.state == "ready" or not self.work.hand.waiting(), counts

    # --- registration --------------------------------------------------------------------------

    def _register(self, now: float) -> None:
        """Say who this is and what it holds. Each REGISTER has its own nonce: only the last one's answer counts."""
        if self._epoch is not None or not self._registrations:
            self._connected_at, self._register_wait_s = now, REGISTER_FIRST_S
        elif now - self._connected_at >= self._silence_s:
            self._connected_at = now
            self._out.append(Reconnect())
        self._epoch = None
        self._registrations += 1
        self._nonce = f"{self._introduction.boot_id}-{self._registrations}"
        register = msgspec.structs.replace(self._introduction, nonce=self._nonce, tokens=self.work.hand.tokens())
        self._out.append(ToRouter(register))
        self._register_at = now + self._register_wait_s
        self._register_wait_s = min(2 * self._register_wait_s, REGISTER_MAX_S)

    def _introduce(self, ready: Ready, now: float) -> None:
        """The engine knows its model and its device best."""
        if (ready.card,) == self._introduction.models and ready.device == self._introduction.device:
            return
        self._introduction = msgspec.structs.replace(self._introduction, models=(ready.card,), device=ready.device)
        if self._registrations:
            self._register(now)

    def _welcomed(self, welcome: Welcome, now: float) -> None:
        if welcome.nonce != self._nonce or self._epoch is not None:
            return
        self._epoch = welcome.epoch
        self._granted = self._received = 0
        self._heartbeat_interval_s, self._silence_s = welcome.heartbeat_interval_s, welcome.dead_after_s
        self._log("info", "router.welcome", epoch=welcome.epoch, kept=len(welcome.keep), dropped=len(welcome.drop))
        keep = set(welcome.keep)
        for held in self.work.hand.all():
            if held.token not in keep:
                self.work.forget(held.token, now)
        self._pass_on(now)
        self._show_state(now)
        if self.draining:
            self._say(Draining(epoch=welcome.epoch), now)
        for token in welcome.keep:
            held_still = self.work.hand.get(token)
            if held_still is None:
                self._say(Returned(epoch=welcome.epoch, token=token, reason="given up meanwhile"), now)
            elif held_still.end is not None:
                self._say(held_still.end, now, held_still)
            elif held_still.begun:
                self._say(Started(epoch=welcome.epoch, token=token), now)

    # --- what the router says ------------------------------------------------------------------

    def _router_said(self, event: RouterSaid, now: float) -> None:
        message = event.message
        match message:
            case Welcome():
                self._welcomed(message, now)
            case Resync():
                if self._epoch is not None:  # else a REGISTER is on its way already
                    self._log("info", "router.resync")
                    self._register(now)
            case Dispatch():
                if message.epoch == self._epoch:
                    self._dispatched(message, event.payload, now)
            case CancelToken():
                self.work.forget(message.token, now)
            case ResultAck():
                held = self.work.hand.get(message.token)
                if held is not None and held.stage == "ended":
                    self.work.hand.drop(message.token)
            case Fenced():
                self.work.forget(message.token, now)
            case Drain():
                self._drain(now)
            case ErrorReply():
                self._log("warning", "router.refused", code=message.code, message=message.message)

    def _dispatched(self, order: Dispatch, inputs: Sequence[Buffer], now: float) -> None:
        self._received += 1
        if order.token in self.work.hand:
            self._log("error", "router.confused", job_id=order.token.job_id, message="this token is in hand already")
            return
        refusal = ""
        if self.draining:
            refusal = "draining"
        elif self.work.state != "ready":
            refusal = "engine not ready"
        elif len(self.work.hand) >= CAPACITY_JOBS:
            refusal = "no credit was left"
        if refusal:
            self._say(Returned(epoch=order.epoch, token=order.token, reason=refusal), now)
        else:
            self.work.take(order, inputs, now)

    # --- time and draining ---------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self.work.tick(now)
        self._pass_on(now)  # first, so that an end is on record as told before anyone asks how long ago
        if self._epoch is None:
            if now >= self._register_at:
                self._register(now)
        elif self._overdue(now):
            self._log("warning", "router.silent", silence_s=self._silence_s)
            self._register(now)
        elif now >= self._heartbeat_at:
            self._show_state(now)
        if self.draining and now >= self._drain_at + self._settings.drain_s:
            self.work.stop_running("draining", now)

    def _overdue(self, now: float) -> bool:
        """Has the router left an end unanswered for too long? It owes nothing else."""
        ended = self.work.hand.ended()
        return bool(ended) and now - max(self._heard_at, min(held.told_at for held in ended)) >= self._silence_s

    def _drain(self, now: float) -> None:
        if self.draining:
            return
        self.draining, self._drain_at, self._idle_at = True, now, now
        self._log("info", "daemon.draining", running=self.work.hand.running() is not None)
        if self._epoch is not None:
            self._say(Draining(epoch=self._epoch), now)

    # --- what follows --------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        if self.draining:
            self.work.give_back("draining")
        elif self.work.state != "ready":
            self.work.give_back("engine not ready")
        self.work.draw_next(now)
        self._pass_on(now)
        if self._epoch is not None:
            if self._state() != self._shown_state:
                self._show_state(now)
            self._grant(now)
        if self.draining:
            self._leave_if_done(now)

    def _grant(self, now: float) -> None:
        free = CAPACITY_JOBS - len(self.work.hand)
        if self.work.state == "ready" and not self.draining and self._received + free > self._granted:
            self._granted = self._received + free
            self._say(Credit(epoch=0, granted_total=self._granted), now)

    def _leave_if_done(self, now: float) -> None:
        if self.work.hand.running() is not None:
            self._idle_at = now
            return
        unheard = len(self.work.hand)
        if unheard and now - self._idle_at < self._silence_s:
            return
        if unheard:
            self._log("warning", "results.left", jobs=unheard, message="the router did not take them in time")
        if self._epoch is not None:
            self._say(Bye(epoch=self._epoch), now)
        self._out.append(Leave())
        self.left = True

    def _state(self) -> str:
        return "draining" if self.draining else self.work.state

    def _show_state(self, now: float) -> None:
        self._shown_state, self._heartbeat_at = self._state(), now + self._heartbeat_interval_s
        work = self.work
        self._say(
            Heartbeat(epoch=0, state=self._shown_state, detail=work.detail, load=work.load, engine_pid=work.pid), now
        )

    def _pass_on(self, now: float) -> None:
        """Carry out what the work asks for; its words to the router get their epoch here."""
        for command in self.work.commands():
            if isinstance(command, ToRouter):
                token: Token | None = getattr(command.message, "token", None)
                self._say(command.message, now, self.work.hand.get(token) if token else None, command.payload)
            else:
                self._out.append(command)

    def _say(self, message: Message, now: float, held: Held | None = None, payload: Sequence[Buffer] = ()) -> None:
        """Send in the present epoch. Without one, ends wait for the next WELCOME and the rest is void."""
        if self._epoch is None:
            return
        assert isinstance(message, WorkerMessage)
        if held is not None and isinstance(message, Done | Fail):
            held.told_at, payload = now, held.payload
        self._out.append(ToRouter(msgspec.structs.replace(message, epoch=self._epoch), payload))

    def _log(self, level: str, event: str, **fields: object) -> None:
        self._out.append(Log(level, event, fields))
