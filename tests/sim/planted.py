"""Bugs planted on purpose: each replaces one function of the product, as a slip of the pen might.

They exist to show that the simulation finds such slips.
"""

from collections.abc import Callable
from math import inf
from typing import Any

import apsw
import pytest

from common.messages import Accepted, Done, JobOrder, Message, Register, ResultAck, Submit, Token
from router import journal_schema, recovery
from router.clients import Clients
from router.commands import Append, Command, ToClient, ToWorker
from router.events import Submitted
from router.fleet import Fleet, Worker
from router.jobs import ENDED, Job, JobState
from router.lifecycle import Lifecycle
from router.loop import Loop
from router.places import Places
from router.records import JobDispatched, JobRecord, JobRequeued, JobRevived, KeyTaken, Record
from router.retry import after_return
from router.state import RouterState
from router.workers import Workers

Plant = Callable[[pytest.MonkeyPatch], None]


def a_credit_is_lost_at_re_registration(patch: pytest.MonkeyPatch) -> None:
    register = Fleet.register

    def planted(self: Fleet, message: Register, peer: bytes, now: float) -> Worker:
        again = message.worker_id in self.workers
        worker = register(self, message, peer, now)
        if again and not worker.granted_total:
            worker.granted_total = worker.dispatched_total = 1
        return worker

    patch.setattr(Fleet, "register", planted)


def _replay_otherwise(patch: pytest.MonkeyPatch, kind: type[Record], apply: Callable[..., None]) -> None:
    patch.setattr(recovery, "_APPLY", {**recovery._APPLY, kind: apply})


def _said_at_once(patch: pytest.MonkeyPatch, kind: type[Message]) -> None:
    write_down = Loop._write_down

    def planted(self: Loop, command: Command, later: list[Command]) -> None:
        if isinstance(command, ToClient | ToWorker) and isinstance(command.message, kind):
            self._carry_out(command)
        else:
            write_down(self, command, later)

    patch.setattr(Loop, "_write_down", planted)


def accepted_is_said_before_its_commit(patch: pytest.MonkeyPatch) -> None:
    _said_at_once(patch, Accepted)


def result_ack_is_said_before_its_commit(patch: pytest.MonkeyPatch) -> None:
    _said_at_once(patch, ResultAck)


def a_stale_token_counts_as_current(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Workers, worker: Worker, token: Token) -> Job | None:
        job = self._state.jobs.get(token.job_id)
        return None if job is None or job.state in ENDED else job

    patch.setattr(Workers, "_current", planted)


def what_is_given_back_stays_settled_nowhere(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Lifecycle, job: Job, reason: str) -> None:
        job.returns += 1
        self._requeue(job, after_return(job), f"returned: {reason}")

    patch.setattr(Lifecycle, "give_back", planted)


def a_cancelled_job_stays_in_the_queue(patch: pytest.MonkeyPatch) -> None:
    withdraw = Lifecycle._withdraw

    def planted(self: Lifecycle, job: Job) -> None:
        if job.state is not JobState.QUEUED:
            withdraw(self, job)

    patch.setattr(Lifecycle, "_withdraw", planted)


def a_replay_forgets_the_counts_of_a_requeue(patch: pytest.MonkeyPatch) -> None:
    def planted(_state: RouterState, jobs: dict[str, Job], record: JobRequeued) -> None:
        job = jobs[record.job_id]
        job.state, job.settled = JobState.QUEUED, record.settled

    _replay_otherwise(patch, JobRequeued, planted)


def a_dispatch_is_not_written_down(patch: pytest.MonkeyPatch) -> None:
    append = RouterState.append

    def planted(self: RouterState, record: Any) -> None:
        if not isinstance(record, JobDispatched):
            append(self, record)

    patch.setattr(RouterState, "append", planted)


def a_key_is_lost_at_replay(patch: pytest.MonkeyPatch) -> None:
    _replay_otherwise(patch, KeyTaken, lambda *_: None)


def a_revived_job_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    revive = Lifecycle.revive

    def planted(self: Lifecycle, dead: Job, anew: Job) -> None:
        revive(self, dead, anew)
        self.forget(dead)

    patch.setattr(Lifecycle, "revive", planted)


def a_revival_is_lost_at_replay(patch: pytest.MonkeyPatch) -> None:
    _replay_otherwise(patch, JobRevived, lambda _state, _jobs, _record: None)


def orphans_are_waited_for_for_ever(patch: pytest.MonkeyPatch) -> None:
    tick = Workers.tick

    def planted(self: Workers) -> None:
        for job_id in self._state.orphans:
            self._state.orphans[job_id] = inf
        tick(self)

    patch.setattr(Workers, "tick", planted)


def done_is_ignored_after_a_re_registration(patch: pytest.MonkeyPatch) -> None:
    end = Workers._end

    def planted(self: Workers, worker: Worker, message: Any, event: Any) -> None:
        if not isinstance(message, Done) or worker.nonce.endswith("-1"):
            end(self, worker, message, event)

    patch.setattr(Workers, "_end", planted)


def a_requeued_job_stays_in_the_hand(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Places, job: Job) -> Worker | None:
        self._state.orphans.pop(job.job_id, None)
        return self._state.fleet.workers.get(job.worker_id)

    patch.setattr(Places, "leave_hand", planted)


def an_end_is_written_twice(patch: pytest.MonkeyPatch) -> None:
    """Where a job is cancelled while its picture is being stored."""
    cancel = Lifecycle.cancel

    def planted(self: Lifecycle, job: Job) -> None:
        storing = job.state is JobState.STORING
        cancel(self, job)
        if storing:
            record = next(c.record for c in reversed(self._state.out) if isinstance(c, Append))
            assert isinstance(record, JobRecord)
            self._state.append(record)

    patch.setattr(Lifecycle, "cancel", planted)


def commits_are_not_synced(patch: pytest.MonkeyPatch) -> None:
    set_up = journal_schema._set_up

    def planted(database: apsw.Connection) -> None:
        set_up(database)
        database.pragma("synchronous", "NORMAL")

    patch.setattr(journal_schema, "_set_up", planted)


def inputs_are_believed_before_they_are_stored(patch: pytest.MonkeyPatch) -> None:
    have_stored = Clients._have_stored

    def planted(self: Clients, submit: Submit, order: JobOrder, event: Submitted) -> None:
        have_stored(self, submit, order, event)
        self.submitted(event, stored=True)

    patch.setattr(Clients, "_have_stored", planted)
    patch.setattr(Clients, "inputs_stored", lambda self, event: self._state.inputs.received(event.job_id))


def a_revived_job_does_not_know_where_its_inputs_are(patch: pytest.MonkeyPatch) -> None:
    revive = Lifecycle.revive

    def planted(self: Lifecycle, dead: Job, anew: Job) -> None:
        revive(self, dead, anew)
        if anew.inputs_of:
            anew.inputs_of = anew.job_id

    patch.setattr(Lifecycle, "revive", planted)


PLANTED: tuple[Plant, ...] = (
    a_credit_is_lost_at_re_registration,
    accepted_is_said_before_its_commit,
    result_ack_is_said_before_its_commit,
    a_stale_token_counts_as_current,
    what_is_given_back_stays_settled_nowhere,
    a_cancelled_job_stays_in_the_queue,
    a_replay_forgets_the_counts_of_a_requeue,
    a_dispatch_is_not_written_down,
    a_key_is_lost_at_replay,
    a_revived_job_is_forgotten,
    a_revival_is_lost_at_replay,
    orphans_are_waited_for_for_ever,
    done_is_ignored_after_a_re_registration,
    a_requeued_job_stays_in_the_hand,
    an_end_is_written_twice,
    commits_are_not_synced,
    inputs_are_believed_before_they_are_stored,
    a_revived_job_does_not_know_where_its_inputs_are,
)
