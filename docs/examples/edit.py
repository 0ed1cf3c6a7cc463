"""Change a part of a picture: python edit.py "a blue square" image.png mask.png out.png [ENDPOINT] (PNG files)."""

import hashlib
import sys
from pathlib import Path

import msgpack
import zmq

FRAME_BYTES = 524288
prompt, *paths, out, endpoint = [*sys.argv[1:], "tcp://127.0.0.1:12412"][:5]
inputs, frames = [], []
for kind, path in zip(("image", "mask"), paths, strict=True):
    data = Path(path).read_bytes()
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")  # as a PNG begins
    size = {"format": "png", "width": width, "height": height, "bytes": len(data)}
    inputs.append({"kind": kind, **size, "sha256": hashlib.sha256(data).hexdigest()})
    frames += [data[at : at + FRAME_BYTES] for at in range(0, len(data), FRAME_BYTES)]

socket = zmq.Context.instance().socket(zmq.DEALER)
socket.setsockopt(zmq.LINGER, 0)
socket.connect(endpoint)
ask = {"rid": "1", "job": {"prompt": prompt, "inputs": inputs}, "parts": [len(frame) for frame in frames]}
socket.send_multipart([b"GS1", b"SUBMIT", msgpack.packb(ask), *frames])
while True:  # client.py shows what a client does that lives through reconnections
    _, name, header, *payload = socket.recv_multipart()
    if name == b"RESULT":
        Path(out).write_bytes(b"".join(payload))
        sys.exit()
    if name not in (b"ACCEPTED", b"PROGRESS"):  # REJECTED, FAILED, CANCELLED, ERROR
        sys.exit(f"{name.decode()}: {msgpack.unpackb(header)}")
