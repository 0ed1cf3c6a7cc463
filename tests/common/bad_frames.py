"""Two hundred and more ways to be wrong on the wire, each a list of frames, none of which is a message.

`CLIENT_FRAMES` are for the router's client door, `WORKER_FRAMES` for its daemon door. Every one must be
answered with ERROR and change nothing; those that the transport itself drops are not among them.
"""

from typing import Any

import msgpack

JOB_ID = "0123456789abcdef" * 2
Frames = list[bytes]


def _message(name: bytes, header: Any, *payload: bytes) -> Frames:
    return [b"GS1", name, header if isinstance(header, bytes) else msgpack.packb(header), *payload]


def _submit(**job: Any) -> Frames:
    return _message(b"SUBMIT", {"rid": "r", "job": {"prompt": "x", **job}})


_ENVELOPES: list[Frames] = [
    [b""],
    [b"GS1"],
    [b"GS1", b"PING"],
    [b"", b"", b""],
    [b"GS2", b"PING", msgpack.packb({"rid": "r"})],
    [b"gs1", b"PING", msgpack.packb({"rid": "r"})],
    [b"GS1\x00", b"PING", msgpack.packb({"rid": "r"})],
    [b"", b"GS1", b"PING", msgpack.packb({"rid": "r"})],  # an empty delimiter, as REQ sends it
    [b"\xff" * 1000, b"PING", b"\x80"],
    *[[b"GS1", name, msgpack.packb({"rid": "r"})] for name in (
        b"", b"ping", b"PING ", b"PONG", b"ACCEPTED", b"RESULT", b"DISPATCH", b"WELCOME", b"NOPE", b"S" * 5000,
        b"\x00", b"\xff\xfe", b"SUBMIT\x00", "PÍNG".encode(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    )],
]  # fmt: skip

_HEADERS: list[bytes] = [
    b"",
    b"\xc1",  # never used in msgpack
    b"\xc0",
    b"\x01",
    b"\xa1x",
    b"\x90",
    b"\x80\x80",
    b"\x81",
    b"\x81\xa3rid",
    b"\x81\xa3rid\xa1",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\x91" * 60_000,
    b"\x81\xa1a" * 20_000,
    b"\x81\xa3rid" + b"\x91" * 50_000,
    b"\xc7\x0c\xff" + b"\x00" * 12,
    b"\xd6\xff\x00\x00\x00\x00",
    b"\x81\xa3rid\xa1\xff",
    b"\x82\xa3rid\xa1r\xa3rid\xa1s",
    b"\x81\xa3rid\xa1r\x00",
    msgpack.packb({"rid": "r"}) * 2,
    msgpack.packb({}),
    msgpack.packb({"rid": ""}),
    msgpack.packb({"rid": None}),
    msgpack.packb({"rid": 1}),
    msgpack.packb({"rid": b"r"}),
    msgpack.packb({"rid": ["r"]}),
    msgpack.packb({"rid": {"r": 1}}),
    msgpack.packb({"rid": "r" * 65}),
    msgpack.packb({"RID": "r"}),
    msgpack.packb({1: "r"}),
    msgpack.packb({"rid": "r", "extra": 1}),
    msgpack.packb({"rid": "r", "pad": "x" * 65_536}),
    b'{"rid": "r"}',
    bytes(range(256)),
]

_MANY = [b"x"] * 129
_SHORT_ID = JOB_ID[:-1]
_JOB_NAMES = (b"CANCEL", b"WATCH", b"JOB", b"FETCH")
_BAD_IDS: list[Any] = [
    None,
    1,
    "",
    "x",
    _SHORT_ID,
    JOB_ID + "0",
    JOB_ID.upper(),
    _SHORT_ID + "g",
    "../../etc",
    b"x",
]

_JOBS: list[Frames] = [
    _message(b"SUBMIT", {"rid": "r"}),
    _message(b"SUBMIT", {"job": {"prompt": "x"}}),
    _message(b"SUBMIT", {"rid": "r", "job": None}),
    _message(b"SUBMIT", {"rid": "r", "job": "x"}),
    _message(b"SUBMIT", {"rid": "r", "job": []}),
    _message(b"SUBMIT", {"rid": "r", "job": {}}),
    _message(b"SUBMIT", {"rid": "r", "job": {"prompt": "x"}, "key": 5}),
    _message(b"SUBMIT", {"rid": "r", "job": {"prompt": "x"}, "key": "k" * 129}),
    _message(b"SUBMIT", {"rid": "r", "job": {"prompt": "x"}, "ownr": "somebody"}),
    _message(b"SUBMIT", {"rid": "r", "job": {"prompt": "x"}, "owner": "o" * 129}),
    _message(b"SUBMIT", {"rid": "r", "job": {"prompt": "x", "owner": "somebody"}}),
    _message(b"SUBMIT", {"rid": "r", "job": {"prompt": "x"}}, b"payload"),
    _submit(prompt=""), _submit(prompt=None), _submit(prompt=7), _submit(prompt=b"x"), _submit(prompt=["x"]),
    _submit(prompt="x" * 8001), _submit(negative_prompt="x" * 4001), _submit(negative_prompt=None),
    _submit(model=None), _submit(model=3), _submit(model="m" * 129),
    _submit(width=-1), _submit(width=16385), _submit(width=1.5), _submit(width="512"), _submit(width=True),
    _submit(height=-16), _submit(height=2**31), _submit(height=2**63), _submit(height=None),
    _submit(steps=-1), _submit(steps=1001), _submit(steps=2.5), _submit(steps="4"), _submit(steps=2**64 - 1),
    _submit(guidance_scale=-0.1), _submit(guidance_scale=101), _submit(guidance_scale="3"),
    _submit(guidance_scale=float("nan")), _submit(guidance_scale=float("inf")), _submit(guidance_scale=[]),
    _submit(true_cfg_scale=0.5), _submit(true_cfg_scale=float("-inf")), _submit(true_cfg_scale=False),
    _submit(seed=-1), _submit(seed=2**63), _submit(seed=1.0), _submit(seed="42"), _submit(seed=True),
    _submit(priority=-11), _submit(priority=11), _submit(priority=0.5), _submit(priority=None),
    _submit(client="c" * 129), _submit(client=1), _submit(save=1), _submit(save="yes"), _submit(save="/etc/passwd"),
    _submit(save_path="/etc/passwd"), _submit(n=2), _submit(size="64x64"), _submit(Prompt="x"),
]  # fmt: skip

CLIENT_FRAMES: list[Frames] = [
    *_ENVELOPES,
    *[_message(name, header) for name in (b"PING", b"SUBMIT") for header in _HEADERS],
    *[_message(name, {"rid": "r", "job_id": bad}) for name in _JOB_NAMES for bad in _BAD_IDS],
    *[_message(name, {"rid": "r"}) for name in _JOB_NAMES],
    *_JOBS,
    _message(b"PING", {"rid": "r"}, b"payload"),
    _message(b"PING", {"rid": "r"}, *[b""] * 500),
    _message(b"STATUS", {"rid": "r", "workers_from": -1}),
    _message(b"STATUS", {"rid": "r", "workers_from": "0"}),
    _message(b"STATUS", {"rid": "r", "owner": 1}),
    _message(b"KEYS", {"rid": "r", "keys_from": -1}),
]

_TOKEN = {"job_id": JOB_ID, "dispatch": 1}
_REGISTER: dict[str, Any] = {
    "worker_id": "w", "boot_id": "b", "nonce": "n", "host": "h", "device": {"device": "cpu", "kind": "cpu"},
    "models": [{"name": "m"}],
}  # fmt: skip
_PICTURE = {
    "format": "png", "width": 1, "height": 1, "drawn_width": 1, "drawn_height": 1, "bytes": 3, "sha256": "0" * 64
}  # fmt: skip

WORKER_FRAMES: list[Frames] = [
    *_ENVELOPES[:9],
    *[_message(b"HEARTBEAT", header) for header in _HEADERS],
    *[_message(b"REGISTER", {**_REGISTER, **wrong}) for wrong in (
        {"worker_id": ""}, {"worker_id": "w" * 129}, {"device": None}, {"device": {"device": "x", "kind": "tpu"}},
        {"models": []}, {"models": [{}]}, {"models": [{"name": "../x"}]}, {"models": [{"name": "m", "width": 0}]},
        {"models": [{"name": "m"}] * 17}, {"tokens": [_TOKEN]}, {"tokens": [{"token": _TOKEN, "stage": "lost"}]},
        {"tokens": [{"token": _TOKEN, "stage": "ended"}] * 65}, {"nonce": 1}, {"boot_id": None},
    )],
    _message(b"CREDIT", {"granted_total": 1}),
    _message(b"CREDIT", {"epoch": 1, "granted_total": -1}),
    _message(b"CREDIT", {"epoch": -1, "granted_total": 1}),
    _message(b"STARTED", {"epoch": 1, "token": {"job_id": JOB_ID, "dispatch": 0}}),
    _message(b"STARTED", {"epoch": 1, "token": JOB_ID}),
    _message(b"PROGRESS", {"epoch": 1, "token": _TOKEN, "step": -1, "steps": 1}),
    _message(b"PROGRESS", {"epoch": 1, "token": _TOKEN, "step": 1, "steps": 0}),
    _message(b"PROGRESS", {"epoch": 1, "token": _TOKEN, "step": 1, "steps": 1, "step_s": float("nan")}),
    _message(b"DONE", {"epoch": 1, "token": _TOKEN, "picture": _PICTURE, "parts": [3], "timings": {}}),
    _message(b"DONE", {"epoch": 1, "token": _TOKEN, "picture": _PICTURE, "parts": [4], "timings": {}}, b"abc"),
    _message(b"DONE", {"epoch": 1, "token": _TOKEN, "picture": _PICTURE, "parts": [], "timings": {}}, b"abc"),
    _message(b"DONE", {"epoch": 1, "token": _TOKEN, "picture": {}, "parts": [3], "timings": {}}, b"abc"),
    _message(b"DONE", {"epoch": 1, "token": _TOKEN, "picture": _PICTURE, "parts": [0], "timings": {}}, b""),
    _message(b"DONE", {"epoch": 1, "token": _TOKEN, "picture": _PICTURE, "parts": [1] * 129, "timings": {}}, *_MANY),
    _message(b"FAIL", {"epoch": 1, "token": _TOKEN, "code": "x" * 129, "message": "m"}),
    _message(b"FAIL", {"epoch": 1, "token": _TOKEN, "code": "x", "message": "m" * 4001}),
    _message(b"HEARTBEAT", {"epoch": 1, "state": "sleepy"}),
    _message(b"HEARTBEAT", {"epoch": 1, "state": "ready", "load": {"allocated_mb": -1}}),
    _message(b"SUBMIT", {"rid": "r", "job": {"prompt": "x"}}),
    _message(b"DISPATCH", {"epoch": 1}),
]  # fmt: skip
