"""The fair line: against a slow model of it, and against what fairness means."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.fair import IDLE_FLOWS_MIN, Client, Line


def _client(name: object) -> Client:
    return ("local", str(name))


@dataclass
class _Waiting:
    client: Client
    sequence: int
    job_id: str
    begin: int
    cost: int


@dataclass
class _SlowLine:
    """The same rules, with nothing but lists that are sorted whenever somebody asks."""

    clock: int = 0
    waiting: list[_Waiting] = field(default_factory=list)
    ends: dict[Client, int] = field(default_factory=dict)
    charged: dict[str, tuple[Client, int, int]] = field(default_factory=dict)

    def ordered(self) -> list[_Waiting]:
        return sorted(self.waiting, key=lambda w: (w.begin, w.sequence))

    def of(self, client: Client) -> list[_Waiting]:
        return sorted((w for w in self.waiting if w.client == client), key=lambda w: w.sequence)

    def append(self, client: Client, sequence: int, job_id: str, cost: int) -> None:
        begin = max([self.clock, self.ends.get(client, 0), *(w.begin for w in self.of(client))])
        self.waiting.append(_Waiting(client, sequence, job_id, begin, cost))
        self.ends[client] = begin + cost

    def bring_back(self, job_id: str) -> None:
        client, sequence, cost = self.charged[job_id]
        older = [w.begin for w in self.of(client) if w.sequence < sequence]
        begin = max([min([self.clock, *(w.begin for w in self.waiting)]), *older])
        self.waiting.append(_Waiting(client, sequence, job_id, begin, cost))

    def take(self, one: _Waiting) -> None:
        first, clients = self.ordered()[0].begin, len({w.client for w in self.waiting})
        self.waiting.remove(one)
        self.charged[one.job_id] = (one.client, one.sequence, one.cost)
        self.clock = max(self.clock + one.cost // (clients + 1), first)

    def remove(self, one: _Waiting) -> None:
        self.waiting.remove(one)
        self.charged.pop(one.job_id, None)
        self._give_back(one.client, one.sequence, one.cost)

    def settle(self, job_id: str, unused: float) -> None:
        client, sequence, cost = self.charged.pop(job_id)
        self._give_back(client, sequence, int(cost * unused))

    def _give_back(self, client: Client, sequence: int, cost: int) -> None:
        older = [w.begin for w in self.of(client) if w.sequence < sequence]
        for later in [w for w in self.of(client) if w.sequence > sequence]:
            later.begin = max([later.begin - cost, *older])
        self.ends[client] = self.ends.get(client, 0) - cost


class FairLineMachine(RuleBasedStateMachine):
    """Anything that may happen to a line, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.slow, self.jobs = Line(), _SlowLine(), 0

    def _nth(self, at: int) -> _Waiting:
        return self.slow.ordered()[at % len(self.slow.waiting)]

    def _in_hand(self, at: int) -> str:
        waiting = {w.job_id for w in self.slow.waiting}
        return sorted(self.slow.charged.keys() - waiting)[at % len(self.slow.charged.keys() - waiting)]

    @rule(client=st.integers(0, 4), cost=st.integers(1, 50))
    def append(self, client: int, cost: int) -> None:
        self.jobs += 1
        for line in (self.line, self.slow):
            line.append(_client(client), self.jobs, f"j{self.jobs}", cost)  # type: ignore[attr-defined]  # both have it

    @precondition(lambda self: self.slow.waiting)
    @rule(at=st.one_of(st.just(0), st.integers(0, 1000)))
    def take(self, at: int) -> None:
        one = self._nth(at)
        self.line.take(one.client, one.sequence, one.job_id)
        self.slow.take(one)

    @precondition(lambda self: self.slow.waiting)
    @rule(at=st.integers(0, 1000))
    def remove(self, at: int) -> None:
        one = self._nth(at)
        self.line.remove(one.client, one.sequence, one.job_id)
        self.slow.remove(one)

    @precondition(lambda self: self.slow.charged.keys() - {w.job_id for w in self.slow.waiting})
    @rule(at=st.integers(0, 1000), unused=st.sampled_from([0.0, 0.3, 1.0]))
    def settle(self, at: int, unused: float) -> None:
        job_id = self._in_hand(at)
        self.line.settle(job_id, unused)
        self.slow.settle(job_id, unused)

    @precondition(lambda self: self.slow.charged.keys() - {w.job_id for w in self.slow.waiting})
    @rule(at=st.integers(0, 1000))
    def bring_back(self, at: int) -> None:
        job_id = self._in_hand(at)
        client, sequence, cost = self.slow.charged[job_id]
        self.line.bring_back(client, sequence, job_id, cost)
        self.slow.bring_back(job_id)

    @invariant()
    def agree(self) -> None:
        self.line.check()
        ordered = self.slow.ordered()
        assert list(self.line.walk()) == [(w.begin, w.sequence, w.job_id) for w in ordered]
        assert [self.line.before(w.client, w.sequence) for w in ordered] == list(range(len(ordered)))
        assert all(self.line.holds(w.client, w.sequence) for w in ordered)
        assert (self.line.size, self.line.clock) == (len(ordered), self.slow.clock)
        assert self.line.charged() == self.slow.charged.keys()
        assert self.line.over == (not ordered and not self.slow.charged)

    @invariant()
    def each_client_is_served_in_its_own_order(self) -> None:
        for client in {w.client for w in self.slow.waiting}:
            own = [sequence for _, sequence, job_id in self.line.walk() if self.line.holds(client, sequence)]
            assert own == sorted(own)


FairLineMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestFairLine = FairLineMachine.TestCase


class _Served:
    """A line that is drawn from its head, and what each client has had."""

    def __init__(self) -> None:
        self.line, self.jobs, self.had = Line(), 0, Counter[str]()
        self._costs: dict[str, tuple[str, int, int]] = {}

    def ask(self, name: str, cost: int = 10, jobs: int = 1) -> None:
        for _ in range(jobs):
            self.jobs += 1
            job_id = f"j{self.jobs}"
            self._costs[job_id] = (name, self.jobs, cost)
            self.line.append(_client(name), self.jobs, job_id, cost)

    def draw(self) -> str:
        job_id = next(self.line.walk())[2]
        name, sequence, cost = self._costs[job_id]
        self.line.take(_client(name), sequence, job_id)
        self.had[name] += cost
        return name

    def draws(self, count: int) -> str:
        return "".join(self.draw() for _ in range(count))


@pytest.fixture
def served() -> _Served:
    return _Served()


@given(st.lists(st.lists(st.integers(1, 100), min_size=30, max_size=30), min_size=2, max_size=5))
def test_clients_who_always_wait_have_had_equally_much_up_to_one_job_each(costs: list[list[int]]) -> None:
    served = _Served()
    for turn in range(30):
        for client, own in enumerate(costs):
            served.ask(str(client), own[turn])
    while all(sum(own) > served.had[str(client)] for client, own in enumerate(costs)):
        had = [served.had[str(client)] for client in range(len(costs))]
        most = sorted((max(own) for own in costs), reverse=True)
        assert max(had) - min(had) <= most[0] + most[1], had
        served.draw()


def test_one_clients_many_jobs_do_not_bury_anothers_first(served: _Served) -> None:
    served.ask("a", jobs=500)
    assert served.draws(4) == "aaaa"
    served.ask("b", jobs=2)
    assert served.draws(4) == "baba"


def test_shares_are_of_time_not_of_jobs(served: _Served) -> None:
    served.ask("a", cost=40, jobs=20)
    served.ask("b", cost=10, jobs=80)
    served.draws(50)
    assert served.had == {"a": 400, "b": 400}


def test_absence_earns_nothing(served: _Served) -> None:
    served.ask("b")
    served.ask("a", jobs=100)
    served.draws(50)
    served.ask("b", jobs=10)
    assert served.draws(6) in ("bababa", "ababab")


def test_asking_one_by_one_earns_nothing(served: _Served) -> None:
    served.ask("a", jobs=100)
    for _ in range(20):
        served.ask("b")
        while served.draw() != "b":
            pass
    assert served.had["a"] >= served.had["b"] - 20


def test_ever_new_clients_do_not_starve_the_old(served: _Served) -> None:
    served.ask("a", jobs=100)
    for n in range(100):
        served.ask(f"new{n}")
        served.ask(f"newer{n}")
        served.draws(2)
    assert served.had["a"] >= 50  # of 2000, between 100 others who wait by then


def test_a_cancelled_job_moves_its_clients_others_up(served: _Served) -> None:
    served.ask("a", jobs=3)
    served.ask("b", jobs=3)
    served.line.remove(_client("a"), 1, "j1")
    assert served.draws(4) == "abab"  # not behind b's first two


def test_a_job_cancelled_while_drawn_gives_back_what_it_has_not_used(served: _Served) -> None:
    served.ask("a", cost=100)
    served.ask("a", jobs=4)
    served.ask("b", jobs=20)
    assert served.draw() == "a"
    served.line.settle("j1", 0.9)
    assert served.draws(8).count("a") == 4  # ten are used: as much as for one of b's jobs


def test_a_job_that_comes_back_has_its_old_place_and_is_charged_once(served: _Served) -> None:
    served.ask("a", jobs=3)
    served.ask("b", jobs=3)
    assert served.draws(2) == "ab"
    served.line.bring_back(_client("a"), 1, "j1", 10)
    served.line.bring_back(_client("b"), 4, "j4", 10)
    assert [job_id for *_, job_id in served.line.walk()] == ["j1", "j4", "j2", "j5", "j3", "j6"]


def test_what_a_former_router_had_sent_comes_first_and_is_charged(served: _Served) -> None:
    served.ask("a", jobs=2)
    served.line.bring_back(_client("b"), 0, "j0", 10)
    served.ask("b")
    assert [job_id for *_, job_id in served.line.walk()] == ["j0", "j1", "j2", "j3"]


def test_a_guess_is_laid_out_anew(served: _Served) -> None:
    served.ask("a", cost=1, jobs=50)
    served.ask("b", cost=1, jobs=2)
    assert served.draw() == "a"
    served.line.recost(lambda _: 100)
    served.line.check()
    served.ask("c", cost=100, jobs=2)
    assert sorted(served.draws(3)) == ["a", "b", "c"]
    assert sorted(served.draws(3)) == ["a", "b", "c"]


def test_clients_who_have_gone_are_forgotten(served: _Served) -> None:
    served.ask("a", jobs=10_000)
    for n in range(10 * IDLE_FLOWS_MIN):
        served.ask(f"new{n}")
        served.draws(2)
    assert len(served.line._flows) < 2 * IDLE_FLOWS_MIN


def test_what_does_not_wait_cannot_be_taken(served: _Served) -> None:
    served.ask("a")
    for change in (served.line.take, served.line.remove):
        with pytest.raises(ValueError, match="not in the queue"):
            change(_client("a"), 2, "j2")
        with pytest.raises(ValueError, match="not in the queue"):
            change(_client("b"), 1, "j1")
    served.line.check()
