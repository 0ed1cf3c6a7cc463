"""Who is told about which job.

Pure. A watch is (peer, rid) on a job; it lapses unless it is repeated, and ends with its job.
"""

from dataclasses import dataclass
from math import inf

from common.settings import RouterSettings
from router.events import Peer


@dataclass(slots=True)
class Watch:
    """One watcher of one job. Monotonic seconds."""

    peer: Peer
    rid: str
    lapses_now: float
    told_now: float = -inf  # when it last heard of progress
    position: int = 0  # that it was told last


class Watches:
    """All watches, by job and by peer."""

    def __init__(self, settings: RouterSettings) -> None:
        self._ttl_s = settings.watch_ttl_s
        self._per_job_max = settings.watches_per_job_max
        self._jobs: dict[str, dict[tuple[Peer, str], Watch]] = {}
        self._peers: dict[Peer, set[tuple[str, str]]] = {}

    def add(self, job_id: str, peer: Peer, rid: str, now: float) -> Watch:
        """Watch, or go on watching. Where there are too many, the one nearest to lapsing makes room."""
        watches = self._jobs.setdefault(job_id, {})
        watch = watches.get((peer, rid))
        if watch is None:
            if len(watches) >= self._per_job_max:
                self._remove(job_id, min(watches.values(), key=lambda w: w.lapses_now))
                watches = self._jobs.setdefault(job_id, {})
            watch = watches[peer, rid] = Watch(peer, rid, now + self._ttl_s)
            self._peers.setdefault(peer, set()).add((job_id, rid))
        watch.lapses_now = now + self._ttl_s
        return watch

    def of(self, job_id: str, now: float) -> list[Watch]:
        """Those who watch this job now; lapsed ones are dropped."""
        watches = self._jobs.get(job_id)
        if not watches:
            return []
        live = []
        for watch in list(watches.values()):
            if watch.lapses_now < now:
                self._remove(job_id, watch)
            else:
                live.append(watch)
        return live

    def jobs(self) -> list[str]:
        """The ids of the jobs that are watched."""
        return list(self._jobs)

    def end(self, job_id: str, now: float) -> list[Watch]:
        """The last word on a job: who is to hear it. Nobody watches it afterwards."""
        watches = self.of(job_id, now)
        for watch in watches:
            self._remove(job_id, watch)
        return watches

    def drop_peer(self, peer: Peer) -> None:
        """This connection is gone."""
        for job_id, rid in self._peers.pop(peer, ()):
            self._forget(job_id, peer, rid)

    def _remove(self, job_id: str, watch: Watch) -> None:
        self._forget(job_id, watch.peer, watch.rid)
        theirs = self._peers[watch.peer]
        theirs.discard((job_id, watch.rid))
        if not theirs:
            del self._peers[watch.peer]

    def _forget(self, job_id: str, peer: Peer, rid: str) -> None:
        watches = self._jobs[job_id]
        del watches[peer, rid]
        if not watches:
            del self._jobs[job_id]

    def check(self) -> None:
        """Raise AssertionError where the two indexes differ, or hold too much."""
        count = 0
        for job_id, watches in self._jobs.items():
            assert 0 < len(watches) <= self._per_job_max, f"{len(watches)} watches of {job_id}"
            count += len(watches)
            for peer, rid in watches:
                assert (job_id, rid) in self._peers[peer], (job_id, peer, rid)
        assert count == sum(len(theirs) for theirs in self._peers.values()), "watches of jobs that are not watched"
        assert all(self._peers.values()), "a peer without watches is still listed"
