"""How the router says no to who asks for a picture, and when it takes no new jobs at all.

Pure.
"""

from common.errors import GenServeError
from common.messages import Rejected, Submit
from router.events import Submitted
from router.state import RouterState

DRAINING_RETRY_AFTER_S = 5.0
STORAGE_RETRY_AFTER_S = 30.0


def check_open(state: RouterState) -> None:
    """Raise GenServeError unavailable while it stops, storage_full while its disk is."""
    if state.draining_until_now is not None:
        raise GenServeError(
            "unavailable", "the router is stopping and takes no new jobs", retry_after_s=DRAINING_RETRY_AFTER_S
        )
    if state.storage_full:
        raise GenServeError(
            "storage_full", f"no new jobs are taken: {state.storage_full}", retry_after_s=STORAGE_RETRY_AFTER_S
        )


def reject(state: RouterState, event: Submitted, error: GenServeError) -> None:
    """Answer with the error, count it and write it down."""
    message = event.message
    asked = message.job if isinstance(message, Submit) else None
    state.totals.rejected += 1
    state.measures.rejected[error.code] += 1
    state.totals.queue_full += error.code == "queue_full"
    if error.code == "unknown_model":
        state.log("warning", "model.unknown", model=asked.model if asked else "")
    client = asked.client if asked else ""
    state.log("info", "job.rejected", code=error.code, message=error.message, client=client, peer_name=event.who.name)
    rejected = Rejected(
        rid=message.rid,
        code=error.code,
        message=error.message,
        param=error.param,
        retry_after_s=error.retry_after_s,
    )
    state.to_client(event.peer, rejected)
