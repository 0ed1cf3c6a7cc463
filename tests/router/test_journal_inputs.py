"""What jobs start from, in both journals: checked, kept under an id, given as a DISPATCH has it, gone with its job."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.codec import PART_BYTES_MAX
from common.errors import GenServeError
from router.journal import Journal, Stored, inputs_token
from router.memory_journal import MemoryJournal
from tests.router import journals as j
from tests.router.journals import opened
from tests.service import wait_for

FIRST, SECOND = j.png(7, b"a" * (PART_BYTES_MAX + 1000)), j.png(9, b"b")
FRAME_SIZES = [PART_BYTES_MAX, len(FIRST) - PART_BYTES_MAX, len(SECOND)]


@pytest.fixture(params=["sqlite", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    if request.param == "sqlite":
        with opened(tmp_path) as kept:
            yield kept
    else:
        memory = MemoryJournal()
        yield memory
        memory.close()


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "pictures").rglob("*") if path.is_file())


def _given(journal: Journal, number: int) -> list[bytes]:
    return [bytes(getattr(frame, "buffer", frame)) for frame in journal.fetch_inputs(j.job_id(number))]


def test_they_come_back_in_the_frames_of_a_dispatch_however_they_came(journal: Journal) -> None:
    journal.store_inputs(
        j.job_id(1), j.inputs(FIRST, SECOND), j.frames(FIRST[:10], FIRST[10:300_000], FIRST[300_000:], SECOND)
    )
    assert j.stored(journal, 1) == [Stored(inputs_token(j.job_id(1)))]
    given = _given(journal, 1)
    assert [len(frame) for frame in given] == FRAME_SIZES
    assert b"".join(given) == FIRST + SECOND
    assert journal.fetch(j.job_id(1)) is None, "they are not its picture"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda data: data[:-1] + b"x", "sha256"),
        (lambda data: b"GIF" + data[3:], "sha256"),
    ],
)
def test_bytes_that_are_not_as_told_are_refused(journal: Journal, harm: Callable[[bytes], bytes], words: str) -> None:
    journal.store_inputs(
        j.job_id(1), j.inputs(SECOND, FIRST), j.frames(SECOND, harm(FIRST)[:400_000], harm(FIRST)[400_000:])
    )
    (stored,) = j.stored(journal, 1)
    assert stored.refusal.startswith("inputs[1]: ")
    assert words in stored.refusal


def test_a_header_that_is_not_as_told_is_refused(journal: Journal) -> None:
    for data, words in (
        (b"GIF89a" + bytes(30), "neither PNG"),
        (j.png(11), "it is a png of 11x2 pixels, not a png of 9x2"),
    ):
        facts = (j.structs.replace(j.inputs(SECOND)[0], bytes=len(data), sha256=j.sha256_of(data)),)
        journal.store_inputs(j.job_id(1), facts, j.frames(data))
        (stored,) = j.stored(journal, 1)
        assert words in stored.refusal


def test_they_outlive_the_process_until_their_job_has_ended(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(1, 6):
            assert not j.keep_inputs(journal, number, SECOND)[0].refusal
        for record in (
            j.accepted_with(1, SECOND),  # waits
            j.accepted_with(2, SECOND), j.cancelled(2),
            j.accepted_with(3, SECOND), j.failed(3),  # a dead letter
            j.accepted_with(4, SECOND), j.failed(4), j.accepted_with(6, SECOND, source=4), j.revived(4, 6),
        ):  # fmt: skip
            journal.append(record)
        journal.commit()  # and killed before what has ended is dropped; 5 was never accepted
    with opened(tmp_path) as journal:
        assert _files(tmp_path) == [f"{j.job_id(number)}.0" for number in (1, 3, 4)]
        assert b"".join(_given(journal, 4)) == SECOND
        journal.append(j.cancelled(6))
        journal.drop_inputs(j.job_id(4))
        journal.commit()
        wait_for("removal", lambda: f"{j.job_id(4)}.0" not in _files(tmp_path))


def test_missing_or_damaged_ones_are_told_with_their_job(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        j.keep_inputs(journal, 1, SECOND)
        for record in (j.accepted_with(1, SECOND), j.failed(1), j.accepted_with(2, SECOND, source=1), j.revived(1, 2)):
            journal.append(record)
        journal.commit()
        (path,) = (tmp_path / "pictures").rglob("*.0")
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"x")
        with pytest.raises(GenServeError, match="SHA-256 differs") as caught:
            journal.fetch_inputs(j.job_id(1))
        assert caught.value.code == "journal_failed"
    path.write_bytes(whole[:-1])
    with pytest.raises(GenServeError, match=f"job {j.job_id(2)} is not as it was kept"), opened(tmp_path):
        pass
