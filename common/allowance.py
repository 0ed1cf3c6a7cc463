"""So much a minute: who has some left, and when the next is due. Requests at a gateway, GPU seconds at the router.

Pure. A bucket each name: full at first, it holds one minute's worth and fills evenly. It may be overdrawn by what is
only known afterwards; then it is empty for as long as that takes to fill. `now` is monotonic seconds.
"""

from dataclasses import dataclass

MINUTE_S = 60.0
NAMES_MAX = 10_000
_ROUNDING = 1e-6  # of what is needed: who comes back exactly when told is let in


@dataclass(slots=True)
class _Bucket:
    left: float
    per_minute: float
    at_now: float

    def fill(self, now: float) -> None:
        self.left = min(self.per_minute, self.left + max(0.0, now - self.at_now) * self.per_minute / MINUTE_S)
        self.at_now = now


class Allowances:
    """The buckets of everyone who has been heard lately."""

    def __init__(self, names_max: int = NAMES_MAX) -> None:
        self._names_max = names_max
        self._buckets: dict[str, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, name: str, per_minute: float, need: float, now: float) -> float:
        """Seconds until `name` has `need` left of its `per_minute`; 0: it has."""
        bucket = self._buckets.get(name)
        if bucket is None:
            self._make_room(now)
            bucket = self._buckets[name] = _Bucket(per_minute, per_minute, now)
        bucket.fill(now)
        if bucket.per_minute != per_minute:  # what was had counts on under another limit
            bucket.left, bucket.per_minute = bucket.left + per_minute - bucket.per_minute, per_minute
        missing = min(need, per_minute) - bucket.left
        return missing / per_minute * MINUTE_S if missing > _ROUNDING else 0.0

    def spend(self, name: str, amount: float, now: float) -> None:
        """So much was had; less than nothing gives some back. Of a name that is not known nothing is noted."""
        bucket = self._buckets.get(name)
        if bucket is not None:
            bucket.fill(now)
            bucket.left = min(bucket.per_minute, bucket.left - amount)

    def _make_room(self, now: float) -> None:
        if len(self._buckets) < self._names_max:
            return
        for name, bucket in list(self._buckets.items()):
            bucket.fill(now)
            if bucket.left >= bucket.per_minute:  # as if it had never been heard
                del self._buckets[name]
        if len(self._buckets) >= self._names_max:
            del self._buckets[next(iter(self._buckets))]
