"""The clients together: each order at its time by its client, until every one of them knows how it ended."""

import asyncio
from collections.abc import Sequence

from bench.chaos.fleet import Fleet
from bench.chaos.http_client import HttpClient
from bench.chaos.ledger import Entry, Ledger
from bench.chaos.orders import DOORS, Order
from bench.chaos.raw_client import RawClient
from common.clock import monotonic_s


class Load:
    """All clients, and a task for each order."""

    def __init__(self, fleet: Fleet, orders: Sequence[Order], ledger: Ledger, *, seed: int) -> None:
        self._ledger = ledger
        ledger.entries = [Entry(order) for order in orders]
        raw = fleet.proxies["raw clients"].endpoint
        self._clients: dict[int, HttpClient | RawClient] = {}
        for client in sorted({order.client for order in orders}):
            name = f"client-{client}"
            self._clients[client] = (
                RawClient(raw, ledger, name, seed)
                if DOORS[client % len(DOORS)] == "raw"
                else HttpClient(fleet.http_url, ledger, name, seed)
            )
        self._began = monotonic_s()
        self._tasks = {entry.order.number: asyncio.create_task(self._carry_out(entry)) for entry in ledger.entries}

    async def _carry_out(self, entry: Entry) -> None:
        await asyncio.sleep(max(0.0, self._began + entry.order.at_s - monotonic_s()))
        await self._clients[entry.order.client].carry_out(entry)

    @property
    def open(self) -> int:
        """Orders whose clients still wait, or are still to come."""
        return sum(not task.done() for task in self._tasks.values())

    async def settle(self, within_s: float) -> None:
        """Until all have ended, or so many seconds have passed. What a client stumbled over is a fault."""
        await asyncio.wait(self._tasks.values(), timeout=within_s)
        for entry in self._ledger.entries:
            task = self._tasks[entry.order.number]
            if not task.done():
                self._ledger.fault(
                    entry, f"left hanging: {within_s:g} s after the last trouble nobody knows how it ended"
                )
                task.cancel()
            elif (error := task.exception()) is not None:
                self._ledger.fault(entry, f"its client stumbled: {error!r}")
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """Send the clients home."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for client in self._clients.values():
            await client.close()
