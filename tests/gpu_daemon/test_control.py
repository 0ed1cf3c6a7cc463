"""A real daemon process with a real no-op engine process, against a router made by hand over real sockets."""

import io
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq
from PIL import Image

from common.messages import (
    Bye,
    CancelToken,
    Dispatch,
    Done,
    Drain,
    Draining,
    ErrorReply,
    Fail,
    Fenced,
    HeldToken,
    Register,
    ResultAck,
    Resync,
    Returned,
    Started,
    WorkerProgress,
)
from common.notify import Systemd
from common.settings import GpuDaemonSettings, LogSettings
from common.sockets import pair_listener
from gpu_daemon import control as control_module
from gpu_daemon.control import Control
from gpu_daemon.devices import find_device
from gpu_daemon.engine.noop import colour_of
from gpu_daemon.introduction import introduce
from tests.common.systemd_socket import NotifySocket
from tests.gpu_daemon.fake_router import FakeRouter, job_order, token
from tests.gpu_daemon.process import Daemon
from tests.ports import free_ports

WITHIN_S = 15.0
A, B, C = token(1), token(2), token(3)


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    made = FakeRouter()
    yield made
    made.close()


@pytest.fixture
def start(router: FakeRouter, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Daemons that are registered and ready; whatever happens, nothing of them is left."""
    started: list[Daemon] = []

    def begin(*, admit: bool = True, **settings: object) -> Daemon:
        started.append(Daemon(router, tmp_path, **settings))
        if admit:
            router.admit()
        return started[-1]

    yield begin
    for daemon in started:
        daemon.close()
        text = daemon.log_path.read_text("utf-8")
        assert "session.fault" not in text, text
        pids = [line["pid"] for line in daemon.log("engine.started")]
        wait_until(lambda pids=pids: all(gone(pid) for pid in pids))
        wait_until(lambda daemon=daemon: list(daemon.tmp.iterdir()) == [])


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(probe: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN_S
    while not probe():
        assert time.monotonic() < until
        time.sleep(0.01)


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def test_a_job_from_registration_to_acknowledgement(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    daemon = start(admit=False, job_timeout_s=77)
    register = router.admit()
    assert register.models[0].name == "noop"
    assert register.worker_id.endswith("/cpu")
    assert (register.device.kind, register.model_path, register.job_timeout_s) == ("cpu", "", 77.0)
    assert register.device.total_mb > 0
    assert register.version
    assert title(daemon.process.pid) == "genserve gpu-daemon cpu"
    assert title(daemon.engine_pid()) == "genserve engine cpu"

    router.dispatch(A, steps=3, seed=11, width=100, height=60)
    assert router.expect(Started).token == A
    assert router.expect(WorkerProgress).steps == 3
    done = router.expect(Done)
    assert done.token == A
    assert (done.picture.width, done.picture.height) == (100, 60)
    with Image.open(io.BytesIO(router.payloads[A])) as picture:
        assert picture.size == (100, 60)
        assert picture.convert("RGB").getpixel((50, 30)) == colour_of(11)
    router.say(ResultAck(token=A))
    router.wait("a third credit", lambda: router.granted == 3)
    assert [line["device"] for line in daemon.log("job.started") + daemon.log("job.done")] == ["cpu", "cpu"]
    assert daemon.log("job.done")[0]["elapsed_s"] >= 0
    assert daemon.log("job.done")[0]["job_id"] == A.job_id
    wait_until(lambda: list(daemon.tmp.iterdir()) == [])  # while it still serves


def test_systemd_hears_how_the_daemon_stands(
    router: FakeRouter, start: Callable[..., Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NotifySocket(tmp_path, 1.5) as listener:
        for name, value in listener.env.items():
            monkeypatch.setenv(name, value)
        daemon = start(noop_step_s=0.02)
        assert listener.wait("STATUS", "loading").startswith("loading noop on cpu, 0 s: ")
        assert "EXTEND_TIMEOUT_USEC" in listener.heard[0]
        listener.wait("READY", "1")
        assert listener.wait("STATUS", "ready") == "noop ready on cpu, nothing to draw"
        fed = len(listener.values("WATCHDOG"))
        wait_until(lambda: len(listener.values("WATCHDOG")) > fed)
        router.dispatch(A, steps=1000)
        assert re.fullmatch(rf"drawing job {A.job_id[:8]} step \d+/1000 on cpu", listener.wait("STATUS", "step"))
        daemon.process.terminate()
        assert listener.wait("STATUS", "draining") == "draining: 1 job still runs"
        assert listener.values("STOPPING") == ["1"]
        daemon.process.terminate()
        assert daemon.wait_end() == 0


def test_two_jobs_run_one_after_the_other(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    start(noop_step_s=0.02)
    router.dispatch(A)
    router.dispatch(B)
    assert [router.expect(Started).token, router.expect(Started).token] == [A, B]
    assert [router.expect(Done).token, router.expect(Done).token] == [A, B]
    assert router.granted == 2, "ends that are not acknowledged hold their slots"
    router.say(ResultAck(token=A))
    router.say(Fenced(token=B))
    router.wait("both slots", lambda: router.granted == 4)


def test_a_large_picture_comes_in_parts(router: FakeRouter, start: Callable[..., Daemon], tmp_path: Path) -> None:
    start(save_images="true", output_dir=tmp_path / "kept")
    router.dispatch(A, width=2048, height=2048, seed=3)
    done = router.expect(Done)
    assert sum(done.parts) == done.picture.bytes == len(router.payloads[A])
    kept = list((tmp_path / "kept").iterdir())
    assert [path.read_bytes() for path in kept] == [router.payloads[A]]
    assert kept[0].name.endswith(f"-{A.job_id[:8]}-seed3.png")
    router.say(ResultAck(token=A))


def test_a_copy_that_cannot_be_saved_is_a_warning(
    router: FakeRouter, start: Callable[..., Daemon], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    daemon = start(output_dir=tmp_path / "file")
    router.dispatch(A, save=True)
    assert [note.code for note in router.expect(Done).notes] == ["save_failed"]
    assert daemon.log("picture.save_failed")[0]["traceback"]
    router.say(ResultAck(token=A))


def test_a_killed_engine_fails_its_job_and_comes_back(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    daemon = start(noop_step_s=30)
    pid = daemon.engine_pid()
    router.dispatch(A)
    router.expect(Started)
    router.dispatch(B)
    os.kill(pid, signal.SIGKILL)
    failed = router.expect(Fail)
    assert (failed.token, failed.code, failed.started) == (A, "engine_died", True)
    assert "SIGKILL" in failed.message
    assert router.expect(Returned).token == B
    router.say(ResultAck(token=A))
    router.wait("both slots again", lambda: router.granted - router.dispatched == 2)
    assert daemon.engine_pid() not in (0, pid)
    assert daemon.process.poll() is None
    router.no_more(Register)  # it was registered all the time


def test_a_cancel_ends_a_job_within_a_step(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    start(noop_step_s=0.05)
    router.dispatch(A, steps=500)
    router.expect(WorkerProgress)
    began = time.monotonic()
    router.say(CancelToken(token=A))
    router.wait("the slot", lambda: router.granted == 3)
    assert time.monotonic() - began < 1.0
    router.no_more(Done)
    router.no_more(Fail)


def test_a_job_timeout_stops_between_steps(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    daemon = start(noop_step_s=0.05, job_timeout_s=0.5)
    pid = daemon.engine_pid()
    router.dispatch(A, steps=1000)
    failed = router.expect(Fail)
    assert (failed.token, failed.code) == (A, "job_timeout")
    router.say(ResultAck(token=A))
    router.dispatch(B, steps=1)
    assert router.expect(Done).token == B
    assert daemon.engine_pid() == pid, "it obeyed and lives"
    router.say(ResultAck(token=B))


def test_an_engine_that_hangs_in_a_step_is_killed(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    daemon = start(noop_step_s=50, job_timeout_s=0.3, job_stop_grace_s=0.3)
    pid = daemon.engine_pid()
    router.dispatch(A)
    failed = router.expect(Fail)
    assert (failed.token, failed.code) == (A, "job_timeout")
    router.say(ResultAck(token=A))
    router.wait("both slots again", lambda: router.granted - router.dispatched == 2)
    assert daemon.engine_pid() != pid
    assert "job_stop_grace_s" in daemon.log("engine.killed")[0]["reason"]


def test_an_engine_that_does_not_get_ready_is_restarted(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    daemon = start(admit=False, engine_start_timeout_s=0.01)
    router.welcome(router.expect(Register))
    router.wait("two starts", lambda: len(daemon.log("engine.started")) >= 2)
    assert "engine_start_timeout_s" in daemon.log("engine.killed")[0]["reason"]
    assert router.granted == 0
    daemon.process.terminate()
    assert daemon.wait_end() == 0


def test_a_signal_drains_and_leaves(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    daemon = start(noop_step_s=0.1)
    pid = daemon.engine_pid()
    router.dispatch(A, steps=5)
    router.expect(Started)
    router.dispatch(B)
    router.wait("the job", lambda: daemon.log("job.dispatched")[1:])
    daemon.process.send_signal(signal.SIGTERM)
    router.expect(Draining)
    assert router.expect(Returned).token == B
    assert router.wait_state("draining")
    router.dispatch(C)
    assert router.expect(Returned).token == C
    assert router.expect(Done).token == A
    router.no_more(Bye)
    router.say(ResultAck(token=A))
    router.expect(Bye)
    assert daemon.wait_end() == 0
    assert gone(pid)
    assert daemon.log("daemon.stopped")
    assert "Traceback" not in daemon.log_path.read_text("utf-8")


def test_the_router_may_ask_for_the_drain(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    daemon = start()
    router.say(Drain())
    router.expect(Bye)
    assert daemon.wait_end() == 0


def test_what_does_not_finish_in_time_is_returned(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    daemon = start(noop_step_s=0.05, drain_s=0.2)
    router.dispatch(A, steps=1000)
    router.expect(Started)
    daemon.process.send_signal(signal.SIGINT)
    assert router.expect(Returned).token == A
    router.expect(Bye)
    assert daemon.wait_end() == 0


def test_a_second_signal_stops_at_once(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    daemon = start(noop_step_s=50)
    pid = daemon.engine_pid()
    router.dispatch(A)
    router.expect(Started)
    daemon.process.send_signal(signal.SIGTERM)
    router.expect(Draining)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait_end() == 0
    assert gone(pid)


def test_an_engine_never_outlives_its_daemon(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    daemon = start(noop_step_s=50)
    pid = daemon.engine_pid()
    router.dispatch(A)
    router.expect(Started)
    daemon.process.kill()
    daemon.process.wait()
    wait_until(lambda: gone(pid))


def test_a_router_that_forgot_is_told_everything_again(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    start()
    router.dispatch(A)
    first = router.expect(Done)
    router.say(Resync())
    register = router.expect(Register)
    assert register.tokens == (HeldToken(token=A, stage="ended"),)
    router.welcome(register)
    again = router.expect(Done)
    assert (again.epoch, again.token, again.picture) == (router.epoch, A, first.picture)
    router.say(ResultAck(token=A))
    router.wait("both slots", lambda: router.granted == 2)


def test_a_restarted_router_finds_its_daemon_and_what_it_drew(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    daemon = start(noop_step_s=0.1)
    router.dispatch(A, steps=4)
    router.expect(Started)
    router.close()
    wait_until(lambda: bool(daemon.log("job.done")))  # it went on drawing meanwhile
    later = FakeRouter(router.endpoint)
    try:
        until = time.monotonic() + WITHIN_S
        while not later.heard:  # what it says first, in an epoch of then, is answered RESYNC
            later.pump()
            if later.heard and not isinstance(later.heard[0], Register):
                later.heard.clear()
                later.say(Resync())
            assert time.monotonic() < until
        register = later.expect(Register)
        assert register.tokens == (HeldToken(token=A, stage="ended"),)
        later.welcome(register)
        assert later.expect(Done).token == A
        later.say(ResultAck(token=A))
        later.wait("both slots", lambda: later.granted == 2)
    finally:
        later.close()


def test_whatever_answered_where_the_router_was_it_connects_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """libzmq gives a connection up for good whose other end has once spoken what is no ZMTP."""
    monkeypatch.setattr(control_module, "UNSENDABLE_S_MAX", 0.3)
    with socket.create_server(("127.0.0.1", free_ports(1))) as stranger:
        stranger.settimeout(0)
        endpoint = f"tcp://127.0.0.1:{stranger.getsockname()[1]}"
        settings = GpuDaemonSettings(engine="noop", device="cpu", router_endpoint=endpoint)
        control = Control(settings, LogSettings(level="error"), introduce(settings, find_device("cpu")), Systemd())
        met = 0

        def met_twice() -> bool:
            nonlocal met
            control._turn()
            with suppress(BlockingIOError):
                peer, _ = stranger.accept()
                with peer, suppress(OSError):
                    peer.sendall(bytes(100))
                    peer.settimeout(5)
                    while peer.recv(4096):  # until it has hung up
                        pass
                met += 1
            return met == 2

        try:
            wait_until(met_twice)
        finally:
            control.close()


def test_malformed_frames_are_answered_and_change_nothing(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    start()
    garbage: list[list[bytes]] = [
        [b""],
        [b"GS1"],
        [b"GS1", b"DISPATCH"],
        [b"GS2", b"DRAIN", b"\x80"],
        [b"GS1", b"NOSUCH", b"\x80"],
        [b"GS1", b"DISPATCH", b"\x80"],
        [b"GS1", b"DISPATCH", b"\xc1"],
        [b"GS1", b"CANCEL", b"\x81\xa5token\x01"],
        [b"GS1", b"DRAIN", b"\x80", b"payload"],
        [b"GS1", b"WELCOME", b"\xde\xff\xff"],
        [b"\x00" * 100_000],
    ]
    for frames in garbage:
        router.say_raw(frames)
        assert router.expect(ErrorReply).code == "protocol_error"
    router.say_raw([b"GS1", b"ERROR", b"\xc1"])
    router.no_more(ErrorReply)
    router.dispatch(A)
    assert router.expect(Done).token == A
    router.say(ResultAck(token=A))


def test_stray_words_change_nothing(router: FakeRouter, start: Callable[..., Daemon]) -> None:
    start()
    for message in (ResultAck(token=C), Fenced(token=C), CancelToken(token=C), ErrorReply(code="internal", message="")):
        router.say(message)
    router.say(Dispatch(epoch=99, token=C, job=job_order(), remaining_s=9.0))
    router.dispatch(A)
    assert router.expect(Done).token == A
    router.no_more(Returned)
    assert router.granted == 2
    router.say(ResultAck(token=A))


def test_the_pair_has_no_heartbeats_that_a_pause_of_the_engine_could_miss(tmp_path: Path) -> None:
    """With them, an engine stopped for longer than their timeout loses what was said to it meanwhile."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, pair_listener(context, str(tmp_path / "pair")) as pair:
        assert pair.getsockopt(zmq.HEARTBEAT_IVL) == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"device": "cuda:77"}, "there is no cuda:77 on this machine"),
        ({"model_name": "no spaces"}, "model_name"),
        ({"engine": "flux", "model_path": "/nowhere/at/all"}, "/nowhere/at/all"),
    ],
)
def test_what_a_person_must_mend_ends_the_start(
    router: FakeRouter, tmp_path: Path, settings: dict[str, object], says: str
) -> None:
    daemon = Daemon(router, tmp_path, **settings)
    try:
        assert daemon.wait_end() == 78
        text = daemon.log_path.read_text("utf-8")
        assert says in text
        assert "Traceback" not in text
        assert "->" in text
    finally:
        daemon.close()
