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
    JobMoment,
    JobProgress,
    JobQuery,
    JobReply,
    JobSpec,
    JobsQuery,
    JobsReply,
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
from tests.common.samples import LIMITS, MEASURES, STATS
from tests.gateway.views import MODELS, WORKERS
from tests.ports import free_endpoint

POLL_MS = 5


def picture_bytes(seed: int, size: int = 1000) -> bytes:
    """What this router 'draws' for a seed; `size` bytes."""
    return (b"\x89PNG" + hashlib.sha256(str(seed).encode()).digest() * (size // 32 + 1))[:size]


def _picture(data: bytes, width: int, height: int, format_: str = "png") -> Picture:
    return Picture(
        format=format_, width=width, height=height, drawn_width=min(width, 128), drawn_height=min(height, 128),
        bytes=len(data), sha256=hashlib.sha256(data).hexdigest(),
    )  # fmt: skip


@dataclass
class FakeJob:
    """A job of the fake router."""

    spec: JobSpec
    view: JobView
    watchers: dict[tuple[bytes, str], None] = field(default_factory=dict)  # (routing id, rid), in order
    data: bytes = b""
    error: ErrorInfo | None = None
    moments: list[JobMoment] = field(default_factory=list)

    def happened(self, event: str, detail: str = "") -> None:
        """Add to its history."""
        self.moments.append(JobMoment(at=wall_s(), event=event, detail=detail))


class FakeRouter:
    """Runs in a thread. `draws`, `refuse` and `silent` say how it behaves; change them at any time."""

    def __init__(self) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.keys: dict[str, tuple[object, str]] = {}  # key -> what it was sent with, the job's id
        self.received: list[Message] = []
        self.files: list[bytes] = []  # the payload of each SUBMIT
        self.draws: Callable[[JobSpec], bool] = lambda _spec: True  # else the job waits for `finish`
        self.refuse: Callable[[JobSpec], Rejected | None] = lambda _spec: None
        self.fails: Callable[[JobSpec], ErrorInfo | None] = lambda _spec: None
        self.silent: set[type[Message]] = set()  # requests left unanswered
        self.lost_pictures = False  # those of ended jobs are no longer kept
        self.picture_size = 1000
        self.notes: tuple[Note, ...] = ()
        self.workers: tuple[WorkerView, ...] = WORKERS
        self.workers_per_page = 48
        self.models = MODELS
        self.default_model = "genserve-shapes"
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last_peer = b""
        self._orders: list[Callable[[zmq.Socket[bytes]], object]] = []
        self.endpoint = free_endpoint()

    def start(self) -> None:
        """Bind, each time to the same port."""
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
        self.keys.clear()

    def expire(self, job_id: str) -> None:
        """As a router that keeps an ended job no longer, but its key."""
        del self.jobs[job_id]

    def accept_late(self, message: Submit) -> None:
        """Answer a SUBMIT that was left unanswered, now, to the peer that spoke last."""
        self._order(lambda socket: self._submit(socket, self._last_peer, message))

    def finish(self, job_id: str) -> None:
        """Draw a job that waits."""
        self._order(lambda socket: self._end(socket, self.jobs[job_id]))

    def send_all(self, frames: list[bytes]) -> None:
        """Send raw frames to every watcher."""
        peers = {peer for job in self.jobs.values() for peer, _ in job.watchers}
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
        socket = router_socket(context, self.endpoint)
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
            self._last_peer = peer
            message = FROM_CLIENT.decode(frames)
            self.received.append(message)
            if isinstance(message, Submit):
                self.files.append(b"".join(frames[3:]))
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
            case JobsQuery():
                views = tuple(job.view for job in self.jobs.values())
                self._send(socket, peer, JobsReply(rid=message.rid, jobs=views, next_before=0))
            case CancelJob() | Watch() | JobQuery() | Fetch():
                job = self.jobs.get(message.job_id)
                if job is None:
                    self._send(socket, peer, ErrorReply(rid=message.rid, code="not_found", message="no such job"))
                else:
                    self._about(socket, peer, message, job)

    def _about(self, socket: zmq.Socket[bytes], peer: bytes, message: Message, job: FakeJob) -> None:
        rid = message.rid  # type: ignore[attr-defined]  # every client message has one
        ended = job.view.state in {"done", "failed", "cancelled"}
        if isinstance(message, CancelJob) and (not ended or job.view.state == "cancelled"):
            if not ended:
                job.happened("cancelled")
            job.view = structs.replace(job.view, state="cancelled", ended_at=wall_s())
            self._send(socket, peer, Cancelled(rid=rid, job_id=job.view.job_id, job=job.view))
            for watcher, watch_rid in job.watchers:
                self._send(socket, watcher, Cancelled(rid=watch_rid, job_id=job.view.job_id, job=job.view))
            job.watchers.clear()
        elif isinstance(message, Watch | Fetch) and ended:
            self._tell_end(socket, peer, rid, job)
        else:
            if isinstance(message, Watch):
                job.watchers[peer, rid] = None
            history = tuple(job.moments) if isinstance(message, JobQuery) else ()
            self._send(socket, peer, JobReply(rid=rid, job_id=job.view.job_id, job=job.view, history=history))

    def _submit(self, socket: zmq.Socket[bytes], peer: bytes, message: Submit) -> None:
        spec = message.job
        if message.key in self.keys:
            self._submit_again(socket, peer, message)
            return
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
        job = self.jobs[view.job_id] = FakeJob(spec, view, {(peer, message.rid): None})
        job.happened("accepted")
        job.happened("started", view.worker_id)
        if message.key:
            self.keys[message.key] = (message.digest or spec, view.job_id)
        self._send(socket, peer, Accepted(rid=message.rid, job_id=view.job_id, job=view))
        progress = JobProgress(rid=message.rid, job_id=view.job_id, state="running", step=1, steps=view.steps)
        self._send(socket, peer, progress)
        for index in range(spec.previews):
            data = picture_bytes(-1 - index)
            shown = structs.replace(progress, step=index + 1, preview=_picture(data, 64, 64), preview_index=index)
            parts = split_payload(data)
            frames = encode(structs.replace(shown, parts=part_sizes(parts)), parts)
            socket.send_multipart([peer, *frames])
        if self.draws(spec):
            self._end(socket, job)

    def _submit_again(self, socket: zmq.Socket[bytes], peer: bytes, message: Submit) -> None:
        known, job_id = self.keys[message.key]
        job, rid = self.jobs.get(job_id), message.rid
        if known != (message.digest or message.job):
            text = f"the key {message.key!r} stands for a job with another body"
            self._send(socket, peer, Rejected(rid=rid, code="key_conflict", message=text, param="key"))
        elif job is None:
            text = f"the job {job_id} of this key has ended and is no longer kept"
            self._send(socket, peer, Rejected(rid=rid, code="not_found", message=text, param="key"))
        else:
            self._send(socket, peer, Accepted(rid=rid, job_id=job_id, job=job.view, repeated=True))
            if job.view.state in {"done", "failed", "cancelled"}:
                self._tell_end(socket, peer, rid, job)
            else:
                job.watchers[peer, rid] = None

    def _end(self, socket: zmq.Socket[bytes], job: FakeJob) -> None:
        job.error = self.fails(job.spec)
        job.data = picture_bytes(job.view.seed, self.picture_size)
        state = "failed" if job.error else "done"
        view = job.view
        picture = _picture(job.data, view.width, view.height, job.spec.format)
        job.view = structs.replace(
            view, state=state, ended_at=view.created_at + 1.25, error=job.error, picture=None if job.error else picture
        )
        job.happened(state)
        for peer, rid in list(job.watchers):
            self._tell_end(socket, peer, rid, job)
        job.watchers.clear()

    def _tell_end(self, socket: zmq.Socket[bytes], peer: bytes, rid: str, job: FakeJob) -> None:
        view = job.view
        if view.state == "cancelled":
            self._send(socket, peer, Cancelled(rid=rid, job_id=view.job_id, job=view))
        elif job.error:
            self._send(socket, peer, Failed(rid=rid, job_id=view.job_id, job=view, error=job.error))
        else:
            if self.lost_pictures:
                text = f"the picture of job {view.job_id} is no longer kept"
                self._send(socket, peer, ErrorReply(rid=rid, code="not_found", message=text))
                return
            parts = split_payload(job.data)
            assert view.picture is not None
            end = Result(rid=rid, job_id=view.job_id, job=view, picture=view.picture, parts=part_sizes(parts))
            self._send(socket, peer, end, *parts)

    def _status(self, question: StatusQuery) -> StatusReply:
        page = self.workers[question.workers_from : question.workers_from + self.workers_per_page]
        return StatusReply(
            rid=question.rid, workers=page, workers_total=len(self.workers), models=self.models,
            default_model=self.default_model, stats=STATS, limits=LIMITS, measures=MEASURES,
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
