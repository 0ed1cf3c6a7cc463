"""What `genserve up` decides before it starts anything."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import GenServeError, SettingsError
from genserve.flags import gateway_url
from genserve.http_keys import HttpStore
from genserve.parts import Plan, command_line, need_engine_packages, plan
from tests.ports import free_ports

NOOP = {"engine": "noop", "model_path": None}
NO_LOG: dict[str, str | None] = {"level": None, "format": None}


def make(env: dict[str, str] | None = None, **more: object) -> Plan:
    given = {"gpus": "cpu", "port": 0, "daemon_flags": NOOP, "log_flags": NO_LOG, **more}
    return plan(env=env or {}, **given)  # type: ignore[arg-type]  # the tests name what they vary


def test_the_router_listens_after_the_http_port() -> None:
    made = make()
    client, worker = (f"tcp://127.0.0.1:{made.http_port + offset}" for offset in (1, 2))
    assert made.client_endpoint == client
    assert made.router.arguments[:5] == ("router", "--client-endpoint", client, "--worker-endpoint", worker)
    assert made.gateway.arguments[-6:-4] == ("--router-endpoint", client)
    assert ("--router-endpoint", worker) == made.daemons[0].arguments[3:5]


def test_the_router_is_told_its_state_folder_where_a_flag_names_one() -> None:
    assert "--state-dir" not in make().router.arguments  # its own settings tell it, or its port
    arguments = make(state_dir="here").router.arguments
    assert arguments[arguments.index("--state-dir") + 1] == "here"
    assert make().queue_outlives
    assert not make({"GENSERVE_ROUTER_JOURNAL": "memory"}).queue_outlives


def test_an_address_that_others_reach_needs_keys_or_a_word(tmp_path: Path) -> None:
    file = tmp_path / "http-keys.toml"
    env = {"GENSERVE_GATEWAY_HTTP_KEYS_FILE": str(file)}
    with pytest.raises(SettingsError, match="genserve keys add-http NAME"):
        make(env, host="0.0.0.0")
    made = make(env, host="0.0.0.0", no_auth=True)
    assert (made.http_keys, made.http_host) == (False, "127.0.0.1")
    assert "--no-auth" in made.gateway.arguments
    HttpStore(file).add("lab", ["generate"])
    made = make(env, host="0.0.0.0")
    assert (made.http_keys, "--no-auth" in made.gateway.arguments) == (True, False)
    assert made.gateway.arguments[1:3] == ("--host", "0.0.0.0")
    assert not make(env).http_keys


def test_endpoints_of_the_settings_stay() -> None:
    env = {"GENSERVE_ROUTER_CLIENT_ENDPOINT": "tcp://127.0.0.1:41999"}
    made = make(env)
    assert made.client_endpoint == "tcp://127.0.0.1:41999"
    assert f"tcp://127.0.0.1:{made.http_port + 2}" in made.router.arguments


def test_one_daemon_a_device_with_its_flags() -> None:
    made = make(gpus="cpu,cpu")
    assert [part.name for part in made.parts] == ["router", "cpu:0", "cpu:1", "gateway"]
    assert all("noop" in part.arguments for part in made.daemons)
    assert "--model-path" not in made.daemons[0].arguments  # its own settings tell it


def test_the_device_of_the_daemon_settings_counts_where_no_list_is_given() -> None:
    made = make({"GENSERVE_GPU_DAEMON_DEVICE": "cpu:3"}, gpus=None)
    assert [part.name for part in made.daemons] == ["cpu:3"]


def test_one_name_for_several_daemons_is_refused() -> None:
    with pytest.raises(SettingsError, match="worker_id"):
        make({"GENSERVE_GPU_DAEMON_WORKER_ID": "me"}, gpus="cpu,cpu")


def test_a_person_at_a_terminal_gets_readable_logs_unless_json_is_set() -> None:
    assert make(watched=True).router.arguments[-1] == "console"
    assert make(watched=False).router.arguments[-1] == "auto"
    assert make(watched=True, log_flags={"level": "debug", "format": "json"}).router.arguments[-1] == "json"


@pytest.fixture
def taken() -> Iterator[int]:
    port = free_ports(5) + 2
    with closing(socket.create_server(("127.0.0.1", port))):
        yield port


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_an_address_in_use_is_named_with_what_to_do(taken: int, offset: int) -> None:
    with pytest.raises(GenServeError, match=rf"127\.0\.0\.1:{taken} .*--port 13000") as caught:
        make(port=taken - offset)
    assert caught.value.code == "address_in_use"


def test_children_import_nothing_from_the_working_directory() -> None:
    line = command_line(make().router, 42)
    assert line[1:4] == ["-P", "-m", "genserve"]
    assert line[-2:] == ["--parent-pid", "42"]


def test_missing_engine_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    need_engine_packages("noop")
    with pytest.raises(SettingsError, match=r"genserve\[gpu\]"):
        need_engine_packages("flux")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:12411"),
        ("::", "http://[::1]:12411"),
        ("fd00::5", "http://[fd00::5]:12411"),
        ("10.0.0.5", "http://10.0.0.5:12411"),
    ],
)
def test_the_gateway_is_asked_where_this_machine_reaches_it(
    host: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENSERVE_GATEWAY_HOST", host)
    monkeypatch.delenv("GENSERVE_GATEWAY_PORT", raising=False)
    assert gateway_url(None) == url
