"""What a peer may ask, by its key: in whose name it speaks, which jobs exist for it.

Pure. What each role may do stands in common/roles.py.
"""

from common.errors import GenServeError
from common.messages import KeysQuery, Message, OwnedMessage
from common.roles import Identity
from router.jobs import Job


def check_allowed(message: Message, who: Identity) -> None:
    """Raise GenServeError forbidden where the role of `who` does not let it send this."""
    if isinstance(message, OwnedMessage):
        owner_of(message, who)
    elif isinstance(message, KeysQuery) and not who.rights.sees_all:
        raise GenServeError("forbidden", f"the key {who.name!r} may not ask who is connected: an admin's may")


def owner_of(message: OwnedMessage, who: Identity) -> str:
    """Whose job a message is about. Raises GenServeError forbidden where `who` may not speak for that owner."""
    owner = message.owner or who.name
    if owner != who.name and not who.rights.acts_for_others:
        raise GenServeError(
            "forbidden", f"the key {who.name!r} may not act for {owner!r}: only a gateway's key may", param="owner"
        )
    return owner


def may_touch(job: Job, message: OwnedMessage, who: Identity) -> bool:
    """Does this job exist for `who`? One who speaks for an owner sees what that owner sees."""
    return job.owner == message.owner if message.owner else who.sees_job_of(job.owner)


def check_worker_id(worker_id: str, who: Identity) -> None:
    """Raise GenServeError forbidden where this is no name for a daemon with the key of `who`."""
    if not who.owns_worker(worker_id):
        raise GenServeError(
            "forbidden",
            f"worker_id {worker_id!r} is not the key {who.name!r}'s to use: it must begin with '{who.name}/'; "
            "set gpu_daemon.worker_id so, or leave it out",
        )
