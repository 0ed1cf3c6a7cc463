"""Requests that mean harm, as bytes on a connection, and what each must be answered; bodies alone: gateway/bad_bodies.

Each is refused (with one of its statuses) by one answer and no more, in the one error body, with the field named where
there is one. A second request that is hidden inside (SMUGGLED) is never answered.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

BODY = b'{"prompt": "x", "priority":   0}'  # which every endpoint that draws takes; 0x20 bytes
LENGTH = str(len(BODY)).encode()
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
JOB = "0" * 32
DRAWING = ("/v1/images/generations", "/v1/jobs", "/generate")
READING = (
    "/", "/docs", "/openapi.json", "/metrics", "/v1/status", "/v1/models", f"/v1/jobs/{JOB}", f"/v1/jobs/{JOB}/image",
    f"/v1/jobs/{JOB}/events", "/v1/images/files/x/image",
    f"/task/{JOB}", "/status", "/gpu/load", "/config", "/models", "/devices", "/health", "/health/live",
)  # fmt: skip
HUGE = 100_000


@dataclass(frozen=True)
class Hostile:
    """One of them. `param`: the field that its error names; '' is not looked at."""

    name: str
    data: bytes
    statuses: tuple[int, ...] = (400,)
    param: str = ""


def every() -> list[Hostile]:
    """All of them."""
    return [*_framing(), *_heads(), *_paths(), *_methods(), *_origins(), *_types(), *_bombs(), *_keys()]


def _post(*heads: bytes, body: bytes = BODY, path: str = "/v1/jobs", line_end: bytes = b"\r\n") -> bytes:
    lines = (f"POST {path} HTTP/1.1".encode(), b"Host: localhost", b"Content-Type: application/json", *heads, b"", b"")
    return line_end.join(lines) + body


def _get(path: bytes | str, *heads: bytes, method: str = "GET") -> bytes:
    target = path if isinstance(path, bytes) else path.encode()
    return b"\r\n".join((method.encode() + b" " + target + b" HTTP/1.1", b"Host: localhost", *heads, b"", b""))


def _framing() -> Iterator[Hostile]:
    """Two readings of where a request ends."""
    length, chunked = b"Content-Length: " + LENGTH, b"Transfer-Encoding: chunked"
    last = b"0\r\n\r\n" + SMUGGLED
    ambiguous = {
        "length-then-coding": _post(length, chunked, body=last),
        "coding-then-length": _post(chunked, b"Content-Length: 4", body=b"5c\r\n" + SMUGGLED),
        "length-twice": _post(length, length),
        "lengths-differ": _post(length, b"Content-Length: 0", body=BODY + SMUGGLED),
        "coding-twice": _post(chunked, chunked, body=last),
        "old-version": _post(chunked, body=last).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        "trailer": _post(chunked, body=b"20\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n"),
        "bare-lf": _post(length, line_end=b"\n"),
        "bare-cr": _post(length, line_end=b"\r"),
        "space-before-colon": _post(b"Content-Length : " + LENGTH),
        "coding-space": _post(b"Transfer-Encoding : chunked", body=last),
        "coding-folded": _post(b"Transfer-Encoding:", b" chunked", body=last),
        "coding-vertical-tab": _post(b"Transfer-Encoding: \x0bchunked", body=last),
        "cr-hides-coding": _post(b"X: a\rTransfer-Encoding: chunked", length, body=last),
        "lf-hides-coding": _post(b"X: a\nTransfer-Encoding: chunked", length, body=last),
        "folded": _post(b"X: a", b" b", length),
        "folded-by-tab": _post(b"X: a", b"\tb", length),
        "folded-first": b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n",
        "hosts": b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        "hosts-reversed": b"GET /health/live HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\n\r\n",
        "no-host": b"GET /health/live HTTP/1.1\r\n\r\n",
    }
    yield from (Hostile(f"framing-{name}", data) for name, data in ambiguous.items())
    for value in (b"+32", b"0x20", b"3_2", b"32, 32", b"32 32", b"-1", b"", b"9" * 30, "３２".encode(), b"32\x0c"):
        yield Hostile(f"length-{value!r}", _post(b"Content-Length: " + value))
    for value in (b"xchunked", b"chunked, identity", b'"chunked"', b"gzip", b"chunked; q=1", b"identity"):
        yield Hostile(f"coding-{value!r}", _post(b"Transfer-Encoding: " + value, body=last))
    for value in (b"identity, chunked", b"gzip, chunked", b"deflate,chunked"):
        yield Hostile(f"coding-{value!r}", _post(b"Transfer-Encoding: " + value, body=last), param="Transfer-Encoding")
    for size in (b"-1", b"0x20", b"+20", b"20 ", b" 20", b"f" * 17, b"zz", b"", b"20;a\nb", b"20\n", b"\x0020"):
        yield Hostile(f"chunk-{size!r}", _post(chunked, body=size + b"\r\n" + BODY + b"\r\n" + last))
    for end in (b"zz", b"\n", b"\r", b"  "):
        yield Hostile(f"chunk-end-{end!r}", _post(chunked, body=b"20\r\n" + BODY + end + last))


def _heads() -> Iterator[Hostile]:
    """Heads that are no heads, or too much of one."""
    for line in (
        b"Nonsense",
        b": a",
        b"X\x01: a",
        b"X Y: a",
        b"X(Y): a",
        b"X: a\0b",
        b"X\xff: a",
        b"X: \x7f\x1b[2J",
        b"\x00",
    ):
        yield Hostile(f"head-{line!r}", _post(line, b"Content-Length: " + LENGTH))
    giants = {
        "many": b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(20_000)) + b"\r\n",
        "method": b"A" * HUGE + b" / HTTP/1.1\r\n\r\n",
        "path": _get("/" + "a" * HUGE),
        "query": _get("/docs?" + "a" * HUGE),
        "name": _get("/docs", b"a" * HUGE + b": x"),
        "value": _get("/docs", b"X: " + b"a" * HUGE),
        "cookie": _get("/docs", b"Cookie: " + b"a=b; " * 20_000),
        "version": b"GET / HTTP/" + b"1" * HUGE + b"\r\n\r\n",
        "extension": _post(b"Transfer-Encoding: chunked", body=b"20;" + b"a" * HUGE + b"\n\r\n"),
    }
    yield from (Hostile(f"giant-{name}", data) for name, data in giants.items())
    for version in (b"0.9", b"1.2", b"2.0", b"3", b"9.9", b"1", b"", b"1.1.1", b"-1"):
        yield Hostile(f"version-{version!r}", b"GET /docs HTTP/" + version + b"\r\nHost: localhost\r\n\r\n")
    others = {
        "http-0.9": b"GET /docs\r\n\r\n",
        "http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "tls": bytes.fromhex("16030100c8010000c40303") + b"x" * 100 + b"\r\n\r\n",
        "ssh": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "smtp": b"EHLO evil.example\r\nMAIL FROM:<a@b>\r\n\r\n",
        "redis": b"*1\r\n$4\r\nPING\r\n\r\n",
        "zmtp": b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL" + b"\0" * 48 + b"\r\n\r\n",
        "nothing-but-lines": b"\r\n" * 50 + b"nonsense\r\n\r\n",
        "binary": bytes(range(1, 256)) + b"\r\n\r\n",
    }
    yield from (Hostile(f"other-{name}", data) for name, data in others.items())


def _paths() -> Iterator[Hostile]:
    """Names that lead elsewhere: out of a folder, into a file, into the answer's head."""
    steps = (
        "..", "../..", "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd",
        "%252e%252e%252fetc%252fpasswd", "..%5c..%5cwindows%5cwin.ini", "..\\..\\etc\\passwd", "%00", "x%00.png",
        "%c0%ae%c0%ae/etc/passwd", "%ff%fe", "....//....//etc/passwd", "file:%2f%2f%2fetc%2fpasswd", ";/../../etc",
        "%0d%0aX-Evil:%201", "%u002e%u002e", "~root", "/etc/passwd", "x" * 4000, "$(id)", "%7B%7B7*7%7D%7D",
    )  # fmt: skip
    for prefix in ("/", "/docs/", "/v1/jobs/", "/v1/models/", "/task/"):
        for step in steps:
            yield Hostile(f"path-{prefix}{step[:40]}", _get(prefix + step, b"Connection: close"), (400, 404))
    for step in steps[:12]:
        yield Hostile(f"path-image-{step}", _get(f"/v1/jobs/{step}/image", b"Connection: close"), (400, 404))
    for target in ("http://evil.example/docs", "https://evil.example:443/docs", "http://[::ffff:8.8.8.8]/docs"):
        yield Hostile(f"proxy-{target}", _get(target), (403,), "Host")
    for target in ("evil.example:443", "localhost:22"):
        yield Hostile(f"connect-{target}", _get(target, method="CONNECT"), (400, 404, 405))


def _methods() -> Iterator[Hostile]:
    for path in READING:
        for method in ("PUT", "PATCH", "TRACE", "POST", "PROPFIND"):
            yield Hostile(f"method-{method}-{path}", _get(path, b"Content-Length: 0", method=method), (405,))
    for path in DRAWING:
        for method in ("PUT", "PATCH", "TRACE", "DELETE"):
            yield Hostile(f"method-{method}-{path}", _get(path, method=method), (405,))


def _origins() -> Iterator[Hostile]:
    """A page in a browser on this machine: its own name for our address, or its own origin."""
    for path in READING:
        data = _get(path).replace(b"Host: localhost", b"Host: evil.example")
        yield Hostile(f"rebinding-{path}", data, (403,), "Host")
    for path in DRAWING:
        for origin in (b"null", b"http://evil.example", b"http://localhost.evil.example", b"file://"):
            data = _post(b"Origin: " + origin, b"Content-Length: " + LENGTH, path=path)
            yield Hostile(f"origin-{path}-{origin!r}", data, (403,), "Origin")
        yield Hostile(
            f"origin-delete-{path}", _get(f"/v1/jobs/{JOB}", b"Origin: http://a.b", method="DELETE"), (403,), "Origin"
        )


def _json(path: str, **fields: object) -> bytes:
    body = json.dumps({"prompt": "x", **fields}).encode()
    return _post(b"Content-Length: " + str(len(body)).encode(), path=path, body=body)


def _types() -> Iterator[Hostile]:
    """Every field with every kind of value that it does not take."""
    whole, number, text = ([], {}, "1", True, 1.5), ([], {}, "1", True), ([], {}, 1, 1.5, True)
    images = {
        "n": whole, "seed": whole, "num_inference_steps": whole, "priority": whole, "guidance_scale": number,
        "true_cfg_scale": number, "deadline_s": number, "prompt": text, "model": text, "size": text,
        "negative_prompt": text, "quality": text, "style": text, "background": text, "response_format": text,
        "output_format": text, "user": text, "stream": ([], {}, 1, "yes"),
    }  # fmt: skip
    older = {
        "seed": whole, "num_inference_steps": whole, "priority": whole, "width": whole, "height": whole, "cfg": number,
        "deadline_s": number, "prompt": text, "model": text, "model_id": text, "save_disk_path": ([], {}, 1),
    }  # fmt: skip
    named = ("prompt", "seed", "size", "model", "priority", "guidance_scale", "negative_prompt", "num_inference_steps")
    jobs = {name: images[name] for name in named}
    for path, fields in zip(DRAWING, (images, jobs, older), strict=True):
        for field, values in fields.items():
            for value in values:
                yield Hostile(f"type-{path}-{field}-{value!r}", _json(path, **{field: value}), (400,), field)


def _bombs() -> Iterator[Hostile]:
    """Little that becomes much."""
    zeros = b'{"prompt": "' + b"a" * 20_000_000
    packed = {
        b"gzip": gzip.compress(zeros),
        b"deflate": zlib.compress(zeros),
        b"br": b"\x1b" * 100,
        b"zstd": b"\x28\xb5\x2f\xfd",
    }
    for path in DRAWING:
        for name, data in packed.items():
            heads = (b"Content-Encoding: " + name, b"Content-Length: " + str(len(data)).encode())
            yield Hostile(f"bomb-{path}-{name!r}", _post(*heads, path=path, body=data), (415,), "Content-Encoding")
        for size in (2**20 + 1, 2**31, 2**40, 2**62):
            yield Hostile(
                f"announced-{path}-{size}", _post(b"Content-Length: " + str(size).encode(), path=path), (413,)
            )
        bodies = {
            "deep": b"[" * 400_000,
            "deep-objects": b'{"prompt":' * 90_000,
            "wide": b'{"prompt": "x", ' + b", ".join(b'"%d": 1' % n for n in range(50_000)) + b"}",
            "digits": b'{"prompt": "x", "seed": ' + b"9" * 900_000 + b"}",
            "exponent": b'{"prompt": "x", "seed": 1e400000000}',
            "escapes": b'{"prompt": "' + b"\\u0000" * 150_000 + b'"}',
            "commas": b'{"prompt": [' + b"," * 900_000 + b"]}",
        }
        for name, body in bodies.items():
            yield Hostile(
                f"json-{path}-{name}", _post(b"Content-Length: " + str(len(body)).encode(), path=path, body=body)
            )
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    xml = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    for kind, body in (
        (b"image/svg+xml", svg),
        (b"application/xml", xml),
        (b"text/html", svg),
        (b"multipart/form-data", b"--"),
    ):
        for path in DRAWING:
            heads = (
                b"Host: localhost",
                b"Content-Type: " + kind,
                b"Content-Length: " + str(len(body)).encode(),
                b"",
                b"",
            )
            data = f"POST {path} HTTP/1.1\r\n".encode() + b"\r\n".join(heads) + body
            yield Hostile(f"kind-{path}-{kind!r}", data, (400, 415))


def _keys() -> Iterator[Hostile]:
    """Names that are headers, and jobs that are not one's own."""
    length = b"Content-Length: " + LENGTH
    for value in (b"", b"k" * 113, b"\xff\xfe", b"a\tb", "schön".encode()):
        for path in DRAWING:
            data = _post(b"Idempotency-Key: " + value, length, path=path)
            yield Hostile(f"key-{path}-{value[:9]!r}", data, (400,), "Idempotency-Key")
    for path in DRAWING:
        data = _post(b"Idempotency-Key: a", b"Idempotency-Key: b", length, path=path)
        yield Hostile(f"key-twice-{path}", data, (400,), "Idempotency-Key")
        data = _post(b"X-GenServe-Client: " + b"x" * 129, length, path=path)
        yield Hostile(f"client-{path}", data, (400,), "X-GenServe-Client")
        yield Hostile(f"expect-{path}", _post(b"Expect: 200-maybe", length, path=path), (417,), "Expect")
