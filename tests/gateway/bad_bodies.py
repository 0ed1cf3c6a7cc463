"""Bodies that no client should send, and the answer each must get; for the gateway alone and for a whole service."""

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

IMAGES = "/v1/images/generations"
GENERATE = "/generate"
JOBS = "/v1/jobs"
KEY = "Idempotency-Key"


@dataclass(frozen=True)
class BadBody:
    """One wrong request and what its answer must say."""

    name: str
    body: bytes
    param: str | None = None
    path: str = IMAGES
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 400
    code: str = "invalid_request"
    says: str = ""


def _images(name: str, param: str | None, says: str = "", *, code: str = "invalid_request", **fields: Any) -> BadBody:
    body = json.dumps({"prompt": "a fox", **fields}).encode()
    return BadBody(f"images-{name}", body, param, code=code, says=says or (param or ""))


def _generate(name: str, param: str, says: str = "", **fields: Any) -> BadBody:
    body = json.dumps({"prompt": "a fox", **fields}).encode()
    return BadBody(f"generate-{name}", body, param, path=GENERATE, says=says or param)


def _job(name: str, param: str, says: str = "", **fields: Any) -> BadBody:
    body = json.dumps({"prompt": "a fox", **fields}).encode()
    return BadBody(f"job-{name}", body, param, path=JOBS, says=says or param)


def _key(name: str, key: str, says: str, path: str = JOBS) -> BadBody:
    return BadBody(f"key-{name}", b'{"prompt": "a fox"}', KEY, path=path, headers={KEY: key}, says=says)


def _raw(name: str, body: bytes, says: str, path: str = IMAGES) -> BadBody:
    return BadBody(name, body, path=path, says=says)


BAD_BODIES: list[BadBody] = [
    _raw("empty", b"", "not valid JSON"),
    _raw("no-json", b"prompt=a fox", "not valid JSON"),
    _raw("cut", b'{"prompt": "a fo', "not valid JSON"),
    _raw("trailing", b'{"prompt": "a fox"} x', "Extra data: line 1 column 21"),
    _raw("byte-order-mark", b'\xef\xbb\xbf{"prompt": "a fox"}', "not valid JSON"),
    _raw("list", b'["a fox"]', "one JSON object"),
    _raw("text", b'"a fox"', "one JSON object"),
    _raw("null", b"null", "one JSON object"),
    _raw("not-utf8", b'{"prompt": "\xff\xfe"}', "UTF-8"),
    _raw("utf16", '{"prompt": "a fox"}'.encode("utf-16"), "not valid JSON"),
    BadBody("lone-surrogate", b'{"prompt": "\\ud800 fox"}', "prompt", says="fox' is not right: it holds one half"),
    BadBody("lone-surrogate-name", b'{"prompt": "a fox", "\\udc00": 1}', "?", says="'\\udc00' is no field"),
    BadBody("lone-surrogate-inside", b'{"prompt": ["\\ud800"]}', "prompt", says="prompt = a list is not right"),
    BadBody("twice", b'{"prompt": "a fox", "seed": 1, "seed": 2}', "seed", says="'seed' stands twice"),
    BadBody("twice-the-same", b'{"prompt": "a", "prompt": "a"}', "prompt", says="'prompt' stands twice"),
    BadBody("twice-null", b'{"prompt": "a", "n": null, "\\u006e": 1}', "n", says="'n' stands twice"),
    BadBody("twice-inside", b'{"prompt": {"a": 1, "a": 2}}', "a", says="'a' stands twice"),
    BadBody("twice-surrogate", b'{"\\ud800": 1, "\\ud800": 2}', "?", says="stands twice"),
    BadBody("generate-twice", b'{"prompt": "a", "cfg": 1, "cfg": 2}', "cfg", path=GENERATE, says="'cfg' stands twice"),
    BadBody("long-name", json.dumps({"prompt": "a", "x" * 100_000: 1}).encode(), "x" * 40, says="is no field"),
    _raw("not-a-number", b'{"prompt": "a fox", "guidance_scale": NaN}', "not valid JSON"),
    _raw("infinity", b'{"prompt": "a fox", "guidance_scale": Infinity}', "not valid JSON"),
    BadBody("beyond-floats", b'{"prompt": "a fox", "seed": 1e999}', "seed", says="seed is not right: the number"),
    BadBody("beneath-floats", b'{"prompt": "a", "guidance_scale": -1e999}', "guidance_scale", says="too large"),
    BadBody("many-digits", b'{"prompt": "a", "n": ' + b"9" * 100_000 + b"}", "n", says="n is not right: the number"),
    BadBody("many-digits-below", b'{"prompt": "a", "cfg": -' + b"9" * 5000 + b"}", "cfg", path=GENERATE, says="large"),
    _raw("nested", b"[" * 100_000, "nested too deeply"),
    _raw("nested-objects", b'{"a":' * 100_000, "nested too deeply"),
    BadBody("nested-within-limits", b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}", "prompt", says="prompt = a list"),
    _raw("generate-list", b"[]", "one JSON object", GENERATE),
    _raw("generate-cut", b"{", "not valid JSON", GENERATE),
    BadBody("no-prompt", b"{}", "prompt", says="prompt is missing"),
    BadBody("null-prompt", b'{"prompt": null}', "prompt", says="prompt is missing"),
    BadBody("generate-no-prompt", b"{}", "prompt", path=GENERATE, says="prompt is missing"),
    BadBody("form", b"prompt=a", "Content-Type", headers={"Content-Type": "application/x-www-form-urlencoded"},
            status=415, code="unsupported", says="Content-Type: application/json"),
    BadBody("plain", b'{"prompt": "a"}', "Content-Type", headers={"Content-Type": "text/plain"},
            status=415, code="unsupported", says="Content-Type: application/json"),
    BadBody("generate-plain", b'{"prompt": "a"}', "Content-Type", path=GENERATE,
            headers={"Content-Type": "text/plain"}, status=415, code="unsupported", says="application/json"),
    BadBody("charset", '{"prompt": "a"}'.encode("utf-16"), "Content-Type", status=415, code="unsupported",
            headers={"Content-Type": "application/json; charset=utf-16"}, says="UTF-8, not in utf-16"),
    BadBody("charset-latin", b'{"prompt": "a"}', "Content-Type", path=GENERATE, status=415, code="unsupported",
            headers={"Content-Type": 'application/json; charset="ISO-8859-1"'}, says="UTF-8, not in ISO-8859-1"),
    BadBody("expectation", b'{"prompt": "a"}', "Expect", headers={"Expect": "foo"}, status=417, says="100-continue"),
    BadBody("generate-expectation", b'{"prompt": "a"}', "Expect", path=GENERATE, headers={"Expect": "foo"},
            status=417, says="Expect: foo is not understood"),
    BadBody("too-long", json.dumps({"prompt": "a", "user": "u" * 2_000_000}).encode(),
            status=413, code="too_large", says="too long"),
    BadBody("bomb", gzip.compress(b'{"prompt": "' + b"a" * 50_000_000), "Content-Encoding",
            headers={"Content-Encoding": "gzip"}, status=415, code="unsupported", says="must not be compressed"),
    BadBody("deflated", b'{"prompt": "a"}', "Content-Encoding",
            headers={"Content-Encoding": "deflate"}, status=415, code="unsupported", says="must not be compressed"),
    BadBody("foreign-host", b'{"prompt": "a"}', "Host", headers={"Host": "evil.example"}, status=403, code="forbidden",
            says="localhost"),
    BadBody("foreign-origin", b'{"prompt": "a"}', "Origin", headers={"Origin": "http://evil.example"},
            status=403, code="forbidden", says="same origin"),
    BadBody("long-client", b'{"prompt": "a"}', "X-GenServe-Client", headers={"X-GenServe-Client": "x" * 129},
            says="X-GenServe-Client"),
    _images("prompt-empty", "prompt", "prompt is empty", prompt=""),
    _images("prompt-blank", "prompt", "prompt is empty", prompt=" \n\t\u3000"),
    _images("prompt-long", "prompt", "8000", prompt="x" * 8001),
    _images("prompt-number", "prompt", prompt=7),
    _images("prompt-list", "prompt", prompt=["a"]),
    _images("negative-long", "negative_prompt", "4000", negative_prompt="x" * 4001),
    _images("unknown-field", "colour", "colour", colour="red"),
    _images("misspelt-field", "guidance_scal", "did you mean guidance_scale?", guidance_scal=3.0),
    _images("n-zero", "n", n=0),
    _images("n-eleven", "n", n=11),
    _images("n-text", "n", n="2"),
    _images("n-true", "n", n=True),
    _images("n-half", "n", n=1.5),
    _images("size-half", "size", "WIDTHxHEIGHT", size="1x"),
    _images("size-negative", "size", "WIDTHxHEIGHT", size="-1x5"),
    _images("size-huge", "size", "16384", size="99999x99999"),
    _images("size-zero", "size", size="0x0"),
    _images("size-words", "size", size="large"),
    _images("size-digits", "size", size="１０２４x１０２４"),
    _images("size-number", "size", size=1024),
    _images("seed-negative", "seed", seed=-1),
    _images("seed-huge", "seed", seed=2**63),
    _images("seed-enormous", "seed", seed=10**40),
    _images("seed-wraps", "seed", "n - 1", seed=2**63 - 2, n=3),
    _images("steps-zero", "num_inference_steps", num_inference_steps=0),
    _images("steps-many", "num_inference_steps", num_inference_steps=1001),
    _images("guidance-negative", "guidance_scale", guidance_scale=-0.1),
    _images("guidance-huge", "guidance_scale", guidance_scale=1e300),
    _images("guidance-object", "guidance_scale", guidance_scale={}),
    _images("true-cfg-small", "true_cfg_scale", negative_prompt="fog", true_cfg_scale=0.5),
    _images("priority", "priority", priority=11),
    _images("model-number", "model", model=1),
    _images("model-long", "model", model="m" * 129),
    _images("quality", "quality", "'high'", quality="best"),
    _images("style", "style", "'vivid'", style="cubist"),
    _images("moderation", "moderation", moderation="none"),
    _images("response-format", "response_format", response_format="file"),
    _images("url-stream", "response_format", "stream", response_format="url", stream=True),
    _images("gif", "output_format", "png", code="unsupported", output_format="gif"),
    _images("transparent", "background", "opaque", code="unsupported", background="transparent"),
    _images("partial-images", "partial_images", "stream", partial_images=2),
    _images("partial-images-many", "partial_images", stream=True, partial_images=4),
    _images("compression", "output_compression", "jpeg", output_compression=50),
    _images("compression-high", "output_compression", output_format="webp", output_compression=101),
    _images("stream-text", "stream", stream="yes"),
    _generate("blank", "prompt", prompt="  "),
    _generate("two-models", "model_id", model="a", model_id="b"),
    _generate("width-alone", "height", "height is missing", width=64),
    _generate("height-alone", "width", "width is missing", height=64),
    _generate("width-zero", "width", width=0, height=64),
    _generate("cfg-text", "cfg", cfg="high"),
    _generate("seed-text", "seed", seed="42"),
    _generate("save-number", "save_disk_path", save_disk_path=1),
    _generate("unknown-field", "steps", "no field", steps=4),
    _generate("deadline-zero", "deadline_s", deadline_s=0),
    _images("deadline-negative", "deadline_s", deadline_s=-1),
    _images("deadline-text", "deadline_s", deadline_s="1 h"),
    _raw("job-list", b"[]", "one JSON object", JOBS),
    BadBody("job-no-prompt", b"{}", "prompt", path=JOBS, says="prompt is missing"),
    BadBody("job-plain", b'{"prompt": "a"}', "Content-Type", path=JOBS, headers={"Content-Type": "text/plain"},
            status=415, code="unsupported", says="application/json"),
    BadBody("job-foreign-origin", b'{"prompt": "a"}', "Origin", path=JOBS, headers={"Origin": "http://evil.example"},
            status=403, code="forbidden", says="same origin"),
    _job("prompt-blank", "prompt", "prompt is empty", prompt=" "),
    _job("size", "size", "WIDTHxHEIGHT", size="big"),
    _job("n", "n", "no field", n=2),
    _job("steps", "num_inference_steps", num_inference_steps=0),
    _job("seed", "seed", seed=-1),
    _job("priority", "priority", priority=-11),
    _job("deadline-huge", "deadline_s", deadline_s=1e9),
    _job("deadline-endless", "deadline_s", "deadline_s = 'never'", deadline_s="never"),
    _job("guidance", "guidance_scale", guidance_scale="high"),
    _job("misspelt", "guidance", "did you mean guidance_scale?", guidance=3),
    _key("empty", "", "1 to 112 printable ASCII"),
    _key("long", "k" * 113, "113 characters"),
    _key("not-ascii", "sch\u00f6n", "printable ASCII"),
    _key("tab", "a\tb", "printable ASCII"),
    _key("images", "k" * 113, "112", IMAGES),
    _key("generate", "\u00fcber", "112", GENERATE),
]  # fmt: skip
