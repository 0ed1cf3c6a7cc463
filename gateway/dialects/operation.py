"""What an operation of the HTTP API is to whoever documents it: its request, its answers, its errors.

Pure: no handler and no router here; routes/table.py puts the two together, openapi.py makes the document.
"""

from typing import Any

from msgspec import Struct

from gateway.dialects.body import Body
from gateway.dialects.errors import ErrorBody
from gateway.dialects.keys import HEADER, KEY_CHARS_MAX

JSON = "application/json"

# What any request may be answered with, whatever it asks for.
EVERYWHERE = (
    "invalid_request", "invalid_api_key", "forbidden", "rate_limit_exceeded", "unavailable", "internal",
)  # fmt: skip
OF_KEYS = frozenset({"invalid_api_key", "rate_limit_exceeded"})  # which nobody hears where no key is asked for
WITH_BODY = (408, 413, 415)  # and one that brings a body


class Parameter(Struct, frozen=True, kw_only=True):
    """One parameter beside the body. `schema`: of its value."""

    name: str
    where: str  # path | query | header
    says: str
    schema: dict[str, Any]
    required: bool = False


class Answer(Struct, frozen=True, kw_only=True):
    """One answer that is no error. `type`: the struct of its JSON; None: `media` is no JSON, or there is no body."""

    status: int = 200
    says: str
    type: Any = None
    media: str = JSON  # '' where there is no body
    headers: dict[str, str] = {}  # name: what it says


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path. `path` is aiohttp's, with patterns in it where a parameter may hold a slash."""

    method: str
    path: str
    name: str
    tag: str
    summary: str
    says: str = ""  # more, in Markdown's plainest form
    body: type[Body] | None = None
    body_schemas: dict[str, dict[str, Any]] = {}  # what the types of its fields do not say
    form: type[Body] | None = None  # the text fields of a form, in place of a body or beside it
    files: dict[str, bool] = {}  # its files by name; is it required?
    parameters: tuple[Parameter, ...] = ()
    answers: tuple[Answer, ...]
    errors: tuple[str, ...] = ()  # codes beyond EVERYWHERE
    error_type: Any = ErrorBody
    open: bool = False  # to everybody: no key is asked for, wherever others need one


JOB_ID = Parameter(
    name="job_id",
    where="path",
    says="the job's name: 32 hexadecimal digits",
    schema={"type": "string", "pattern": "^[0-9a-f]{32}$"},
    required=True,
)
IDEMPOTENCY_KEY = Parameter(
    name=HEADER,
    where="header",
    says="the same key and body is the same request: nothing is drawn twice. Kept for `router.key_ttl_s`, a day",
    schema={"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX, "pattern": "^[ -~]+$"},
)
CLIENT = Parameter(
    name="X-GenServe-Client",
    where="header",
    says="whom to count the job to, for fair shares and the logs; without it the peer's address",
    schema={"type": "string", "maxLength": 128},
)
SUBMITTING = (
    "unsupported", "unknown_model", "not_found", "key_conflict", "deadline_unreachable", "queue_full", "storage_full",
)  # fmt: skip
DRAWING = (
    *SUBMITTING, "cancelled", "deadline_exceeded", "job_timeout", "out_of_memory", "engine_error", "engine_died",
    "worker_lost", "poison", "model_load_failed", "device_unavailable", "journal_failed",
)  # fmt: skip
ABOUT_A_JOB = ("not_found", "journal_failed")
"""The codes that routes have in common."""
