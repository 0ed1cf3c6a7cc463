"""Every message on GenServe's wire, version 1, as a frozen typed struct.

Pure: no sockets, no time. A message is `[b"GS1", NAME, header, payload…]`; the header is one msgpack map,
the fields below by name. See docs/protocol.md for the same told to someone who writes a client.

Client and router (`rid` is the client's own name for its request and is echoed in every answer):

    SUBMIT  -> ACCEPTED | REJECTED, then as its watcher: PROGRESS* (RESULT | FAILED | CANCELLED)
    WATCH   -> JOB, or at once RESULT | FAILED | CANCELLED | ERROR(not_found); then as above
    CANCEL  -> CANCELLED, or JOB where the job had ended before | ERROR(not_found)
    JOB     -> JOB | ERROR(not_found)
    FETCH   -> RESULT | FAILED | CANCELLED, or JOB where it has not ended | ERROR(not_found)
    DEAD_LETTERS -> DEAD_LETTERS
    REQUEUE -> ACCEPTED | REJECTED, then as for SUBMIT | ERROR(not_found)
    STATUS  -> STATUS
    KEYS    -> KEYS | ERROR(forbidden)
    PING    -> PONG
    (undecodable) -> ERROR without rid; an ERROR is never answered

Whatever names an `owner` that is not the sender's to name is ERROR(forbidden), a SUBMIT or REQUEUE REJECTED.

Daemon and router (from an unbound routing id anything but REGISTER is answered RESYNC: register):

    REGISTER(nonce), repeated -> WELCOME(nonce, a new epoch, keep or drop for each token)
    CREDIT, HEARTBEAT, DRAINING, BYE          of the present epoch only
    DISPATCH(token) -> STARTED -> PROGRESS* -> DONE | FAIL, kept until RESULT_ACK | FENCED
                    -> RETURNED               not started, given back
    CANCEL(token), DRAIN                      from the router

Unknown fields are refused from clients (a typing slip must not pass) and ignored between our own
processes (the router is upgraded first).
"""

from common.messages.client import (
    Accepted,
    CancelJob,
    Cancelled,
    ClientMessage,
    DeadLettersQuery,
    DeadLettersReply,
    ErrorReply,
    Failed,
    Fetch,
    JobProgress,
    JobQuery,
    JobReply,
    JobsQuery,
    JobsReply,
    KeysQuery,
    KeysReply,
    OwnedMessage,
    Ping,
    Pong,
    Rejected,
    Requeue,
    Result,
    StatusQuery,
    StatusReply,
    Submit,
    Watch,
)
from common.messages.parts import (
    INPUT_BYTES_MAX,
    INPUT_PIXELS_MAX,
    INPUTS_MAX,
    NEGATIVE_PROMPT_CHARS_MAX,
    PREVIEWS_MAX,
    PROMPT_CHARS_MAX,
    SEED_MAX,
    SIDE_MAX,
    STEPS_MAX,
    SUFFIXES,
    Count,
    DeviceInfo,
    DeviceLoad,
    ErrorInfo,
    Format,
    HeldToken,
    InputPicture,
    InputSpec,
    JobId,
    JobOrder,
    JobSpec,
    Label,
    Message,
    Note,
    Parts,
    Picture,
    Quality,
    Rid,
    Seconds,
    ShownState,
    Terms,
    Text,
    Timings,
    Token,
    TraceParent,
)
from common.messages.views import (
    DEAD_LETTERS_PER_PAGE,
    JOBS_PER_PAGE,
    KEYS_PER_PAGE,
    STATUS_FAILURES,
    STATUS_WORKERS_PER_PAGE,
    FailureView,
    Histogram,
    JobMoment,
    JobView,
    KeyView,
    ModelView,
    RouterLimits,
    RouterMeasures,
    RouterStats,
    WorkerView,
)
from common.messages.worker import (
    Bye,
    CancelToken,
    Credit,
    Dispatch,
    Done,
    Drain,
    Draining,
    Fail,
    Fenced,
    Heartbeat,
    Register,
    ResultAck,
    Resync,
    Returned,
    Started,
    Welcome,
    WorkerMessage,
    WorkerProgress,
)


def _table(*types: type[Message]) -> dict[bytes, type[Message]]:
    return {t.NAME: t for t in types}


CLIENT_TO_ROUTER = _table(
    Submit,
    CancelJob,
    Watch,
    JobQuery,
    Fetch,
    JobsQuery,
    DeadLettersQuery,
    Requeue,
    StatusQuery,
    KeysQuery,
    Ping,
    ErrorReply,
)
ROUTER_TO_CLIENT = _table(
    Accepted,
    Rejected,
    JobProgress,
    Result,
    Failed,
    Cancelled,
    JobReply,
    JobsReply,
    DeadLettersReply,
    StatusReply,
    KeysReply,
    ErrorReply,
    Pong,
)
WORKER_TO_ROUTER = _table(
    Register, Credit, Started, WorkerProgress, Done, Fail, Returned, Heartbeat, Draining, Bye, ErrorReply
)
ROUTER_TO_WORKER = _table(Welcome, Dispatch, CancelToken, ResultAck, Fenced, Drain, Resync, ErrorReply)

__all__ = [
    "CLIENT_TO_ROUTER",
    "DEAD_LETTERS_PER_PAGE",
    "INPUTS_MAX",
    "INPUT_BYTES_MAX",
    "INPUT_PIXELS_MAX",
    "JOBS_PER_PAGE",
    "KEYS_PER_PAGE",
    "NEGATIVE_PROMPT_CHARS_MAX",
    "PREVIEWS_MAX",
    "PROMPT_CHARS_MAX",
    "ROUTER_TO_CLIENT",
    "ROUTER_TO_WORKER",
    "SEED_MAX",
    "SIDE_MAX",
    "STATUS_FAILURES",
    "STATUS_WORKERS_PER_PAGE",
    "STEPS_MAX",
    "SUFFIXES",
    "WORKER_TO_ROUTER",
    "Accepted",
    "Bye",
    "CancelJob",
    "CancelToken",
    "Cancelled",
    "ClientMessage",
    "Count",
    "Credit",
    "DeadLettersQuery",
    "DeadLettersReply",
    "DeviceInfo",
    "DeviceLoad",
    "Dispatch",
    "Done",
    "Drain",
    "Draining",
    "ErrorInfo",
    "ErrorReply",
    "Fail",
    "Failed",
    "FailureView",
    "Fenced",
    "Fetch",
    "Format",
    "Heartbeat",
    "HeldToken",
    "Histogram",
    "InputPicture",
    "InputSpec",
    "JobId",
    "JobMoment",
    "JobOrder",
    "JobProgress",
    "JobQuery",
    "JobReply",
    "JobSpec",
    "JobView",
    "JobsQuery",
    "JobsReply",
    "KeyView",
    "KeysQuery",
    "KeysReply",
    "Label",
    "Message",
    "ModelView",
    "Note",
    "OwnedMessage",
    "Parts",
    "Picture",
    "Ping",
    "Pong",
    "Quality",
    "Register",
    "Rejected",
    "Requeue",
    "Result",
    "ResultAck",
    "Resync",
    "Returned",
    "Rid",
    "RouterLimits",
    "RouterMeasures",
    "RouterStats",
    "Seconds",
    "ShownState",
    "Started",
    "StatusQuery",
    "StatusReply",
    "Submit",
    "Terms",
    "Text",
    "Timings",
    "Token",
    "TraceParent",
    "Watch",
    "Welcome",
    "WorkerMessage",
    "WorkerProgress",
    "WorkerView",
]
