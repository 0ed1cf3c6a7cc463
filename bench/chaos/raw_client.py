"""A client that speaks ZeroMQ: a key on every SUBMIT, WATCH every 5 s, and now and then a new connection.

It knows the client's side of the grammar in common/messages. What is not answered is sent again; what was
accepted and is not known any more is a fault.
"""

import asyncio
import itertools
import random
from contextlib import suppress

import zmq
import zmq.asyncio

from bench.chaos.ledger import CANCELLED, FAILED, REFUSED, Entry, Ledger
from common.codec import TO_CLIENT, encode
from common.messages import (
    Accepted,
    CancelJob,
    Cancelled,
    ClientMessage,
    ErrorReply,
    Failed,
    JobReply,
    JobSpec,
    Message,
    Rejected,
    Result,
    Submit,
    Watch,
)
from common.sockets import FRAME_BYTES_MAX, HEARTBEAT_INTERVAL_MS, HEARTBEAT_TIMEOUT_MS

WATCH_S = 5.0
SEND_WITHIN_S = 1.0
RECONNECT_MS = (100, 1000)
NO_HINT_S = 1.0  # where a refusal does not say when to come back


class RawClient:
    """One DEALER at a time, for many orders at once."""

    def __init__(self, endpoint: str, ledger: Ledger, name: str, seed: int) -> None:
        self._endpoint = endpoint
        self._ledger = ledger
        self._name = name
        self._rng = random.Random(f"{name} {seed}")
        self._numbers = itertools.count(1)
        self._context = zmq.asyncio.Context()
        self._waiting: dict[str, asyncio.Queue[tuple[Message, bytes]]] = {}  # by rid
        self._connect()

    def _connect(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),
            (zmq.MAXMSGSIZE, FRAME_BYTES_MAX),
            (zmq.HEARTBEAT_IVL, HEARTBEAT_INTERVAL_MS),
            (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS),
            (zmq.RECONNECT_IVL, RECONNECT_MS[0]),
            (zmq.RECONNECT_IVL_MAX, RECONNECT_MS[1]),
        ):
            self._socket.setsockopt(option, value)
        self._socket.connect(self._endpoint)
        self._reader = asyncio.create_task(self._read(self._socket))

    async def close(self) -> None:
        """Go away."""
        await self._disconnect()
        self._context.destroy(linger=0)

    async def come_back(self) -> None:
        """Hang up, and come back after a while under a new routing id."""
        self._ledger.hung_up += 1
        await self._disconnect()
        self._connect()
        self._ledger.came_back += 1

    async def _disconnect(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._socket.close()

    async def carry_out(self, entry: Entry) -> None:
        """Until its end is known."""
        rid = str(next(self._numbers))
        inbox = self._waiting[rid] = asyncio.Queue()
        try:
            waits = asyncio.create_task(self._follow(entry, rid, inbox))
            await self._interfere(entry, rid)
            await waits
        finally:
            del self._waiting[rid]

    async def _interfere(self, entry: Entry, rid: str) -> None:
        order = entry.order
        if order.hang_up_after_s is not None:
            await asyncio.sleep(order.hang_up_after_s)
            await self.come_back()
        if order.cancel_after_s is not None:
            await asyncio.sleep(order.cancel_after_s)
            while not entry.end:
                if entry.job_id:
                    await self._send(CancelJob(rid=rid, job_id=entry.job_id))
                await asyncio.sleep(WATCH_S)

    async def _follow(self, entry: Entry, rid: str, inbox: asyncio.Queue[tuple[Message, bytes]]) -> None:
        order = entry.order
        spec = JobSpec(
            prompt=order.key,
            width=order.width,
            height=order.height,
            steps=order.steps,
            seed=order.seed,
            priority=order.priority,
            client=self._name,
            deadline_s=order.deadline_s,
        )
        while not entry.end:
            if entry.job_id:
                await self._send(Watch(rid=rid, job_id=entry.job_id))
            else:
                entry.asked += 1
                await self._send(Submit(rid=rid, key=order.key, job=spec))
            await asyncio.sleep(await self._listen(entry, inbox))

    async def _listen(self, entry: Entry, inbox: asyncio.Queue[tuple[Message, bytes]]) -> float:
        """Until it is time to ask again; how many seconds to wait before that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_S):
                while not entry.end:
                    if wait_s := self._take(entry, *await inbox.get()):
                        return wait_s
        return 0.0

    def _take(self, entry: Entry, message: Message, payload: bytes) -> float:
        """Note what was said; where it was to come back later, in how many seconds."""
        match message:
            case Accepted():
                self._ledger.accepted(entry, message.job_id)
            case Rejected():
                return self._rejected(entry, message)
            case Result():
                self._ledger.done(entry, message.job_id, payload)
            case Failed():
                self._ledger.accepted(entry, message.job_id)
                self._ledger.ended(entry, FAILED, message.error.code)
            case Cancelled():
                self._ledger.accepted(entry, message.job_id)
                self._ledger.ended(entry, CANCELLED)
            case ErrorReply():
                self._ledger.fault(entry, f"ERROR {message.code}: {message.message}")
                self._ledger.ended(entry, FAILED, message.code)
            case JobReply():  # it goes on, or it had ended when it was to be cancelled
                pass
        return 0.0

    def _rejected(self, entry: Entry, message: Rejected) -> float:
        if message.code in ("queue_full", "storage_full", "unavailable"):
            self._ledger.refusals[f"raw {message.code}"] += 1
            return (message.retry_after_s or NO_HINT_S) + self._rng.random()
        if message.code != "deadline_unreachable":
            self._ledger.fault(entry, f"REJECTED {message.code}: {message.message}")
        self._ledger.ended(entry, REFUSED, message.code)
        return 0.0

    async def _send(self, message: ClientMessage) -> None:
        """Where there is no router, it is sent when it is due again."""
        socket = self._socket
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                await socket.send_multipart(encode(message))
        except asyncio.CancelledError:
            if not socket.closed:  # else it was hung up while this waited
                raise
        except (TimeoutError, zmq.ZMQError):
            self._ledger.broken["raw: nothing to send to"] += 1

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            frames = await socket.recv_multipart()
            message = TO_CLIENT.decode(frames)
            inbox = self._waiting.get(getattr(message, "rid", ""))
            if inbox is not None and message.NAME != b"PROGRESS":
                inbox.put_nowait((message, b"".join(frames[3:])))
