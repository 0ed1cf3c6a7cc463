"""The load itself, through a door of the test's own: sending again, giving up, stopping, coming at random."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from msgspec import structs

from common.messages import StatusReply
from genserve.burst import orders as orders_module
from genserve.burst.door import Drawn, Sighting, Trouble
from genserve.burst.load import Load, with_jobs
from genserve.burst.orders import orders
from genserve.burst.record import DONE, FAILED, GAVE_UP, Job, Options, Order, Request
from tests.gateway.conftest import until
from tests.genserve.burst_runs import OPTIONS, request

FULL = Trouble("queue_full", "the queue is full", retry_after_s=0.0)


class ScriptedDoor:
    """Each try of an order ends as the script says: with a picture, with a Trouble, or not at all."""

    name = "http"
    address = "nowhere"

    def __init__(
        self,
        script: Callable[[Order, int], Trouble | None] = lambda *_: None,
        *,
        endless: bool = False,
        together: int = 1,
    ) -> None:
        self._script = script
        self._endless = endless
        self._together = together  # nobody gets a picture before so many have asked
        self._all_there = asyncio.Event()
        self.tries: dict[int, int] = {}
        self.open_now = self.open_most = 0
        self.dropped: list[int] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def status(self) -> StatusReply:
        raise FULL

    async def draw(self, order: Order, sighting: Sighting) -> Drawn:
        number = self.tries[order.number] = self.tries.get(order.number, 0) + 1
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            await asyncio.sleep(0)
            if trouble := self._script(order, number):
                raise trouble
            if self.open_now >= self._together:
                self._all_there.set()
            await self._all_there.wait()
            if self._endless:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.dropped.append(order.number)
            raise
        finally:
            self.open_now -= 1
        sighting.stepped()
        sighting.job_id = f"{order.number:032x}"
        return Drawn(bytes=7, job=None)

    async def job(self, job_id: str) -> Job | None:
        if int(job_id, 16) == 1:
            raise Trouble("connection", "gone")
        return request(int(job_id, 16)).job if int(job_id, 16) else None


async def carried_out(door: ScriptedDoor, **changes: object) -> list[Request]:
    options: Options = structs.replace(OPTIONS, **changes)
    return await Load({"http": door}, options).run(orders(options))


async def test_so_many_at_one_time_and_each_once() -> None:
    door = ScriptedDoor()
    ended = await carried_out(door, requests=50, concurrency=7)
    assert sorted(each.order.number for each in ended) == list(range(50))
    assert {each.outcome for each in ended} == {DONE}
    assert (door.open_most, set(door.tries.values())) == (7, {1})
    assert all(0 <= each.due_s <= each.sent_s <= each.ended_s for each in ended)
    assert all(each.first_step_s is not None and each.first_step_s <= each.latency_s for each in ended)


async def test_each_client_has_its_share_of_the_places() -> None:
    door = ScriptedDoor(endless=True)
    options = structs.replace(OPTIONS, requests=40, concurrency=7, clients=3)
    load = Load({"http": door}, options, on_sent=lambda order: sent.append(order.client))
    sent: list[str] = []
    running = asyncio.ensure_future(load.run(orders(options)))
    await until(lambda: door.open_now == 7, "all places to be taken")
    assert sorted(Counter(sent).values()) == [2, 2, 3]
    running.cancel()
    assert await running == []


async def test_a_refusal_is_sent_again_and_a_failure_is_not() -> None:
    script = {
        0: {1: FULL, 2: FULL},
        1: {1: Trouble("poison", "two engines died", ended=True)},
        2: dict.fromkeys(range(9), FULL),
    }
    door = ScriptedDoor(lambda order, number: script.get(order.number, {}).get(number))
    taken, failed, refused, plain = await carried_out(door, requests=4, retries=2)
    assert (taken.outcome, taken.tries, taken.refusals) == (DONE, 3, ("queue_full", "queue_full"))
    assert (failed.outcome, failed.tries, failed.code, failed.message) == (FAILED, 1, "poison", "two engines died")
    assert (refused.outcome, refused.tries, refused.code) == (FAILED, 3, "queue_full")
    assert (plain.outcome, plain.refusals) == (DONE, ())


async def test_who_gives_up_and_who_waits_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_module, "GIVE_UP_WITHIN_S", 0.01)
    door = ScriptedDoor(endless=True)
    [gave_up] = await carried_out(door, requests=1, give_up_percent=100.0)
    assert (gave_up.outcome, gave_up.code) == (GAVE_UP, "")
    [late] = await carried_out(door, requests=1, timeout_s=0.01)
    assert (late.outcome, late.code, late.tries) == (FAILED, "timeout", 1)
    assert door.dropped == [0, 0]  # both doors were told


async def test_stopping_leaves_what_has_ended() -> None:
    door = ScriptedDoor(lambda order, _: None)
    endless = ScriptedDoor(endless=True)
    options = structs.replace(OPTIONS, over="both", requests=20, concurrency=4)
    load = Load({"http": door, "zmq": endless}, options)
    running = asyncio.ensure_future(load.run(orders(options)))
    await until(lambda: endless.open_now == 4, "all places to be taken by the door that never answers")
    running.cancel()
    ended = await running
    assert {each.outcome for each in ended} == {DONE}
    assert {each.order.door for each in ended} == {"http"}
    assert len(endless.dropped) == 4


async def test_arrivals_keep_their_times_whatever_the_service_does() -> None:
    door = ScriptedDoor(together=30)  # a service that is slower than they come
    ended = await carried_out(door, requests=30, concurrency=0, rate_per_s=2000.0)
    assert (door.open_most, {each.outcome for each in ended}) == (30, {DONE})
    asked = list(orders(structs.replace(OPTIONS, requests=30, rate_per_s=2000.0)))
    assert [each.due_s for each in ended] == [order.at_s for order in asked]
    assert all(each.sent_s >= each.due_s for each in ended)


async def test_what_became_of_a_job_is_asked_where_it_is_known() -> None:
    made = [structs.replace(request(number), job=None) for number in range(4)]
    made[3] = structs.replace(made[3], job_id="")
    looked = await with_jobs(made, {"http": ScriptedDoor()})
    assert [each.job and each.job.job_id for each in looked] == [None, None, made[2].job_id, None]


@pytest.mark.parametrize(
    ("code", "ended", "again"),
    [
        ("queue_full", False, True),
        ("connection", False, True),
        ("unavailable", True, False),
        ("too_large", False, False),
    ],
)
def test_what_may_be_sent_again(code: str, ended: bool, again: bool) -> None:
    assert Trouble(code, "", ended=ended).may_be_sent_again is again
