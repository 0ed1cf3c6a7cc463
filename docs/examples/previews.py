"""Keep a picture as it forms: python previews.py "a red circle" circle [ENDPOINT] writes circle-0.jpg … circle.png."""

import sys
from pathlib import Path

import msgpack
import zmq

prompt, name, endpoint = [*sys.argv[1:], "tcp://127.0.0.1:12412"][:3]
socket = zmq.Context.instance().socket(zmq.DEALER)
socket.setsockopt(zmq.LINGER, 0)
socket.connect(endpoint)
ask = {"rid": "1", "job": {"prompt": prompt, "previews": 4}}
socket.send_multipart([b"GS1", b"SUBMIT", msgpack.packb(ask)])
while True:  # client.py shows what a client does that lives through reconnections
    _, kind, header, *payload = socket.recv_multipart()
    answer = msgpack.unpackb(header)
    if kind == b"RESULT":
        Path(f"{name}.{answer['picture']['format']}").write_bytes(b"".join(payload))
        sys.exit()
    if kind == b"PROGRESS" and answer.get("preview"):
        suffix = answer["preview"]["format"].replace("jpeg", "jpg")
        Path(f"{name}-{answer.get('preview_index', 0)}.{suffix}").write_bytes(b"".join(payload))
        print("after step", answer["step"], "of", answer["steps"])
    elif kind not in (b"ACCEPTED", b"PROGRESS"):  # REJECTED, FAILED, CANCELLED, ERROR
        sys.exit(f"{kind.decode()}: {answer}")
