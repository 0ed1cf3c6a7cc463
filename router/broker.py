"""The router's whole mind: events in, commands out.

Pure: no sockets, no disk, no clock. `handle(event, now)` returns what must be written, sent and logged, in
order. The same events in the same order give the same commands.
"""

from collections.abc import Callable
from typing import Any

from common.messages import ErrorReply
from common.roles import Side
from common.settings import RouterSettings
from router.clients import Clients
from router.commands import Command, Stop, ToClient, ToWorker
from router.events import (
    ClientSaid,
    DrainAsked,
    Event,
    InputsLost,
    InputsStored,
    KeyRevoked,
    PeerGone,
    Replayed,
    ResultStored,
    Said,
    SendFailed,
    StorageChanged,
    Submitted,
    Tick,
    Unreadable,
    WorkerSaid,
)
from router.invariants import check
from router.jobs import IN_HAND, Job, JobState
from router.lifecycle import Lifecycle
from router.recovery import replay
from router.state import RouterState
from router.teller import Teller
from router.workers import Workers

MIB = 1024 * 1024
UNREADABLE_LOG_INTERVAL_S = 1.0
STORING_LOOK_INTERVAL_S = 1.0  # a picture that is being stored has no deadline; it may yet have to be sent again
LOOK_SPACING_S = 0.1


class Broker:
    """The decisions of one router.

    `first_epoch` must lie beyond every epoch that a former router gave out. `durable`: what it has accepted
    outlives it, so that it may stop before everything has ended.
    """

    def __init__(self, settings: RouterSettings, *, first_epoch: int = 1, durable: bool = False) -> None:
        self._durable = durable
        self._patient = False
        state = self._state = RouterState(settings, first_epoch)
        teller = self._teller = Teller(state)
        self._lifecycle = Lifecycle(state, teller)
        self._clients = Clients(state, self._lifecycle, teller)
        self._workers = Workers(state, self._lifecycle)
        self._unreadable_logged_now = float("-inf")
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            Replayed: self._replayed,
            Submitted: self._submitted,
            ClientSaid: self._clients.said,
            WorkerSaid: self._workers.said,
            Unreadable: self._unreadable,
            SendFailed: self._send_failed,
            PeerGone: self._peer_gone,
            KeyRevoked: self._key_revoked,
            ResultStored: self._workers.result_stored,
            InputsStored: self._clients.inputs_stored,
            InputsLost: self._workers.inputs_lost,
            StorageChanged: self._storage_changed,
            Tick: self._tick,
            DrainAsked: self._drain_asked,
        }

    def handle(self, event: Event, now: float) -> list[Command]:
        """What `event`, seen at `now` (monotonic seconds), leads to.

        Raises only for our own bugs (see ImpossibleTransition). What had been decided before is then not
        lost: it comes with the next call.
        """
        state = self._state
        state.now, state.wall = now, event.wall
        if state.started_now is None:
            state.started_now = now
            state.measures.started_at = state.wall
        if isinstance(event, Said):
            side: Side = "worker" if isinstance(event, WorkerSaid) else getattr(event, "side", "client")
            state.visitors.heard(event.who, side, event.peer, event.wall)
        self._handlers[type(event)](event)
        self._send_out()
        self._forget_ended()
        out, state.out = state.out, []
        return out

    @property
    def state(self) -> RouterState:
        """For reading."""
        return self._state

    def check_invariants(self) -> None:
        """Raise AssertionError where the state contradicts itself."""
        check(self._state)

    # --- after every event ---------------------------------------------------------------------

    def _send_out(self) -> None:
        """Send jobs to whichever GPUs can take one now."""
        state = self._state
        candidates = state.take_touched()
        while candidates and len(state.queue):
            picked = state.scheduler.pick(candidates, state.now)
            if picked is None:
                break
            job, worker = picked
            if job.deadline_now <= state.now:
                self._lifecycle.fail(job, "deadline_exceeded", self._deadline_text(job))
            else:
                self._lifecycle.dispatch(job, worker)
        for worker in candidates if len(state.queue) else ():
            if worker.takes_new and not worker.hand and state.queue.waits_for(worker.models):
                state.touch(worker)  # it leaves what waits to faster ones: ask again whenever anything happens

    def _forget_ended(self) -> None:
        """Hold what is kept of ended jobs to its bounds, oldest first."""
        state, settings = self._state, self._state.settings
        bytes_max = settings.results_mb_max * MIB
        while state.ended and (len(state.ended) > settings.ended_jobs_max or state.result_bytes > bytes_max):
            self._lifecycle.forget(next(iter(state.ended.values())))
        while len(state.dead) > settings.dead_letters_max:
            self._lifecycle.forget(next(iter(state.dead.values())))

    def _submitted(self, event: Submitted) -> None:
        state = self._state
        self._clients.submitted(event)
        self._send_out()
        job = state.jobs.get(event.job_id)
        if job is not None and job.state is JobState.QUEUED:
            state.log("debug", "instance.none", job_id=job.job_id, model=job.order.model, waiting=len(state.queue))

    # --- time ----------------------------------------------------------------------------------

    def _tick(self, _event: Tick) -> None:
        state = self._state
        for job in [job for job in state.delayed.values() if job.not_before_now <= state.now]:
            del state.delayed[job.job_id]
            state.queue.add(job)
        self._workers.tick()
        self._end_overdue()
        for kept, ttl_s in ((state.ended, state.settings.result_ttl_s), (state.dead, state.settings.dead_letter_ttl_s)):
            while kept and next(iter(kept.values())).ended_now + ttl_s <= state.now:
                self._lifecycle.forget(next(iter(kept.values())))
        self._clients.sweep_keys()
        self._teller.positions()
        self._drain()
        state.touch_all()

    def _end_overdue(self) -> None:
        """Fail those whose time is up, and those that wait and could not end in time on any GPU."""
        state, now = self._state, self._state.now
        for job in state.deadlines.due(now):
            if job.state is JobState.STORING:
                state.deadlines.look(job, now + STORING_LOOK_INTERVAL_S)
                continue
            if job.deadline_now <= now:
                self._lifecycle.fail(job, "deadline_exceeded", self._deadline_text(job))
                continue
            latest_now = state.scheduler.latest_start_now(job) if job.state is JobState.QUEUED else job.deadline_now
            if latest_now is None:  # no speed is known yet: look again halfway
                state.deadlines.look(job, min(job.deadline_now, (now + job.deadline_now) / 2 + LOOK_SPACING_S))
            elif latest_now >= now:
                state.deadlines.look(job, max(latest_now, now + LOOK_SPACING_S))
            else:
                left_s = job.deadline_now - now
                text = f"{left_s:.1f} s are left of its time, and it takes {job.deadline_now - latest_now:.1f} s"
                self._lifecycle.fail(job, "deadline_exceeded", f"{text} on the fastest GPU; so it was not drawn")

    @staticmethod
    def _deadline_text(job: Job) -> str:
        return f"it had not ended {job.deadline_at - job.created_at:g} s after it was accepted"

    # --- stopping ------------------------------------------------------------------------------

    def _drain_asked(self, event: DrainAsked) -> None:
        state = self._state
        self._patient = event.patient
        if state.draining_until_now is None:
            state.draining_until_now = state.now + state.settings.drain_s
            state.log("info", "router.draining", jobs=self._awaited(), drain_s=state.settings.drain_s)
        self._drain()

    def _awaited(self) -> int:
        """How many jobs must move on before it may stop."""
        state = self._state
        if not self._durable:
            return len(state.live)
        in_hand = sum(state.census[held] for held in IN_HAND) if self._patient else 0
        return state.census[JobState.STORING] + in_hand

    def _drain(self) -> None:
        state = self._state
        if state.draining_until_now is None or state.stopped:
            return
        awaited = self._awaited()
        if not awaited or state.now >= state.draining_until_now:
            state.stopped = True
            state.log("warning" if awaited else "info", "router.drained", jobs_left=len(state.live))
            state.out.append(Stop())

    # --- the loop's troubles -------------------------------------------------------------------

    def _unreadable(self, event: Unreadable) -> None:
        state = self._state
        state.totals.protocol_errors += 1
        if event.answered:
            reply = ErrorReply(rid=event.rid, code="protocol_error", message=event.reason)
            state.out.append((ToClient if event.side == "client" else ToWorker)(event.peer, reply))
        if state.now - self._unreadable_logged_now >= UNREADABLE_LOG_INTERVAL_S:
            self._unreadable_logged_now = state.now
            total = state.totals.protocol_errors
            state.log(
                "warning", "frames.refused", side=event.side, reason=event.reason, total=total, peer_name=event.who.name
            )

    def _storage_changed(self, event: StorageChanged) -> None:
        state = self._state
        was_full, state.storage_full = bool(state.storage_full), event.detail if event.full else ""
        if event.full and not was_full:
            state.log("error", "storage.full", detail=event.detail)
        elif was_full and not event.full:
            state.log("info", "storage.free", detail=event.detail)
            self._workers.storage_free()

    def _send_failed(self, event: SendFailed) -> None:
        (self._clients if event.side == "client" else self._workers).unreachable(event)

    def _peer_gone(self, event: PeerGone) -> None:
        self._state.visitors.gone(event.side, event.peer)
        (self._clients if event.side == "client" else self._workers).gone(event.peer)

    def _key_revoked(self, event: KeyRevoked) -> None:
        self._state.log("warning", "key.revoked", peer_name=event.name)
        self._workers.revoked(event.name)

    def _replayed(self, event: Replayed) -> None:
        replay(self._state, event.records)
        self._state.fleet.begin(self._state.now)
