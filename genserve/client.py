"""A raw ZeroMQ client of the router, for the operator's commands: synchronous and small.

Knows the client's side of the grammar in common/messages. Knows no HTTP and no terminal.
"""

import hashlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias, TypeVar

import msgspec
import zmq

from common.clock import monotonic_s
from common.codec import TO_CLIENT, Buffer, encode, part_sizes, split_payload
from common.errors import ERRORS, GenServeError, ProtocolError
from common.handshakes import Handshakes
from common.keys import KeyFile
from common.messages import (
    JOBS_PER_PAGE,
    Accepted,
    CancelJob,
    Cancelled,
    ClientMessage,
    DeadLettersQuery,
    DeadLettersReply,
    ErrorReply,
    Failed,
    JobProgress,
    JobQuery,
    JobReply,
    JobSpec,
    JobsQuery,
    JobsReply,
    JobView,
    KeysQuery,
    KeysReply,
    KeyView,
    Message,
    Picture,
    Rejected,
    Requeue,
    Result,
    ShownState,
    StatusQuery,
    StatusReply,
    Submit,
    Watch,
)
from common.sockets import dealer_socket
from genserve.diagnose.listeners import speaks_otherwise

ANSWER_TIMEOUT_S = 5.0  # how long a router that has not been heard yet may take
SILENCE_S_MAX = 30.0  # how long a router that was heard may be away, e.g. while it restarts
WATCH_INTERVAL_S = 5.0
SEND_RETRY_S = 0.25
REFUSAL_LOOK_S = 0.1
CANCEL_TIMEOUT_S = 2.0

News: TypeAlias = JobView | JobProgress
OnPreview: TypeAlias = Callable[[JobProgress, bytes], None]  # what it is, and its file bytes
A = TypeVar("A", bound=Message)


@dataclass(frozen=True)
class Drawn:
    """A finished job, the facts of its picture and the picture's file bytes."""

    job: JobView
    picture: Picture
    data: bytes


@dataclass(frozen=True)
class RouterAddress:
    """Where a router listens to clients, and the key to come in with; None: it is one without keys."""

    endpoint: str
    key: KeyFile | None = None


class Client:
    """One connection to the router's client endpoint. A context manager; not for several threads."""

    def __init__(self, router: RouterAddress | str, *, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """`router`: as a text, the endpoint of one without keys."""
        address = RouterAddress(router) if isinstance(router, str) else router
        self.endpoint = address.endpoint
        self._answer_timeout_s = answer_timeout_s
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._handshakes = Handshakes(self._context, address.key)
        self._socket = dealer_socket(self._context, address.endpoint, address.key, watch=self._handshakes.watch)
        self._refused = ""
        self._met = False  # has what answers there said something that a router says to clients?

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; what was not sent is lost."""
        self._handshakes.close()
        self._socket.close()
        self._context.term()

    def status(self) -> StatusReply:
        """How the service stands, all pages of workers together. Raises GenServeError unavailable."""
        reply = self._status(workers_from=0)
        workers = list(reply.workers)
        while reply.workers and len(workers) < reply.workers_total:
            reply = self._status(workers_from=len(workers))
            workers += reply.workers
        return msgspec.structs.replace(reply, workers=tuple(workers))

    def draw(
        self,
        job: JobSpec,
        on_news: Callable[[News], None],
        *,
        files: Sequence[bytes] = (),
        key: str = "",
        on_preview: OnPreview | None = None,
    ) -> Drawn:
        """Submit a job and wait for its picture, through reconnections and restarts of the router.

        `files`: of the job's inputs.
        `on_preview`: is given each partial picture that the job asks for and that is not lost on its way.
        `key`: a name of the caller's own, under which a job of then is found again; '' is one made up here.
        Raises GenServeError with the job's or the refusal's code. KeyboardInterrupt cancels the job.
        """
        payload_in = [part for data in files for part in split_payload(data)]
        submit = Submit(rid=_name(), key=key or _name(), job=job, parts=part_sizes(payload_in))
        job_id = ""
        ask_at = heard_at = monotonic_s()
        patience_s = self._answer_timeout_s
        try:
            while True:
                now = monotonic_s()
                if now - heard_at > patience_s:
                    raise self._unavailable()
                if now >= ask_at:
                    # The same key again is the same job, so a SUBMIT whose answer was lost is simply repeated.
                    ask: ClientMessage = Watch(rid=submit.rid, job_id=job_id) if job_id else submit
                    sent = self._send(ask, () if job_id else payload_in, within_s=SEND_RETRY_S)
                    ask_at = now + WATCH_INTERVAL_S if sent else now
                received = self._receive(within_s=max(0.0, ask_at - now))
                if received is None:
                    continue
                message, payload = received
                heard_at, patience_s = monotonic_s(), SILENCE_S_MAX
                match message:
                    case Accepted(rid=submit.rid):
                        job_id = message.job_id
                        on_news(message.job)
                        if message.repeated:  # it may have ended: then only WATCH brings the picture
                            ask_at = now
                    case JobReply(rid=submit.rid):
                        on_news(message.job)
                    case JobProgress(rid=submit.rid):
                        on_news(message)
                        _show(message, payload, on_preview)
                    case Result(rid=submit.rid):
                        return _drawn(message, payload)
                    case ErrorReply(rid=submit.rid, code="not_found") if job_id:
                        job_id, ask_at = "", now  # a router that restarted without its journal
                    case _:
                        _raise_refusal(message, submit.rid)
        except KeyboardInterrupt:
            self._abandon(job_id, submit.rid)
            raise

    def job(self, job_id: str) -> JobReply:
        """How a job stands, and its history. Raises GenServeError not_found, unavailable."""
        return self._answer(JobQuery(rid=_name(), job_id=job_id), JobReply)

    def cancel(self, job_id: str) -> Cancelled:
        """End a job. Raises GenServeError not_found, unavailable, invalid_request where it had ended before."""
        answer: Message = self._answer(CancelJob(rid=_name(), job_id=job_id), (Cancelled, JobReply))
        if isinstance(answer, JobReply):
            text = f"the job {job_id} has ended before ({answer.job.state}): there is nothing left to cancel"
            raise GenServeError("invalid_request", text)
        assert isinstance(answer, Cancelled)
        return answer

    def jobs(self, states: Sequence[ShownState], limit: int) -> list[JobView]:
        """The newest jobs that one may see, at most `limit`; without `states` those in any. Raises unavailable."""
        found: list[JobView] = []
        before = 0
        while len(found) < limit:
            room = min(JOBS_PER_PAGE, limit - len(found))
            question = JobsQuery(rid=_name(), states=tuple(states), before=before, limit=room)
            page = self._answer(question, JobsReply)
            found += page.jobs
            before = page.next_before
            if not before:
                break
        return found

    def dead_letters(self) -> list[JobView]:
        """The poison jobs that are kept, oldest first, all pages together. Raises GenServeError unavailable."""
        letters: list[JobView] = []
        while True:
            page = self._answer(DeadLettersQuery(rid=_name(), letters_from=len(letters)), DeadLettersReply)
            letters += page.letters
            if not page.letters or len(letters) >= page.letters_total:
                return letters

    def heard_keys(self) -> list[KeyView]:
        """Who has been heard by which key, by name, all pages together. Raises GenServeError forbidden, unavailable."""
        keys: list[KeyView] = []
        while True:
            page = self._answer(KeysQuery(rid=_name(), keys_from=len(keys)), KeysReply)
            keys += page.keys
            if not page.keys or len(keys) >= page.keys_total:
                return keys

    def requeue(self, job_id: str) -> Accepted:
        """Draw a poison job anew. Raises GenServeError with the refusal's code, unavailable."""
        return self._answer(Requeue(rid=_name(), job_id=job_id), Accepted)

    def _abandon(self, job_id: str, rid: str) -> None:
        """Cancel a job nobody waits for any more; one just submitted must first be given its id."""
        deadline = monotonic_s() + CANCEL_TIMEOUT_S
        while not job_id and (left_s := deadline - monotonic_s()) > 0:
            received = self._receive(within_s=left_s)
            if received and isinstance(received[0], Accepted) and received[0].rid == rid:
                job_id = received[0].job_id
        if job_id:
            self._ask(CancelJob(rid=_name(), job_id=job_id), within_s=CANCEL_TIMEOUT_S)

    def _status(self, *, workers_from: int) -> StatusReply:
        return self._answer(StatusQuery(rid=_name(), workers_from=workers_from), StatusReply)

    def _answer(self, message: ClientMessage, kind: type[A] | tuple[type[A], ...]) -> A:
        """The direct answer to a request, which must be of `kind`. Raises GenServeError with what it says instead."""
        reply = self._ask(message, within_s=self._answer_timeout_s)
        if isinstance(reply, kind):
            return reply
        _raise_refusal(reply, message.rid)
        asked, told = message.NAME.decode(), reply.NAME.decode()
        raise GenServeError("protocol_error", f"the router answered {asked} with {told}")

    def _ask(self, message: ClientMessage, *, within_s: float) -> Message:
        """The direct answer to a request, an ERROR included."""
        deadline = monotonic_s() + within_s
        if self._send(message, within_s=within_s):
            while (left_s := deadline - monotonic_s()) > 0:
                received = self._receive(within_s=left_s)
                if received and getattr(received[0], "rid", None) in (message.rid, ""):
                    return received[0]
        raise self._unavailable()

    def _send(self, message: Message, payload: Sequence[Buffer] = (), *, within_s: float) -> bool:
        """False where no router was connected `within_s`. Raises GenServeError forbidden where it refuses this key."""
        deadline = monotonic_s() + within_s
        while not self._socket.poll(_ms(min(REFUSAL_LOOK_S, deadline - monotonic_s())), zmq.POLLOUT):
            self._refused = self._handshakes.refusal(monotonic_s()) or self._refused
            if self._handshakes.given_up:
                raise GenServeError("forbidden", f"{self.endpoint}: {self._refused}")
            if monotonic_s() >= deadline:
                return False
        try:
            self._socket.send_multipart(encode(message, payload), zmq.DONTWAIT, copy=not payload)
        except zmq.Again:  # the connection went between the two calls
            return False
        return True

    def _receive(self, *, within_s: float) -> tuple[Message, list[bytes]] | None:
        if not self._socket.poll(round(within_s * 1000), zmq.POLLIN):
            return None
        frames = self._socket.recv_multipart(zmq.DONTWAIT)
        try:
            message = TO_CLIENT.decode(frames)
        except ProtocolError as error:
            raise (error if self._met else self._wrong_port(error.message)) from None
        if isinstance(message, ErrorReply) and message.code == "protocol_error" and not self._met:
            raise self._wrong_port(message.message)
        self._met = True
        return message, frames[3:]

    def _wrong_port(self, said: str) -> GenServeError:
        return GenServeError(
            "unavailable",
            f"what listens at {self.endpoint} is no router's client port: `genserve up` has that one above the HTTP "
            f"port ({said})",
        )

    def _unavailable(self) -> GenServeError:
        host, _, port = self.endpoint.removeprefix("tcp://").rpartition(":")
        if not self._met and speaks_otherwise(host.strip("[]"), int(port)):
            return self._wrong_port("it does not speak ZeroMQ")
        if self._refused:
            return GenServeError("unavailable", f"{self.endpoint}: {self._refused}")
        return GenServeError(
            "unavailable",
            f"no router answers at {self.endpoint}. Start everything with `genserve up`, or name a running router "
            "with --router tcp://HOST:PORT",
        )


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _name() -> str:
    return uuid.uuid4().hex


def _show(progress: JobProgress, payload: list[bytes], on_preview: OnPreview | None) -> None:
    if progress.preview is not None and on_preview is not None:
        on_preview(progress, b"".join(payload))


def _drawn(result: Result, payload: list[bytes]) -> Drawn:
    data = b"".join(payload)
    if hashlib.sha256(data).hexdigest() != result.picture.sha256:
        raise GenServeError("internal", f"the picture of job {result.job_id} arrived damaged")
    return Drawn(result.job, result.picture, data)


def _raise_refusal(message: Message, rid: str) -> None:
    """Raise what a message says went wrong with request `rid`; nothing where it says no such thing."""
    match message:
        case Rejected(rid=mine) if mine == rid:
            raise _error(message.code, message.message, message.param, message.retry_after_s)
        case Failed(rid=mine) if mine == rid:
            raise _error(message.error.code, f"job {message.job_id[:8]} failed: {message.error.message}")
        case Cancelled(rid=mine) if mine == rid:
            raise _error("cancelled", f"job {message.job_id[:8]} was cancelled")
        case ErrorReply(rid=mine) if mine in (rid, ""):
            raise _error(message.code, message.message)


def _error(code: str, message: str, param: str | None = None, retry_after_s: float | None = None) -> GenServeError:
    known = code if code in ERRORS else "internal"  # a newer router may know more codes
    return GenServeError(known, message, param=param, retry_after_s=retry_after_s)
