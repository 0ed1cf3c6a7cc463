"""Clients' own names for their jobs: the same key and job again is the same job.

Pure. A key outlives its job's result, so that a late repetition never draws twice.
"""

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

from msgspec import msgpack, to_builtins

from common.messages import Submit

KEYS_MAX = 200_000  # remembered at once; the oldest go first


@dataclass(frozen=True, slots=True)
class Key:
    """Whose job this is. `taken_at`: wall seconds."""

    job_id: str
    digest: bytes
    taken_at: float


class Keys:
    """All keys by (owner, key), oldest first."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._keys: OrderedDict[tuple[str, str], Key] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, owner: str, key: str) -> Key | None:
        """Which job this key means, if any."""
        return self._keys.get((owner, key))

    def take(self, owner: str, key: str, taken: Key) -> None:
        """Remember."""
        self._keys[owner, key] = taken

    def drop(self, owner: str, key: str) -> None:
        """Forget one."""
        del self._keys[owner, key]

    def forget_oldest(self, wall: float) -> tuple[str, str] | None:
        """Forget one whose time is over, or for which there is no room; None: there is no such one."""
        oldest = next(iter(self._keys.items()), None)
        if oldest is None or (oldest[1].taken_at + self._ttl_s > wall and len(self._keys) <= KEYS_MAX):
            return None
        del self._keys[oldest[0]]
        return oldest[0]


def digest(submit: Submit) -> bytes:
    """What makes two submissions of one key the same: the digest that the client gives, else the job.

    It stands in journals, so that it may not change: what a job leaves out is left out here, however many fields
    there are by now.
    """
    return blake2b(msgpack.encode(submit.digest or to_builtins(submit.job)), digest_size=16).digest()
