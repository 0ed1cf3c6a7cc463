"""What the router tells systemd: how it stands, and that it is well, or not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.health import Watchdog
from router.events import Tick
from router.loop import TICKS_MISSED_S_MAX
from tests.common.systemd_socket import NotifySocket
from tests.router.process import router_process
from tests.router.test_router_loop import Running
from tests.service import wait_for

WATCHDOG_S = 1.5


@pytest.fixture
def router() -> Iterator[Running]:
    running = Running()
    yield running
    running.close()


def test_systemd_hears_how_the_router_stands(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with (
        NotifySocket(tmp_path, WATCHDOG_S) as listener,
        router_process(tmp_path, RUNTIME_DIRECTORY=str(run), **listener.env) as process,
    ):
        process.start()
        assert listener.wait("STATUS") == "reading the journal"
        listener.wait("READY", "1")
        assert listener.wait("STATUS", "GPU") == "no GPU connected, 0 jobs running, 0 waiting"
        worker, client = process.daemon(), process.client()
        worker.register(credit=1)
        for rid in "123":
            client.ask(b"SUBMIT", b"ACCEPTED", rid=rid, job={"prompt": "x"})
        token = worker.until(b"DISPATCH")[0]["token"]
        worker.started(token)
        listener.wait("STATUS", "1 GPU ready, 1 job running, 2 waiting")
        fed = len(listener.values("WATCHDOG"))
        wait_for("food", lambda: len(listener.values("WATCHDOG")) > fed)
        assert process.stop() == 0
        assert list(run.iterdir()) == []
        assert listener.values("STOPPING")[0] == "1"
        assert listener.values("READY") == ["1"]


def test_a_router_that_drains_says_what_it_waits_for(tmp_path: Path) -> None:
    with (
        NotifySocket(tmp_path) as listener,
        router_process(tmp_path, GENSERVE_ROUTER_JOURNAL="memory", **listener.env) as process,
    ):
        process.start()
        worker, client = process.daemon(), process.client()
        worker.register()
        client.ask(b"SUBMIT", b"ACCEPTED", rid="1", job={"prompt": "x"})
        token = worker.until(b"DISPATCH")[0]["token"]
        worker.started(token)
        listener.wait("STATUS", "1 job running")
        assert process.process is not None
        process.process.terminate()
        assert listener.wait("STATUS", "draining") == "draining: 1 job still runs, 0 waiting"
        worker.done(token, b"abc")
        assert process.wait() == 0


def test_ticks_that_all_come_to_grief_feed_no_watchdog(router: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop survives them, as any bug, but nothing that needs time happens any more."""
    watchdog, handle = Watchdog(30.0), router.broker.handle
    watchdog.watch(router.loop.checks())
    failed: list[float] = []

    def broken(event: Any, now: float) -> Any:
        if not isinstance(event, Tick):
            return handle(event, now)
        failed.append(now)
        raise RuntimeError("a bug")

    client = router.dealer(router.clients)
    client.send(b"PING", rid="1")
    client.until(b"PONG")
    monkeypatch.setattr(router.broker, "handle", broken)
    wait_for("three ticks", lambda: len(failed) >= 3)
    assert watchdog.look(failed[0]) == ""
    assert watchdog.look(failed[0] + TICKS_MISSED_S_MAX + 5.0).startswith("loop: no tick has been handled for")


def test_an_uncommitted_batch_feeds_no_watchdog(router: Running) -> None:
    client = router.dealer(router.clients)
    client.send(b"PING", rid="1")
    client.until(b"PONG")
    check = router.loop.checks()["journal"]
    assert check(0.0) == ""
    seen: list[str] = []
    commit = router.journal.commit

    def watched() -> None:
        seen.append(check(0.0))
        commit()

    router.journal.commit = watched  # type: ignore[method-assign]  # to look inside a batch
    client.send(b"PING", rid="2")
    client.until(b"PONG")
    assert seen[0] == "the last commit has not succeeded"
    assert check(0.0) == ""
