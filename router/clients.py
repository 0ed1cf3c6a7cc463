"""The clients' side: what they may ask, and every answer they get.

Pure. The grammar stands in common/messages. Until clients prove who they are, all are one owner: OWNER.
"""

from common.errors import GenServeError
from common.messages import (
    Accepted,
    CancelJob,
    Cancelled,
    ErrorReply,
    Fetch,
    JobQuery,
    JobReply,
    Message,
    Ping,
    Pong,
    Rejected,
    StatusQuery,
    Submit,
    Watch,
)
from router.admission import choose_model, note_unserved, resolve
from router.events import ClientSaid, Peer, SendFailed, Submitted
from router.jobs import Job, JobState
from router.keys import Key, digest
from router.lifecycle import Lifecycle
from router.records import KeyForgotten, KeyTaken
from router.state import RouterState
from router.teller import Teller
from router.views import status_reply

OWNER = "local"
DRAINING_RETRY_AFTER_S = 5.0


class Clients:
    """Answers clients."""

    def __init__(self, state: RouterState, lifecycle: Lifecycle, teller: Teller) -> None:
        self._state = state
        self._lifecycle = lifecycle
        self._teller = teller

    # --- asking for a picture ------------------------------------------------------------------

    def submitted(self, event: Submitted) -> None:
        """SUBMIT: a new job, one that is known by its key, or a refusal."""
        state, submit = self._state, event.message
        try:
            job, repeated = self._known_by_key(submit), True
            if job is None:
                job, repeated = self._new_job(event), False
        except GenServeError as error:
            self._reject(event.peer, submit, error)
            return
        if not job.ended:
            state.watches.add(job.job_id, event.peer, submit.rid, state.now)
        view = state.view(job)
        state.to_client(event.peer, Accepted(rid=submit.rid, job_id=job.job_id, job=view, repeated=repeated))
        if job.ended:
            self._teller.end_to(event.peer, submit.rid, job)

    def _known_by_key(self, submit: Submit) -> Job | None:
        if not submit.key:
            return None
        known = self._state.keys.get(OWNER, submit.key)
        if known is None:
            return None
        if known.digest != digest(submit.job):
            raise GenServeError(
                "key_conflict", f"the key {submit.key!r} stands for a job with another body", param="key"
            )
        job = self._state.jobs.get(known.job_id)
        if job is None:
            raise GenServeError(
                "not_found", f"the job {known.job_id} of this key has ended and is no longer kept", param="key"
            )
        return job

    def _new_job(self, event: Submitted) -> Job:
        state, submit = self._state, event.message
        if state.draining_until_now is not None:
            raise GenServeError(
                "unavailable", "the router is stopping and takes no new jobs", retry_after_s=DRAINING_RETRY_AFTER_S
            )
        card = choose_model(submit.job.model, state.settings.default_model, state.cards, state.fleet)
        order, notes = resolve(submit.job, card, event.seed)
        state.room.check(card.name, state.now)
        if not state.fleet.serving(card.name):
            notes = (*notes, note_unserved(card))
            state.log("warning", "model.no_instance", job_id=event.job_id, model=card.name)
        state.sequence += 1
        job = Job(
            job_id=event.job_id,
            owner=OWNER,
            order=order,
            notes=notes,
            sequence=state.sequence,
            created_at=state.wall,
            created_now=state.now,
            deadline_now=state.now + state.settings.job_deadline_s,
        )
        self._lifecycle.accept(job)
        if submit.key:
            self._take_key(submit, job)
        return job

    def _take_key(self, submit: Submit, job: Job) -> None:
        state = self._state
        key = Key(job.job_id, digest(submit.job), state.wall)
        state.keys.take(OWNER, submit.key, key)
        state.append(KeyTaken(owner=OWNER, key=submit.key, job_id=job.job_id, digest=key.digest, taken_at=key.taken_at))

    def sweep_keys(self) -> None:
        """Forget keys whose time is over."""
        while (oldest := self._state.keys.forget_oldest(self._state.wall)) is not None:
            self._state.append(KeyForgotten(owner=oldest[0], key=oldest[1]))

    def _reject(self, peer: Peer, submit: Submit, error: GenServeError) -> None:
        state = self._state
        state.totals.rejected += 1
        state.totals.queue_full += error.code == "queue_full"
        if error.code == "unknown_model":
            state.log("warning", "model.unknown", model=submit.job.model)
        state.log("info", "job.rejected", code=error.code, message=error.message, client=submit.job.client)
        state.to_client(
            peer,
            Rejected(
                rid=submit.rid,
                code=error.code,
                message=error.message,
                param=error.param,
                retry_after_s=error.retry_after_s,
            ),
        )

    # --- everything else -----------------------------------------------------------------------

    def said(self, event: ClientSaid) -> None:
        """Any other message."""
        peer, message = event.peer, event.message
        match message:
            case CancelJob() | Watch() | JobQuery() | Fetch():
                self._about_job(peer, message)
            case StatusQuery():
                self._state.to_client(peer, status_reply(self._state, message.rid, message.workers_from))
            case Ping():
                self._state.to_client(peer, Pong(rid=message.rid))
            case ErrorReply():  # never answered
                self._state.log("debug", "client.error", code=message.code, message=message.message)
            case _:
                raise AssertionError(f"{message.NAME!r} is no message of a client")

    def _about_job(self, peer: Peer, message: CancelJob | Watch | JobQuery | Fetch) -> None:
        state, rid = self._state, message.rid
        job = state.jobs.get(message.job_id)
        if job is None or job.owner != OWNER:
            text = f"no job {message.job_id}: it never was, or its result is no longer kept"
            state.to_client(peer, ErrorReply(rid=rid, code="not_found", message=text))
            return
        answer: Message | None = None
        match message:
            case CancelJob():
                if not job.ended:
                    self._lifecycle.cancel(job)
                if job.state is JobState.CANCELLED:
                    answer = Cancelled(rid=rid, job_id=job.job_id, job=state.view(job))
            case Watch() | Fetch() if job.ended:
                self._teller.end_to(peer, rid, job)
                return
            case Watch():
                state.watches.add(job.job_id, peer, rid, state.now)
        state.to_client(peer, answer or JobReply(rid=rid, job_id=job.job_id, job=state.view(job)))

    def unreachable(self, event: SendFailed) -> None:
        """A client did not get a message: a lost PROGRESS is nothing, an end waits for its next WATCH."""
        state = self._state
        if event.gone:
            state.watches.drop_peer(event.peer)
        if event.name != b"PROGRESS":
            why = "its connection is gone" if event.gone else "it does not read"
            state.log("info", "client.unreachable", peer=event.peer.hex(), lost=event.name.decode(), why=why)
