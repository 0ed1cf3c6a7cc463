"""The clients' side: what they may ask, and every answer they get.

Pure. The grammar stands in common/messages. A job belongs to the name of the key that sent it, or to the owner that a
gateway names; to anybody else it does not exist. Without keys everyone is LOCAL (common/roles.py).
"""

from msgspec.structs import replace

from common.errors import GenServeError
from common.messages import (
    DEAD_LETTERS_PER_PAGE,
    Accepted,
    CancelJob,
    Cancelled,
    DeadLettersQuery,
    DeadLettersReply,
    ErrorReply,
    Fetch,
    JobOrder,
    JobQuery,
    JobReply,
    JobsQuery,
    KeysQuery,
    Message,
    Note,
    Ping,
    Pong,
    Requeue,
    StatusQuery,
    Submit,
    Watch,
)
from common.roles import Identity
from router.admission import choose_model, note_unserved, resolve
from router.commands import DropInputs, StoreInputs
from router.events import NOBODY, ClientSaid, InputsStored, Peer, SendFailed, Submitted
from router.inputs import check_frames, size_of
from router.jobs import Job, JobState
from router.keys import Key, digest
from router.lifecycle import Lifecycle
from router.listing import jobs_reply
from router.permission import check_allowed, may_touch, owner_of
from router.queue import share_of
from router.records import KeyForgotten, KeyTaken
from router.refusals import STORAGE_RETRY_AFTER_S, check_open, reject
from router.speeds import Trust
from router.state import RouterState
from router.teller import Teller
from router.terms import charge, check_terms
from router.views import page, status_reply

UNSURE_MARGIN = 2.0  # by a speed that rests on few jobs, only what would end this many times too late is refused
ROUNDED_FROM_S = 10.0


class Clients:
    """Answers clients."""

    def __init__(self, state: RouterState, lifecycle: Lifecycle, teller: Teller) -> None:
        self._state = state
        self._lifecycle = lifecycle
        self._teller = teller

    # --- asking for a picture ------------------------------------------------------------------

    def submitted(self, event: Submitted, *, stored: bool = False) -> None:
        """SUBMIT: a new job, one that is known by its key, or a refusal. REQUEUE: a dead letter's job anew.

        A SUBMIT with inputs is decided on once more when they are `stored`, and only then answered.
        """
        state, message = self._state, event.message
        repeated = False
        job: Job | None
        try:
            owner = owner_of(message, event.who)
            if isinstance(message, Requeue):
                job = self._requeued(message, event)
            else:
                known = self._known_by_key(message, owner)
                repeated = known is not None
                job = known or self._new_job(message, event, owner, stored=stored)
        except GenServeError as error:
            reject(self._state, event, error)
            return
        if job is None:
            return
        if not job.ended and event.peer != NOBODY:
            state.watches.add(job.job_id, event.peer, message.rid, state.now)
        view = state.view(job)
        state.to_client(event.peer, Accepted(rid=message.rid, job_id=job.job_id, job=view, repeated=repeated))
        if job.ended:
            self._teller.end_to(event.peer, message.rid, job)

    def _known_by_key(self, submit: Submit, owner: str) -> Job | None:
        if not submit.key:
            return None
        known = self._state.keys.get(owner, submit.key)
        if known is None:
            return None
        if known.digest != digest(submit):
            raise GenServeError("key_conflict", "this key stands for a job with another body", param="key")
        job = self._state.jobs.get(known.job_id)
        if job is None:
            raise GenServeError(
                "not_found",
                f"the job {known.job_id} of this key has ended and is no longer kept; use a new key",
                param="key",
            )
        return job

    def _requeued(self, message: Requeue, event: Submitted) -> Job:
        """The new job belongs to whom the old one belongs to, whoever asks."""
        state = self._state
        dead = state.dead.get(message.job_id)
        if dead is None or not may_touch(dead, message, event.who):
            text = f"{message.job_id} is none of the poison jobs that are kept"
            former = state.jobs.get(message.job_id)
            if former is not None and may_touch(former, message, event.who) and former.revived_as:
                text = f"the job {former.job_id} is drawn anew already: it became the job {former.revived_as}"
            raise GenServeError("not_found", text, param="job_id")
        check_open(self._state)
        allowed_s = dead.deadline_at - dead.created_at
        job = self._admit(
            event.job_id,
            dead.owner,
            dead.order,
            dead.notes,
            allowed_s,
            inputs_of=dead.inputs_of,
            traceparent=dead.traceparent,
            weight=dead.weight,
        )
        self._lifecycle.revive(dead, job)
        return job

    def inputs_stored(self, event: InputsStored) -> None:
        """Now the SUBMIT that brought them can be decided on."""
        submitted = self._state.inputs.received(event.job_id)
        if event.deferred or event.refusal:
            code, param = ("storage_full", None) if event.deferred else ("invalid_request", "inputs")
            error = GenServeError(
                code, event.refusal, param=param, retry_after_s=STORAGE_RETRY_AFTER_S if event.deferred else None
            )
            reject(self._state, submitted, error)
            return
        self.submitted(submitted, stored=True)
        if event.job_id not in self._state.jobs:
            self._state.out.append(DropInputs(event.job_id))

    def _have_stored(self, submit: Submit, owner: str, order: JobOrder, event: Submitted, weight: float) -> None:
        """What the job would start from is written before it is accepted. The oldest dead letters make room."""
        state, size = self._state, size_of(order.inputs)
        state.room.check(order.model, share_of(owner, order.client, weight), state.now)
        letters = [job for job in state.dead.values() if job.inputs_of]
        state.inputs.check_room(size, freed=sum(size_of(job.order.inputs) for job in letters))
        while not state.inputs.has_room(size):
            self._lifecycle.forget(letters.pop(0))
        state.inputs.receive(replace(event, payload=()), submit)
        state.out.append(StoreInputs(event.job_id, order.inputs, event.payload))

    def _new_job(self, submit: Submit, event: Submitted, owner: str, *, stored: bool) -> Job | None:
        """None: it is not decided yet."""
        state = self._state
        check_frames(submit)
        check_open(self._state)
        card = choose_model(submit.job.model, state.settings.default_model, state.cards, state.fleet)
        order, notes = resolve(submit.job, card, event.seed)
        weight = 0.0 if submit.terms is None else submit.terms.weight
        if submit.terms is not None:
            check_terms(state, owner, submit.terms)
        if order.inputs and not stored:
            self._have_stored(submit, owner, order, event, weight)
            return None
        job = self._admit(
            event.job_id,
            owner,
            order,
            notes,
            submit.job.deadline_s,
            inputs_of=event.job_id if order.inputs else "",
            traceparent=submit.traceparent,
            weight=weight,
        )
        if submit.terms is not None:
            charge(state, job)
        if submit.key:
            self._take_key(submit, job)
        return job

    def _admit(
        self,
        job_id: str,
        owner: str,
        order: JobOrder,
        notes: tuple[Note, ...],
        deadline_s: float | None,
        *,
        traceparent: str,
        inputs_of: str,
        weight: float,
    ) -> Job:
        """A new job, if there is room for it."""
        state = self._state
        state.room.check(order.model, share_of(owner, order.client, weight), state.now)
        if not state.fleet.serving(order.model):
            notes = (*notes, note_unserved(state.cards[order.model]))
            state.log("warning", "model.no_instance", job_id=job_id, model=order.model)
        longest_s = state.settings.job_deadline_s
        allowed_s = min(deadline_s or longest_s, longest_s)
        if deadline_s is not None and deadline_s > longest_s:
            text = f"no job may take longer than {longest_s:g} s (router.job_deadline_s); deadline_s was {deadline_s:g}"
            notes = (*notes, Note(code="deadline_cut", message=text))
        job = Job(
            job_id=job_id,
            owner=owner,
            order=order,
            notes=notes,
            sequence=state.sequence + 1,
            created_at=state.wall,
            created_now=state.now,
            deadline_at=state.wall + allowed_s,
            deadline_now=state.now + allowed_s,
            traceparent=traceparent,
            inputs_of=inputs_of,
            weight=weight,
        )
        if deadline_s is not None:
            self._check_deadline(job, allowed_s)
        state.sequence += 1
        self._lifecycle.accept(job)
        return job

    def _check_deadline(self, job: Job, allowed_s: float) -> None:
        """Refuse what cannot end in time, unless the speeds that say so are too little known."""
        eta_s, trust = self._state.as_if(job)
        if eta_s is None or trust is Trust.GUESSED:
            return
        if eta_s > allowed_s * (1.0 if trust is Trust.COMPARED else UNSURE_MARGIN):
            about = f"{eta_s:.0f}" if eta_s >= ROUNDED_FROM_S else f"{eta_s:.1f}"
            text = f"it would end in about {about} s; deadline_s is {allowed_s:g}"
            raise GenServeError("deadline_unreachable", text, param="deadline_s")

    def _take_key(self, submit: Submit, job: Job) -> None:
        state = self._state
        key = Key(job.job_id, digest(submit), state.wall)
        state.keys.take(job.owner, submit.key, key)
        state.append(
            KeyTaken(owner=job.owner, key=submit.key, job_id=job.job_id, digest=key.digest, taken_at=key.taken_at)
        )
        self.sweep_keys()

    def sweep_keys(self) -> None:
        """Forget keys whose time is over, or for which there is no room."""
        while (oldest := self._state.keys.forget_oldest(self._state.wall)) is not None:
            self._state.append(KeyForgotten(owner=oldest[0], key=oldest[1]))

    # --- everything else -----------------------------------------------------------------------

    def said(self, event: ClientSaid) -> None:
        """Any other message."""
        peer, message, who = event.peer, event.message, event.who
        try:
            check_allowed(message, who)
        except GenServeError as error:
            state = self._state
            state.log(
                "warning", "peer.forbidden", peer_name=who.name, asked=message.NAME.decode(), message=error.message
            )
            state.to_client(peer, ErrorReply(rid=getattr(message, "rid", ""), code=error.code, message=error.message))
            return
        match message:
            case CancelJob() | Watch() | JobQuery() | Fetch():
                self._about_job(peer, message, who)
            case StatusQuery():
                self._state.to_client(peer, status_reply(self._state, message, who))
            case KeysQuery():
                self._state.to_client(peer, self._state.visitors.reply(message.rid, message.keys_from))
            case JobsQuery():
                self._state.to_client(peer, jobs_reply(self._state, message, who))
            case DeadLettersQuery():
                self._state.to_client(peer, self._dead_letters(message, who))
            case Ping():
                self._state.to_client(peer, Pong(rid=message.rid))
            case ErrorReply():  # never answered
                self._state.log("debug", "client.error", code=message.code, message=message.message)
            case _:
                raise AssertionError(f"{message.NAME!r} is no message of a client")

    def _about_job(self, peer: Peer, message: CancelJob | Watch | JobQuery | Fetch, who: Identity) -> None:
        state, rid = self._state, message.rid
        job = state.jobs.get(message.job_id)
        if job is None or not may_touch(job, message, who):
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
        history = tuple(job.moments) if isinstance(message, JobQuery) else ()
        state.to_client(peer, answer or JobReply(rid=rid, job_id=job.job_id, job=state.view(job), history=history))

    def _dead_letters(self, message: DeadLettersQuery, who: Identity) -> DeadLettersReply:
        letters = [job for job in self._state.dead.values() if may_touch(job, message, who)]
        views = (self._state.view(job) for job in letters[message.letters_from :])
        shown = page(views, count_max=DEAD_LETTERS_PER_PAGE)
        return DeadLettersReply(rid=message.rid, letters=shown, letters_total=len(letters))

    def unreachable(self, event: SendFailed) -> None:
        """A client did not get a message: a lost PROGRESS is nothing, an end waits for its next WATCH."""
        state = self._state
        if event.gone:
            self.gone(event.peer)
        if event.name != b"PROGRESS":
            why = "its connection is gone" if event.gone else "it does not read"
            state.log("info", "client.unreachable", peer=event.peer.hex(), lost=event.name.decode(), why=why)

    def gone(self, peer: Peer) -> None:
        """Nobody is there any more; whoever comes next under this routing id may be somebody else."""
        self._state.watches.drop_peer(peer)
        self._state.inputs.leave(peer)
