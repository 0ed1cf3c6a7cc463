"""The one taxonomy of failures: a code, whose fault it is, whether a retry may help, what to do now.

Pure. Every error a person or a program can see, on any door, carries one of these codes. What HTTP
status a code becomes is the gateway's business; whether a *job* is tried again is the router's.
"""

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """Who has to change something."""

    CLIENT = "client"  # the request is wrong; the same request will fail again
    CAPACITY = "capacity"  # nothing is wrong; there is no room just now
    SERVER = "server"  # GenServe, its model folder or its hardware


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """What is true of every error with one code."""

    code: str
    fault: Fault
    retryable: bool  # may the same request succeed later?
    next_step: str  # what its reader should do now


def _kinds(*rows: tuple[str, Fault, bool, str]) -> dict[str, ErrorKind]:
    return {code: ErrorKind(code, fault, retryable, step) for code, fault, retryable, step in rows}


ERRORS: dict[str, ErrorKind] = _kinds(
    ("invalid_request", Fault.CLIENT, False, "correct the field that the message names and send it again"),
    ("unsupported", Fault.CLIENT, False, "leave out the field that the message names or pick a value it lists"),
    ("unknown_model", Fault.CLIENT, False, "pick one of the models that the message lists"),
    ("not_found", Fault.CLIENT, False, "check the id; results are kept for a limited time only"),
    ("forbidden", Fault.CLIENT, False, "use a key that may do this; docs/keys.md tells what each role and right may"),
    ("invalid_api_key", Fault.CLIENT, False, "send Authorization: Bearer KEY; `genserve keys add-http NAME` makes one"),
    ("method_not_allowed", Fault.CLIENT, False, "use one of the methods that the Allow header lists"),
    ("too_large", Fault.CLIENT, False, "send less: the message names the limit"),
    ("key_conflict", Fault.CLIENT, False, "use a new key for a new job, or send the first body again"),
    ("protocol_error", Fault.CLIENT, False, "compare what was sent with docs/protocol.md"),
    ("cancelled", Fault.CLIENT, False, "submit the job again if you still want it"),
    ("queue_full", Fault.CAPACITY, True, "wait as long as retry_after_s says and send it again"),
    ("rate_limit_exceeded", Fault.CAPACITY, True, "wait as long as Retry-After says and send it again"),
    ("storage_full", Fault.CAPACITY, True, "free disk space at the router, or wait until results have expired"),
    ("not_finished", Fault.CAPACITY, True, "ask again when Retry-After says"),
    ("deadline_unreachable", Fault.CAPACITY, False, "allow more time than the message estimates, or leave it out"),
    ("unavailable", Fault.CAPACITY, True, "wait a few seconds and send it again"),
    ("deadline_exceeded", Fault.CAPACITY, True, "send it again when the fleet is less busy"),
    ("job_timeout", Fault.SERVER, False, "ask for fewer steps or a smaller size, or raise gpu_daemon.job_timeout_s"),
    ("out_of_memory", Fault.SERVER, False, "ask for a smaller size, or set gpu_daemon.offload = 'on'"),
    ("engine_error", Fault.SERVER, True, "read the daemon's log for this job: it holds the traceback"),
    ("engine_died", Fault.SERVER, True, "send it again; the daemon's log says why its engine died"),
    ("worker_lost", Fault.SERVER, True, "send it again; the router's log names the daemon that went away"),
    ("poison", Fault.SERVER, False, "do not resend it as it is: it ended two engines; read the daemon's log"),
    ("model_load_failed", Fault.SERVER, False, "mend the model folder as the message says and restart the daemon"),
    ("device_unavailable", Fault.SERVER, False, "name a device that exists and that no other daemon holds"),
    ("invalid_settings", Fault.SERVER, False, "correct the setting that the message names and start again"),
    ("journal_failed", Fault.SERVER, False, "mend the router's state folder as the message says and start it again"),
    ("address_in_use", Fault.SERVER, False, "stop the process that holds the address or choose another one"),
    ("internal", Fault.SERVER, True, "send it again; report the log line with this code if it happens twice"),
)


class GenServeError(Exception):
    """A failure with a code of the taxonomy and a message made for its reader.

    `param` names the field at fault, `retry_after_s` says when to come back; both may be absent.
    """

    def __init__(
        self, code: str, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = ERRORS[code]
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class ProtocolError(GenServeError):
    """Frames that are no message: too many, too long, of another version, unknown, or malformed.

    `rid` names the request where at least that could be read, else it is ''.
    """

    def __init__(self, message: str, *, rid: str = "") -> None:
        super().__init__("protocol_error", message)
        self.rid = rid


class SettingsError(GenServeError):
    """A setting that is unknown, out of its range or contradicts another. Stops the start."""

    def __init__(self, message: str) -> None:
        super().__init__("invalid_settings", message)
