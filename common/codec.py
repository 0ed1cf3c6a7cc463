"""Frames to messages and back.

Pure. A message is `[b"GS1", NAME, header, payload…]`. Version, name, frame count and sizes are checked
before anything is decoded, and a header is decoded straight into its typed struct. Whatever is wrong
with frames from outside raises ProtocolError and nothing else.

Headers are msgpack; msgspec reads and writes them, and a test has the msgpack package read what it writes.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import TypeAlias, TypeVar

import msgpack
import msgspec

from common.errors import ProtocolError
from common.messages import (
    CLIENT_TO_ROUTER,
    ROUTER_TO_CLIENT,
    ROUTER_TO_WORKER,
    WORKER_TO_ROUTER,
    Message,
    Rid,
)
from common.text import clip

VERSION = b"GS1"
HEADER_BYTES_MAX = 64 * 1024
PART_BYTES_MAX = 512 * 1024
PARTS_MAX = 128
PAYLOAD_BYTES_MAX = PART_BYTES_MAX * PARTS_MAX
WHY_BYTES_MAX = 500  # of a decoder's own words, which may repeat what it was given
HEAD_FRAMES = 3  # before the payload

Buffer: TypeAlias = bytes | memoryview
B = TypeVar("B", bound=Sized)


class _RidOnly(msgspec.Struct):
    rid: Rid = ""


_encoder = msgspec.msgpack.Encoder()
_rid_decoder = msgspec.msgpack.Decoder(_RidOnly)


class Direction:
    """The messages that one side of one kind of connection may send."""

    def __init__(self, name: str, types: Mapping[bytes, type[Message]], *, strict: bool = False) -> None:
        """`name` completes "no message X …"; `strict` also refuses a key given twice in one map."""
        self.name = name
        self._strict = strict
        self._decoders = {wire: msgspec.msgpack.Decoder(type_) for wire, type_ in types.items()}

    def decode(self, frames: Sequence[Buffer]) -> Message:
        """The message in `frames`; its payload is `frames[3:]`, already held to its `parts`."""
        if len(frames) < HEAD_FRAMES:
            raise ProtocolError(f"expected [GS1, NAME, header, payload…], got {len(frames)} frames")
        if frames[0] != VERSION:
            raise ProtocolError(f"expected the version frame {VERSION.decode()!r}, got {_show(frames[0])}")
        decoder = self._decoders.get(bytes(frames[1][:32]))
        if decoder is None:
            known = ", ".join(sorted(name.decode() for name in self._decoders))
            raise ProtocolError(f"no message {_show(frames[1])} {self.name}; there are {known}", rid=_rid_of(frames[2]))
        if len(frames[2]) > HEADER_BYTES_MAX:
            raise ProtocolError(f"the header has {len(frames[2])} bytes; at most {HEADER_BYTES_MAX} are allowed")
        message = _decode(decoder, frames[2])
        if self._strict:
            _refuse_repeated_keys(frames[2])
        _check_payload(message, frames[HEAD_FRAMES:])
        return message


FROM_CLIENT = Direction("from a client", CLIENT_TO_ROUTER, strict=True)
TO_CLIENT = Direction("to a client", ROUTER_TO_CLIENT)
FROM_WORKER = Direction("from a daemon", WORKER_TO_ROUTER)
TO_WORKER = Direction("to a daemon", ROUTER_TO_WORKER)


def encode(message: Message, payload: Sequence[Buffer] = ()) -> list[Buffer]:
    """The frames of a message. Raises ProtocolError where its header is too long for the wire."""
    try:
        header = _encoder.encode(message)
    except UnicodeEncodeError as error:
        raise ProtocolError(f"{message.NAME.decode()} holds text that is not valid Unicode: {error.reason}") from None
    if len(header) > HEADER_BYTES_MAX:
        raise ProtocolError(
            f"the header of {message.NAME.decode()} has {len(header)} bytes; at most {HEADER_BYTES_MAX} are allowed"
        )
    _check_payload(message, payload)
    return [VERSION, message.NAME, header, *payload]


def split_payload(data: Buffer) -> list[memoryview]:
    """`data` in frames short enough for the wire, without copying. Raises ProtocolError if too long."""
    if len(data) > PAYLOAD_BYTES_MAX:
        raise ProtocolError(f"a payload of {len(data)} bytes; at most {PAYLOAD_BYTES_MAX} are allowed")
    view = memoryview(data)
    return [view[at : at + PART_BYTES_MAX] for at in range(0, len(view), PART_BYTES_MAX)]


def input_parts(sizes: Iterable[int]) -> tuple[int, ...]:
    """The `parts` of files of these sizes, one after the other, each beginning with a new frame."""
    return tuple(min(PART_BYTES_MAX, size - at) for size in sizes for at in range(0, size, PART_BYTES_MAX))


def cut(data: memoryview, parts: Iterable[int]) -> list[memoryview]:
    """`data` in frames of these sizes, without copying."""
    frames, at = [], 0
    for size in parts:
        frames.append(data[at : at + size])
        at += size
    return frames


def divide(payload: Sequence[B], sizes: Iterable[int]) -> list[list[B]]:
    """The frames of each of the files of these sizes. Raises ProtocolError where one does not end with a frame."""
    left, divided = list(payload), list[list[B]]()
    for size in sizes:
        frames: list[B] = []
        while left and sum(map(len, frames)) < size:
            frames.append(left.pop(0))
        if (there := sum(map(len, frames))) != size:
            raise ProtocolError(f"input {len(divided)} has {there} bytes in whole frames where {size} are declared")
        divided.append(frames)
    if left:
        raise ProtocolError(f"{len(left)} frames more than the {len(divided)} inputs declare")
    return divided


def part_sizes(payload: Sequence[Buffer]) -> tuple[int, ...]:
    """The `parts` field for a payload."""
    return tuple(len(part) for part in payload)


def _decode(decoder: msgspec.msgpack.Decoder[Message], header: Buffer) -> Message:
    try:
        return decoder.decode(header)
    except msgspec.ValidationError as error:
        raise ProtocolError(
            f"the header does not fit: {clip(str(error), WHY_BYTES_MAX)}", rid=_rid_of(header)
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the header is not one msgpack map: {clip(str(error), WHY_BYTES_MAX)}") from None
    except (RecursionError, ValueError, OverflowError, MemoryError) as error:
        raise ProtocolError(f"the header cannot be read: {type(error).__name__}") from None


def _rid_of(header: Buffer) -> str:
    """The request's name, where at least that could be read."""
    if len(header) > HEADER_BYTES_MAX:
        return ""
    try:
        return _rid_decoder.decode(header).rid
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""


def _refuse_repeated_keys(header: Buffer) -> None:
    def pairs(items: list[tuple[str, object]]) -> None:
        if len({key for key, _ in items}) != len(items):
            raise ProtocolError("the header names a key twice")

    try:
        msgpack.unpackb(header, object_pairs_hook=pairs)
    except (
        ValueError,
        TypeError,
        RecursionError,
        msgpack.UnpackException,
    ) as error:  # in what nobody decodes: see ERROR
        raise ProtocolError(f"the header cannot be read: {type(error).__name__}") from None


def _check_payload(message: Message, payload: Sequence[Buffer]) -> None:
    declared: Sequence[int] = getattr(message, "parts", ())
    if not payload and not declared:  # nearly always
        return
    if len(payload) != len(declared) or any(len(part) != size for part, size in zip(payload, declared, strict=True)):
        raise ProtocolError(
            f"{message.NAME.decode()} declares payload parts of {list(declared)} bytes "
            f"but carries {[len(part) for part in payload[:PARTS_MAX]]}",
            rid=getattr(message, "rid", ""),
        )


def _show(frame: Buffer) -> str:
    return repr(bytes(frame[:32])) + ("…" if len(frame) > 32 else "")
