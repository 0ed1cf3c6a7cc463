"""Webhooks: where the end of a job is told to, and what is said there, signed as Standard Webhooks says.

Pure. Signatures are its v1, HMAC-SHA256; its libraries verify them.
https://github.com/standard-webhooks/standard-webhooks
"""

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from common.errors import GenServeError
from gateway.dialects import events
from gateway.dialects.errors import HttpError

SECRET_PREFIX = "whsec_"  # noqa: S105  # not one, but what each begins with
SECRET_BYTES = (24, 64)
URL_CHARS_MAX = 2000
_HOST = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")
_encoder = msgspec.json.Encoder()


class Webhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to, and the secret by which its owner knows that it was us."""

    url: Annotated[str, Meta(min_length=1, max_length=URL_CHARS_MAX)]
    secret: Annotated[str, Meta(min_length=1, max_length=200)]

    def __repr__(self) -> str:
        """Without the secret and what may be secret in the URL."""
        return f"<webhook to {urlsplit(self.url).hostname}>"

    __str__ = __repr__


def check(webhook: Webhook, hosts: Sequence[str]) -> None:
    """Raise GenServeError invalid_request for one that could not be delivered; forbidden for a host not in `hosts`."""
    try:
        parts = urlsplit(webhook.url)
        host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        parts, host, port = urlsplit(""), "", 0
    shown = f"[{host}]" if ":" in host else host
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(shown) or parts.username or parts.fragment:
        raise GenServeError("invalid_request", "it is an http(s) URL without a user name", param="webhook.url")
    if not {shown, f"{shown}:{port}"} & {each.lower() for each in hosts}:
        allowed = ", ".join(hosts) or "none"
        raise HttpError(
            403,
            f"this service tells webhooks at {shown}:{port} nothing; its operator allows: {allowed}",
            param="webhook.url",
            next_step="name an allowed host, or have the operator name this one (gateway.webhook_hosts)",
        )
    if not _key(webhook.secret):
        low, high = SECRET_BYTES
        raise GenServeError(
            "invalid_request",
            f"it is {SECRET_PREFIX} and {low} to {high} random bytes in Base64, e.g. from "
            f'`echo "{SECRET_PREFIX}$(openssl rand -base64 32)"`',
            param="webhook.secret",
        )


def body_of(event: str, data: bytes, *, at: str) -> bytes:
    """What is sent: the last event of a job's stream, `data` being its JSON, as of the time `at` (RFC 3339)."""
    told = msgspec.json.decode(data)
    return _encoder.encode({"type": event, "timestamp": at, "data": told["job"]})


def headers_of(webhook: Webhook, job_id: str, body: bytes, *, now_s: int) -> dict[str, str]:
    """The headers that say what it is and prove whose: `now_s` in wall seconds since 1970."""
    signed = b".".join((job_id.encode(), str(now_s).encode(), body))
    signature = base64.b64encode(hmac.digest(_key(webhook.secret), signed, "sha256")).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": job_id,  # the same at each repetition
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{signature}",
    }


def is_end(event: str) -> bool:
    """Is it told to webhooks?"""
    return event in events.ENDS and event != events.ERROR


def _key(secret: str) -> bytes:
    """Its bytes; b'' for what is no secret."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""
    low, high = SECRET_BYTES
    return key if secret.startswith(SECRET_PREFIX) and low <= len(key) <= high else b""
