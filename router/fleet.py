"""The GPUs: who is registered, in which epoch, with how much credit, and whether they still live.

Pure. It knows which jobs a GPU has in hand by their tokens, and nothing of their contents. Credit is two
cumulative counters an epoch: the daemon alone raises `granted_total`, `use_credit` alone `dispatched_total`.
"""

from collections import Counter
from dataclasses import dataclass, field

from common.errors import GenServeError
from common.messages import DeviceInfo, DeviceLoad, Heartbeat, JobOrder, Register, Timings
from common.models import ModelCard
from common.settings import RouterSettings
from router.events import Peer
from router.speeds import Speed, Speeds

WORKERS_MAX = 4096
FAILURES_BEFORE_REST = 3  # in a row, of the GPU's own making
REST_S = 60.0  # then it is sent nothing for so long, and after that one job as a probe


@dataclass(slots=True)
class Service:
    """What is remembered of a GPU across its registrations."""

    done_total: int = 0
    failed_total: int = 0
    drawing_s: float = 0.0  # of its engine, for the pictures that are done
    last_used_at: float = 0.0  # wall
    share: int = 0  # dispatches, for even shares; a newcomer starts level with the least busy
    speeds: Speeds = field(default_factory=Speeds)


@dataclass(slots=True)
class Worker:
    """One registered GPU daemon. Times are monotonic seconds."""

    worker_id: str
    boot_id: str
    nonce: str
    peer: Peer | None  # None: its connection is gone; it may come back on another
    epoch: int
    host: str
    device: DeviceInfo
    models: dict[str, ModelCard]
    model_path: str
    job_timeout_s: float
    version: str
    heard_now: float
    service: Service
    state: str = "loading"  # as it says itself: ready | loading | broken | draining
    detail: str = ""
    load: DeviceLoad = field(default_factory=DeviceLoad)
    engine_pid: int = 0
    spoke: bool = False  # in this epoch
    suspect: bool = False
    granted_total: int = 0
    dispatched_total: int = 0
    hand: dict[str, int] = field(default_factory=dict)  # job_id -> dispatch, in the order sent
    failures_in_row: int = 0
    rests_until_now: float = 0.0

    @property
    def credit(self) -> int:
        """How many jobs it may still be sent."""
        return self.granted_total - self.dispatched_total

    @property
    def takes_new(self) -> bool:
        """Ready, reachable and with credit?"""
        return self.state == "ready" and not self.suspect and self.peer is not None and self.credit > 0

    @property
    def will_serve(self) -> bool:
        """May jobs be planned for it?"""
        return self.state in ("ready", "loading")

    @property
    def on_probation(self) -> bool:
        """Has it failed so often that it is given one job at a time?"""
        return self.failures_in_row >= FAILURES_BEFORE_REST


class Fleet:
    """All registered GPU daemons."""

    def __init__(self, settings: RouterSettings, first_epoch: int) -> None:
        """`first_epoch` must lie beyond every epoch of a former router."""
        self._settings = settings
        self._next_epoch = first_epoch
        self._services: dict[str, Service] = {}
        self._places: Counter[str] = Counter()
        self._serving: dict[str, list[Worker]] = {}
        self._beside: dict[str, set[str]] = {}
        self._typical = Speeds()
        self._ticked_now: float | None = None
        self.workers: dict[str, Worker] = {}
        self.by_peer: dict[Peer, Worker] = {}

    # --- who is there --------------------------------------------------------------------------

    def register(self, message: Register, peer: Peer, now: float) -> Worker:
        """Bind `peer` to its worker, in a new epoch.

        A REGISTER repeated before anything was said in the epoch is answered with that epoch again. Raises
        GenServeError device_unavailable where the name is another daemon's, unavailable where too many came.
        """
        known = self.workers.get(message.worker_id)
        if known is not None and known.boot_id != message.boot_id:
            self._refuse_second(known, now)
        elif known is not None and known.peer == peer and known.nonce == message.nonce and not known.spoke:
            known.heard_now = now
            return known
        if known is None and len(self.workers) >= WORKERS_MAX:
            raise GenServeError("unavailable", f"{WORKERS_MAX} GPU daemons are registered; no more are taken")
        self.unbind(peer)
        worker = self._worker(message, peer, now)
        if known is not None:
            if known.peer is not None:
                self.by_peer.pop(known.peer, None)
            if known.boot_id == message.boot_id:
                worker.state, worker.detail, worker.load = known.state, known.detail, known.load
                worker.engine_pid = known.engine_pid
            worker.hand = known.hand  # to be reconciled with what it lists
            worker.failures_in_row, worker.rests_until_now = known.failures_in_row, known.rests_until_now
        self.workers[worker.worker_id] = worker
        self.by_peer[peer] = worker
        self._recount()
        return worker

    def _refuse_second(self, known: Worker, now: float) -> None:
        silent_s = now - known.heard_now
        if silent_s < self._settings.suspect_after_s:
            raise GenServeError(
                "device_unavailable",
                f"worker_id {known.worker_id!r} was heard {silent_s:.1f} s ago under another start; a restarted daemon "
                f"takes it over once that one has been silent for {self._settings.suspect_after_s:g} s, by itself. "
                "Where both really run, stop one or give it a gpu_daemon.worker_id of its own",
            )

    def _worker(self, message: Register, peer: Peer, now: float) -> Worker:
        service = self._services.pop(message.worker_id, None)
        if service is None or message.worker_id not in self.workers:
            least = min((w.service.share for w in self.workers.values()), default=0)
            service = service or Service()
            service.share = max(service.share, least)
        self._services[message.worker_id] = service  # the one that came last stands last
        self._forget_services()
        self._next_epoch += 1
        return Worker(
            worker_id=message.worker_id,
            boot_id=message.boot_id,
            nonce=message.nonce,
            peer=peer,
            epoch=self._next_epoch - 1,
            host=message.host,
            device=message.device,
            models={card.name: card for card in message.models},
            model_path=message.model_path,
            job_timeout_s=message.job_timeout_s,
            version=message.version,
            heard_now=now,
            service=service,
        )

    def _forget_services(self) -> None:
        if len(self._services) > 2 * WORKERS_MAX:
            for worker_id in [name for name in self._services if name not in self.workers][:WORKERS_MAX]:
                del self._services[worker_id]

    def unbind(self, peer: Peer) -> Worker | None:
        """This connection is gone or useless; its worker may come back on another."""
        worker = self.by_peer.pop(peer, None)
        if worker is not None:
            worker.peer = None
        return worker

    def remove(self, worker: Worker) -> None:
        """It is dead, or has said goodbye."""
        del self.workers[worker.worker_id]
        if worker.peer is not None:
            self.by_peer.pop(worker.peer, None)
        self._recount()

    def serving(self, model: str) -> list[Worker]:
        """Everyone registered for a model, whatever their state."""
        return self._serving.get(model, [])

    def places(self, model: str) -> int:
        """How many GPUs jobs of this model may be planned for."""
        return self._places[model]

    def drawn_beside(self, model: str) -> set[str]:
        """The models that are drawn by GPUs of this one, itself among them; none where nobody serves it."""
        return self._beside.get(model, set())

    def _recount(self) -> None:
        self._places.clear()
        self._serving, self._beside = {}, {}
        for worker in self.workers.values():
            for model in worker.models:
                self._beside.setdefault(model, set()).update(worker.models)
                self._serving.setdefault(model, []).append(worker)
                self._places[model] += worker.will_serve

    # --- how fast they are ---------------------------------------------------------------------

    def learn_step(self, worker: Worker, order: JobOrder, step_s: float) -> bool:
        """A step took so long there. True where this is the first that is known of the model's speed."""
        first = self._typical.learned(order) is None and not self._typical.knows(order.model)
        worker.service.speeds.learn_step(order, step_s)
        self._typical.learn_step(order, step_s)
        return first

    def learn_whole(self, worker: Worker, order: JobOrder, timings: Timings) -> bool:
        """A whole job took so long there. True likewise."""
        first = not self._typical.knows(order.model)
        worker.service.speeds.learn_whole(order, timings)
        self._typical.learn_whole(order, timings)
        return first and self._typical.knows(order.model)

    def cost_ms(self, order: JobOrder) -> int:
        """What a job counts in its client's share: the GPU time it takes, over all GPUs, if need be guessed."""
        return self._typical.cost_ms(order)

    def outlook(self, worker: Worker, order: JobOrder) -> Speed | None:
        """How fast this GPU probably is: as learned, else as guessed from its other sizes, else as all GPUs are."""
        own, all_gpus = worker.service.speeds, self._typical
        return own.learned(order) or own.guessed(order) or all_gpus.learned(order) or all_gpus.guessed(order)

    # --- what they say -------------------------------------------------------------------------

    def heard(self, worker: Worker, now: float) -> bool:
        """Any traffic is a sign of life. True where it had been suspect."""
        worker.heard_now = now
        was, worker.suspect = worker.suspect, False
        return was

    def heartbeat(self, worker: Worker, message: Heartbeat) -> bool:
        """So it stands. True where its state changed."""
        worker.load, worker.engine_pid, worker.detail = message.load, message.engine_pid, message.detail
        return self.set_state(worker, message.state)

    def set_state(self, worker: Worker, state: str) -> bool:
        """True where that is a change."""
        if worker.state == state:
            return False
        worker.state = state
        self._recount()
        return True

    def grant(self, worker: Worker, granted_total: int) -> None:
        """The daemon's own counter; what arrives lower than before is old."""
        worker.granted_total = max(worker.granted_total, granted_total)

    def use_credit(self, worker: Worker) -> None:
        """One job is sent."""
        if worker.credit <= 0:
            raise AssertionError(f"{worker.worker_id} has no credit: {worker.dispatched_total} sent")
        worker.dispatched_total += 1
        worker.service.share += 1

    def failed(self, worker: Worker, now: float) -> bool:
        """A failure of the GPU's own making. True where it must rest now."""
        worker.failures_in_row += 1
        if not worker.on_probation:
            return False
        worker.rests_until_now = now + REST_S
        return True

    def ended(self, worker_id: str, wall: float, *, drawn: bool = False, failed: bool = False) -> None:
        """A job ended here: with a picture, which forgives what failed before, or `failed` and not by its client."""
        service, worker = self._services.get(worker_id), self.workers.get(worker_id)
        if service is not None:
            service.done_total += drawn
            service.failed_total += failed
            service.last_used_at = wall
        if worker is not None and drawn:
            worker.failures_in_row, worker.rests_until_now = 0, 0.0

    def drew(self, worker_id: str, drawing_s: float) -> None:
        """A picture of it is kept, for which its engine took so long."""
        if (service := self._services.get(worker_id)) is not None:
            service.drawing_s += drawing_s

    # --- whether they live ---------------------------------------------------------------------

    def slept(self, now: float) -> bool:
        """Is a tick late by more than `suspect_after_s`? The router itself was asleep then, and heard nobody."""
        return self._ticked_now is not None and now - self._ticked_now > self._settings.suspect_after_s

    def begin(self, now: float) -> None:
        """From here on a tick may be late."""
        self._ticked_now = now

    def tick(self, now: float) -> tuple[list[Worker], list[Worker]]:
        """Those newly (suspect, dead). Where the router has slept, every lease starts afresh."""
        late = self.slept(now)
        self._ticked_now = now
        suspects, dead = [], []
        for worker in self.workers.values():
            if late:
                worker.heard_now = now
            silent_s = now - worker.heard_now
            if silent_s > self._settings.dead_after_s:
                dead.append(worker)
            elif silent_s > self._settings.suspect_after_s and not worker.suspect:
                worker.suspect = True
                suspects.append(worker)
        return suspects, dead

    def check(self) -> None:
        """Raise AssertionError where the books do not balance."""
        assert len(self.by_peer) <= len(self.workers)
        assert len(self._services) <= 2 * WORKERS_MAX
        for peer, worker in self.by_peer.items():
            assert worker.peer == peer, worker
            assert self.workers.get(worker.worker_id) is worker, worker
        for worker in self.workers.values():
            assert worker.peer is None or self.by_peer.get(worker.peer) is worker, worker
            assert 0 <= worker.dispatched_total <= worker.granted_total, worker
            assert worker.epoch < self._next_epoch, worker
            for model in worker.models:
                assert worker in self._serving[model], worker
        epochs = [worker.epoch for worker in self.workers.values()]
        assert len(set(epochs)) == len(epochs), epochs
        for model, serving in self._serving.items():
            assert self._places[model] == sum(worker.will_serve for worker in serving), model
