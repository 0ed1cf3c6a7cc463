"""One line of waiting jobs, in which clients share the GPUs' seconds fairly, whatever each of them asks for.

Pure. Start-time fair queueing: each job has a slot of virtual time, as long as the GPU time it is predicted to
take. A client's slots follow each other in its order of arrival, and the slot that begins first starts first. A
client that comes, or comes back, begins at the line's clock: absence earns it nothing. All in whole
milliseconds, so that sums are exact.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from operator import itemgetter

Client = tuple[str, str]  # owner, label
Slot = tuple[int, int]  # where it begins, the job's sequence

IDLE_FLOWS_MIN = 64  # clients with nothing waiting that are remembered before any is sought to be forgotten
_sequence_of = itemgetter(1)


@dataclass(slots=True)
class _Flow:
    """What one client has waiting, in order of arrival; the three lists go together."""

    end: int  # where the slot of its next job begins, at the earliest
    slots: list[Slot] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)

    def index(self, sequence: int) -> int:
        return bisect_left(self.slots, sequence, key=_sequence_of)

    def shift(self, at: int, by: int) -> None:
        """Move the slots from index `at` on, and what follows them."""
        floor = self.slots[at - 1][0] if at else None
        if floor is None:
            self.slots[at:] = [(begin + by, sequence) for begin, sequence in self.slots[at:]]
        else:
            self.slots[at:] = [(max(begin + by, floor), sequence) for begin, sequence in self.slots[at:]]
        self.end += by


class Line:
    """The jobs of one model and one priority.

    A job taken from it stays charged to its client until it is settled. Adding, taking and asking for the next
    cost O(log n) and a move in memory; taking back a slot also touches what its client has waiting behind it.
    """

    def __init__(self, clock: int = 0) -> None:
        self.clock = clock  # where a newcomer's first slot begins; never falls
        self.size = 0
        self._flows: dict[Client, _Flow] = {}
        self._heads: list[tuple[int, int, Client]] = []  # each client's first slot, ascending
        self._many: set[Client] = set()  # those with more than one job waiting
        self._charged: dict[str, tuple[Client, int, int]] = {}  # job_id -> client, sequence, cost
        self._sweep_at = IDLE_FLOWS_MIN

    @property
    def over(self) -> bool:
        """Is nothing waiting and nothing charged? Then it may be forgotten: all clients are equal again."""
        return not self.size and not self._charged

    # --- changes -------------------------------------------------------------------------------

    def append(self, client: Client, sequence: int, job_id: str, cost: int) -> None:
        """A new job, behind all others of its client."""
        flow = self._lift(client)
        begin = max(self.clock, flow.end, flow.slots[-1][0] if flow.slots else 0)
        flow.slots.append((begin, sequence))
        flow.ids.append(job_id)
        flow.costs.append(cost)
        flow.end = begin + cost
        self.size += 1
        self._put(client, flow)

    def bring_back(self, client: Client, sequence: int, job_id: str, cost: int) -> None:
        """A job that had been taken: before everything that came after it. Its slot is paid for."""
        first = self._heads[0][0] if self._heads else self.clock
        flow = self._lift(client)
        at = flow.index(sequence)
        begin = min(self.clock, first)
        if at:
            begin = max(begin, flow.slots[at - 1][0])
        charged = self._charged.get(job_id)
        flow.slots.insert(at, (begin, sequence))
        flow.ids.insert(at, job_id)
        flow.costs.insert(at, charged[2] if charged else cost)
        self.size += 1
        if charged is None:  # a former router took it
            flow.shift(at + 1, cost)
        self._put(client, flow)

    def take(self, client: Client, sequence: int, job_id: str) -> None:
        """It is sent to a GPU: charge its slot. Raises ValueError where it did not wait."""
        at = self._index(client, sequence, job_id)
        cost = self._flows[client].costs[at]
        self.clock = max(self.clock + cost // (len(self._heads) + 1), self._heads[0][0])
        self._charged[job_id] = (client, sequence, cost)
        self._delete(client, at, give_back=0)

    def remove(self, client: Client, sequence: int, job_id: str) -> None:
        """It waits no longer and will not be drawn: its client gets the slot back. Raises ValueError likewise."""
        at = self._index(client, sequence, job_id)
        self._charged.pop(job_id, None)
        self._delete(client, at, give_back=self._flows[client].costs[at])

    def _index(self, client: Client, sequence: int, job_id: str) -> int:
        flow = self._flows.get(client)
        at = flow.index(sequence) if flow is not None else 0
        if flow is None or at == len(flow.ids) or flow.ids[at] != job_id:
            raise ValueError(f"job {job_id} is not in the queue")
        return at

    def _delete(self, client: Client, at: int, give_back: int) -> None:
        flow = self._lift(client)
        del flow.slots[at], flow.ids[at], flow.costs[at]
        if give_back:
            flow.shift(at, -give_back)
        self.size -= 1
        self._put(client, flow)

    def settle(self, job_id: str, unused: float) -> bool:
        """A job that had been taken has ended: its client gets the `unused` part (0 … 1) of its slot back.

        True where that moved others of its jobs.
        """
        charged = self._charged.pop(job_id, None)
        if charged is None:
            return False
        client, sequence, cost = charged
        given = int(cost * unused)
        if not given or client not in self._flows:
            return False
        flow = self._lift(client)
        at = flow.index(sequence)
        flow.shift(at, -given)
        self._put(client, flow)
        return at < len(flow.slots)

    def recost(self, cost_of: Callable[[str], int]) -> None:
        """What was known of costs was a guess: lay out all slots anew, and forget who has had how much."""
        for client, flow in list(self._flows.items()):
            self._lift(client)
            flow.costs = [cost_of(job_id) for job_id in flow.ids]
            begin, slots = (flow.slots[0][0] if flow.slots else self.clock), []
            for (_, sequence), job_id, cost in zip(flow.slots, flow.ids, flow.costs, strict=True):
                slots.append((begin, sequence))
                begin += 0 if job_id in self._charged else cost
            flow.slots, flow.end = slots, begin
            self._put(client, flow)
        costs = {job_id: cost_of(job_id) for job_id in self._charged}
        self._charged = {job_id: (c, s, costs[job_id]) for job_id, (c, s, _) in self._charged.items()}

    def _lift(self, client: Client) -> _Flow:
        """This client's flow, to be changed, then to be `_put` back."""
        flow = self._flows.get(client)
        if flow is None:
            return _Flow(end=self.clock)
        if flow.slots:
            del self._heads[bisect_left(self._heads, (*flow.slots[0], client))]
        return flow

    def _put(self, client: Client, flow: _Flow) -> None:
        (self._many.add if len(flow.slots) > 1 else self._many.discard)(client)
        if flow.slots:
            self._flows[client] = flow
            insort(self._heads, (*flow.slots[0], client))
        elif flow.end > self.clock:
            self._flows[client] = flow  # it has had more than its share for now
        else:
            self._flows.pop(client, None)
        if len(self._flows) - len(self._heads) >= self._sweep_at:
            self._flows = {c: f for c, f in self._flows.items() if f.slots or f.end > self.clock}
            self._sweep_at = max(IDLE_FLOWS_MIN, 2 * (len(self._flows) - len(self._heads)))

    # --- questions -----------------------------------------------------------------------------

    def holds(self, client: Client, sequence: int) -> bool:
        """Does this job wait here?"""
        flow = self._flows.get(client)
        at = flow.index(sequence) if flow is not None else 0
        return flow is not None and at < len(flow.slots) and flow.slots[at][1] == sequence

    def before(self, client: Client, sequence: int) -> int:
        """How many start before this waiting job."""
        own = self._flows[client]
        at = own.index(sequence)
        slot, heads = own.slots[at], self._heads
        count = at + bisect_left(heads, slot) - bool(at)
        for other in self._many:
            if other != client:
                count += max(0, bisect_left(self._flows[other].slots, slot) - 1)
        return count

    def walk(self) -> Iterator[tuple[int, int, str]]:
        """(begin, sequence, job_id) of all that wait, in order; the line must not change meanwhile."""
        later: list[tuple[int, int, Client, int]] = []
        for begin, sequence, client in self._heads:
            while later and later[0][:2] < (begin, sequence):
                yield self._next(later)
            yield begin, sequence, self._flows[client].ids[0]
            self._push(later, client, 1)
        while later:
            yield self._next(later)

    def _next(self, later: list[tuple[int, int, Client, int]]) -> tuple[int, int, str]:
        begin, sequence, client, at = heappop(later)
        self._push(later, client, at + 1)
        return begin, sequence, self._flows[client].ids[at]

    def _push(self, later: list[tuple[int, int, Client, int]], client: Client, at: int) -> None:
        slots = self._flows[client].slots
        if at < len(slots):
            heappush(later, (*slots[at], client, at))

    def check(self) -> None:
        """Raise AssertionError where the books do not balance."""
        assert self._heads == sorted((*f.slots[0], c) for c, f in self._flows.items() if f.slots), self._heads
        assert self._many == {c for c, f in self._flows.items() if len(f.slots) > 1}, self._many
        assert self.size == sum(len(flow.ids) for flow in self._flows.values())
        for client, flow in self._flows.items():
            assert len(flow.slots) == len(flow.ids) == len(flow.costs), client
            assert flow.slots == sorted(flow.slots), client
            assert [s for _, s in flow.slots] == sorted(s for _, s in flow.slots), client

    def charged(self) -> set[str]:
        """The jobs taken and not settled."""
        return set(self._charged)
