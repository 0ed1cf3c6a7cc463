"""Below ZeroMQ's messages: bytes on TCP that are no ZMTP, nearly ZMTP, or ZMTP that goes wrong.

Mostly libzmq's business; what matters is that the process lives and goes on answering others.
"""

import random
import socket
import struct
from contextlib import suppress

CONNECTIONS = 12  # at a time
READ_WITHIN_S = 0.02
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)


def raw_connections(chance: random.Random, endpoint: str) -> int:
    """Make some, say something wrong on each, and drop them in disorder; how many."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    opened = []
    for _ in range(CONNECTIONS):
        peer = socket.create_connection((host, int(port)), timeout=5)
        peer.settimeout(READ_WITHIN_S)
        with suppress(OSError):  # it may be dropped at any byte
            for piece in raw_bytes(chance):
                peer.sendall(piece)
        with suppress(OSError):
            peer.recv(4096)
        opened.append(peer)
    chance.shuffle(opened)
    for peer in opened:
        if chance.random() < 0.5:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no goodbye
        peer.close()
    return len(opened)


def raw_bytes(chance: random.Random) -> list[bytes]:
    """What one connection says, in pieces."""
    kind = chance.randrange(8)
    if kind == 0:
        return [chance.randbytes(chance.choice((1, 10, 64, 1000, 100_000)))]
    if kind == 1:
        return [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    greeting = bytearray(GREETING)
    if kind == 2:
        for _ in range(chance.choice((1, 3))):
            greeting[chance.randrange(len(greeting))] ^= 1 << chance.randrange(8)
        return [bytes(greeting), _ready()]
    if kind == 3:
        return [bytes(greeting[: chance.randrange(64)])]
    if kind == 4:
        return [bytes(greeting), _command(chance.choice((b"READY", b"ERROR", b"PING", b"NOPE")), chance.randbytes(40))]
    traffic = b"".join(_frame(chance) for _ in range(chance.randrange(1, 12)))
    if chance.random() < 0.5:
        changed = bytearray(traffic)
        for _ in range(chance.choice((1, 2, 8))):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        traffic = bytes(changed)
    return [bytes(greeting), _ready(), traffic[: chance.randrange(1, len(traffic) + 1)]]


def _ready() -> bytes:
    kind, identity = b"DEALER", b""
    properties = b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    properties += b"\x08Identity" + struct.pack(">I", len(identity)) + identity
    return _command(b"READY", properties)


def _command(name: bytes, body: bytes) -> bytes:
    data = bytes([len(name)]) + name + body
    return b"\x04" + bytes([len(data)]) + data if len(data) < 256 else b"\x06" + struct.pack(">Q", len(data)) + data


def _frame(chance: random.Random) -> bytes:
    """One frame: of a message, a command, or of a length that never comes."""
    kind = chance.randrange(6)
    if kind == 0:
        return b"\x02" + struct.pack(">Q", chance.choice((2**63, 2**64 - 1, 10**9, 600_000, 0)))
    if kind == 1:
        return _command(b"PING", struct.pack(">H", chance.choice((0, 1, 65535))) + b"context")
    if kind == 2:
        return bytes([chance.choice((0x08, 0xF0, 0x05, 0x07)), 3]) + b"abc"
    more = chance.choice((0, 1))
    data = chance.choice((b"GS1", b"PING", b"\x81\xa3rid\xa1r", b"", chance.randbytes(200)))
    return bytes([more, len(data)]) + data
