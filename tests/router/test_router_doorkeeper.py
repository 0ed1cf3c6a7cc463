"""Who may come in, as a table: libzmq's questions in, verdicts out."""

from datetime import UTC, datetime

import pytest

from common.peers import PeerEntry
from common.roles import LOCAL, ROLES, Identity
from router.doorkeeper import REPEAT_AFTER_S, SAID_AT_ONCE, Refusals, Register, broken_off, judge, reply

CREATED = datetime(2026, 11, 25, tzinfo=UTC)
RAW = {name: name.encode().ljust(32, b".") for name in ("daemon", "client", "gateway", "admin", "old", "new")}


def entry(name: str, role: str, key: str = "", *, revoked: bool = False) -> PeerEntry:
    revoked_at = CREATED if revoked else None
    return PeerEntry(name=name, role=role, public_key=key or name, created=CREATED, revoked=revoked_at)  # type: ignore[arg-type]  # roles as texts


def register(*more: PeerEntry) -> Register:
    return Register((*(entry(role, role) for role in ROLES), entry("gone", "client", "old", revoked=True), *more), RAW)


def question(domain: str, key: bytes, mechanism: bytes = b"CURVE") -> list[bytes]:
    return [b"1.0", b"7", domain.encode(), b"10.0.0.9", b"", mechanism, key]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("side", ["client", "worker"])
def test_a_role_has_one_endpoint(role: str, side: str) -> None:
    verdict = judge(question(f"genserve/{side}", RAW[role]), register())
    may = side == ("worker" if role == "daemon" else "client")
    assert (verdict.status, verdict.user) == ((b"200", role) if may else (b"400", ""))
    assert verdict.cause == ("" if may else "wrong_endpoint")
    assert (verdict.side, verdict.address, verdict.name) == (side, "10.0.0.9", role)


@pytest.mark.parametrize(
    ("asked", "cause"),
    [
        (question("genserve/client", b"x" * 32), "unknown_key"),
        (question("genserve/client", b""), "unknown_key"),
        (question("genserve/client", RAW["client"][:-1]), "unknown_key"),
        (question("genserve/client", RAW["client"] + b"."), "unknown_key"),
        (question("genserve/client", RAW["old"]), "revoked_key"),
        (question("", RAW["client"]), "wrong_domain"),
        (question("genserve", RAW["client"]), "wrong_domain"),
        (question("*", RAW["client"]), "wrong_domain"),
        (question("genserve/worker\0", RAW["daemon"]), "wrong_domain"),
        ([*question("genserve/client", b"admin", b"PLAIN"), b"password"], "no_key"),
        (question("genserve/client", b"", b"NULL")[:-1], "no_key"),
        (question("genserve/client", RAW["admin"], b"GSSAPI"), "no_key"),
        ([*question("genserve/client", RAW["admin"]), RAW["admin"]], "no_key"),
    ],
)
def test_all_others_stay_outside(asked: list[bytes], cause: str) -> None:
    verdict = judge(asked, register())
    assert (verdict.status, verdict.user, verdict.cause) == (b"400", "", cause)
    assert verdict.detail
    assert reply(asked, verdict)[:3] == [b"1.0", b"7", b"400"]
    assert reply(asked, verdict)[4] == b""


@pytest.mark.parametrize("asked", [[], [b"1.0"], [b"2.0", *question("genserve/client", RAW["admin"])[1:]]])
def test_a_question_that_is_not_understood_lets_nobody_in(asked: list[bytes]) -> None:
    verdict = judge(asked, register())
    assert (verdict.status, verdict.user) == (b"500", "")
    assert reply(asked, verdict)[2] == b"500"


def test_who_is_let_in_is_named_by_the_key_alone() -> None:
    asked = question("genserve/client", RAW["admin"])
    assert reply(asked, judge(asked, register())) == [b"1.0", b"7", b"200", b"", b"admin", b""]


def test_a_change_of_the_peers_file_puts_out_who_counts_no_more() -> None:
    before = Register([entry("a", "client", "old"), entry("b", "client", "new"), entry("c", "daemon", "daemon")], RAW)
    same = Register([entry("c", "daemon", "daemon"), entry("b", "client", "new"), entry("a", "client", "old")], RAW)
    assert before.put_out(same) == []
    taken_out = Register([entry("a", "client", "old")], RAW)
    assert before.put_out(taken_out) == ["b", "c"]
    revoked = Register(
        [entry("a", "client", "old", revoked=True), entry("b", "client", "new"), entry("c", "daemon", "daemon")], RAW
    )
    assert before.put_out(revoked) == ["a"]
    replaced = Register(
        [entry("a", "client", "old", revoked=True), entry("a", "client", "admin"), entry("b", "client", "new")], RAW
    )
    assert before.put_out(replaced) == ["a", "c"]
    promoted = Register([entry("a", "admin", "old"), entry("b", "client", "new"), entry("c", "daemon", "daemon")], RAW)
    assert before.put_out(promoted) == ["a"]
    assert taken_out.put_out(before) == []
    assert (len(before), len(taken_out)) == (3, 1)


def test_names_are_known_at_their_own_endpoint_alone() -> None:
    inside = register().inside
    assert set(inside["worker"]) == {"daemon"}
    assert set(inside["client"]) == {"client", "gateway", "admin"}
    assert inside["client"]["admin"] == Identity("admin", "admin")


def test_rights_follow_from_the_role() -> None:
    rights = {role: Identity("me", role).rights for role in ROLES}
    assert [role for role, each in rights.items() if each.acts_for_others] == ["gateway"]
    assert [role for role, each in rights.items() if each.sees_all] == ["admin"]
    assert [role for role in rights if Identity("me", role).sees_job_of("other")] == ["admin"]
    assert all(Identity("me", role).sees_job_of("me") for role in rights)
    assert Identity("a", "daemon").owns_worker("a/cuda:0")
    assert not any(
        Identity("a", "daemon").owns_worker(name) for name in ("a", "ab/cuda:0", "b/cuda:0", "", "/a/", "A/x")
    )
    assert LOCAL.owns_worker("anything")


def test_a_refusal_that_repeats_is_said_less_often_and_counted() -> None:
    refusals = Refusals()
    said = [refusals.again(("client", "10.0.0.9", "left"), now=0.01 * n) for n in range(100)]
    assert said == [1] * SAID_AT_ONCE + [None] * (100 - SAID_AT_ONCE)
    assert refusals.again(("client", "10.0.0.8", "left"), now=1.0) == 1
    assert refusals.again(("client", "10.0.0.9", "left"), now=REPEAT_AFTER_S) == 101 - SAID_AT_ONCE
    assert refusals.again(("client", "10.0.0.9", "left"), now=REPEAT_AFTER_S + 1) is None
    assert refusals.total == 103


def test_what_is_remembered_of_refusals_is_bounded() -> None:
    refusals = Refusals()
    for number in range(5000):
        assert refusals.again((str(number),), now=0.0) == 1
    assert len(refusals._told) == 1024


@pytest.mark.parametrize(
    ("value", "protocol", "cause"),
    [
        (0x11000002, True, "no_key"), (0x11000001, True, "wrong_server_key"), (0x10000013, True, "garbled"),
        (11, False, "silent"), (32, False, "left"), (104, False, "left"),
    ],
)  # fmt: skip
def test_what_broke_off_has_a_cause(value: int, protocol: bool, cause: str) -> None:
    assert broken_off(value, protocol=protocol)[0] == cause
