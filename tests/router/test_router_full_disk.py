"""A real router on a disk that really becomes full: a small file system, or a limit on the size of files."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import GenServeError
from router.journal import JournalError, Stored
from tests.router import journals as j
from tests.router.journals import opened
from tests.router.process import Dealer, RouterProcess, router_process
from tests.service import wait_for
from tests.small_disk import fill, small_disk

MIB = 1024 * 1024
PARTS = (b"a" * 500_000, b"b" * 500_000, b"c")


@pytest.fixture(name="small_disk")
def _small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small") as disk:
        yield disk


# --- the journal alone -------------------------------------------------------------------------


def test_ends_are_written_from_the_reserve_and_it_is_made_again(small_disk: Path) -> None:
    state = small_disk / "state"
    with opened(state) as journal:
        assert not journal.storage().full
        filler = fill(small_disk)
        for number in range(100):  # some 8 KiB of log each
            journal.append(j.accepted(number))
            journal.append(j.cancelled(number))
            journal.commit()
        storage = journal.storage()
        assert storage.full
        assert "could not be set aside" in storage.detail
        assert not (state / "reserve").exists()
        filler.unlink()
        wait_for("room", lambda: not journal.storage().full, 5)
        assert (state / "reserve").stat().st_size == MIB
    with opened(state) as journal:
        assert len(journal.replay()) == 200


def test_when_the_reserve_is_used_up_as_well_the_journal_says_so_and_is_whole(small_disk: Path) -> None:
    committed = 0
    with opened(small_disk / "state") as journal:
        fill(small_disk)
        failure = ""
        while not failure:
            journal.append(j.accepted(committed))
            try:
                journal.commit()
                committed += 1
            except JournalError as error:
                failure = str(error)
        assert "SQLITE_FULL" in failure
        assert committed > 50
    with opened(small_disk / "state") as journal:
        assert journal.replay() == [j.accepted(number) for number in range(committed)]
        assert journal.storage().full


def test_a_picture_without_room_is_put_off_and_leaves_nothing(small_disk: Path) -> None:
    token = j.Token(job_id=j.job_id(1), dispatch=1)
    with opened(small_disk / "state") as journal:
        filler = fill(small_disk, leave=700_000)
        journal.store(token, j.picture(b"".join(PARTS)), j.frames(*PARTS))
        (stored,) = j.stored(journal, 1)
        assert (stored.token, stored.deferred) == (token, True)
        assert journal.fetch(token.job_id) is None
        assert [path for path in (small_disk / "state" / "pictures").rglob("*") if path.is_file()] == []
        assert journal.storage() == journal.storage()
        assert "1000001 bytes could not be written" in journal.storage().detail
        filler.unlink()
        wait_for("room", lambda: not journal.storage().full, 5)
        journal.store(token, j.picture(b"".join(PARTS)), j.frames(*PARTS))
        assert j.stored(journal, 1) == [Stored(token)]
        assert [frame.bytes for frame in journal.fetch(token.job_id) or ()] == list(PARTS)


def test_below_the_bound_it_is_full_and_free_again_only_well_above(small_disk: Path) -> None:
    with opened(small_disk / "state", disk_free_min_mb=4) as journal:
        for leave, full in ((5, False), (3.9, True), (4.1, True), (4.5, False), (4.1, False)):
            fill(small_disk, leave=int(leave * MIB) // 4096 * 4096)
            assert journal.storage().full == full, leave
            (small_disk / "filler").unlink()


def test_a_journal_cannot_be_begun_on_a_full_disk_but_goes_on_there(small_disk: Path) -> None:
    state = small_disk / "state"
    with opened(state) as journal:
        journal.append(j.accepted(1))
        journal.commit()
    (state / "reserve").unlink()
    filler = fill(small_disk)
    with opened(state) as journal:
        assert journal.replay() == [j.accepted(1)]
        assert journal.storage().full
    with pytest.raises(GenServeError, match=r"router\.state_dir"), opened(small_disk / "another"):
        pass
    filler.unlink()


# --- the process -------------------------------------------------------------------------------


def _submit(client: Dealer, number: int, answer: bytes = b"ACCEPTED") -> dict[str, object]:
    return client.ask(b"SUBMIT", answer, rid=str(number), job={"prompt": str(number)})[0]


def _no_room(router: RouterProcess, client: Dealer, make_room: Callable[[], None]) -> None:
    """A job is drawn for which there is no room, until there is: what still works, and that it is drawn once."""
    daemon = router.daemon()
    daemon.register()
    jobs = [_submit(client, number)["job_id"] for number in range(3)]
    token = daemon.until(b"DISPATCH")[0]["token"]
    daemon.started(token)
    daemon.done(token, *PARTS)
    second = daemon.until(b"DISPATCH")[0]["token"]
    assert second["job_id"] == jobs[1]
    daemon.until(b"RESYNC")  # what does it hold?
    assert daemon.register((token, "ended"), (second, "running"), credit=0)["keep"] == [token, second]
    daemon.done(token, *PARTS)  # this is left unanswered
    router.wait_event("storage.full")
    refusal = _submit(client, 9, b"REJECTED")
    assert (refusal["code"], refusal["retry_after_s"]) == ("storage_full", 30.0)
    cancelled, _ = client.ask(b"CANCEL", b"CANCELLED", rid="c", job_id=jobs[2])
    assert cancelled["job_id"] == jobs[2]
    daemon.send(
        b"FAIL", epoch=daemon.epoch, token=second, code="invalid_request", message="no such thing", started=True
    )
    assert client.until(b"FAILED")[0]["job_id"] == jobs[1]
    assert daemon.until(b"RESULT_ACK")[0]["token"] == second

    make_room()
    daemon.until(b"RESYNC")
    router.wait_event("storage.free")
    assert daemon.register((token, "ended"), credit=1)["keep"] == [token]
    daemon.done(token, *PARTS)
    assert daemon.until(b"RESULT_ACK")[0]["token"] == token
    result, payload = client.until(b"RESULT")
    assert (result["job_id"], payload) == (jobs[0], list(PARTS))
    answer, _ = client.ask(b"JOB", b"JOB", rid="h", job_id=jobs[0])
    assert [moment["event"] for moment in answer["history"]] == ["accepted", "dispatched", "started", "done"]
    _submit(client, 10)


def test_no_room_for_a_picture(small_disk: Path, tmp_path: Path) -> None:
    with router_process(
        tmp_path, GENSERVE_ROUTER_STATE_DIR=str(small_disk / "state"), GENSERVE_ROUTER_DISK_FREE_MIN_MB="0"
    ) as router:
        client = router.start().client()
        filler = fill(small_disk, leave=200_000)
        _no_room(router, client, filler.unlink)


def test_what_is_free_is_told_as_it_is_now(small_disk: Path, tmp_path: Path) -> None:
    with router_process(
        tmp_path, GENSERVE_ROUTER_STATE_DIR=str(small_disk / "state"), GENSERVE_ROUTER_DISK_FREE_MIN_MB="4"
    ) as router:
        client = router.start().client()

        def told() -> str:
            text: str = client.ask(b"STATUS", b"STATUS", rid="s")[0].get("storage_full", "")
            return text

        fill(small_disk, leave=3 * MIB + MIB // 2).rename(small_disk / "first")
        wait_for("its being told", lambda: told().startswith("3 MiB are free"))
        fill(small_disk)
        wait_for("less being told", lambda: told().startswith("0 MiB are free"))
        assert len(router.events("storage.full")) == 1


def test_a_limit_on_the_size_of_files_counts_as_no_room(tmp_path: Path) -> None:
    with router_process(tmp_path, GENSERVE_ROUTER_JOURNAL_RESERVE_MB="1") as router:
        client = router.start().client()
        assert router.process is not None
        pid = router.process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (990_000, resource.RLIM_INFINITY))

        def lift() -> None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        _no_room(router, client, lift)
