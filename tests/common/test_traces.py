"""Traces: when they are on, where they go, what a traceparent is; and that nothing is imported while they are off."""

import subprocess
import sys
import time

import pytest

from common import traces
from common.errors import GenServeError
from common.traces import FLUSH_S_MAX, Traces, endpoint_of, open_traces, valid

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
URL = "http://127.0.0.1:4318/v1/traces"


@pytest.mark.parametrize(
    ("setting", "env", "endpoint"),
    [
        ("", {}, ""),
        (URL, {}, URL),
        (URL, {traces.OWN_ENV: "http://b"}, URL),
        ("", {traces.OWN_ENV: "http://b", traces.ANY_ENV: "http://c"}, "http://b"),
        ("", {traces.ANY_ENV: "http://c:1/"}, "http://c:1/v1/traces"),
        (URL, {traces.OFF_ENV: "true"}, ""),
        (URL, {traces.OFF_ENV: "false"}, URL),
    ],
)
def test_where_they_go(setting: str, env: dict[str, str], endpoint: str) -> None:
    assert endpoint_of(setting, env) == endpoint


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", GOOD + "-x", GOOD.upper(), "ff" + GOOD[2:], f"00-{'0' * 32}-{'1' * 16}-01",
     f"00-{'1' * 32}-{'0' * 16}-01",
     GOOD[:-1], GOOD + "\n"],
)  # fmt: skip
def test_what_is_no_traceparent_is_none(text: str) -> None:
    assert valid(text) == ""
    assert valid(GOOD) == GOOD


def test_without_its_packages_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(GenServeError, match=r"install genserve\[traces\]") as raised:
        open_traces("genserve-x", URL, {}, version="1")
    assert (raised.value.code, raised.value.param) == ("invalid_settings", "traces_endpoint")
    assert open_traces("genserve-x", "", {}, version="1") is None


def test_an_end_waits_for_nobody_for_long() -> None:
    gone = Traces("genserve-x", "http://127.0.0.1:9/v1/traces", version="1")
    gone.tracer.start_span("x", gone.within(GOOD)).end()
    began = time.monotonic()
    gone.close()
    assert time.monotonic() - began < FLUSH_S_MAX + 1


def test_nothing_is_imported_while_they_are_off() -> None:
    code = (
        "import sys, gateway.app, router.app, gpu_daemon.control; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
