"""The only place that reads the clock.

Decisions use monotonic seconds, passed in as `now`; wall seconds are for records and for people.
"""

import time


def monotonic_s() -> float:
    """Seconds that never run backwards; only differences mean anything."""
    return time.monotonic()


def wall_s() -> float:
    """Seconds since 1970-01-01 UTC, as the host believes."""
    return time.time()
