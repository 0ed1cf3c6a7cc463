"""The gateway's one connection to the router: a DEALER on the event loop, and the futures that wait on it.

Knows the client's side of the grammar in common/messages; knows no HTTP and no dialect. The socket's
descriptor is edge-triggered: it is read until empty, and looked at again after each send.

A submitted job is followed until it ends: WATCH every 5 s finds it again after a reconnection; a router that
does not know it any more (it restarted without its journal) is given it again, with the same seed. A job
that is released before its end is cancelled, and CANCEL is repeated until it is answered.
"""

import asyncio
import itertools
import uuid

import zmq

from common.clock import monotonic_s
from common.codec import TO_CLIENT, Buffer, encode
from common.errors import ERRORS, GenServeError, ProtocolError
from common.log import get_logger
from common.messages import (
    Accepted,
    CancelJob,
    Cancelled,
    ClientMessage,
    ErrorReply,
    Failed,
    JobProgress,
    JobReply,
    JobSpec,
    Message,
    Pong,
    Rejected,
    Result,
    StatusReply,
    Submit,
    Watch,
)
from common.sockets import Socket, dealer_socket
from gateway.dialects.picture import Drawn
from gateway.submission import Submission, job_failure, refusal, settle

WATCH_INTERVAL_S = 5.0
ROUTER_SILENCE_S_MAX = 60.0  # after which those who wait for a job are told that the router is gone
WATCHES_MISSED_MAX = 2  # the same while stopping, where it is longer than `answer_timeout_s`
CANCEL_REPEATS_MAX = 12  # one every WATCH_INTERVAL_S
RESUBMITS_MAX = 12  # of one job that the router had lost, one every WATCH_INTERVAL_S
WAITING_MAX = 4096  # questions, and jobs followed, at one time
HEAD_FRAMES = 3  # version, name, header; then the payload
DRAIN_MESSAGES_MAX = 256  # read before the loop does something else
CLOSE_LINGER_MS = 1000  # for the last CANCELs
_READ = int(zmq.POLLIN)  # as plain integers: these are asked for after each message
_READ_OR_WRITE = int(zmq.POLLIN | zmq.POLLOUT)
_DONTWAIT = int(zmq.DONTWAIT)
_SEND_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)


class RouterLink:
    """Speaks with one router. Used on one event loop, between `open` and `close`."""

    def __init__(self, endpoint: str, *, answer_timeout_s: float) -> None:
        self.endpoint = endpoint
        self.answer_timeout_s = answer_timeout_s
        self._log = get_logger()
        self._numbers = itertools.count(1)
        self._asked: dict[str, asyncio.Future[tuple[Message, bytes]]] = {}  # by rid
        self._submitted: dict[str, Submission] = {}  # by rid, until released or ended
        self._followed: dict[str, Submission] = {}  # those accepted, by job id
        self._cancelling: dict[str, int] = {}  # job id -> repeats left
        self._unsent: dict[str, list[Buffer]] = {}  # by rid, in order; while no router is connected
        self._heard_at = monotonic_s()
        self._silence_s_max = ROUTER_SILENCE_S_MAX
        self._closed = False

    def open(self) -> None:
        """Connect, and keep connecting."""
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[Socket] = zmq.Context()
        self._socket = dealer_socket(self._context, self.endpoint)
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self._on_ready)
        self._ticker = self._loop.create_task(self._tick())

    def drain(self) -> None:
        """The gateway is stopping: a router that is silent is no longer given time to come back."""
        self._silence_s_max = max(self.answer_timeout_s, WATCHES_MISSED_MAX * WATCH_INTERVAL_S)
        self._check_silence()

    async def close(self) -> None:
        """Cancel the jobs that are still followed, fail whatever else waits, and drop the connection."""
        self._closed = True
        self._ticker.cancel()
        await asyncio.gather(self._ticker, return_exceptions=True)
        for submission in list(self._submitted.values()):
            self.release(submission)
        for answer in self._asked.values():
            settle(answer, self._stopping())
        self._loop.remove_reader(self._descriptor)
        self._socket.close(linger=CLOSE_LINGER_MS)
        self._context.term()

    def new_rid(self) -> str:
        """A name for the next question."""
        return str(next(self._numbers))

    async def ask(self, question: ClientMessage, *, timeout_s: float | None = None) -> tuple[Message, bytes]:
        """The direct answer to JOB, FETCH, STATUS or PING, and its payload.

        Raises GenServeError unavailable where none comes in time, and the code of an ERROR that comes.
        """
        self._check_room(len(self._asked))
        answer: asyncio.Future[tuple[Message, bytes]] = self._loop.create_future()
        self._asked[question.rid] = answer
        try:
            self._send(question)
            async with asyncio.timeout(self.answer_timeout_s if timeout_s is None else timeout_s):
                return await answer
        except TimeoutError:
            raise self.unavailable() from None
        finally:
            self._asked.pop(question.rid, None)
            self._unsent.pop(question.rid, None)

    def submit(self, spec: JobSpec) -> Submission:
        """Send a job on its way. To be given to `release` in the end, whatever happens."""
        self._check_room(len(self._submitted))
        if not self._submitted:
            self._heard_at = monotonic_s()  # nothing was expected until now: silence begins here
        rid = self.new_rid()
        unanswered = self._loop.call_later(self.answer_timeout_s, self._end, rid, self.unavailable())
        submission = Submission(rid, spec, self._loop.create_future(), unanswered)
        self._submitted[rid] = submission
        self._send(Submit(rid=rid, job=spec))
        return submission

    def release(self, submission: Submission) -> None:
        """Nobody waits for it any more: cancelled where it has not ended."""
        submission.unanswered.cancel()
        unended = self._submitted.pop(submission.rid, None) is not None
        if unended and submission.job_id:
            self._followed.pop(submission.job_id, None)
            self._cancel(submission.job_id)
        self._unsent.pop(submission.rid, None)  # an ACCEPTED still to come is answered CANCEL
        if not submission.ended.cancel() and not submission.ended.cancelled():
            submission.ended.exception()  # seen: whoever waited was told another failure first

    def unavailable(self) -> GenServeError:
        """What to raise where the router has not answered."""
        return GenServeError("unavailable", f"the router at {self.endpoint} does not answer")

    # --- sending ---------------------------------------------------------------------------------

    def _send(self, message: ClientMessage) -> None:
        frames = encode(message)
        if self._unsent or not self._put(frames):
            self._unsent[message.rid] = frames
        self._look_again()

    def _look_again(self) -> None:
        """Every call on the socket may have swallowed the descriptor's word that something happened."""
        wanted = _READ_OR_WRITE if self._unsent else _READ
        if int(self._socket.getsockopt(zmq.EVENTS)) & wanted:
            self._loop.call_soon(self._on_ready)

    def _put(self, frames: list[Buffer]) -> bool:
        """False where no router is connected, or its queue is full."""
        send = self._socket.send
        try:
            for frame in frames[:-1]:
                send(frame, _SEND_MORE)
            send(frames[-1], _DONTWAIT)
        except zmq.Again:
            return False
        return True

    def _flush(self) -> None:
        while self._unsent:
            rid = next(iter(self._unsent))
            if not self._put(self._unsent[rid]):
                return
            del self._unsent[rid]

    def _cancel(self, job_id: str) -> None:
        self._cancelling.setdefault(job_id, CANCEL_REPEATS_MAX)
        self._send(CancelJob(rid=f"c{job_id}", job_id=job_id))

    def _resubmit(self, submission: Submission) -> None:
        submission.resubmits += 1
        self._send(Submit(rid=submission.rid, job=submission.spec, key=submission.key))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            self._check_silence()
            for submission in self._submitted.values():
                if submission.job_id:
                    self._send(Watch(rid=f"w{submission.job_id}", job_id=submission.job_id))
                elif submission.key:
                    self._resubmit(submission)
            for job_id, repeats_left in list(self._cancelling.items()):
                if repeats_left == 0:
                    self._log.warning("cancel.unanswered", job_id=job_id)
                    del self._cancelling[job_id]
                else:
                    self._cancelling[job_id] = repeats_left - 1
                    self._send(CancelJob(rid=f"c{job_id}", job_id=job_id))

    def _check_silence(self) -> None:
        if self._submitted and monotonic_s() - self._heard_at > self._silence_s_max:
            self._log.error("router.silent", endpoint=self.endpoint, jobs=len(self._submitted))
            for submission in self._submitted.values():
                settle(submission.ended, self.unavailable())

    # --- receiving -------------------------------------------------------------------------------

    def _on_ready(self) -> None:
        """Read until empty: the descriptor tells of changes only."""
        if self._socket.closed:  # a call that was due when the link was closed
            return
        for _ in range(DRAIN_MESSAGES_MAX):
            try:
                frames = self._receive()
            except zmq.Again:
                break
            self._heard_at = monotonic_s()
            try:
                self._on_message(TO_CLIENT.decode(frames), frames[HEAD_FRAMES:])
            except ProtocolError as error:
                self._log.warning("message.refused", name=repr(frames[1:2]), error=error.message)
            except Exception:  # the link must outlive a fault in handling one message
                self._log.exception("message.failed", name=repr(frames[1:2]))
        self._flush()
        self._look_again()

    def _receive(self) -> list[Buffer]:
        """One message; the frames of its payload are not copied."""
        frame = self._socket.recv(_DONTWAIT, copy=False)
        frames: list[Buffer] = [frame.bytes]
        while frame.more:
            frame = self._socket.recv(_DONTWAIT, copy=False)
            frames.append(frame.bytes if len(frames) < HEAD_FRAMES else frame.buffer)
        return frames

    def _on_message(self, message: Message, payload: list[Buffer]) -> None:
        match message:
            case JobProgress():
                pass  # who waits for the whole answer is shown no steps
            case Accepted():
                self._on_accepted(message)
            case Rejected():
                self._on_rejected(message)
            case Result() | Failed() | Cancelled():
                self._on_end(message, payload)
            case JobReply() | StatusReply() | Pong():
                self._answer(message.rid, message)
            case ErrorReply():
                self._on_error(message)

    def _on_accepted(self, message: Accepted) -> None:
        submission = self._submitted.get(message.rid)
        if submission is None:  # released before the router's word came
            self._cancel(message.job_id)
            return
        submission.unanswered.cancel()
        submission.job_id = message.job_id
        self._followed[message.job_id] = submission

    def _on_rejected(self, message: Rejected) -> None:
        submission = self._submitted.get(message.rid)
        again = message.code == "unknown_model" or refusal(message).kind.retryable
        if submission is not None and submission.key and again and submission.resubmits < RESUBMITS_MAX:
            return  # admitted before; a restarted router must first hear from its daemons: the tick asks again
        self._end(message.rid, refusal(message))

    def _on_end(self, message: Result | Failed | Cancelled, payload: list[Buffer]) -> None:
        data = b"".join(payload)
        self._answer(message.rid, message, data)
        submission = self._followed.pop(message.job_id, None)
        if submission is not None:
            self._end(
                submission.rid,
                Drawn(job=message.job, picture=message.picture, data=data)
                if isinstance(message, Result)
                else job_failure(message),
            )

    def _end(self, rid: str, outcome: Drawn | GenServeError) -> None:
        submission = self._submitted.pop(rid, None)
        if submission is not None:
            submission.unanswered.cancel()
            self._unsent.pop(rid, None)
            settle(submission.ended, outcome)

    def _on_error(self, message: ErrorReply) -> None:
        if message.rid in self._asked:
            code = message.code if message.code in ERRORS else "internal"
            settle(self._asked[message.rid], GenServeError(code, message.message))
        elif message.rid.startswith("c"):
            self._cancelling.pop(message.rid[1:], None)
        elif message.rid.startswith("w"):
            self._on_lost(message.rid[1:])
        else:
            self._log.error("router.refused", rid=message.rid, code=message.code, error=message.message)
            self._end(message.rid, GenServeError("internal", "the router could not read the job"))

    def _on_lost(self, job_id: str) -> None:
        """The router answered a WATCH with not_found: it does not have the job, so it may be sent again."""
        submission = self._followed.pop(job_id, None)
        if submission is None:
            return
        if submission.resubmits >= RESUBMITS_MAX:
            self._end(submission.rid, GenServeError("unavailable", "the router lost the job repeatedly"))
            return
        self._log.warning("job.lost", job_id=job_id, resubmits=submission.resubmits)
        submission.job_id = ""
        submission.key = uuid.uuid4().hex  # from here on it is repeated until accepted, and must be one job
        self._resubmit(submission)

    def _answer(self, rid: str, message: Message, data: bytes = b"") -> None:
        if rid.startswith("c"):
            self._cancelling.pop(rid[1:], None)
        elif rid in self._asked:
            settle(self._asked[rid], (message, data))

    def _stopping(self) -> GenServeError:
        return GenServeError("unavailable", "the gateway is stopping")

    def _check_room(self, waiting: int) -> None:
        if self._closed:
            raise self._stopping()
        if waiting >= WAITING_MAX:
            raise GenServeError("unavailable", f"{WAITING_MAX} requests wait for the router already")
