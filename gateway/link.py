"""The gateway's one conversation with the router: what is asked, what is submitted, and the futures that wait on it.

Knows the client's side of the grammar in common/messages; knows no HTTP and no dialect.

Every submission carries a key, the client's own or one made up here. So an unanswered SUBMIT is simply sent again, as
often as it takes; it is one job. An accepted job is followed until it ends: WATCH every 5 s finds it again after a
reconnection; a router that does not know it any more (it restarted without its journal) is given it again.
"""

import asyncio
import itertools
import uuid
from collections.abc import Sequence

from common.clock import monotonic_s
from common.codec import TO_CLIENT, Buffer, part_sizes
from common.errors import ERRORS, GenServeError, ProtocolError
from common.health import Check, Pulse
from common.keys import KeyFile
from common.log import get_logger
from common.messages import (
    Accepted,
    Cancelled,
    ClientMessage,
    DeadLettersReply,
    ErrorReply,
    Failed,
    JobProgress,
    JobReply,
    JobSpec,
    JobsReply,
    Message,
    Pong,
    Rejected,
    Result,
    StatusReply,
    Submit,
    Terms,
    Watch,
)
from common.roles import LOCAL_NAME
from gateway.cancelling import Cancelling
from gateway.dialects.picture import Drawn
from gateway.following import Following
from gateway.line import HEAD_FRAMES, Line
from gateway.submission import ENDED, TRACEPARENT, OnProgress, Submission, job_failure, refusal, settle

WATCH_INTERVAL_S = 5.0
ROUTER_SILENCE_S_MAX = 60.0  # after which those who wait for a job are told that the router is gone
TICKS_MISSED_MAX = 4  # of our own, before something is wrong with us
WATCHES_MISSED_MAX = 2  # the same while stopping, where it is longer than `answer_timeout_s`
RESUBMITS_MAX = 12  # of one job that the router had lost, one every WATCH_INTERVAL_S
WAITING_MAX = 4096  # questions, and jobs followed, at one time
OWN_KEY = "k"  # begins the rid of a job with a key of the client's own: it is never cancelled by a late word


class RouterLink:
    """Speaks with one router. Used on one event loop, between `open` and `close`."""

    def __init__(
        self, endpoint: str, *, answer_timeout_s: float, key: KeyFile | None = None, owner: str = LOCAL_NAME
    ) -> None:
        """`owner`: whose jobs; '' is the key's own, and all that a key other than a gateway's may say."""
        self.endpoint = endpoint
        self._key, self._owner = key, owner
        self.answer_timeout_s = answer_timeout_s
        self._log = get_logger()
        self._numbers = itertools.count(1)
        self._asked: dict[str, asyncio.Future[tuple[Message, bytes]]] = {}  # by rid
        self._submitted: dict[str, Submission] = {}  # by rid, until released or ended
        self._followed: dict[str, dict[str, Submission]] = {}  # those accepted, by job id and rid
        self._cancelling = Cancelling(self._send)
        self.following = Following(self.ask, self._send, self.new_rid)
        self._heard_at = monotonic_s()
        self._ticks = Pulse("nothing was repeated to the router", TICKS_MISSED_MAX * WATCH_INTERVAL_S, self._heard_at)
        self._silence_s_max = ROUTER_SILENCE_S_MAX
        self._keeps_jobs = False
        self._closed = False

    def open(self) -> None:
        """Connect, and keep connecting."""
        self._loop = asyncio.get_running_loop()
        self._line = Line(self.endpoint, self._on_frames, self._key)
        self._ticker = self._loop.create_task(self._tick())

    @property
    def connected(self) -> bool:
        """Is there a router?"""
        return self._line.connected

    def checks(self) -> dict[str, Check]:
        """What must be well between `open` and `close`, whether or not there is a router."""
        return {"link": self._ticks, "line": self._line.check}

    def drain(self) -> None:
        """The gateway is stopping: a router that is silent is no longer given time to come back."""
        self.following.stop()
        self._silence_s_max = max(self.answer_timeout_s, WATCHES_MISSED_MAX * WATCH_INTERVAL_S)
        self._check_silence()

    def keep_jobs(self) -> None:
        """From here on whoever leaves is cut by the gateway: what is accepted stays so, and nothing is cancelled."""
        self._keeps_jobs = True

    async def close(self) -> None:
        """Fail whatever still waits, and drop the connection. Cancels no job."""
        self._closed = True
        self.following.stop()
        self._ticker.cancel()
        await asyncio.gather(self._ticker, return_exceptions=True)
        for submission in list(self._submitted.values()):
            self._forget(submission)
            submission.release()
        for answer in self._asked.values():
            settle(answer, self._stopping())
        self._line.close()

    def new_rid(self) -> str:
        """A name for the next question."""
        return str(next(self._numbers))

    async def ask(self, question: ClientMessage, *, timeout_s: float | None = None) -> tuple[Message, bytes]:
        """The direct answer to JOB, FETCH, CANCEL, STATUS or PING, and its payload.

        Raises GenServeError unavailable where none comes in time, and the code of an ERROR that comes.
        """
        self._check_room(len(self._asked))
        self._asked[question.rid] = self._loop.create_future()
        answer = self._asked[question.rid]
        try:
            async with asyncio.timeout(self.answer_timeout_s if timeout_s is None else timeout_s):
                while not answer.done():
                    self._line.send(question)  # and again: a connection takes with it what was on its way
                    await asyncio.wait((answer,), timeout=WATCH_INTERVAL_S)
                return answer.result()
        except TimeoutError:
            raise self.unavailable() from None
        finally:
            self._asked.pop(question.rid, None)
            self._line.forget(question.rid)

    def submit(
        self,
        spec: JobSpec,
        *,
        payload: Sequence[Buffer] = (),
        key: str = "",
        digest: str = "",
        owner: str | None = None,
        terms: Terms | None = None,
        on_progress: OnProgress | None = None,
    ) -> Submission:
        """Send a job on its way, the frames of its inputs with it. To be given to `release` in the end.

        `key` is the client's own, `digest` that of its body; `owner`: whose job, None: whose all are here; `terms`:
        what it is held to. `on_progress` is told its steps; some may be lost.
        """
        self._check_room(len(self._submitted))
        if not self._submitted:
            self._heard_at = monotonic_s()  # nothing was expected until now: silence begins here
        rid = f"{OWN_KEY if key else ''}{self.new_rid()}"
        own, parts, trace = key or uuid.uuid4().hex, part_sizes(payload), TRACEPARENT.get()
        owner = self._owner if owner is None else owner
        message = Submit(
            rid=rid, job=spec, key=own, digest=digest, owner=owner, parts=parts, traceparent=trace, terms=terms
        )
        submission = Submission(message, self._loop, on_progress, payload)
        submission.unanswered = self._loop.call_later(self.answer_timeout_s, self._on_unanswered, submission)
        self._submitted[rid] = submission
        self._send_submit(submission)
        return submission

    def release(self, submission: Submission, *, cancel: bool) -> None:
        """Nobody waits for it any more. `cancel`: it is cancelled where it has not ended.

        Where not, one that the router has not answered yet goes on until it is: a repetition must find it.
        """
        submission.release()
        if not cancel or self._keeps_jobs:
            if submission.job_id or self._closed:
                self._forget(submission)
        elif self._forget(submission) and submission.job_id:  # without one, an ACCEPTED still to come is cancelled
            self._cancelling.begin(submission.job_id, submission.message.owner)

    def unavailable(self) -> GenServeError:
        """What to raise where the router has not answered."""
        return GenServeError("unavailable", f"the router at {self.endpoint} does not answer")

    # --- sending ---------------------------------------------------------------------------------

    def _send_submit(self, submission: Submission) -> None:
        submission.asked_now = monotonic_s()
        self._line.send(submission.message, submission.payload)

    def _send(self, message: ClientMessage) -> None:
        self._line.send(message)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            self._ticks.beat(monotonic_s())
            if refused := self._line.tend():
                self._log.error("router.refused", endpoint=self.endpoint, message=refused)
            self._check_silence()
            for job_id, followers in self._followed.items():  # one speaks for all
                rid, first = next(iter(followers.items()))
                self._line.send(Watch(rid=rid, job_id=job_id, owner=first.message.owner))
            for submission in self._submitted.values():
                if not submission.job_id and submission.asked_now < monotonic_s() - WATCH_INTERVAL_S / 2:
                    submission.resubmits += submission.resubmits > 0
                    self._send_submit(submission)
            self._cancelling.repeat()
            self.following.repeat(monotonic_s())

    def _check_silence(self) -> None:
        if self._submitted and monotonic_s() - self._heard_at > self._silence_s_max:
            self._log.error("router.silent", endpoint=self.endpoint, jobs=len(self._submitted))
            for submission in list(self._submitted.values()):
                submission.settle(self.unavailable())
                if submission.released:  # and was to be given to a router that had lost it
                    self._forget(submission)

    # --- receiving -------------------------------------------------------------------------------

    def _on_frames(self, frames: list[Buffer]) -> None:
        self._heard_at = monotonic_s()
        try:
            message = TO_CLIENT.decode(frames)
        except ProtocolError as error:
            self._log.warning("message.refused", name=repr(frames[1:2]), error=error.message)
            return
        if self.following.hears(message, frames[HEAD_FRAMES:]) and getattr(message, "rid", "") not in self._asked:
            return
        match message:
            case JobProgress():
                submission = self._submitted.get(message.rid)
                if submission is not None and submission.on_progress is not None:
                    submission.on_progress(message, b"".join(frames[HEAD_FRAMES:]))
            case Accepted():
                self._on_accepted(message)
            case Rejected():
                self._on_rejected(message)
            case Result() | Failed() | Cancelled():
                self._on_end(message, frames[HEAD_FRAMES:])
            case JobReply() | JobsReply() | StatusReply() | DeadLettersReply() | Pong():
                self._answer(message.rid, message)
            case ErrorReply():
                self._on_error(message)

    def _on_accepted(self, message: Accepted) -> None:
        submission = self._submitted.get(message.rid)
        if submission is None:  # released before the router's word came
            if not message.rid.startswith(OWN_KEY):
                self._cancelling.begin(message.job_id, message.job.owner)
            return
        submission.stop_clock()
        settle(submission.answered, message)
        submission.job_id = message.job_id
        submission.ended_before = message.job.state in ENDED
        if submission.released:
            self._forget(submission)
        else:
            self._followed.setdefault(message.job_id, {})[message.rid] = submission

    def _on_rejected(self, message: Rejected) -> None:
        submission, error = self._submitted.get(message.rid), refusal(message)
        if submission is not None and submission.resubmits:
            again = message.code == "unknown_model" or error.kind.retryable
            if again and submission.resubmits < RESUBMITS_MAX:
                return  # admitted before; a restarted router must first hear from its daemons: the tick asks again
        elif submission is not None and message.code == "unavailable":
            submission.refused = error  # a router that is stopping: the next one is asked, while there is time
            return
        self._end(message.rid, error)

    def _on_unanswered(self, submission: Submission) -> None:
        self._end(submission.rid, submission.refused or self.unavailable())

    def _on_end(self, message: Result | Failed | Cancelled, payload: list[Buffer]) -> None:
        waiting = self._followed.pop(message.job_id, {})
        if not waiting and message.rid not in self._asked:
            self._cancelling.answered(message.rid)
            return  # of a job that nobody waits for here
        data = b"".join(payload)
        self._answer(message.rid, message, data)
        for rid in waiting:
            self._end(
                rid,
                Drawn(job=message.job, picture=message.picture, data=data)
                if isinstance(message, Result)
                else job_failure(message),
            )

    def _end(self, rid: str, outcome: Drawn | GenServeError) -> None:
        submission = self._submitted.get(rid)
        if submission is not None:
            self._forget(submission)
            submission.settle(outcome)

    def _forget(self, submission: Submission) -> bool:
        """Follow it no more. False where that was so already: it has ended."""
        submission.stop_clock()
        self._line.forget(submission.rid)
        followers = self._followed.get(submission.job_id, {})
        followers.pop(submission.rid, None)
        if not followers:
            self._followed.pop(submission.job_id, None)
        return self._submitted.pop(submission.rid, None) is not None

    def _on_error(self, message: ErrorReply) -> None:
        error = GenServeError(message.code if message.code in ERRORS else "internal", message.message)
        submission = self._submitted.get(message.rid)
        if message.rid in self._asked:
            settle(self._asked[message.rid], error)
        elif self._cancelling.answered(message.rid):  # there is nothing to cancel
            return
        elif submission is not None and error.code == "not_found":  # the second of two finds it lost already
            if submission.ended_before:  # a repetition that comes too late: the picture is no longer kept
                self._end(message.rid, error)
            else:
                self._on_lost(submission.job_id)
        elif submission is not None and submission.job_id:  # it has ended, and its picture cannot be given
            self._log.error("picture.refused", job_id=submission.job_id, code=message.code, error=message.message)
            self._end(message.rid, error)
        else:
            self._log.error("router.refused", rid=message.rid, code=message.code, error=message.message)
            self._end(message.rid, GenServeError("internal", "the router could not read the job"))

    def _on_lost(self, job_id: str) -> None:
        """The router answered a WATCH with not_found: it does not have the job, so it is sent again."""
        for submission in self._followed.pop(job_id, {}).values():
            if submission.resubmits >= RESUBMITS_MAX:
                self._end(submission.rid, GenServeError("unavailable", "the router lost the job repeatedly"))
                continue
            self._log.warning("job.lost", job_id=job_id, resubmits=submission.resubmits)
            submission.job_id, submission.resubmits = "", submission.resubmits + 1
            self._send_submit(submission)

    def _answer(self, rid: str, message: Message, data: bytes = b"") -> None:
        if not self._cancelling.answered(rid) and rid in self._asked:
            settle(self._asked[rid], (message, data))

    def _stopping(self) -> GenServeError:
        return GenServeError("unavailable", "the gateway is stopping")

    def _check_room(self, waiting: int) -> None:
        if self._closed:
            raise self._stopping()
        if waiting >= WAITING_MAX:
            raise GenServeError("unavailable", f"{WAITING_MAX} requests wait for the router already")
