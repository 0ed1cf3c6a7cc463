"""The journal on disk gives back exactly what the one in memory would: after any records, any restart."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.memory_journal import MemoryJournal
from router.records import JobForgotten, KeyForgotten, ModelForgotten, Record
from router.sqlite_journal import SqliteJournal
from tests.router import journals as j
from tests.router.journals import opened

NAMES = ("a", "b", "c/d.e")
ACTIONS = ("accept", "dispatch", "start", "requeue", "done", "fail", "cancel", "revive", "forget")
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5)),
        st.tuples(st.sampled_from(("know", "unknow", "take", "untake")), st.sampled_from(NAMES)),
        st.sampled_from([("commit", 0), ("commit", 0), ("reopen", 0)]),
    ),
    max_size=60,
)


class Both:
    """The same records in both journals; those that cannot follow what was before are left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.memory = MemoryJournal()
        self.disk = self._open()
        self.jobs: dict[int, str] = {}  # number -> '', 'dispatched', 'ended' or 'failed'
        self.models: dict[str, int] = {}
        self.keys: set[str] = set()
        self.steps = 0

    def _open(self) -> SqliteJournal:
        return SqliteJournal(self.folder, disk_free_min_mb=0, reserve_mb=1, logger=j.get_logger())

    def append(self, record: Record) -> None:
        self.memory.append(record)
        self.disk.append(record)

    def commit(self) -> None:
        self.memory.commit()
        self.disk.commit()
        assert self.disk.replay() == self.memory.replay()

    def reopen(self) -> None:
        """What was not committed is gone, from both."""
        self.commit()
        for journal in (self.memory, self.disk):
            journal.append(j.accepted(999))
        self.memory._batch.clear()
        self.disk.close()
        self.disk = self._open()
        assert self.disk.replay() == self.memory.replay()

    def do(self, action: str, what: Any) -> None:
        self.steps += 1
        if action in ("commit", "reopen"):
            getattr(self, action)()
        elif action in ACTIONS:
            self._job(action, what)
        elif action == "know":
            self.models[what] = self.steps
            self.append(j.model(what, self.steps))
        elif action == "take":
            self.keys.add(what)
            self.append(j.key(what, self.steps))
        elif action == "unknow" and self.models.pop(what, None):
            self.append(ModelForgotten(name=what))
        elif action == "untake" and what in self.keys:
            self.keys.discard(what)
            self.append(KeyForgotten(owner="local", key=what))

    def _job(self, action: str, number: int) -> None:
        if (action == "accept") == (number in self.jobs):
            return
        if action == "accept":
            self.jobs[number] = ""
            self.append(j.accepted(number))
        elif action == "forget":
            del self.jobs[number]
            self.append(JobForgotten(job_id=j.job_id(number)))
            self.disk.drop(j.job_id(number))
        elif action == "revive":
            if self.jobs[number] == "failed":
                self.jobs[number] = "ended"
                self.append(j.revived(number, number + 100))
        elif self.jobs[number] in ("ended", "failed"):
            return
        elif action == "dispatch":
            self.jobs[number] = "dispatched"
            self.append(j.dispatched(number, self.steps))
            self.dispatch = self.steps
        elif action == "done":
            self.jobs[number] = "ended"
            self.append(j.dispatched(number, self.steps))
            j.keep_picture(self.disk, number, b"abc", b"d", dispatch=self.steps)
            self.append(j.done(number, b"abc", b"d"))
        else:
            make = {"start": j.started, "requeue": j.requeued, "fail": j.failed, "cancel": j.cancelled}[action]
            self.jobs[number] = {"fail": "failed", "cancel": "ended"}.get(action, self.jobs[number])
            self.append(make(number))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(OPERATIONS)
def test_replay_is_that_of_the_memory(operations: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        both = Both(Path(folder))
        try:
            for action, what in operations:
                both.do(action, what)
            both.reopen()
        finally:
            both.memory.close()
            both.disk.close()


def test_nothing_counts_before_it_is_committed_and_nothing_is_lost_after(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(j.accepted(1))
        journal.commit()
        journal.append(j.accepted(2))
        assert journal.replay() == [j.accepted(1)]
    with opened(tmp_path) as journal:
        assert journal.replay() == [j.accepted(1)]


def test_what_is_forgotten_leaves_no_row_and_no_file(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        j.finish(journal, 1, b"abc")
        (file,) = (path for path in (tmp_path / "pictures").rglob("*") if path.is_file())
        journal.append(j.key("k", 1))
        journal.commit()
        journal.drop(j.job_id(1))
        assert file.exists(), "removed before its record is"
        journal.append(JobForgotten(job_id=j.job_id(1)))
        journal.append(KeyForgotten(owner="local", key="k"))
        journal.commit()
    assert not file.exists()
    with opened(tmp_path) as journal:
        assert journal.replay() == []


def test_a_long_life_does_not_make_a_large_file(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(3000):
            journal.append(j.accepted(number))
            if number >= 10:
                journal.append(JobForgotten(job_id=j.job_id(number - 10)))
            journal.commit()
            journal.storage()
        assert (tmp_path / "journal.db-wal").stat().st_size < 8 * 1024 * 1024
    assert (tmp_path / "journal.db").stat().st_size < 200_000
