"""What a journal on disk refuses to start with, and what it says to do; that it says true."""

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import msgpack
import pytest

from common.errors import GenServeError
from router.journal_rows import _sum
from router.journal_schema import VERSION, open_database
from router.state_folder import state_folder
from tests.router import journals as j
from tests.router.journals import opened

ROOT = Path(__file__).resolve().parents[2]
ROWS = "SELECT shelf, place, n, kind FROM record ORDER BY 1, 2, 3"


def filled(folder: Path) -> None:
    """A model, two jobs, one of them done, and a key."""
    with opened(folder) as journal:
        journal.append(j.model("m"))
        journal.append(j.accepted(1))
        journal.append(j.dispatched(1))
        journal.append(j.key("k", 1))
        j.finish(journal, 2, b"abc", b"d")


def refusal(folder: Path) -> str:
    with pytest.raises(GenServeError) as raised, opened(folder):
        pass
    assert raised.value.code == "journal_failed"
    return raised.value.message


def change(folder: Path, statement: str, *values: object) -> None:
    database = apsw.Connection(os.fspath(folder / "journal.db"))
    database.execute(statement, values)
    assert database.changes() > 0
    database.close()


def picture_of(folder: Path, number: int) -> Path:
    return folder / "pictures" / j.job_id(number)[:2] / f"{j.job_id(number)}.1"


# --- rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE record SET body = CAST(replace(body, 'a red fox', 'a bad fox') AS BLOB) WHERE place = 2 AND n = 0",
        "UPDATE record SET sum = zeroblob(16) WHERE shelf = 1 AND place = 2 AND n = 1",
        "UPDATE record SET kind = 'JobCancelled' WHERE shelf = 1 AND place = 2 AND n = 0",
        f"UPDATE record SET job_id = '{'f' * 32}' WHERE shelf = 1 AND place = 2 AND n = 0",
        "UPDATE record SET n = 7 WHERE shelf = 1 AND place = 2 AND n = 1",
        "DELETE FROM record WHERE shelf = 1 AND place = 2 AND n = 0",
    ],
)
def test_a_damaged_row_is_named_and_can_be_given_up(tmp_path: Path, statement: str) -> None:
    filled(tmp_path)
    change(tmp_path, statement)
    message = refusal(tmp_path)
    assert str(tmp_path / "journal.db") in message
    assert "(shelf 1, place 2, n " in message
    subprocess.run(_command(message), check=True)
    with opened(tmp_path) as journal:
        assert [type(record).__name__ for record in journal.replay()] == [
            "ModelKnown", "JobAccepted", "JobDispatched", "JobStarted", "JobDone", "KeyTaken",
        ]  # fmt: skip


def _command(message: str) -> list[str]:
    """What a message says to run."""
    return shlex.split(message.rpartition(": ")[2])


def test_a_record_of_another_kind_is_no_row_that_is_skipped(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path) as journal:
        rows = journal._rows
        rows._put(1, (j.job_id(1),), j.model("m"), j.job_id(1))
        journal.commit()
    assert "does not say what its body says" in refusal(tmp_path)


def test_a_body_that_is_no_record_is_told(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path) as journal:
        journal.append(j.started(1))
        statement, values = journal._rows._batch.pop()
        facts = (*values[:5], msgpack.packb({"type": "JobPromised"}))
        journal._rows._batch.append((statement, (*facts, _sum(facts))))
        journal.commit()
    assert "no record that this GenServe knows" in refusal(tmp_path)


# --- the file ----------------------------------------------------------------------------------


def _overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.mark.parametrize("at", [0, 4096 + 3])
def test_a_damaged_database_is_refused_and_left_as_it_is(tmp_path: Path, at: int) -> None:
    filled(tmp_path)
    path = tmp_path / "journal.db"
    _overwrite(path, at, b"\xff" * 64)
    before = path.read_bytes()
    assert "is damaged" in refusal(tmp_path)
    assert path.read_bytes() == before


def test_a_truncated_database_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    os.truncate(tmp_path / "journal.db", 4096)
    assert "journal.db" in refusal(tmp_path)


_KILLED = """
import os, sys
from pathlib import Path
from tests.router import journals as j
with j.opened(Path(sys.argv[1])) as journal:
    for number in range(int(sys.argv[2])):
        journal.append(j.accepted(number))
        journal.commit()
    os.kill(os.getpid(), 9)
"""


def _killed(folder: Path, commits: int) -> Path:
    """As kill -9 leaves it: the commits stand in the write-ahead log. Its path."""
    done = subprocess.run([sys.executable, "-c", _KILLED, str(folder), str(commits)], cwd=ROOT, check=False)
    assert done.returncode == -9
    return folder / "journal.db-wal"


def test_the_log_of_a_killed_router_is_taken_up_less_an_unfinished_tail(tmp_path: Path) -> None:
    log = _killed(tmp_path, 20)
    size = log.stat().st_size
    os.truncate(log, size - 100)
    with log.open("ab") as file:
        file.write(bytes(3000))
    with opened(tmp_path) as journal:
        assert journal.replay() == [j.accepted(number) for number in range(19)]


@pytest.mark.parametrize("at", [8, 20, 32 + 4120 * 5 + 500, 32 + 4120 * 5 + 8, 32 + 4120 * 5 + 17])
def test_committed_work_that_a_damaged_log_hides_is_not_dropped(tmp_path: Path, at: int) -> None:
    log = _killed(tmp_path, 20)
    (byte,) = log.read_bytes()[at : at + 1]
    _overwrite(log, at, bytes([byte ^ 1]))
    before = log.read_bytes()
    for _ in range(2):  # the first refusal destroys no evidence
        assert "journal.db-wal" in refusal(tmp_path)
    assert log.read_bytes() == before


# --- versions ----------------------------------------------------------------------------------


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    database = apsw.Connection(os.fspath(tmp_path / "journal.db"))
    database.pragma("user_version", VERSION + 1)
    database.close()
    assert f"of version {VERSION + 1}, written by a newer GenServe" in refusal(tmp_path)


def test_another_database_is_refused(tmp_path: Path) -> None:
    database = apsw.Connection(os.fspath(tmp_path / "journal.db"))
    database.execute("CREATE TABLE mine (a)")
    database.close()
    assert "no journal of GenServe" in refusal(tmp_path)


def _wider(database: apsw.Connection) -> None:
    database.execute("ALTER TABLE record ADD COLUMN extra TEXT NOT NULL DEFAULT ''")


def _named(database: apsw.Connection) -> None:
    database.execute("ALTER TABLE record RENAME COLUMN extra TO remark")


def test_an_older_journal_is_copied_and_then_migrated_step_by_step(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "journal.db"
    database = open_database(path, version=VERSION + 2, migrations={VERSION: _wider, VERSION + 1: _named})
    rows = database.execute(ROWS).fetchall()
    assert database.pragma("user_version") == VERSION + 2
    assert database.execute("SELECT count(remark) FROM record").get == len(rows) > 5
    database.close()
    copy = tmp_path / f"journal.db.before-v{VERSION + 2}"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    copied = apsw.Connection(os.fspath(copy))
    assert (copied.pragma("user_version"), copied.execute(ROWS).fetchall()) == (VERSION, rows)
    copied.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path)

    def broken(database: apsw.Connection) -> None:
        _wider(database)
        database.execute("no SQL")

    with pytest.raises(GenServeError, match="cannot be used"):
        open_database(tmp_path / "journal.db", version=VERSION + 1, migrations={VERSION: broken})
    with opened(tmp_path) as journal:
        assert len(journal.replay()) > 5


def test_the_copy_before_a_migration_must_succeed(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / f"journal.db.before-v{VERSION + 1}").mkdir()
    with pytest.raises(GenServeError, match="before it is migrated"):
        open_database(tmp_path / "journal.db", version=VERSION + 1, migrations={VERSION: _wider})
    with opened(tmp_path) as journal:
        assert len(journal.replay()) > 5


# --- pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "words"),
    [(Path.unlink, "is missing"), (lambda path: os.truncate(path, 3), "has 3 bytes where 4 were written")],
)
def test_a_picture_that_is_not_as_it_was_kept_is_named(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    filled(tmp_path)
    path = picture_of(tmp_path, 2)
    data = path.read_bytes()
    damage(path)
    message = refusal(tmp_path)
    assert f"{path} {words}" in message
    path.write_bytes(data)
    with opened(tmp_path):
        pass
    path.unlink()
    subprocess.run(_command(refusal(tmp_path)), check=True)
    with opened(tmp_path) as journal:
        assert [r.job_id for r in journal.replay() if hasattr(r, "order")] == [j.job_id(1)]


def test_a_picture_of_other_bytes_is_never_given(tmp_path: Path) -> None:
    filled(tmp_path)
    path = picture_of(tmp_path, 2)
    with opened(tmp_path) as journal:
        for bad in (b"abcD", b"abc", b"abcde"):
            path.write_bytes(bad)
            with pytest.raises(GenServeError, match="is damaged on the router's disk") as raised:
                journal.fetch(j.job_id(2))
            assert raised.value.code == "journal_failed"
            assert str(tmp_path) not in raised.value.message  # it is read by clients
        path.write_bytes(b"abcd")
        assert [f.bytes for f in journal.fetch(j.job_id(2)) or ()] == [b"abc", b"d"]
        path.unlink()
        path.mkdir()
        with pytest.raises(GenServeError, match="could not be read") as raised:
            journal.fetch(j.job_id(2))
        assert raised.value.code == "internal"
        path.rmdir()
        path.write_bytes(b"abcd")


def test_what_nobody_names_is_swept_and_nothing_else(tmp_path: Path) -> None:
    filled(tmp_path)
    kept = picture_of(tmp_path, 2)
    folder = kept.parent
    for name in (f"{j.job_id(2)}.2", f"{j.job_id(2)}.1.tmp", f"{j.job_id(7)}.1"):
        (folder / name).write_bytes(b"x")
    other = folder / "notes of a person"
    other.write_text("mine", "utf-8")
    with opened(tmp_path) as journal:
        assert [f.bytes for f in journal.fetch(j.job_id(2)) or ()] == [b"abc", b"d"]
    assert sorted(folder.iterdir()) == sorted([kept, other])


# --- the folder --------------------------------------------------------------------------------


def test_a_second_router_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert f"another router uses the state folder {tmp_path}" in refusal(tmp_path)
    with opened(tmp_path):
        pass


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    filled(folder)
    with opened(folder) as journal:
        journal.append(j.accepted(3))
        journal.commit()
        for path in [folder, *folder.rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    message = refusal(tmp_path / "file" / "state")
    assert "router.state_dir" in message


@pytest.mark.parametrize(
    ("setting", "env", "expected"),
    [
        ("/a/b", {"STATE_DIRECTORY": "/s"}, "/a/b"),
        ("", {"STATE_DIRECTORY": "/s:/t", "XDG_STATE_HOME": "/x"}, "/s"),
        ("", {"XDG_STATE_HOME": "/x"}, "/x/genserve/12412"),
        ("", {"XDG_STATE_HOME": "x"}, "/h/.local/state/genserve/12412"),
        ("", {}, "/h/.local/state/genserve/12412"),
        ("~/mine", {}, "/h/mine"),
    ],
)
def test_which_folder_it_is(setting: str, env: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert state_folder(setting, 12412, env) == Path(expected)
