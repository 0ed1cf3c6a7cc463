"""Roles of keys, and what follows from each: which endpoint it may use, for whom it may speak, whose jobs it sees.

Pure. A peer is who its key says it is: `Identity`. Where there are no keys (loopback only) everyone is LOCAL.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from msgspec import Struct

Side: TypeAlias = Literal["client", "worker"]  # the router's two endpoints
Role: TypeAlias = Literal["daemon", "client", "gateway", "admin"]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"  # of a key; no slash: what follows it in a worker_id is the device
LOCAL_NAME = "local"  # who everyone is without keys, and the owner of what is asked over HTTP
RESERVED_NAMES = (LOCAL_NAME, "server")
ANYONE = "*"  # as an owner in a question: whoever it is; for those who may name any owner


@dataclass(frozen=True, slots=True)
class Rights:
    """What a role may do."""

    side: Side | None  # the endpoint it may use; None: both
    acts_for_others: bool = False  # may name another owner of what it asks for
    sees_all: bool = False  # sees and touches everyone's jobs, and who is connected
    may: str = ""  # the same, in words


ROLES: dict[str, Rights] = {
    "daemon": Rights("worker", may="register its own host's GPUs and draw; send no jobs"),
    "client": Rights("client", may="send jobs; see and touch its own"),
    "gateway": Rights("client", acts_for_others=True, may="send jobs on behalf of others"),
    "admin": Rights("client", sees_all=True, may="send jobs; see and touch everyone's; see who is connected"),
}
_NO_KEYS = Rights(None, acts_for_others=True, sees_all=True)


class Identity(Struct, frozen=True):
    """Who sent a message: the name of its key, and the key's role ('' without keys)."""

    name: str
    role: str

    @property
    def rights(self) -> Rights:
        """What it may do."""
        return ROLES.get(self.role, _NO_KEYS)

    def sees_job_of(self, owner: str) -> bool:
        """May it see and touch this owner's jobs in its own name?"""
        return owner == self.name or self.rights.sees_all

    def owns_worker(self, worker_id: str) -> bool:
        """May it call a GPU daemon so? With keys: its own name, a slash, and anything."""
        return self.role == "" or worker_id.startswith(f"{self.name}/")


LOCAL = Identity(LOCAL_NAME, "")
