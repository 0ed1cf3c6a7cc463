"""Whose job it is: what each key may ask about, and what its end means to its daemons and watches."""

from typing import Any

import pytest

from common.messages import (
    Accepted,
    CancelJob,
    Cancelled,
    DeadLettersQuery,
    DeadLettersReply,
    ErrorReply,
    Fetch,
    JobProgress,
    JobQuery,
    JobReply,
    JobSpec,
    JobsQuery,
    JobsReply,
    KeysQuery,
    KeysReply,
    Message,
    Ping,
    Pong,
    Rejected,
    Requeue,
    StatusQuery,
    StatusReply,
    Submit,
    Watch,
    Welcome,
)
from common.roles import Identity
from router.events import ClientSaid, KeyRevoked, PeerGone, Submitted, WorkerSaid
from tests.router.rig import FakeWorker, Rig

ALICE, BOB = Identity("alice", "client"), Identity("bob", "client")
GATEWAY, ADMIN = Identity("front", "gateway"), Identity("root", "admin")
HOST_A, HOST_B = Identity("host-a", "daemon"), Identity("host-b", "daemon")


def submit(rig: Rig, who: Identity, *, owner: str = "", key: str = "", message: Any = None) -> str:
    """The id of the job, '' where it was refused."""
    message = message or Submit(rid="1", key=key, owner=owner, job=JobSpec(prompt="x", seed=1))
    event = Submitted(
        wall=rig.wall, peer=who.name.encode(), who=who, message=message, job_id=f"{rig.random.getrandbits(128):032x}",
        seed=1,
    )  # fmt: skip
    rig.event(event)
    answer = next(m for m in rig.to_client(event.peer) if isinstance(m, Accepted | Rejected))
    return answer.job_id if isinstance(answer, Accepted) else ""


def ask(rig: Rig, who: Identity, message: Message) -> Message:
    rig.event(ClientSaid(wall=rig.wall, peer=who.name.encode(), who=who, message=message))
    (answer,) = rig.to_client(who.name.encode())
    return answer


class KeyedWorker(FakeWorker):
    """A daemon that came in with a key."""

    def __init__(self, rig: Rig, name: str, who: Identity) -> None:
        super().__init__(rig, name)
        self.who = who

    def say(self, message: Message, payload: Any = ()) -> list[Message]:
        said = WorkerSaid(wall=self.rig.wall, peer=self.peer, who=self.who, message=message, payload=payload)
        self.rig.event(said)
        return self.rig.to_worker(self.peer)


def keyed(rig: Rig, who: Identity, device: str = "cpu:0") -> KeyedWorker:
    worker = KeyedWorker(rig, f"{who.name}/{device}", who)
    assert any(isinstance(answer, Welcome) for answer in worker.register())
    worker.ready()
    return worker


ABOUT = (JobQuery, Watch, Fetch, CancelJob)


@pytest.mark.parametrize("kind", ABOUT, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("who", [BOB, GATEWAY], ids=lambda who: who.role)
def test_to_others_a_job_does_not_exist(rig: Rig, kind: Any, who: Identity) -> None:
    worker = keyed(rig, HOST_A)
    job = submit(rig, ALICE)
    there = ask(rig, who, kind(rid="2", job_id=job))
    never = ask(rig, who, kind(rid="2", job_id="0" * 32))
    assert isinstance(there, ErrorReply)
    assert isinstance(never, ErrorReply)
    assert (there.code, there.message.replace(job, "")) == (never.code, never.message.replace("0" * 32, ""))
    assert rig.state(job) == "dispatched"
    worker.started(rig.job(job).token)
    assert rig.to_client(who.name.encode()) == []
    assert rig.to_client(b"alice") != []


@pytest.mark.parametrize("who", [ALICE, ADMIN], ids=lambda who: who.role)
def test_its_owner_and_an_admin_see_and_touch_it(rig: Rig, who: Identity) -> None:
    keyed(rig, HOST_A)
    job = submit(rig, ALICE)
    for kind in (JobQuery, Watch, Fetch):
        answer = ask(rig, who, kind(rid="2", job_id=job))
        assert isinstance(answer, JobReply)
        assert answer.job.owner == "alice"
    rig.event(ClientSaid(wall=rig.wall, peer=b"x", who=who, message=CancelJob(rid="3", job_id=job)))
    assert any(isinstance(message, Cancelled) for message in rig.to_client(b"x"))


def test_a_gateway_speaks_for_others_and_sees_what_they_see(rig: Rig) -> None:
    keyed(rig, HOST_A)
    job = submit(rig, GATEWAY, owner="alice")
    assert rig.job(job).owner == "alice"
    assert isinstance(ask(rig, ALICE, JobQuery(rid="2", job_id=job)), JobReply)
    assert isinstance(ask(rig, GATEWAY, JobQuery(rid="2", job_id=job, owner="alice")), JobReply)
    for owner in ("", "bob", "front"):
        assert isinstance(ask(rig, GATEWAY, JobQuery(rid="2", job_id=job, owner=owner)), ErrorReply), owner


@pytest.mark.parametrize("who", [ALICE, ADMIN], ids=lambda who: who.role)
def test_nobody_else_may_name_an_owner(rig: Rig, who: Identity) -> None:
    keyed(rig, HOST_A)
    assert submit(rig, who, owner="bob") == ""
    (refused,) = rig.told(Rejected)
    assert (refused.code, refused.param) == ("forbidden", "owner")
    assert "bob" in refused.message
    assert not rig.broker.state.jobs
    job = submit(rig, BOB)
    for kind in ABOUT:
        answer = ask(rig, who, kind(rid="2", job_id=job, owner="bob"))
        assert isinstance(answer, ErrorReply)
        assert answer.code == "forbidden"
    assert rig.state(job) == "dispatched"
    assert submit(rig, who, owner=who.name) != ""


def test_each_owner_has_keys_of_its_own(rig: Rig) -> None:
    keyed(rig, HOST_A)
    first = submit(rig, ALICE, key="k")
    assert submit(rig, ALICE, key="k") == first
    assert submit(rig, GATEWAY, owner="alice", key="k") == first
    assert submit(rig, BOB, key="k") not in ("", first)
    assert submit(rig, ADMIN, key="k") not in ("", first)


def test_the_owner_outlives_the_router(rig: Rig) -> None:
    keyed(rig, HOST_A)
    job = submit(rig, ALICE, key="k")
    again = Rig(records=rig.records)
    assert again.job(job).owner == "alice"
    assert isinstance(ask(again, BOB, JobQuery(rid="2", job_id=job)), ErrorReply)
    assert isinstance(ask(again, ALICE, JobQuery(rid="2", job_id=job)), JobReply)
    assert submit(again, ALICE, key="k") == job


def test_a_dead_letter_is_its_owners_also_when_an_admin_draws_it_anew(rig: Rig) -> None:
    worker = keyed(rig, HOST_A)
    job = submit(rig, ALICE)
    while rig.state(job) != "failed":
        if rig.state(job) == "dispatched":
            worker.fail(rig.job(job).token, "engine_died")
            worker.ready()
        rig.tick(5.0)
        worker.heartbeat()
    for who, seen in ((ALICE, 1), (BOB, 0), (GATEWAY, 0), (ADMIN, 1)):
        letters = ask(rig, who, DeadLettersQuery(rid="1"))
        assert isinstance(letters, DeadLettersReply)
        assert letters.letters_total == seen, who
    assert submit(rig, BOB, message=Requeue(rid="2", job_id=job)) == ""
    anew = submit(rig, ADMIN, message=Requeue(rid="2", job_id=job))
    assert rig.job(anew).owner == "alice"


def test_jobs_are_listed_to_those_who_may_see_them_newest_first(rig: Rig) -> None:
    worker = keyed(rig, HOST_A)
    alices = [submit(rig, ALICE) for _ in range(5)]
    bobs = [submit(rig, GATEWAY, owner="bob") for _ in range(2)]
    worker.ready()
    rig.to_client(b"alice")  # the progress of her jobs
    assert isinstance(ask(rig, GATEWAY, CancelJob(rid="1", job_id=alices[2], owner="alice")), Cancelled)
    rig.to_client(b"alice")

    def listed(who: Identity, **asked: Any) -> list[str]:
        page = ask(rig, who, JobsQuery(rid="1", **asked))
        assert isinstance(page, JobsReply)
        assert page.next_before == 0
        return [job.job_id for job in page.jobs]

    assert listed(ALICE) == alices[::-1]
    assert listed(BOB) == listed(GATEWAY, owner="bob") == bobs[::-1]
    assert listed(GATEWAY) == []
    assert listed(ADMIN) == (alices + bobs)[::-1]
    assert listed(ALICE, states=("cancelled",)) == [alices[2]]
    assert listed(ALICE, states=("queued", "running")) == [alices[4], alices[3], alices[1], alices[0]]


def test_jobs_come_in_pages_that_later_ones_do_not_move(rig: Rig) -> None:
    keyed(rig, HOST_A)
    jobs = [submit(rig, ALICE) for _ in range(5)]
    seen: list[str] = []
    before = 0
    for _ in range(3):
        page = ask(rig, ALICE, JobsQuery(rid="1", before=before, limit=2))
        assert isinstance(page, JobsReply)
        assert page.jobs
        seen += [job.job_id for job in page.jobs]
        before = page.next_before
        assert submit(rig, ALICE)
    assert seen == jobs[::-1]
    assert before == 0


def test_status_names_a_job_to_those_who_may_see_it(rig: Rig) -> None:
    worker = keyed(rig, HOST_A)
    job = submit(rig, ALICE)
    worker.started(rig.job(job).token)
    for who, named in ((ALICE, True), (BOB, False), (ADMIN, True), (GATEWAY, True)):
        status = ask(rig, who, StatusQuery(rid="1"))
        assert isinstance(status, StatusReply)
        assert (status.workers[0].busy, status.workers[0].job_id) == (True, job if named else "")


@pytest.mark.parametrize("name", ["host-a/cpu:0", "host-bb/cpu:0", "host-b", "cpu:0", "local/cpu:0"])
def test_a_daemon_cannot_pass_for_another(rig: Rig, name: str) -> None:
    (answer,) = KeyedWorker(rig, name, HOST_B).register()
    assert isinstance(answer, ErrorReply)
    assert answer.code == "forbidden"
    assert "must begin with 'host-b/'" in answer.message
    assert not rig.broker.state.fleet.workers
    assert rig.logged("worker.refused")[0].fields["peer_name"] == "host-b"


def test_a_revoked_keys_daemons_are_gone_and_their_jobs_go_elsewhere(rig: Rig) -> None:
    there, here = keyed(rig, HOST_B), keyed(rig, HOST_A)
    jobs = [submit(rig, ALICE), submit(rig, ALICE)]
    (taken,) = [job for job in jobs if rig.job(job).worker_id == there.name]
    there.started(rig.job(taken).token)
    rig.event(KeyRevoked(wall=rig.wall, name="host-b"))
    assert set(rig.broker.state.fleet.workers) == {here.name}
    rig.tick(5.0)
    here.draw(next(rig.job(job).token for job in jobs if job != taken))
    assert (rig.job(taken).state.value, rig.job(taken).worker_id) == ("dispatched", here.name)
    assert rig.logged("worker.revoked")[0].fields["jobs"] == 1
    rig.event(KeyRevoked(wall=rig.wall, name="nobody"))
    rig.event(KeyRevoked(wall=rig.wall, name="host"))  # a name that others begin with is another name
    assert set(rig.broker.state.fleet.workers) == {here.name}


def test_a_revoked_keys_jobs_that_were_to_be_found_again_are_not_waited_for(rig: Rig) -> None:
    keyed(rig, HOST_B)
    job = submit(rig, ALICE)
    again = Rig(records=rig.records)
    assert again.state(job) == "dispatched"
    again.event(KeyRevoked(wall=again.wall, name="host-b"))
    assert again.state(job) == "queued"


def test_a_connection_that_ended_is_told_nothing_more(rig: Rig) -> None:
    worker = keyed(rig, HOST_A)
    job = submit(rig, ALICE)
    rig.event(PeerGone(wall=rig.wall, side="client", peer=b"alice"))
    worker.started(rig.job(job).token)
    assert rig.told(JobProgress) == []
    rig.event(PeerGone(wall=rig.wall, side="worker", peer=worker.peer))
    assert rig.job(job).worker_id == worker.name  # it may come back
    assert rig.broker.state.fleet.workers[worker.name].peer is None
    rig.event(PeerGone(wall=rig.wall, side="worker", peer=b"never seen"))


def test_an_admin_sees_who_was_heard(rig: Rig) -> None:
    worker = keyed(rig, HOST_A)
    for who in (BOB, GATEWAY):
        refused = ask(rig, who, KeysQuery(rid="1"))
        assert isinstance(refused, ErrorReply)
        assert refused.code == "forbidden"
    rig.event(ClientSaid(wall=rig.wall, peer=b"bob again", who=BOB, message=Ping(rid="1")))
    rig.event(PeerGone(wall=rig.wall, side="client", peer=b"front"))
    rig.now += 100.0
    reply = ask(rig, ADMIN, KeysQuery(rid="2"))
    assert isinstance(reply, KeysReply)
    assert [(view.name, view.role, view.connections, round(rig.wall - view.seen_at)) for view in reply.keys] == [
        ("bob", "client", 2, 100),
        ("front", "gateway", 0, 100),
        ("host-a", "daemon", 1, 100),
        ("root", "admin", 1, 0),
    ]
    assert reply.keys_total == 4
    rest = ask(rig, ADMIN, KeysQuery(rid="3", keys_from=3))
    assert isinstance(rest, KeysReply)
    assert [view.name for view in rest.keys] == ["root"]
    rig.event(PeerGone(wall=rig.wall, side="worker", peer=worker.peer))
    last = ask(rig, ADMIN, KeysQuery(rid="4"))
    assert isinstance(last, KeysReply)
    assert last.keys[2].connections == 0


def test_without_keys_everyone_is_one_owner(rig: Rig) -> None:
    rig.worker()
    job = rig.submit(peer=b"one")
    assert rig.job(job).owner == "local"
    (answer,) = rig.say(JobQuery(rid="1", job_id=job), peer=b"two")
    assert isinstance(answer, JobReply)
    (keys,) = rig.say(KeysQuery(rid="1"))
    assert isinstance(keys, KeysReply)
    assert keys.keys == ()
    assert isinstance(rig.say(Ping(rid="2"))[0], Pong)
