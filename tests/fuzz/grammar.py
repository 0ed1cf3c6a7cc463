"""Valid messages of every kind, said by somebody who knows where the conversation stands.

Pure. A message is a Said: its name, its header as plain values and its payload, so that whoever mutates it can get at
each field. `Known` is what the speaker has picked up: epochs, tokens, jobs, and also lies that were true once.
"""

import hashlib
import random
import struct
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MODELS = ("fuzz", "fuzz-2", "fuzz/3")
REMEMBERED_MAX = 40  # tokens, jobs and epochs each: the newest
PART_BYTES_MAX = 512 * 1024
LONG = "🦊"  # four bytes a character: what is counted in characters is four times as long on the wire


@dataclass
class Said:
    """One message, not yet packed."""

    name: bytes
    header: dict[str, Any]
    payload: list[bytes] = field(default_factory=list)


def _recent() -> deque[Any]:
    return deque(maxlen=REMEMBERED_MAX)


@dataclass
class Known:
    """What one speaker knows. `own` tokens are those that were given to it."""

    name: str = "fuzz-0"
    boot_id: str = "b"
    nonce: str = ""
    epoch: int = 1
    granted: int = 0
    jobs: deque[str] = field(default_factory=_recent)
    tokens: deque[dict[str, Any]] = field(default_factory=_recent)
    own: deque[dict[str, Any]] = field(default_factory=_recent)
    epochs: deque[int] = field(default_factory=_recent)
    workers: tuple[str, ...] = ("fuzz-0", "fuzz-1")
    long: float = 0.05  # how often a text is as long as it may be

    def job(self, chance: random.Random) -> str:
        """A job's id: mostly one that is, else one that never was."""
        return chance.choice(self.jobs) if self.jobs and chance.random() < 0.9 else f"{chance.getrandbits(128):032x}"

    def token(self, chance: random.Random) -> dict[str, Any]:
        """A token: mostly an own one, else another's, a stale one, one of the future, or none that ever was."""
        where = self.own if self.own and chance.random() < 0.75 else self.tokens
        if not where or chance.random() < 0.05:
            return {"job_id": self.job(chance), "dispatch": chance.choice((1, 2, 2**31))}
        token = dict(chance.choice(where) if chance.random() < 0.5 else where[-1])
        if chance.random() < 0.06:
            token["dispatch"] = max(1, min(2**31, token["dispatch"] + chance.choice((-1, 1, 1000))))
        return token

    def text(self, chance: random.Random, usual: str, chars_max: int) -> str:
        """A text, now and then the longest that there may be."""
        return usual + LONG * (chars_max - len(usual)) if chance.random() < self.long else usual

    def some_epoch(self, chance: random.Random) -> int:
        """The present epoch, now and then one that is over or never was."""
        if chance.random() < 0.9:
            return self.epoch
        return chance.choice((*self.epochs, 0, self.epoch + 1, max(0, self.epoch - 1), 2**53))


# --- client -> router ----------------------------------------------------------------------------


def client_message(chance: random.Random, known: Known) -> Said:
    """What a client may say."""
    rid = f"r{chance.randrange(50)}"
    name = chance.choices(
        (
            b"SUBMIT",
            b"CANCEL",
            b"WATCH",
            b"JOB",
            b"FETCH",
            b"DEAD_LETTERS",
            b"JOBS",
            b"REQUEUE",
            b"STATUS",
            b"KEYS",
            b"PING",
            b"ERROR",
        ),
        (30, 6, 10, 10, 10, 3, 4, 4, 3, 2, 5, 2),
    )[0]
    if name == b"SUBMIT":
        header: dict[str, Any] = {"rid": rid, "job": job_spec(chance)}
        payload = starting_from(chance, header["job"]) if chance.random() < 0.1 else []
        if payload:
            header["parts"] = [len(part) for part in payload]
        if chance.random() < 0.1:
            header["terms"] = chance.choice((None, {"weight": 2.0}, {"jobs_max": 1}, {"gpu_seconds_per_minute": 0.5}))
        if chance.random() < 0.2:
            header["key"] = f"key-{chance.randrange(12)}"
        if chance.random() < 0.05:
            header["digest"] = chance.choice(("", "d" * 64))
        return Said(name, header, payload)
    if name == b"ERROR":
        return Said(name, {"code": "protocol_error", "message": "what?"})
    header = {"rid": rid}
    if name in (b"CANCEL", b"WATCH", b"JOB", b"FETCH", b"REQUEUE"):
        header["job_id"] = known.job(chance)
    elif name == b"DEAD_LETTERS":
        header["letters_from"] = chance.choice((0, 0, 1, 8, 2**53))
    elif name == b"JOBS":
        header["before"] = chance.choice((0, 0, 1, 8, 2**53))
        header["states"] = chance.choice(((), (), ("queued",), ("done", "failed", "done")))
    elif name == b"STATUS":
        header["workers_from"] = chance.choice((0, 0, 48, 2**53))
    elif name == b"KEYS":
        header["keys_from"] = chance.choice((0, 0, 256, 2**53))
    if name not in (b"KEYS", b"PING") and chance.random() < 0.05:
        header["owner"] = chance.choice(("", "alice", "*", "o" * 128))
    return Said(name, header)


def job_spec(chance: random.Random) -> dict[str, Any]:
    """A picture as it may be asked for; mostly one that some model draws."""
    spec: dict[str, Any] = {"prompt": chance.choice(("a red square", "", "x" * 8000, LONG * 8000, "\0\x1b[2J", "红"))}
    if chance.random() < 0.7:
        spec["prompt"] = "a red square"
    optional: dict[str, tuple[Any, ...]] = {
        "model": ("", *MODELS, "no-such"), "width": (64, 64, 65, 16384), "height": (64, 64, 16384, 0),
        "steps": (1, 4, 1000), "guidance_scale": (None, 0.0, 3.5, 100), "true_cfg_scale": (1, 2.0, 100),
        "negative_prompt": ("", "blur", LONG * 4000), "seed": (0, 2**63 - 1, None), "priority": (-10, 0, 10),
        "client": ("", "studio", LONG * 128, "a\nb\x1b[31m"), "save": (False,), "deadline_s": (None, 1e-9, 30.0, 1e7),
        "format": ("png", "jpeg", "webp"), "quality": (None, 1, 100), "previews": (0, 1, 20),
        "strength": (None, None, None, 0.5),
    }  # fmt: skip
    for name, values in optional.items():
        if chance.random() < 0.15:
            spec[name] = chance.choice(values)
    return spec


def starting_from(chance: random.Random, job: dict[str, Any]) -> list[bytes]:
    """Give a job inputs; the frames of their files. What is said of them may be wrong, and the files too."""
    kinds = chance.choice((("image",), ("image",), ("image", "mask"), ("image", "mask"), ("mask",), ("image",) * 16))
    side = chance.choice((64, 64, 48, 4000))
    job["inputs"], frames = [], []
    for kind in kinds:
        data = drawing(side, side, chance.randrange(256))
        if chance.random() < 0.02:
            data += bytes(PART_BYTES_MAX)
        told = {"kind": kind, "format": "png", "width": side, "height": side, "bytes": len(data)}
        told["sha256"] = hashlib.sha256(data).hexdigest()
        if chance.random() < 0.1:
            lies = (("width", 65), ("sha256", "0" * 64), ("format", "webp"), ("kind", "mask"), ("bytes", len(data) + 1))
            told |= (chance.choice(lies),)
        if chance.random() < 0.03:
            data = data[:20] + bytes(len(data) - 20)
        job["inputs"].append(told)
        frames += [data[at : at + PART_BYTES_MAX] for at in range(0, len(data), PART_BYTES_MAX)]
    if chance.random() < 0.5:
        job["strength"] = chance.choice((1e-9, 0.3, 1.0))
    return frames


def drawing(width: int, height: int, grey: int) -> bytes:
    """A PNG of one bit a pixel, all of it one grey."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)) + chunk(b"PLTE", bytes([grey]) * 3)
    pixels = zlib.compress(bytes(1 + (width + 7) // 8) * height)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


# --- daemon -> router ----------------------------------------------------------------------------


def worker_message(chance: random.Random, known: Known) -> Said:
    """What a daemon may say."""
    name = chance.choices(
        (b"REGISTER", b"CREDIT", b"STARTED", b"PROGRESS", b"DONE", b"FAIL", b"RETURNED", b"HEARTBEAT", b"DRAINING",
         b"BYE", b"ERROR"),
        (6, 16, 14, 12, 22, 12, 6, 14, 1, 1, 2),
    )[0]  # fmt: skip
    if name == b"REGISTER":
        return register(chance, known)
    if name == b"ERROR":
        return Said(name, {"code": "protocol_error", "message": "what?"})
    header: dict[str, Any] = {"epoch": known.some_epoch(chance)}
    match name:
        case b"CREDIT":
            known.granted += 1
            header["granted_total"] = chance.choice((known.granted, known.granted, 0, known.granted + 2))
        case b"STARTED":
            header["token"] = known.token(chance)
        case b"PROGRESS":
            header |= {"token": known.token(chance), "step": chance.choice((0, 1, 4, 1000)), "steps": 4}
            header["step_s"] = chance.choice((0.0, 0.01, 0.2, 1e9, 5e-324))
            if chance.random() < 0.3:
                parts = [bytes([chance.randrange(256)]) * chance.choice((1, 300, 5000))] * chance.choice((1, 1, 2, 0))
                header |= {"preview": picture(parts), "preview_index": chance.randrange(20)}
                header["parts"] = [len(part) for part in parts]
                return Said(name, header, parts)
        case b"DONE":
            return done(chance, known, header)
        case b"FAIL":
            codes = (
                *["engine_died"] * 4,
                "engine_error",
                "out_of_memory",
                "invalid_request",
                "no such code",
                "job_timeout",
            )
            header |= {"token": known.token(chance), "code": chance.choice(codes)}
            header["message"] = known.text(chance, "why", 4000)
            header["started"] = chance.choice((True, True, False))
        case b"RETURNED":
            header |= {"token": known.token(chance), "reason": known.text(chance, "draining", 128)}
        case b"HEARTBEAT":
            header["state"] = chance.choice(("ready", "ready", "ready", "ready", "loading", "broken"))
            header["detail"] = known.text(chance, "", 4000)
            header["engine_pid"] = 7
            header["load"] = {"allocated_mb": 5, "cached_mb": 1, "free_mb": 2**53}
    return Said(name, header)


def register(chance: random.Random, known: Known) -> Said:
    """REGISTER, mostly under the speaker's own name."""
    known.nonce = f"n{chance.randrange(10**6)}"
    known.granted = 0
    listed = {tuple(known.token(chance).items()) for _ in range(chance.choice((0, 0, 1, 3)))}
    tokens = [{"token": dict(t), "stage": chance.choice(("waiting", "running", "ended"))} for t in sorted(listed)]
    own = chance.random() < 0.9
    return Said(
        b"REGISTER",
        {
            "worker_id": known.name if own else chance.choice((*known.workers, f"w{chance.randrange(9)}")),
            "boot_id": known.boot_id if own else chance.choice(("b", "c")),
            "nonce": known.nonce,
            "host": known.text(chance, "h", 128),
            "device": {
                "device": known.text(chance, "cpu", 128), "kind": "cpu", "name": known.text(chance, "c", 128),
                "uuid": known.text(chance, "", 128), "total_mb": 64,
            },
            "models": [card(chance) for _ in range(chance.choice((1, 1, 1, 2, 16)))],
            "model_path": known.text(chance, "/m", 4000),
            "job_timeout_s": 600.0,
            "tokens": tokens,
            "version": known.text(chance, "0.1.0", 128),
        },
    )  # fmt: skip


def card(chance: random.Random) -> dict[str, Any]:
    """A model's card; its limits may contradict each other."""
    name = chance.choice(MODELS) if chance.random() < 0.8 else f"other-{chance.randrange(60)}"
    found: dict[str, Any] = {"name": name, "width": 64, "height": 64, "side_min": 16, "steps": 4}
    found |= {"edits": True, "formats": ["png", "jpeg"]}
    odd: dict[str, tuple[Any, ...]] = {
        "description": ("", LONG * 300), "side_max": (1, 64, 16384), "side_multiple": (1, 16, 16384),
        "pixels_max": (-1, 0, 1, 2**62), "enlarges": (True,), "enlarged_side_max": (1, 16384), "steps_max": (1, 1000),
        "guidance_scale": (3.5, -1e308, 1e308), "guided": (False,), "prompt_tokens_max": (-1, 0, 512),
        "edits": (True, False), "formats": ((), ("png",), ("png", "jpeg", "webp"), ("f" * 16,) * 8),
        "name": ("m" * 128,), "width": (1, 16384), "height": (1, 16384), "side_min": (1, 16384), "steps": (1, 1000),
    }  # fmt: skip
    if chance.random() < 0.2:
        for key in chance.sample(sorted(odd), chance.randrange(1, 4)):
            found[key] = chance.choice(odd[key])
    return found


def done(chance: random.Random, known: Known, header: dict[str, Any]) -> Said:
    """DONE with its picture, whose sum or lengths may be wrong."""
    parts = [bytes([chance.randrange(256)]) * chance.choice((1, 3, 100, 5000)) for _ in range(chance.choice((1, 1, 2)))]
    if chance.random() < 0.01:
        parts = [b"p" * PART_BYTES_MAX] * chance.choice((1, 4))
    header["token"] = known.token(chance)
    header["picture"] = picture(parts)
    header["parts"] = [len(part) for part in parts]
    header["timings"] = {"denoise_s": chance.choice((0.0, 0.5, 1e9)), "total_s": chance.choice((0.0, 0.6, 1e9))}
    if chance.random() < 0.1:
        note = {"code": known.text(chance, "cut", 128), "message": known.text(chance, "the prompt was cut", 500)}
        header["notes"] = [note] * chance.choice((1, 2, 16))
    wrong = chance.random()
    if wrong < 0.05:
        header["picture"]["sha256"] = "0" * 64
    elif wrong < 0.08:
        header["picture"]["bytes"] += chance.choice((-1, 1, 2**50))
    return Said(b"DONE", header, parts)


def picture(parts: Sequence[bytes]) -> dict[str, Any]:
    """The facts of a picture of these bytes."""
    data = b"".join(parts)
    return {
        "format": "png", "width": 64, "height": 64, "drawn_width": 64, "drawn_height": 64, "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip


# --- router -> daemon ----------------------------------------------------------------------------


def router_message(chance: random.Random, known: Known) -> Said:
    """What a router may say, DRAIN apart: it would be obeyed."""
    name = chance.choices(
        (b"WELCOME", b"DISPATCH", b"CANCEL", b"RESULT_ACK", b"FENCED", b"RESYNC", b"ERROR"),
        (12, 40, 8, 20, 8, 2, 3),
    )[0]
    match name:
        case b"WELCOME":
            return welcome(chance, known)
        case b"DISPATCH":
            return dispatch(chance, known)
        case b"RESYNC":
            return Said(name, {})
        case b"ERROR":
            return Said(name, {"code": "device_unavailable", "message": known.text(chance, "why", 15_000)})
    return Said(name, {"token": known.token(chance)})


def welcome(chance: random.Random, known: Known) -> Said:
    """WELCOME to the last REGISTER that was heard, or to one before it."""
    listed = [dict(token) for token in list(known.own)[-3:]]
    if chance.random() < 0.2:
        listed = [known.token(chance) for _ in range(chance.choice((1, 5, 500)))]
    keep = [t for t in listed if chance.random() < 0.7]
    header = {
        "nonce": known.nonce if chance.random() < 0.8 else f"n{chance.randrange(9)}",
        "epoch": known.epoch + 1 if chance.random() < 0.9 else chance.choice((0, known.epoch, 2**53)),
        "heartbeat_interval_s": chance.choice((0.2, 1.0)),
        "dead_after_s": chance.choice((3.0, 10.0)),
        "keep": keep,
        "drop": [t for t in listed if t not in keep],
    }
    return Said(b"WELCOME", header)


def dispatch(chance: random.Random, known: Known) -> Said:
    """DISPATCH of a new job, now and then of one in hand."""
    if chance.random() < 0.9:
        token = {"job_id": f"{chance.getrandbits(128):032x}", "dispatch": 1}
    else:
        token = known.token(chance)
    job = {
        "prompt": chance.choice(("a red square", "a red square", LONG * 8000)), "negative_prompt": "", "model": "noop",
        "width": 64, "height": 48, "drawn_width": 64, "drawn_height": 48, "steps": chance.choice((1, 4, 4, 4, 40)),
        "guidance_scale": 3.5, "true_cfg_scale": 1.0, "seed": chance.getrandbits(32), "priority": 0, "client": "",
        "save": False, "previews": chance.choice((0, 0, 0, 2, 20)), "quality": chance.choice((None, 1, 100)),
        "format": chance.choice(("png", "png", "jpeg", "webp")),
    }  # fmt: skip
    payload = starting_from(chance, job) if chance.random() < 0.2 else []
    remaining_s = chance.choice((600.0, 600.0, 600.0, 0.0, 1e-9))
    header = {"epoch": known.some_epoch(chance), "token": token, "job": job, "remaining_s": remaining_s}
    if payload:
        header["parts"] = [len(part) for part in payload]
    return Said(b"DISPATCH", header, payload)
