"""Errors, logs, sd_notify and sockets."""

import json
import signal
import subprocess
import sys
from io import StringIO

import pytest
import zmq

from common.errors import ERRORS, GenServeError, SettingsError
from common.log import configure
from common.process import EXIT_CONFIG, PARENT_ENDED, exit_config, on_stop_signals
from common.settings import LogSettings
from common.sockets import dealer_socket, is_loopback, router_socket

JOB_ID = "89abcdef" * 4


def _boom() -> None:
    raise RuntimeError("boom")


def _lines(monkeypatch: pytest.MonkeyPatch, settings: LogSettings) -> list[str]:
    out = StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    logger = configure("router", settings)
    logger.info("job.started", job_id=JOB_ID, device="cuda:0", elapsed_s=1.25)
    logger.debug("job.prompt", prompt="secret")
    try:
        _boom()
    except RuntimeError:
        logger.exception("job.failed", job_id=JOB_ID)
    return out.getvalue().splitlines()


def test_log_lines_are_json_with_the_jobs_first_eight_and_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = map(json.loads, _lines(monkeypatch, LogSettings(format="auto")))
    assert first["event"] == "job.started"
    assert (first["job_id"], first["job"], first["process"], first["level"]) == (JOB_ID, "89abcdef", "router", "info")
    assert (first["device"], first["elapsed_s"]) == ("cuda:0", 1.25)
    assert 'raise RuntimeError("boom")' in second["traceback"]


def test_a_person_sees_icons(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _lines(monkeypatch, LogSettings(format="console", level="debug"))
    assert "🚀" in lines[0]
    assert "job=89abcdef" in lines[0]
    assert "secret" in lines[1]
    assert "❌" in lines[2]
    assert lines[-1] == "RuntimeError: boom"


def test_every_error_says_what_to_do() -> None:
    for code, kind in ERRORS.items():
        assert kind.code == code
        assert len(kind.next_step) > 15
    error = GenServeError("queue_full", "62 jobs are waiting", retry_after_s=3.0)
    assert error.kind.retryable
    assert str(error) == "62 jobs are waiting"


def test_a_start_that_cannot_be_says_so_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_config(SettingsError("gateway.port = 70000 is not right")) == EXIT_CONFIG
    said = capsys.readouterr().err
    assert "gateway.port = 70000" in said
    assert "correct the setting" in said


def test_the_end_of_the_parent_is_one_wish_however_often_it_is_signalled() -> None:
    signals = (signal.SIGTERM, signal.SIGINT, PARENT_ENDED)
    before = {signal_: signal.getsignal(signal_) for signal_ in signals}
    calls: list[str] = []
    try:
        for orphaned in (None, lambda: calls.append("orphaned")):
            calls.clear()
            on_stop_signals(lambda: calls.append("first"), lambda: calls.append("again"), orphaned=orphaned)
            for _ in range(3):
                signal.raise_signal(PARENT_ENDED)
            assert calls == ["orphaned" if orphaned else "first"]
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert calls[1:] == ["again", "again"]
        on_stop_signals(lambda: calls.append("first"), lambda: calls.append("again"), orphaned=orphaned)
        signal.raise_signal(signal.SIGTERM)
        assert calls[3:] == ["first"]
    finally:
        for signal_, handler in before.items():
            signal.signal(signal_, handler)


def test_a_process_whose_log_nobody_reads_any_more_goes_on() -> None:
    program = (
        "import sys; from common.log import configure; from common.settings import LogSettings\n"
        "logger = configure('router', LogSettings())\n"
        "sys.stdin.read(1)\n"
        "for _ in range(3): logger.info('router.listening')\n"
        "sys.stderr.write('went on')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate(b"x", timeout=30)
    assert (process.returncode, said) == (0, b"went on")


def test_a_hang_up_is_a_wish_to_stop_unless_it_was_ignored_from_the_start() -> None:
    signals = (signal.SIGTERM, signal.SIGINT, PARENT_ENDED, signal.SIGHUP)
    before = {signal_: signal.getsignal(signal_) for signal_ in signals}
    calls: list[str] = []
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        on_stop_signals(lambda: calls.append("first"), lambda: calls.append("again"))
        signal.raise_signal(signal.SIGHUP)
        assert calls == []
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        on_stop_signals(lambda: calls.append("first"), lambda: calls.append("again"))
        for signal_ in (signal.SIGHUP, signal.SIGHUP, PARENT_ENDED, signal.SIGTERM):
            signal.raise_signal(signal_)
        assert calls == ["first", "again"]
    finally:
        for signal_, handler in before.items():
            signal.signal(signal_, handler)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("[::1]", True), ("0.0.0.0", False),
        ("*", False), ("192.168.1.5", False), ("example.org", False), ("eth0", False),
    ],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_only_loopback_is_listened_on_and_a_taken_port_is_named() -> None:
    context = zmq.Context()
    try:
        with pytest.raises(SettingsError, match="other machines"):
            router_socket(context, "tcp://0.0.0.0:12412")
        first = router_socket(context, "tcp://127.0.0.1:0")
        endpoint = first.getsockopt_string(zmq.LAST_ENDPOINT)
        with pytest.raises(GenServeError, match=endpoint) as caught:
            router_socket(context, endpoint)
        assert caught.value.code == "address_in_use"
        seen: list[str] = []
        dealer = dealer_socket(
            context, endpoint, watch=lambda made: seen.append(made.getsockopt_string(zmq.LAST_ENDPOINT))
        )
        assert seen == [""]  # before it connects, so that nothing of its handshakes escapes who watches them
        dealer.send(b"hello")
        route, text = first.recv_multipart()
        assert text == b"hello"
        with pytest.raises(zmq.ZMQError) as unreachable:
            first.send_multipart([b"nobody", b""], zmq.DONTWAIT)
        assert unreachable.value.errno == zmq.EHOSTUNREACH
        first.send_multipart([route, b"back"])
        assert dealer.recv() == b"back"
    finally:
        context.destroy(linger=0)
