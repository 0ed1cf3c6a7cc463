"""Messages made wrong: in their values, their bytes, their frames. By chance, and by seed.

Pure. Some of what comes out is still valid: nobody promises that it is not.
"""

import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, cast

import msgpack

from common.messages import CLIENT_TO_ROUTER, ROUTER_TO_CLIENT, ROUTER_TO_WORKER, WORKER_TO_ROUTER
from tests.fuzz.grammar import LONG, Said

Frames = list[bytes]
NAMES = sorted({*CLIENT_TO_ROUTER, *ROUTER_TO_CLIENT, *ROUTER_TO_WORKER, *WORKER_TO_ROUTER})
HEADER_BYTES_MAX = 64 * 1024
FRAMES_ADDED_MAX = 200


class Raw(bytes):
    """Bytes that stand in a header as they are."""


class Pairs(list[tuple[Any, Any]]):
    """A map whose keys may repeat."""


STRINGS = (
    "", "x", "x" * 129, "x" * 4001, "x" * 65_400, "x" * HEADER_BYTES_MAX, LONG * 128, LONG * 4000, LONG * 16_000, "\0",
    "a\nb", "../x", "\x1b[2J", "0" * 32, "g" * 32, "ready", "NaN", "null", "$(id)", "é" * 64,
)  # fmt: skip
NUMBERS = (
    -1, 0, 1, 2, 127, 128, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**31),
    -(2**63), 0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"), 1e9, 1e9 + 1,
)  # fmt: skip
RAW = (
    Raw(b"\xc1"),  # never used in msgpack
    Raw(b"\xc7\x0c\xff" + bytes(12)),  # a timestamp
    Raw(b"\xd4\x05x"),  # an extension
    Raw(b"\xc9\xff\xff\xff\xff\x01"),  # an extension of four gigabytes, of which nothing comes
    Raw(b"\xdd\xff\xff\xff\xff"),  # an array of four milliards
    Raw(b"\xdf\xff\xff\xff\xff"),  # a map of as many
    Raw(b"\xdb\xff\xff\xff\xff"),  # a string of four gigabytes
    Raw(b"\xa1\xff"),  # no Unicode
    Raw(b"\xa3\xed\xa0\x80"),  # half of a surrogate pair
    Raw(b"\x91" * 20_000 + b"\xc0"),  # deep
    Raw(b"\x81\xa1a" * 10_000 + b"\xc0"),
    Raw(b"\xdc\xff\xf0" + b"\x90" * 0xFFF0),  # wide
    Raw(b"\xdc\x75\x30" + b"\xc0" * 0x7530),
)
OTHERS: tuple[Any, ...] = (None, True, False, b"", b"x" * 300, [], {}, [[]], {"": None}, [0] * 1000, {"a": {"b": {}}})


def pack(value: Any) -> bytes:
    """msgpack, with what no packer would write."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, Pairs | dict):
        items = list(value if isinstance(value, Pairs) else value.items())
        head = bytes([0x80 | len(items)]) if len(items) < 16 else b"\xde" + len(items).to_bytes(2, "big")
        return head + b"".join(pack(key) + pack(each) for key, each in items)
    if isinstance(value, list | tuple):
        head = bytes([0x90 | len(value)]) if len(value) < 16 else b"\xdc" + len(value).to_bytes(2, "big")
        return head + b"".join(map(pack, value))
    packed: bytes = msgpack.packb(value)
    return packed


def frames_of(said: Said) -> Frames:
    """The message as it should be."""
    return [b"GS1", said.name, msgpack.packb(said.header), *said.payload]


def mutated(chance: random.Random, said: Said) -> Frames:
    """The message, made wrong in one way, or in a few."""
    kind = chance.random()
    if kind < 0.5:
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            _change_value(chance, said)
        frames = [b"GS1", said.name, pack(said.header), *said.payload]
    else:
        frames = frames_of(said)
    if kind >= 0.45:
        for _ in range(chance.choice((1, 1, 2))):
            change = chance.choice(_BYTE_CHANGES) if kind < 0.8 else chance.choice(_FRAME_CHANGES)
            change(chance, frames)
    return frames


# --- values --------------------------------------------------------------------------------------


def _value(chance: random.Random) -> Any:
    return deepcopy(chance.choice(chance.choice((STRINGS, NUMBERS, NUMBERS, RAW, OTHERS))))  # it may be changed later


def _change_value(chance: random.Random, said: Said) -> None:
    """Some field, however deep: replaced, left out, added, named otherwise or twice."""
    holder: Any = said.header
    if not isinstance(holder, dict):
        return
    where = _some_place(chance, holder)
    if where is None:
        holder[chance.choice(STRINGS[:6])] = _value(chance)
        return
    holder, key = where
    match chance.randrange(10):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[chance.choice(("extra", "", "epoch", "rid", "RID", "token", "job", 1, None))] = _value(chance)
        case 2 if isinstance(holder, dict):
            holder[chance.choice((f"{key}_", str(key).upper(), "", "x" * 70))] = holder.pop(key)
        case 3 if holder is said.header:
            twice = [(key, holder[key]), (key, _value(chance))]
            said.header = cast(dict[str, Any], Pairs([*[(k, v) for k, v in holder.items() if k != key], *twice]))
        case 4:
            holder[key] = chance.choice(([holder[key]], {str(key): holder[key]}, [holder[key]] * 100, str(holder[key])))
        case 5 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] += chance.choice((-1, 1, 2**31, 0.5, -(2**31)))
            if isinstance(holder[key], int):
                holder[key] = max(-(2**63), min(2**64 - 1, holder[key]))
        case _:
            holder[key] = _value(chance)


def _some_place(chance: random.Random, header: dict[str, Any]) -> tuple[Any, Any] | None:
    holder: Any = header
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return None
        key = chance.choice(keys)
        inner = holder[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.7:
            holder = inner
            continue
        return holder, key


# --- bytes ---------------------------------------------------------------------------------------


def _of_some_frame(change: Callable[[random.Random, bytes], bytes]) -> Callable[[random.Random, Frames], None]:
    def of_frames(chance: random.Random, frames: Frames) -> None:
        if frames:
            at = 2 if len(frames) > 2 and chance.random() < 0.8 else chance.randrange(len(frames))
            frames[at] = change(chance, frames[at])

    return of_frames


def _flip(chance: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\x01"
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 3, 10))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _behead(chance: random.Random, data: bytes) -> bytes:
    return data[chance.randrange(len(data) + 1) :]


def _insert(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice((b"\0", b"\xc1", chance.randbytes(4), bytes(chance.choice(RAW)), data)) + data[at:]


def _append(chance: random.Random, data: bytes) -> bytes:
    return data + chance.choice((b"\0", b"\xc0", data, chance.randbytes(16), b"x" * HEADER_BYTES_MAX))


def _replace(chance: random.Random, data: bytes) -> bytes:
    return chance.choice((b"", chance.randbytes(len(data)), chance.randbytes(3), b"{}", bytes(chance.choice(RAW))))


_BYTE_CHANGES: Sequence[Callable[[random.Random, Frames], None]] = [
    _of_some_frame(change) for change in (_flip, _flip, _flip, _cut, _behead, _insert, _append, _replace)
]


# --- frames --------------------------------------------------------------------------------------


def _drop(chance: random.Random, frames: Frames) -> None:
    if len(frames) > 1:
        del frames[chance.randrange(len(frames))]


def _truncate(chance: random.Random, frames: Frames) -> None:
    del frames[chance.randrange(1, len(frames) + 1) :]


def _double(chance: random.Random, frames: Frames) -> None:
    at = chance.randrange(len(frames))
    frames.insert(at, frames[at])


def _swap(chance: random.Random, frames: Frames) -> None:
    a, b = chance.randrange(len(frames)), chance.randrange(len(frames))
    frames[a], frames[b] = frames[b], frames[a]


def _delimit(_: random.Random, frames: Frames) -> None:
    frames.insert(0, b"")


def _add(chance: random.Random, frames: Frames) -> None:
    frame = chance.choice((b"", b"x", b"x" * 5000, chance.randbytes(8)))
    frames.extend([frame] * chance.choice((1, 1, 2, 128, FRAMES_ADDED_MAX if len(frame) < 100 else 3)))


def _rename(chance: random.Random, frames: Frames) -> None:
    odd = (b"", b"S" * 5000, b"SUBMIT\0", b"\xff\xfe", b"ping", b"GET / HTTP/1.1\r\n\r\n")
    if len(frames) > 1:
        frames[1] = chance.choice(NAMES) if chance.random() < 0.8 else chance.choice(odd)


def _other_version(chance: random.Random, frames: Frames) -> None:
    frames[0] = chance.choice((b"GS2", b"gs1", b"", b"GS1\0", b"GS", b"\xff" * 1000))


_FRAME_CHANGES: Sequence[Callable[[random.Random, Frames], None]] = [
    _drop, _truncate, _double, _swap, _delimit, _add, _rename, _rename, _other_version
]  # fmt: skip
