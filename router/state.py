"""Everything the router knows, and the commands that the present event has led to so far.

Pure. The rooms around it (clients, workers, lifecycle, …) read and change it; each of its parts is changed
by its own methods only.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from common.allowance import Allowances
from common.messages import STATUS_FAILURES, FailureView, JobView, Message
from common.models import ModelCard
from common.settings import RouterSettings
from router.admission import Room, default_model
from router.commands import Append, Command, Log, ToClient, ToWorker
from router.deadlines import Deadlines
from router.events import NOBODY, Peer
from router.fleet import Fleet, Worker
from router.inputs import Inputs
from router.jobs import Job, JobState
from router.keys import Keys
from router.measures import Measures
from router.plan import Plan, Planner
from router.queue import JobQueue
from router.records import JobRecord, Record, moment
from router.scheduler import Scheduler
from router.speeds import Trust
from router.views import job_view
from router.visitors import Visitors
from router.watches import Watches

PLAN_AGE_MAX_S = 0.25  # an outlook this old still answers a client
EXACT_PLAN_JOBS_MAX = 256  # in a longer queue a new job's outlook may wait for the next plan


@dataclass(slots=True)
class Totals:
    """Counts since the start; STATUS explains them."""

    submitted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    rejected: int = 0
    queue_full: int = 0
    protocol_errors: int = 0
    retried: int = 0


class RouterState:
    """The whole state. `now` (monotonic) and `wall` are the instant of the event being handled."""

    def __init__(self, settings: RouterSettings, first_epoch: int) -> None:
        self.settings = settings
        self.now = 0.0
        self.wall = 0.0
        self.started_now: float | None = None
        self.out: list[Command] = []
        self.jobs: dict[str, Job] = {}  # all that are known
        self.live: dict[str, Job] = {}  # those that have not ended, oldest first
        self.ended: OrderedDict[str, Job] = OrderedDict()  # those that have, oldest end first
        self.dead: OrderedDict[str, Job] = OrderedDict()  # those that ended as poison and were not revived, likewise
        self.storage_full = ""  # why no new job is taken; '': there is room
        self.census: Counter[JobState] = Counter()
        self.sequence = 0
        self.result_bytes = 0  # of all pictures kept
        self.inputs = Inputs(settings)
        self.delayed: dict[str, Job] = {}  # queued, but not to start before their time
        self.orphans: dict[str, float] = {}  # job_id -> when its unheard GPU counts as lost (monotonic)
        self.deadlines = Deadlines(self.live)
        self.fleet = Fleet(settings, first_epoch)
        self.queue = JobQueue(self.fleet)
        self.scheduler = Scheduler(self.fleet, self.queue, self.jobs, settings.prefetch_s)
        self.room = Room(self.fleet, self.jobs, settings)
        self.gpu_seconds = Allowances()  # of owners whose gateways say how many they may have
        self.watches = Watches(settings)
        self.visitors = Visitors()
        self.keys = Keys(settings.key_ttl_s)
        self.cards: dict[str, ModelCard] = {}  # of every model ever registered, oldest first
        self.model_paths: dict[str, str] = {}
        self.totals = Totals()
        self.measures = Measures()
        self.failures: deque[tuple[str, FailureView]] = deque(maxlen=STATUS_FAILURES)  # with their owners, newest first
        self.draining_until_now: float | None = None
        self.stopped = False
        self.traced = False  # is somebody told of each job's trace?
        self._touched: dict[str, Worker] | None = {}  # whose circumstances changed; None: everyone's
        self._plan: Plan | None = None
        self._planner = Planner(self.fleet, self.queue, self.scheduler, self.jobs, settings)

    # --- commands ------------------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """To be written before anything is sent."""
        self.out.append(Append(record))

    def write_down(self, job: Job, record: JobRecord) -> None:
        """The same, and a line of the job's history."""
        self.append(record)
        told = moment(record)
        if told is not None:
            job.remember(told)

    def log(self, level: str, event: str, **fields: Any) -> None:
        """One line."""
        self.out.append(Log(level, event, fields))

    def to_client(self, peer: Peer, message: Message, picture_of: str = "", payload: Sequence[Any] = ()) -> None:
        """One message to a client, if it is still there."""
        if peer != NOBODY:
            self.out.append(ToClient(peer, message, picture_of, payload))

    def to_worker(self, worker: Worker, message: Message, inputs_of: str = "") -> None:
        """One message to a GPU daemon; dropped where its connection is gone, for it will register again."""
        if worker.peer is not None:
            self.out.append(ToWorker(worker.peer, message, inputs_of))

    def file(self, job: Job) -> None:
        """Keep an ended job among its like: as the newest, but a revived one where its end belongs."""
        poison = job.error is not None and job.error.code == "poison"
        if not job.revived_as:
            (self.dead if poison else self.ended)[job.job_id] = job
            return
        later = list(takewhile(lambda other: other.ended_now > job.ended_now, reversed(self.ended.values())))
        self.ended[job.job_id] = job
        for other in reversed(later):
            self.ended.move_to_end(other.job_id)

    # --- what may be sent anew ---------------------------------------------------------------

    def touch(self, worker: Worker) -> None:
        """It may be able to take a job now."""
        if self._touched is not None:
            self._touched[worker.worker_id] = worker

    def touch_all(self) -> None:
        """Any GPU may be able to take a job now: there is a new one, or time went by."""
        self._touched = None

    def take_touched(self) -> list[Worker]:
        """Those that may be able to take a job, once."""
        touched, self._touched = self._touched, {}
        if touched is None:
            return list(self.fleet.workers.values())
        return [worker for worker in touched.values() if self.fleet.workers.get(worker.worker_id) is worker]

    # --- outlooks ------------------------------------------------------------------------------

    def plan(self, *, exact: bool = False) -> Plan:
        """The plan: of this moment where `exact`, else perhaps PLAN_AGE_MAX_S old."""
        plan = self._plan
        if plan is None or exact or self.now - plan.made_now > PLAN_AGE_MAX_S:
            plan = self._plan = self._planner.plan(self.delayed.values(), self.now)
        return plan

    def as_if(self, job: Job) -> tuple[float | None, Trust]:
        """A new job's seconds to its end, were it accepted now, and how well that is known."""
        self.jobs[job.job_id] = job
        self.queue.add(job)
        plan = self._planner.plan((), self.now, last=job)
        self.queue.remove(job)
        del self.jobs[job.job_id]
        return plan.places[job.job_id].eta_s, plan.trust

    def view(self, job: Job) -> JobView:
        """The job as its owner sees it."""
        return job_view(job, self.position(job), self.eta_s(job))

    def position(self, job: Job) -> int:
        """How many jobs of its model start before it, and one; 0 where it is with a GPU, or ended."""
        if job.state is not JobState.QUEUED:
            return 0
        return self.queue.position_when_due(job) if job.job_id in self.delayed else self.queue.position(job)

    def eta_s(self, job: Job) -> float | None:
        """Seconds to the job's end; None where that is unknown, 0 where it has ended."""
        if job.state is JobState.QUEUED:
            place = self.plan().places.get(job.job_id)
            if place is None and len(self.queue) <= EXACT_PLAN_JOBS_MAX:  # it came after that plan was made
                place = self.plan(exact=True).places.get(job.job_id)
            return None if place is None else place.eta_s
        if job.ended or job.state is JobState.STORING:
            return 0.0
        worker = self.fleet.workers.get(job.worker_id)
        if worker is None or job.job_id not in worker.hand:
            return None
        return self.scheduler.ends_in_s(job, worker, self.now)

    @property
    def default_model(self) -> str:
        """The model of jobs that name none; '' until one is known."""
        return default_model(self.settings.default_model, self.cards, self.fleet)
