"""Cancels that nobody waits for: each is repeated until the router has answered it."""

from collections.abc import Callable

from common.log import get_logger
from common.messages import CancelJob

CANCEL_REPEATS_MAX = 12  # one at each tick of the link
_PREFIX = "c"  # begins the rid of such a CANCEL


class Cancelling:
    """The cancels on their way."""

    def __init__(self, send: Callable[[CancelJob], None], owner: str) -> None:
        self._send = send
        self._owner = owner
        self._repeats_left: dict[str, int] = {}  # by job id
        self._log = get_logger()

    def __len__(self) -> int:
        """How many are not answered."""
        return len(self._repeats_left)

    def begin(self, job_id: str) -> None:
        """Cancel a job."""
        self._repeats_left.setdefault(job_id, CANCEL_REPEATS_MAX)
        self._ask(job_id)

    def repeat(self) -> None:
        """Say again what has not been answered, but for what was said too often."""
        for job_id, left in list(self._repeats_left.items()):
            if left == 0:
                self._log.warning("cancel.unanswered", job_id=job_id)
                del self._repeats_left[job_id]
            else:
                self._repeats_left[job_id] = left - 1
                self._ask(job_id)

    def answered(self, rid: str) -> bool:
        """Is the message with this rid the answer to one? Then it is repeated no more."""
        if not rid.startswith(_PREFIX):
            return False
        self._repeats_left.pop(rid.removeprefix(_PREFIX), None)
        return True

    def _ask(self, job_id: str) -> None:
        self._send(CancelJob(rid=f"{_PREFIX}{job_id}", job_id=job_id, owner=self._owner))
