"""The load itself: each order at its time through its door, until every one of them has an end.

Knows doors and the clock; knows no HTTP, no ZeroMQ and no terminal. A fixed number of requests under way (each
follows the end of another), or Poisson arrivals, whose latency counts from when they were due: a slow service is not
flattered by a client that waits for it.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from common.clock import monotonic_s
from genserve.burst.door import Door, Drawn, Sighting, Trouble
from genserve.burst.record import DONE, FAILED, GAVE_UP, Job, Options, Order, Request

OPEN_REQUESTS_MAX = 1000  # under way at one time; beyond that arrivals are late, and the report says so
ASKED_AT_ONCE_MAX = 8  # questions about jobs, after the load
PAUSE_S, PAUSE_S_MAX = 0.5, 10.0  # before a request is sent again, where nobody said how long
MESSAGE_CHARS_MAX = 300  # of a failure, kept


class Load:
    """One run of orders. `on_sent` and `on_end` are told as it goes."""

    def __init__(
        self,
        doors: Mapping[str, Door],
        options: Options,
        *,
        on_sent: Callable[[Order], None] = lambda _: None,
        on_end: Callable[[Request], None] = lambda _: None,
    ) -> None:
        self._doors = doors
        self._options = options
        self._on_sent = on_sent
        self._on_end = on_end
        self._began_now = monotonic_s()
        self._ended: list[Request] = []

    async def run(self, orders: Iterator[Order]) -> list[Request]:
        """Carry out all orders; their ends in the order in which they were due. Cancelled, it gives up what is open."""
        self._began_now = monotonic_s()
        try:
            async with asyncio.TaskGroup() as group:
                if self._options.rate_per_s:
                    await self._by_rate(group, orders)
                else:
                    for own in shares(orders, self._options.concurrency):
                        group.create_task(self._one_after_another(own))
        except asyncio.CancelledError:
            pass  # what has ended until now is the outcome
        return self.ended

    @property
    def ended(self) -> list[Request]:
        """What has ended until now."""
        return sorted(self._ended, key=lambda request: (request.due_s, request.order.number))

    async def _one_after_another(self, orders: Iterator[Order]) -> None:
        for order in orders:
            await self._carry_out(order, self._now_s())

    async def _by_rate(self, group: asyncio.TaskGroup, orders: Iterator[Order]) -> None:
        places = asyncio.Semaphore(OPEN_REQUESTS_MAX)

        async def carry_out(order: Order) -> None:
            try:
                await self._carry_out(order, order.at_s)
            finally:
                places.release()

        for order in orders:
            await asyncio.sleep(max(0.0, order.at_s - self._now_s()))
            await places.acquire()
            group.create_task(carry_out(order))

    def _now_s(self) -> float:
        return monotonic_s() - self._began_now

    async def _carry_out(self, order: Order, due_s: float) -> None:
        """Until its end; sent again as often as the options allow."""
        self._on_sent(order)
        refusals: list[str] = []
        while True:
            sent_s, sighting = self._now_s(), Sighting(self._now_s)
            drawn, trouble = await self._try(order, sighting)
            if trouble is None or not trouble.may_be_sent_again or len(refusals) >= self._options.retries:
                break
            refusals.append(trouble.code)
            pause_s = trouble.retry_after_s if trouble.retry_after_s is not None else PAUSE_S * 2 ** len(refusals)
            await asyncio.sleep(min(pause_s, PAUSE_S_MAX))
        stepped_s = sighting.first_step_now
        job = drawn.job if drawn is not None else None
        request = Request(
            order=order,
            due_s=due_s,
            sent_s=sent_s,
            ended_s=self._now_s(),
            outcome=FAILED if trouble else DONE if drawn else GAVE_UP,
            code=trouble.code if trouble else "",
            message=trouble.message[:MESSAGE_CHARS_MAX] if trouble else "",
            tries=len(refusals) + 1,
            refusals=tuple(refusals),
            first_step_s=None if stepped_s is None else stepped_s - due_s,
            bytes=drawn.bytes if drawn else 0,
            job_id=sighting.job_id,
            job=job,
        )
        self._ended.append(request)
        self._on_end(request)

    async def _try(self, order: Order, sighting: Sighting) -> tuple[Drawn | None, Trouble | None]:
        """(None, None): its client gave up, as it was to."""
        waits_s = self._options.timeout_s if order.give_up_after_s is None else order.give_up_after_s
        try:
            async with asyncio.timeout(waits_s):
                return await self._doors[order.door].draw(order, sighting), None
        except TimeoutError:
            if order.give_up_after_s is not None:
                return None, None
            return None, Trouble("timeout", f"no picture within {waits_s:g} s (--timeout)", ended=True)
        except Trouble as trouble:
            return None, trouble


def shares(orders: Iterable[Order], places: int) -> list[Iterator[Order]]:
    """For each place of those that may be under way at one time the orders that it takes from.

    Each client has as many places as any other, or one more: else one whose jobs wait longer would come to hold more
    of them, and wait still longer.
    """
    by_client: dict[str, list[Order]] = {}
    for order in orders:
        by_client.setdefault(order.client, []).append(order)
    queues = [iter(own) for own in by_client.values()]
    return [queues[place % len(queues)] for place in range(max(places, len(queues)))] if queues else []


async def with_jobs(requests: Sequence[Request], doors: Mapping[str, Door]) -> list[Request]:
    """The same, each with what the service says of its job, where it knows. Asked afterwards: no part of the load."""
    places = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

    async def look(request: Request) -> Request:
        if request.job is not None or not request.job_id:
            return request
        async with places:
            try:
                job: Job | None = await doors[request.order.door].job(request.job_id)
            except Trouble:
                return request  # the report says of how many jobs nothing is known
        return msgspec.structs.replace(request, job=job)

    return list(await asyncio.gather(*(look(request) for request in requests)))
