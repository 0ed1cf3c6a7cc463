"""What the clients ask for, by seed; and whether a picture is the one that was ordered. Acts on nothing."""

import random
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gpu_daemon.engine.noop import colour_of

Door = Literal["http-jobs", "http-images", "raw"]
DOORS: Sequence[Door] = ("http-jobs", "raw", "http-images", "raw")  # half of all clients are raw
STEPS = (2, 8)
BURST_SHARE = 0.3  # of the orders come many at once, more than the queue has room for
BURST_ORDERS = 100
BURST_S = 1.0
SIDES = (16, 32, 48, 64, 100, 333)
CANCELLED_SHARE = 0.06
HANGS_UP_SHARE = 0.15
DEADLINE_SHARE = 0.04
DEADLINES_S = (30.0, 60.0, 120.0)
HANGS_UP_AFTER_S = (0.05, 1.5)
CANCELS_AFTER_S = (0.0, 2.0)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Order:
    """One submission of one client."""

    number: int
    client: int
    door: Door
    at_s: float  # when it is sent, from the beginning of the load
    seed: int
    width: int
    height: int
    steps: int
    priority: int
    deadline_s: float | None
    cancel_after_s: float | None  # its client wants it no more
    hang_up_after_s: float | None  # its client goes away, and comes back with the same key

    @property
    def key(self) -> str:
        """The client's name for it."""
        return f"order-{self.number}"

    @property
    def journal_key(self) -> str:
        """The router's name for it: the gateway adds the endpoint."""
        return {"raw": self.key, "http-jobs": f"jobs:{self.key}/0", "http-images": f"images:{self.key}/0"}[self.door]


def make_orders(jobs: int, clients: int, over_s: float, seed: int, *, calm: bool = False) -> list[Order]:
    """`jobs` orders of `clients` clients, spread by chance over `over_s`. `calm`: nobody cancels or hurries."""
    rng = random.Random(f"orders {seed}")
    orders = []
    bursts = [rng.uniform(0, over_s - BURST_S) for _ in range(max(1, round(jobs * BURST_SHARE / BURST_ORDERS)))]
    moments = [
        rng.choice(bursts) + rng.uniform(0, BURST_S)
        if rng.random() < BURST_SHARE and not calm
        else rng.uniform(0, over_s)
        for _ in range(jobs)
    ]
    for number, at_s in enumerate(sorted(moments)):
        client = rng.randrange(clients)
        door = DOORS[client % len(DOORS)]
        chance = 1.0 if calm else rng.random()
        cancels = chance < CANCELLED_SHARE and door != "http-images"
        hurries = CANCELLED_SHARE <= chance < CANCELLED_SHARE + DEADLINE_SHARE
        orders.append(
            Order(
                number=number,
                client=client,
                door=door,
                at_s=at_s,
                seed=rng.randrange(2**40),
                width=rng.choice(SIDES),
                height=rng.choice(SIDES),
                steps=rng.randint(*STEPS),
                priority=rng.choice((0, 0, 0, 0, 5, -5)),
                deadline_s=rng.choice(DEADLINES_S) if hurries else None,
                cancel_after_s=rng.uniform(*CANCELS_AFTER_S) if cancels else None,
                hang_up_after_s=rng.uniform(*HANGS_UP_AFTER_S) if rng.random() < HANGS_UP_SHARE else None,
            )
        )
    return orders


def picture_fault(order: Order, data: bytes) -> str:
    """What is wrong with `data` as the picture of `order`; '' where nothing is."""
    if not data.startswith(_SIGNATURE):
        return f"no PNG: {data[:16]!r}"
    chunks: dict[bytes, bytes] = {}
    at = len(_SIGNATURE)
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        kind, body, check = data[at + 4 : at + 8], data[at + 8 : at + 8 + size], data[at + 8 + size : at + 12 + size]
        if int.from_bytes(check) != zlib.crc32(kind + body) or len(check) != 4:
            return f"its chunk {kind!r} is damaged"
        chunks[kind] = body
        at += 12 + size
    if not {b"IHDR", b"PLTE", b"IDAT", b"IEND"} <= set(chunks):
        return f"it has only {sorted(chunks)}"
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    if (width, height) != (order.width, order.height):
        return f"it is {width}x{height}, not {order.width}x{order.height}"
    if chunks[b"PLTE"] != bytes(colour_of(order.seed)):
        return "it has the colour of another seed"
    if zlib.decompress(chunks[b"IDAT"]) != bytes(1 + (width + 7) // 8) * height:
        return "its pixels are others"
    return ""
