"""Registration, epochs, credit and liveness, as the daemons meet them."""

from collections.abc import Callable

import pytest

from common.messages import (
    Credit,
    ErrorReply,
    Heartbeat,
    Resync,
    Started,
    StatusQuery,
    StatusReply,
    Token,
    Welcome,
)
from router.commands import Log
from tests.router.rig import Rig

TOKEN = Token(job_id="f" * 32, dispatch=1)


def test_register_is_answered_with_its_nonce_and_an_epoch(rig: Rig) -> None:
    worker = rig.worker("w", ready=False)
    (welcome,) = worker.register(nonce="abc")
    assert isinstance(welcome, Welcome)
    assert (welcome.nonce, welcome.keep, welcome.drop) == ("abc", (), ())
    assert (welcome.heartbeat_interval_s, welcome.dead_after_s) == (1.0, 10.0)


def test_each_registration_begins_a_new_epoch_and_new_counters(rig: Rig) -> None:
    worker = rig.worker("w")
    first = worker.epoch
    assert worker.believed.credit == 2
    worker.register()
    assert worker.epoch > first
    assert (worker.believed.granted_total, worker.believed.dispatched_total) == (0, 0)


def test_a_repeated_register_is_answered_with_the_same_epoch_until_it_is_used(rig: Rig) -> None:
    worker = rig.worker("w", ready=False)
    worker.register(nonce="n")
    first = worker.epoch
    worker.register(nonce="n")
    assert worker.epoch == first
    worker.ready()
    worker.register(nonce="n")
    assert worker.epoch > first


def test_epochs_begin_where_the_caller_says(make_rig: Callable[..., Rig]) -> None:
    assert make_rig(first_epoch=1_700_000_000_000).worker("w").epoch == 1_700_000_000_000


@pytest.mark.parametrize(
    "message",
    [Credit(epoch=1, granted_total=9), Heartbeat(epoch=1, state="ready"), Started(epoch=1, token=TOKEN)],
)
def test_an_unbound_connection_is_told_to_register(rig: Rig, message: Heartbeat) -> None:
    worker = rig.worker("w", ready=False)
    worker.peer = b"another"
    assert worker.say(message) == [Resync()]
    assert worker.believed.granted_total == 0


def test_an_error_is_never_answered(rig: Rig) -> None:
    worker = rig.worker("w")
    assert worker.say(ErrorReply(code="protocol_error", message="?")) == []
    worker.peer = b"unbound"
    assert worker.say(ErrorReply(code="protocol_error", message="?")) == []


def test_a_worker_id_in_use_is_refused_to_another_boot_for_three_seconds(rig: Rig) -> None:
    old = rig.worker("w")
    new = rig.worker("w2", ready=False)
    new.name, new.boot_id, new.peer = "w", "other", b"new"
    rig.tick(2.9)
    (refusal,) = new.register()
    assert isinstance(refusal, ErrorReply)
    assert refusal.code == "device_unavailable"
    assert "worker_id 'w'" in refusal.message
    assert old.believed.boot_id == "b"
    rig.tick(0.2)
    (welcome,) = new.register()
    assert isinstance(welcome, Welcome)
    assert old.heartbeat() == [Resync()]


def test_a_reconnected_daemon_leaves_its_old_connection(rig: Rig) -> None:
    worker = rig.worker("w")
    old = worker.peer
    worker.register(peer=b"new")
    worker.peer = old
    assert worker.heartbeat() == [Resync()]


def test_messages_of_another_epoch_are_ignored(rig: Rig) -> None:
    worker = rig.worker("w", credit=1)
    assert worker.say(Credit(epoch=worker.epoch + 1, granted_total=100)) == []
    assert worker.say(Heartbeat(epoch=worker.epoch - 1, state="draining")) == []
    assert (worker.believed.credit, worker.believed.state) == (1, "ready")


def test_credit_only_rises(rig: Rig) -> None:
    worker = rig.worker("w", credit=2)
    worker.say(Credit(epoch=worker.epoch, granted_total=1))
    assert worker.believed.granted_total == 2


def test_each_dispatch_uses_one_credit_and_none_is_sent_without(rig: Rig) -> None:
    worker = rig.worker("w", credit=1)
    rig.submit()
    (token,) = worker.dispatched()
    assert worker.believed.credit == 0
    second = rig.submit()
    worker.started(token)
    worker.done(token)
    rig.stored()
    assert worker.dispatched() == []  # the slot is free when the daemon says so
    worker.grant()
    assert [t.job_id for t in worker.dispatched()] == [second]
    assert (worker.believed.granted_total, worker.believed.dispatched_total) == (2, 2)


@pytest.mark.parametrize("state", ["loading", "broken", "draining"])
def test_only_a_ready_daemon_is_sent_work(rig: Rig, state: str) -> None:
    worker = rig.worker("w")
    worker.heartbeat(state)
    rig.submit()
    assert worker.dispatched() == []
    worker.heartbeat("ready")
    assert len(worker.dispatched()) == 1


def test_silence_makes_suspect_then_dead(rig: Rig) -> None:
    worker, other = rig.worker("w"), rig.worker("v")
    job = rig.submit()
    (token,) = worker.dispatched()
    worker.started(token)
    for _ in range(31):
        rig.tick(0.1)
        other.heartbeat()
    assert worker.believed.suspect
    assert rig.state(job) == "running"
    for _ in range(71):
        rig.tick(0.1)
        other.heartbeat()
    assert "w" not in rig.broker.state.fleet.workers
    assert rig.job(job).worker_id == "v"
    assert rig.logged("worker.suspect")
    assert rig.logged("worker.dead")
    assert rig.job(job).attempts == 1


def test_a_suspect_is_sent_nothing_new_until_it_is_heard(rig: Rig) -> None:
    worker = rig.worker("w")
    rig.tick(3.1)
    rig.submit()
    assert worker.dispatched() == []
    assert worker.grant(0) != []
    assert len(worker.dispatched()) == 1
    assert rig.logged("worker.back")


def test_any_traffic_counts_as_a_sign_of_life(rig: Rig) -> None:
    worker = rig.worker("w")
    for _ in range(15):
        rig.tick(1.0)
        worker.say(Credit(epoch=worker.epoch - 1, granted_total=0))
    assert not worker.believed.suspect


def test_every_lease_starts_afresh_when_the_router_itself_was_asleep(rig: Rig) -> None:
    worker = rig.worker("w")
    rig.tick(1.0)
    rig.tick(30.0, step=30.0)
    assert not worker.believed.suspect
    rig.tick(9.5)
    assert "w" in rig.broker.state.fleet.workers
    rig.tick(1.0)
    assert "w" not in rig.broker.state.fleet.workers


def test_a_daemon_that_cannot_be_reached_must_register_again(rig: Rig) -> None:
    worker = rig.worker("w")
    job = rig.submit()
    (token,) = worker.dispatched()
    rig.send_failed("worker", worker.peer, b"DISPATCH", gone=False)
    assert worker.heartbeat() == [Resync()]
    worker.register()  # it never got the job: nothing is listed
    worker.ready()
    (again,) = worker.dispatched()
    assert (again.job_id, again.dispatch) == (job, token.dispatch + 1)


def test_bye_takes_a_worker_away_at_once(rig: Rig) -> None:
    worker = rig.worker("w")
    worker.draining()
    worker.bye()
    assert rig.broker.state.fleet.workers == {}
    assert worker.heartbeat() == [Resync()]


def test_three_failures_in_a_row_rest_a_gpu_then_one_job_probes_it(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(attempts_max=1)
    worker = rig.worker("w")
    for _ in range(3):
        rig.submit()
        (token,) = worker.dispatched()
        worker.started(token)
        worker.fail(token)
        worker.grant()
    for _ in range(2):
        rig.submit()
    assert worker.dispatched() == []
    assert rig.logged("worker.resting")
    sent: list[Token] = []
    for _ in range(122):
        rig.tick(0.5)
        sent += worker.dispatched()
        worker.heartbeat()
        sent += worker.dispatched()
    assert len(sent) == 1  # one probe, although there is credit for two
    (probe,) = [rig.job(j).token for j in worker.believed.hand]
    worker.draw(probe)
    assert worker.believed.failures_in_row == 0


def test_status_shows_every_daemon_and_its_counters(rig: Rig) -> None:
    idle = rig.worker("gpu:10", ready=False)
    idle.heartbeat("loading")
    rig.worker("gpu:2")
    rig.submit()
    (status,) = rig.say(StatusQuery(rid="s"))
    assert isinstance(status, StatusReply)
    assert [(w.worker_id, w.state, w.credit, w.dispatched_total) for w in status.workers] == [
        ("gpu:2", "ready", 1, 1),
        ("gpu:10", "loading", 0, 0),
    ]
    assert status.workers_total == 2
    (rest,) = rig.say(StatusQuery(rid="s", workers_from=1))
    assert isinstance(rest, StatusReply)
    assert [w.worker_id for w in rest.workers] == ["gpu:10"]


def test_a_device_that_is_registered_is_logged(rig: Rig) -> None:
    rig.worker("w")
    (line,) = rig.logged("worker.registered")
    assert isinstance(line, Log)
    assert line.fields["device"] == "cuda:w"
    assert line.fields["models"] == ["m"]
