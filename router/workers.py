"""The GPU daemons' side: registration, credit, and what they say about the jobs in their hands.

Pure. The grammar stands in common/messages. DONE and FAIL are judged by their token before the job's own
state is asked: the current one ends the job, a repeated one is acknowledged again, any other is fenced.
Messages of another epoch are ignored, those two apart.
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from common.errors import ERRORS, Fault, GenServeError
from common.messages import (
    Bye,
    Credit,
    Done,
    Draining,
    ErrorReply,
    Fail,
    Fenced,
    Heartbeat,
    Register,
    ResultAck,
    Resync,
    Returned,
    Started,
    Token,
    Welcome,
    WorkerMessage,
    WorkerProgress,
)
from common.roles import Identity
from common.text import clip
from router.commands import DropResult, ToWorker
from router.events import InputsLost, Peer, ResultStored, SendFailed, WorkerSaid
from router.fleet import Worker
from router.jobs import IN_HAND, Job, JobState
from router.lifecycle import Lifecycle
from router.permission import check_worker_id
from router.records import ModelForgotten, ModelKnown
from router.retry import INFRASTRUCTURE
from router.state import RouterState
from router.teller import NO_PREVIEW, Preview

MODELS_MAX = 32  # remembered at once; unserved ones go first
DESCRIPTION_BYTES_MAX = 200


class Workers:
    """Answers GPU daemons."""

    def __init__(self, state: RouterState, lifecycle: Lifecycle) -> None:
        self._state = state
        self._lifecycle = lifecycle
        self._unanswered: set[str] = set()  # daemons with a DONE for which there was no room

    def said(self, event: WorkerSaid) -> None:
        """A message of a daemon, registered or not."""
        state, peer, message = self._state, event.peer, event.message
        if isinstance(message, Register):
            self._register(message, peer, event.who)
            return
        worker = state.fleet.by_peer.get(peer)
        if isinstance(message, ErrorReply):  # never answered
            state.log("warning", "worker.error", code=message.code, message=message.message)
        elif worker is None:
            state.out.append(ToWorker(peer, Resync()))
        elif isinstance(message, WorkerMessage):
            if state.fleet.heard(worker, state.now):
                state.log("info", "worker.back", worker_id=worker.worker_id, device=worker.device.device)
                state.touch(worker)
            present = message.epoch == worker.epoch
            worker.spoke |= present
            if isinstance(message, Done | Fail):
                self._end(worker, message, event)
            elif present:
                self._present(worker, message, event.payload)
        else:
            raise AssertionError(f"{message.NAME!r} is no message of a daemon")

    def _present(self, worker: Worker, message: WorkerMessage, payload: Sequence[Any]) -> None:
        """A message of the present epoch."""
        state = self._state
        match message:
            case Credit():
                state.fleet.grant(worker, message.granted_total)
            case Started() | WorkerProgress() | Returned():
                self._about_job(worker, message, payload)
            case Heartbeat():
                if state.fleet.heartbeat(worker, message):
                    self._state_changed(worker)
            case Draining():
                if state.fleet.set_state(worker, "draining"):
                    self._state_changed(worker)
            case Bye():
                state.log("info", "worker.left", worker_id=worker.worker_id, device=worker.device.device)
                self._gone(worker, "its daemon left")
            case _:
                raise AssertionError(f"{message.NAME!r} is no message of a daemon")
        state.touch(worker)

    def _state_changed(self, worker: Worker) -> None:
        self._state.touch_all()  # a job that should go elsewhere may have nowhere else now
        level = "warning" if worker.state == "broken" else "info"
        device, detail = worker.device.device, worker.detail
        self._state.log(level, f"worker.{worker.state}", worker_id=worker.worker_id, device=device, detail=detail)

    # --- registration --------------------------------------------------------------------------

    def _register(self, message: Register, peer: Peer, who: Identity) -> None:
        state = self._state
        try:
            check_worker_id(message.worker_id, who)
            forgotten = self._models_to_forget(message)
            worker = state.fleet.register(message, peer, state.now)
        except GenServeError as error:
            told = {"worker_id": message.worker_id, "code": error.code, "message": error.message, "peer_name": who.name}
            state.log("warning", "worker.refused", **told)
            state.out.append(ToWorker(peer, ErrorReply(code=error.code, message=error.message)))
            return
        self._learn_models(message, forgotten)
        keep, drop = self._reconcile(worker, message)
        welcome = Welcome(
            nonce=message.nonce,
            epoch=worker.epoch,
            heartbeat_interval_s=state.settings.heartbeat_interval_s,
            dead_after_s=state.settings.dead_after_s,
            keep=keep,
            drop=drop,
        )
        state.to_worker(worker, welcome)
        state.log(
            "info",
            "worker.registered",
            worker_id=worker.worker_id,
            device=worker.device.device,
            models=list(worker.models),
            epoch=worker.epoch,
            kept=len(keep),
            dropped=len(drop),
        )
        state.touch_all()

    def _reconcile(self, worker: Worker, message: Register) -> tuple[tuple[Token, ...], tuple[Token, ...]]:
        """Hold what the daemon lists against what is believed of it: (keep, drop)."""
        state = self._state
        believed = set(worker.hand) | {j for j in state.orphans if state.jobs[j].worker_id == worker.worker_id}
        worker.hand = {}
        keep, drop = [], []
        for held in message.tokens:
            job = self._current(worker, held.token)
            if job is None or held.token in keep:
                drop.append(held.token)
            else:
                keep.append(held.token)
                believed.discard(job.job_id)
                self._lifecycle.adopt(job, worker, running=held.stage == "running")
        for job_id in sorted(believed):
            self._lifecycle.lose(state.jobs[job_id], f"{worker.worker_id} registered without it")
        return tuple(keep), tuple(drop)

    def _models_to_forget(self, message: Register) -> list[str]:
        """Those that must make room for its own. Raises GenServeError unavailable where that is not enough."""
        state, offered = self._state, {card.name for card in message.models}
        over = len(offered | set(state.cards)) - MODELS_MAX
        if over <= 0:
            return []
        others = (name for name in state.cards if name not in offered)
        unserved = [name for name in others if not state.fleet.serving(name) and not state.room.needing[name]]
        if over > len(unserved):
            raise GenServeError("unavailable", f"{MODELS_MAX} models are served; no more are taken")
        return unserved[:over]

    def _learn_models(self, message: Register, forgotten: Sequence[str]) -> None:
        state = self._state
        for name in forgotten:
            del state.cards[name], state.model_paths[name]
            state.append(ModelForgotten(name=name))
        for told in message.models:
            card = replace(told, description=clip(told.description, DESCRIPTION_BYTES_MAX))
            if state.cards.get(card.name) == card and state.model_paths[card.name] == message.model_path:
                continue
            if card.name in state.cards and state.cards[card.name] != card:
                state.log("warning", "model.changed", model=card.name, worker_id=message.worker_id)
            state.cards[card.name] = card
            state.model_paths[card.name] = message.model_path
            state.append(ModelKnown(card=card, model_path=message.model_path))

    # --- jobs ----------------------------------------------------------------------------------

    def _current(self, worker: Worker, token: Token) -> Job | None:
        """The job that this token may still end, if it was given to this worker."""
        job = self._state.jobs.get(token.job_id)
        if job is None or not job.holds(token.dispatch) or job.worker_id != worker.worker_id:
            return None
        return job

    def _about_job(self, worker: Worker, message: Started | WorkerProgress | Returned, payload: Sequence[Any]) -> None:
        state = self._state
        job = self._current(worker, message.token)
        if job is None:
            state.to_worker(worker, Fenced(token=message.token))
            return
        if job.state not in IN_HAND or job.job_id not in worker.hand:
            return  # being stored, or counted as lost until the daemon registers with it
        if isinstance(message, Returned):
            self._lifecycle.give_back(job, message.reason)
            return
        if job.state is JobState.DISPATCHED:
            self._lifecycle.start(job)
        if isinstance(message, WorkerProgress):
            if message.step_s > 0 and state.fleet.learn_step(worker, job.order, message.step_s):
                state.queue.recost(job.order.model, state.jobs)
            preview = NO_PREVIEW
            if message.preview is not None and job.order.previews:
                preview = Preview(message.preview, message.preview_index, message.parts, payload)
            self._lifecycle.progress(job, min(message.step, job.order.drawn_steps), preview)

    def _end(self, worker: Worker, message: Done | Fail, event: WorkerSaid) -> None:
        state, token = self._state, message.token
        state.touch(worker)
        job = self._current(worker, token)
        if job is None:
            known = state.jobs.get(token.job_id)
            repeated = known is not None and known.settled == token.dispatch
            state.to_worker(worker, ResultAck(token=token) if repeated else Fenced(token=token))
        elif job.state is JobState.STORING or job.job_id not in worker.hand:
            return  # acknowledged once it is stored; or the daemon registers with it first
        elif isinstance(message, Done) and state.storage_full:
            self._unanswered.add(worker.worker_id)  # it is asked for again when there is room
        elif isinstance(message, Done):
            if state.fleet.learn_whole(worker, job.order, message.timings):
                state.queue.recost(job.order.model, state.jobs)
            if job.state is JobState.DISPATCHED:
                self._lifecycle.start(job)
            self._lifecycle.store(job, message, event.payload)
        else:
            self._failed(worker, job, message)

    def _failed(self, worker: Worker, job: Job, message: Fail) -> None:
        state, code = self._state, message.code if message.code in ERRORS else "engine_error"
        state.fleet.ended(worker.worker_id, state.wall, failed=ERRORS[code].fault is not Fault.CLIENT)
        if code == "engine_died":  # its next HEARTBEAT says when another one is ready
            state.fleet.set_state(worker, "loading")
            state.touch_all()
        if message.started and job.state is JobState.DISPATCHED:
            self._lifecycle.start(job)
        self._lifecycle.failed_there(job, code, message.message)
        state.to_worker(worker, ResultAck(token=message.token))
        if code in INFRASTRUCTURE and state.fleet.failed(worker, state.now):
            rest_s = worker.rests_until_now - state.now
            state.log("warning", "worker.resting", worker_id=worker.worker_id, rest_s=rest_s)

    def result_stored(self, event: ResultStored) -> None:
        """A picture is kept, or was refused; perhaps nobody wants it any more."""
        state, token = self._state, event.token
        job = state.jobs.get(token.job_id)
        if job is None or job.state is not JobState.STORING or job.dispatch != token.dispatch:
            if not event.refusal and (job is None or job.state is not JobState.DONE):
                state.out.append(DropResult(token.job_id))
            return
        worker = state.fleet.workers.get(job.worker_id)
        if event.deferred:
            self._lifecycle.not_stored(job)
            if worker is not None:  # perhaps another life of it, which has nothing: let it say what it holds
                state.to_worker(worker, Resync())
            return
        state.fleet.ended(job.worker_id, state.wall, drawn=not event.refusal, failed=bool(event.refusal))
        if event.refusal:
            self._lifecycle.failed_there(job, "engine_error", event.refusal)
        else:
            self._lifecycle.stored(job)
        if worker is not None:
            state.to_worker(worker, Fenced(token=token) if event.refusal else ResultAck(token=token))
            state.touch(worker)

    def inputs_lost(self, event: InputsLost) -> None:
        """A daemon was not sent its job, whose inputs are damaged: the job fails, the daemon tells its credit anew."""
        state = self._state
        job = state.jobs.get(event.token.job_id)
        if job is not None and job.holds(event.token.dispatch) and job.state is JobState.DISPATCHED:
            self._lifecycle.fail(job, "journal_failed", event.message)
        state.out.append(ToWorker(event.peer, Resync()))

    def storage_free(self) -> None:
        """There is room again: daemons whose pictures had none register, and send them again."""
        state = self._state
        for worker_id in sorted(self._unanswered):
            worker = state.fleet.workers.get(worker_id)
            if worker is not None:
                state.to_worker(worker, Resync())
        self._unanswered.clear()

    # --- loss ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Who has fallen silent, and what became of the jobs of those who never came back."""
        state = self._state
        if state.fleet.slept(state.now):
            state.orphans.update(dict.fromkeys(state.orphans, state.now + state.settings.dead_after_s))
        suspects, dead = state.fleet.tick(state.now)
        for worker in suspects:
            silent_s = round(state.now - worker.heard_now, 1)
            state.log("warning", "worker.suspect", worker_id=worker.worker_id, silent_s=silent_s)
        for worker in dead:
            silent_s = round(state.now - worker.heard_now, 1)
            state.log("error", "worker.dead", worker_id=worker.worker_id, silent_s=silent_s, jobs=len(worker.hand))
            self._gone(worker, f"{worker.worker_id} was silent for {silent_s} s")
        for job_id in [job_id for job_id, until in state.orphans.items() if until <= state.now]:
            job = state.jobs[job_id]
            self._lifecycle.lose(job, f"{job.worker_id} did not come back")

    def _gone(self, worker: Worker, reason: str) -> None:
        self._state.fleet.remove(worker)
        self._state.touch_all()
        for job_id in list(worker.hand):
            self._lifecycle.lose(self._state.jobs[job_id], reason)

    def gone(self, peer: Peer) -> None:
        """A connection has ended; its daemon comes back on another, or is silent for too long."""
        worker = self._state.fleet.unbind(peer)
        if worker is not None:
            self._state.log("info", "worker.disconnected", worker_id=worker.worker_id, device=worker.device.device)

    def revoked(self, name: str) -> None:
        """The key of this name counts no more, nor do the daemons that registered with it."""
        state = self._state
        theirs = Identity(name, "daemon")
        for worker in [each for each in state.fleet.workers.values() if theirs.owns_worker(each.worker_id)]:
            state.log("warning", "worker.revoked", worker_id=worker.worker_id, peer_name=name, jobs=len(worker.hand))
            self._gone(worker, f"the key of {worker.worker_id} was revoked")
        for job_id in [each for each in state.orphans if theirs.owns_worker(state.jobs[each].worker_id)]:
            self._lifecycle.lose(state.jobs[job_id], f"the key {name!r} was revoked")

    def unreachable(self, event: SendFailed) -> None:
        """A daemon did not get a message. It must register again, which tells what it holds."""
        worker = self._state.fleet.unbind(event.peer)
        if worker is not None:
            why = "its connection is gone" if event.gone else "it does not read"
            lost = event.name.decode()
            self._state.log("warning", "worker.unreachable", worker_id=worker.worker_id, lost=lost, why=why)
