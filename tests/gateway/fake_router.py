"""A router of a few lines over a real ROUTER socket: obeys the client's grammar and does as a test says."""

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import zmq
from msgspec import structs

from common.clock import wall_s
from common.codec import FROM_CLIENT, encode, part_sizes, split_payload
from common.messages import (
    Accepted,
    CancelJob,
    Cancelled,
    ErrorInfo,
    ErrorReply,
    Failed,
    Fetch,
    JobProgress,
    JobQuery,
    JobReply,
    JobSpec,
    JobView,
    Message,
    Note,
    Picture,
    Ping,
    Pong,
    Rejected,
    Result,
    StatusQuery,
    StatusReply,
    Submit,
    Watch,
    WorkerView,
)
from common.sockets import router_socket
from tests.common.samples import LIMITS, STATS
from tests.gateway.views import MODELS, WORKERS

POLL_MS = 5


def picture_bytes(seed: int, size: int = 1000) -> bytes:
    """What this router 'draws' for a seed; `size` bytes."""
    return (b"\x89PNG" + hashlib.sha256(str(seed).encode()).digest() * (size // 32 + 1))[:size]


@dataclass
class FakeJob:
    """A job of the fake router."""

    spec: JobSpec
    view: JobView
    watchers: dict[bytes, str] = field(default_factory=dict)  # routing id -> rid of its last request
    data: bytes = b""
    error: ErrorInfo | None = None


class FakeRouter:
    """Runs in a thread. `draws`, `refuse` and `silent` say how it behaves; change them at any time."""

    def __init__(self) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.received: list[Message] = []
        self.draws: Callable[[JobSpec], bool] = lambda _spec: True  # else the job waits for `finish`
        self.refuse: Callable[[JobSpec], Rejected | None] = lambda _spec: None
        self.fails: Callable[[JobSpec], ErrorInfo | None] = lambda _spec: None
        self.silent: set[type[Message]] = set()  # requests left unanswered
        self.picture_size = 1000
        self.notes: tuple[Note, ...] = ()
        self.workers: tuple[WorkerView, ...] = WORKERS
        self.workers_per_page = 48
        self.models = MODELS
        self.default_model = "flux-tiny-random"
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._orders: list[Callable[[zmq.Socket[bytes]], object]] = []
        self.endpoint = "tcp://127.0.0.1:*"

    def start(self) -> None:
        """Bind: at the first start to a free port, later to the same one."""
        self._stopping = threading.Event()
        bound = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(bound,))
        self._thread.start()
        assert bound.wait(10)

    def stop(self) -> None:
        """Close the socket; jobs are kept, watchers are not."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join(10)
        self._thread = None
        for job in self.jobs.values():
            job.watchers.clear()

    def forget(self) -> None:
        """As a router that restarted without its journal."""
        self.jobs.clear()

    def finish(self, job_id: str) -> None:
        """Draw a job that waits."""
        self._order(lambda socket: self._end(socket, self.jobs[job_id]))

    def send_all(self, frames: list[bytes]) -> None:
        """Send raw frames to every watcher."""
        peers = {peer for job in self.jobs.values() for peer in job.watchers}
        self._order(lambda socket: [socket.send_multipart([peer, *frames]) for peer in peers])

    def count(self, kind: type[Message]) -> int:
        """How many of this kind were received."""
        return sum(isinstance(message, kind) for message in list(self.received))

    def states(self) -> list[str]:
        """The state of every job, in order of admission."""
        return [job.view.state for job in list(self.jobs.values())]

    def _order(self, order: Callable[[zmq.Socket[bytes]], object]) -> None:
        with self._lock:
            self._orders.append(order)

    def _serve(self, bound: threading.Event) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = router_socket(context, self.endpoint.replace("*", "0"))
        self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        bound.set()
        try:
            while not self._stopping.is_set():
                self._turn(socket)
        finally:
            socket.close(linger=0)
            context.term()

    def _turn(self, socket: zmq.Socket[bytes]) -> None:
        with self._lock:
            orders, self._orders = self._orders, []
        for order in orders:
            order(socket)
        if socket.poll(POLL_MS):
            peer, *frames = socket.recv_multipart()
            message = FROM_CLIENT.decode(frames)
            self.received.append(message)
            if type(message) not in self.silent:
                self._answer(socket, peer, message)

    def _answer(self, socket: zmq.Socket[bytes], peer: bytes, message: Message) -> None:
        match message:
            case Submit():
                self._submit(socket, peer, message)
            case Ping():
                self._send(socket, peer, Pong(rid=message.rid))
            case StatusQuery():
                self._send(socket, peer, self._status(message))
            case CancelJob() | Watch() | JobQuery() | Fetch():
                job = self.jobs.get(message.job_id)
                if job is None:
                    self._send(socket, peer, ErrorReply(rid=message.rid, code="not_found", message="no such job"))
                else:
                    self._about(socket, peer, message, job)

    def _about(self, socket: zmq.Socket[bytes], peer: bytes, message: Message, job: FakeJob) -> None:
        rid = message.rid  # type: ignore[attr-defined]  # every client message has one
        ended = job.view.state in {"done", "failed", "cancelled"}
        if isinstance(message, CancelJob) and not ended:
            job.view = structs.replace(job.view, state="cancelled")
            self._send(socket, peer, Cancelled(rid=rid, job_id=job.view.job_id, job=job.view))
            for watcher, watch_rid in job.watchers.items():
                if watcher != peer:
                    self._send(socket, watcher, Cancelled(rid=watch_rid, job_id=job.view.job_id, job=job.view))
        elif isinstance(message, Watch | Fetch) and ended:
            self._tell_end(socket, peer, rid, job)
        else:
            if isinstance(message, Watch):
                job.watchers[peer] = rid
            self._send(socket, peer, JobReply(rid=rid, job_id=job.view.job_id, job=job.view))

    def _submit(self, socket: zmq.Socket[bytes], peer: bytes, message: Submit) -> None:
        spec = message.job
        refusal = self.refuse(spec)
        if refusal is not None:
            self._send(socket, peer, structs.replace(refusal, rid=message.rid))
            return
        view = JobView(
            job_id=uuid.uuid4().hex, state="running", model=spec.model or self.default_model,
            width=spec.width or 128, height=spec.height or 128, steps=spec.steps or 4, seed=spec.seed or 0,
            guidance_scale=3.5 if spec.guidance_scale is None else spec.guidance_scale, priority=spec.priority,
            client=spec.client, created_at=wall_s(), deadline_at=wall_s() + 60,
            started_at=wall_s(), ended_at=0.0, step=0, position=0, eta_s=None, attempts=1,
            worker_id="host/cuda:1", device="cuda:1", notes=self.notes, error=None, picture=None, timings=None,
        )  # fmt: skip
        job = self.jobs[view.job_id] = FakeJob(spec, view, {peer: message.rid})
        self._send(socket, peer, Accepted(rid=message.rid, job_id=view.job_id, job=view))
        self._send(
            socket, peer, JobProgress(rid=message.rid, job_id=view.job_id, state="running", step=1, steps=view.steps)
        )
        if self.draws(spec):
            self._end(socket, job)

    def _end(self, socket: zmq.Socket[bytes], job: FakeJob) -> None:
        job.error = self.fails(job.spec)
        job.data = picture_bytes(job.view.seed, self.picture_size)
        state = "failed" if job.error else "done"
        job.view = structs.replace(job.view, state=state, ended_at=job.view.created_at + 1.25, error=job.error)
        for peer, rid in job.watchers.items():
            self._tell_end(socket, peer, rid, job)

    def _tell_end(self, socket: zmq.Socket[bytes], peer: bytes, rid: str, job: FakeJob) -> None:
        view = job.view
        if view.state == "cancelled":
            self._send(socket, peer, Cancelled(rid=rid, job_id=view.job_id, job=view))
        elif job.error:
            self._send(socket, peer, Failed(rid=rid, job_id=view.job_id, job=view, error=job.error))
        else:
            parts = split_payload(job.data)
            picture = Picture(
                format="png", width=view.width, height=view.height, drawn_width=min(view.width, 128),
                drawn_height=min(view.height, 128), bytes=len(job.data), sha256=hashlib.sha256(job.data).hexdigest(),
            )  # fmt: skip
            end = Result(rid=rid, job_id=view.job_id, job=view, picture=picture, parts=part_sizes(parts))
            self._send(socket, peer, end, *parts)

    def _status(self, question: StatusQuery) -> StatusReply:
        page = self.workers[question.workers_from : question.workers_from + self.workers_per_page]
        return StatusReply(
            rid=question.rid, workers=page, workers_total=len(self.workers), models=self.models,
            default_model=self.default_model, stats=STATS, limits=LIMITS,
        )  # fmt: skip

    def _send(self, socket: zmq.Socket[bytes], peer: bytes, message: Message, *payload: memoryview) -> None:
        try:
            socket.send_multipart([peer, *encode(message, payload)])
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:  # a client that has gone is told nothing
                raise


@contextmanager
def fake_router() -> Iterator[FakeRouter]:
    """A running one."""
    router = FakeRouter()
    router.start()
    try:
        yield router
    finally:
        router.stop()
