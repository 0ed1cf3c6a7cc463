"""What the clients were told: of each order its job, its end, and whatever was not as promised. Acts on nothing."""

from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256

from bench.chaos.orders import Order, picture_fault

DONE, FAILED, CANCELLED, REFUSED = "done", "failed", "cancelled", "refused"
FAULTS_TOLD_MAX = 40


@dataclass(slots=True)
class Entry:
    """One order, as its client knows it."""

    order: Order
    job_id: str = ""
    end: str = ""  # done | failed | cancelled | refused
    code: str = ""  # why it failed, or was refused
    sha256: str = ""
    deliveries: int = 0  # of its end
    asked: int = 0  # times it was submitted


@dataclass
class Ledger:
    """All orders, and the faults that their clients found."""

    entries: list[Entry] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)  # answers that said: come back later
    broken: Counter[str] = field(default_factory=Counter)  # requests that got no answer
    hung_up: int = 0
    came_back: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, entry: Entry, text: str) -> None:
        """Something that must not be."""
        self.faults.append(f"{entry.order.key} ({entry.order.door}, job {entry.job_id or '-'}): {text}")

    def accepted(self, entry: Entry, job_id: str) -> None:
        """It was told which job it is; each time the same one."""
        if entry.job_id and entry.job_id != job_id:
            self.fault(entry, f"is also job {job_id}")
        entry.job_id = job_id

    def done(self, entry: Entry, job_id: str, picture: bytes) -> None:
        """Its picture came."""
        self.accepted(entry, job_id)
        if wrong := picture_fault(entry.order, picture):
            self.fault(entry, f"the picture is wrong: {wrong}")
        digest = sha256(picture).hexdigest()
        if entry.sha256 not in ("", digest):
            self.fault(entry, "was delivered twice, with different pictures")
        entry.sha256 = digest
        self.ended(entry, DONE)

    def ended(self, entry: Entry, end: str, code: str = "") -> None:
        """Its end was told; each time the same one."""
        if entry.end and (entry.end, entry.code) != (end, code):
            self.fault(entry, f"ended twice: {entry.end} {entry.code}, then {end} {code}")
        entry.end, entry.code = end, code
        entry.deliveries += 1

    @property
    def hanging(self) -> list[Entry]:
        """Those whose client still waits."""
        return [entry for entry in self.entries if not entry.end]
