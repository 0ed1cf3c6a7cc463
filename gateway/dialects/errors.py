"""The one error body, and which HTTP status each code of the taxonomy becomes.

Pure. OpenAI's shape with two fields more: a typed `code` and `what_to_do`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from msgspec import Struct

from common.errors import ERRORS, GenServeError
from common.messages import ErrorInfo

RETRY_AFTER_S = {"unavailable": 2.0, "not_finished": 2.0, "storage_full": 30.0}  # where nobody knows better

STATUS = {
    "invalid_request": 400,
    "invalid_api_key": 401,
    "unsupported": 400,
    "forbidden": 403,
    "unknown_model": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "cancelled": 409,
    "too_large": 413,
    "not_finished": 409,
    "key_conflict": 422,
    "deadline_unreachable": 422,
    "queue_full": 429,
    "rate_limit_exceeded": 429,
    "storage_full": 507,
    "unavailable": 503,
    "deadline_exceeded": 504,
    "job_timeout": 504,
    "protocol_error": 500,
    "out_of_memory": 500,
    "engine_error": 500,
    "engine_died": 500,
    "worker_lost": 500,
    "poison": 500,
    "model_load_failed": 500,
    "device_unavailable": 500,
    "invalid_settings": 500,
    "journal_failed": 500,
    "address_in_use": 500,
    "internal": 500,
}
_CODE_OF_STATUS = {403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported"}


class HttpError(GenServeError):
    """A refusal that has an HTTP status of its own, e.g. 415."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        param: str | None = None,
        next_step: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        code = code or _CODE_OF_STATUS.get(status, "invalid_request" if status < 500 else "internal")
        super().__init__(code, message, param=param, retry_after_s=retry_after_s)
        self.status = status
        self.next_step = next_step


class JobError(GenServeError):
    """A job ended without a picture."""

    def __init__(self, job_id: str, info: ErrorInfo) -> None:
        super().__init__(info.code if info.code in ERRORS else "internal", info.message)
        self.job_id = job_id
        self.next_step = info.next_step


class ErrorFacts(Struct, frozen=True, kw_only=True):
    """What every error answer says."""

    message: str
    type: str
    param: str | None
    code: str
    what_to_do: str


class ErrorBody(Struct, frozen=True, kw_only=True):
    """The one error body."""

    error: ErrorFacts


def facts(error: GenServeError) -> ErrorFacts:
    """The error as told to its reader."""
    return ErrorFacts(
        message=error.message,
        type=_type(status_of(error)),
        param=error.param,
        code=error.code,
        what_to_do=getattr(error, "next_step", "") or error.kind.next_step,
    )


def status_of(error: GenServeError) -> int:
    """The HTTP status of an error."""
    return error.status if isinstance(error, HttpError) else STATUS[error.code]


def headers_of(error: GenServeError) -> dict[str, str]:
    """When to come back (whole seconds, at least 1, and milliseconds), or that there is no point in it."""
    headers = {} if error.kind.retryable else {"x-should-retry": "false"}
    if error.code == "invalid_api_key":
        headers["WWW-Authenticate"] = 'Bearer realm="GenServe"'
    retry_after_s = error.retry_after_s
    if retry_after_s is None:
        retry_after_s = RETRY_AFTER_S.get(error.code)
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
        headers["retry-after-ms"] = str(max(1, math.ceil(retry_after_s * 1000)))
    return headers


@contextmanager
def fields_named(names: Mapping[str, str]) -> Iterator[None]:
    """Errors raised inside name their field as the dialect does: `names` maps JobSpec's names to its own."""
    try:
        yield
    except GenServeError as error:
        if (own := names.get(error.param or "")) is not None:
            error.message = re.sub(rf"^{error.param}(?= (is|means) )", own, error.message)
            error.param = own
        raise


def _type(status: int) -> str:
    if status == STATUS["queue_full"]:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
