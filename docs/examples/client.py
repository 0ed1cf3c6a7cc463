"""Draw one picture through GenServe's ZeroMQ door: python client.py "a red circle" circle.png [ENDPOINT]."""

import sys
import time
import uuid
from pathlib import Path

import msgpack
import zmq

prompt, path, endpoint = [*sys.argv[1:], "tcp://127.0.0.1:12412"][:3]
socket = zmq.Context.instance().socket(zmq.DEALER)
socket.setsockopt(zmq.LINGER, 0)
socket.connect(endpoint)
ask = (b"SUBMIT", {"rid": "1", "key": uuid.uuid4().hex, "job": {"prompt": prompt}})
while True:
    socket.send_multipart([b"GS1", ask[0], msgpack.packb(ask[1])])
    again_at = time.monotonic() + 5  # SUBMIT until it is accepted, then WATCH, every 5 s
    while (left_s := again_at - time.monotonic()) > 0 and socket.poll(left_s * 1000):
        version, *frames = socket.recv_multipart()
        if version != b"GS1":
            sys.exit(f"what listens at {endpoint} is no router's client port")
        name, header, *payload = frames
        answer = msgpack.unpackb(header)
        if name == b"ACCEPTED":
            ask = (b"WATCH", {"rid": "1", "job_id": answer["job_id"]})
        elif name == b"PROGRESS":
            print(answer["state"], answer["step"], "of", answer["steps"])
        elif name == b"RESULT":
            Path(path).write_bytes(b"".join(payload))
            print(path, "seed", answer["job"]["seed"])
            sys.exit()
        elif name != b"JOB":  # REJECTED, FAILED, CANCELLED, ERROR
            sys.exit(f"{name.decode()}: {answer}")
