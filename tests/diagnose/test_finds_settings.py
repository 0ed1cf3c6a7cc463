"""Settings that are wrong, unknown or contradict each other, and devices that are not there."""

from pathlib import Path

import pytest

from tests.diagnose.looking import found, look

FILES = [
    ("[router]\ngpu_queue_size = = 5\n", "at line 2", "+2 "),
    ("[router]\ngpu_qeue_size = 5\n", "did you mean gpu_queue_size?", "sed -i '2s|gpu_qeue_size|gpu_queue_size|'"),
    ("[router]\ngpu_qeue_size = 5\ngpu_queue_size = 4\n", "did you mean gpu_queue_size?", "sed -i 2d "),
    ("[router]\n\nqwertz = 5\n", "there is no such setting", "sed -i 3d "),
    ("[routr]\n", "did you mean router?", r"[router]|' "),
    ("[gateway]\nport = 70000\n", "say a whole number from 0 to 65535", "+2 "),
    ("[router]\nsuspect_after_s = 99\n", "heartbeat_interval_s < suspect_after_s < dead_after_s", "nano"),
]
VARIABLES = [
    (
        {"GENSERVE_ROUTER_GPU_QEUE_SIZE": "5"},
        "did you mean GENSERVE_ROUTER_GPU_QUEUE_SIZE?",
        'export GENSERVE_ROUTER_GPU_QUEUE_SIZE="$GENSERVE_ROUTER_GPU_QEUE_SIZE"; unset GENSERVE_ROUTER_GPU_QEUE_SIZE',
    ),
    ({"GENSERVE_GATEWAY_PORT": "http"}, "gateway.port = 'http'", "unset GENSERVE_GATEWAY_PORT"),
    ({"SAVE_TEST_IMAGES": "perhaps"}, "say true or false", "unset SAVE_TEST_IMAGES"),
]
CONFLICTS = [
    (
        {"GENSERVE_ROUTER_WORKER_ENDPOINT": "tcp://127.0.0.1:12412"},
        "router.worker_endpoint and router.client_endpoint are both port 12412",
        "export GENSERVE_ROUTER_WORKER_ENDPOINT=tcp://127.0.0.1:12413",
    ),
    (
        {"GENSERVE_GATEWAY_PORT": "12412", "GENSERVE_ROUTER_CLIENT_ENDPOINT": "tcp://127.0.0.1:12412"},
        "router.client_endpoint and gateway.port are both port 12412",
        "export GENSERVE_ROUTER_CLIENT_ENDPOINT=tcp://127.0.0.1:12415",
    ),
    (
        {
            "GENSERVE_ROUTER_CLIENT_ENDPOINT": "tcp://127.0.0.1:3001",
            "GENSERVE_GATEWAY_ROUTER_ENDPOINT": "tcp://127.0.0.1:3002",
        },
        "they would not meet",
        "export GENSERVE_GATEWAY_ROUTER_ENDPOINT=tcp://127.0.0.1:3001",
    ),
]


@pytest.mark.parametrize(("text", "said", "mend"), FILES)
def test_a_wrong_file_is_named_with_the_line_and_its_mend(text: str, said: str, mend: str, tmp_path: Path):
    path = tmp_path / "genserve.toml"
    path.write_text(text)
    finding = look("settings.file", env={"GENSERVE_CONFIG": str(path)}, port=None)["settings.file"]
    found(finding, "fail", said, mend)
    assert str(path) in finding.fix


def test_a_settings_file_that_is_named_and_not_there():
    finding = look("settings.file", env={"GENSERVE_CONFIG": "/nowhere/genserve.toml"})["settings.file"]
    found(finding, "fail", "/nowhere/genserve.toml cannot be read", "unset GENSERVE_CONFIG")


def test_a_settings_file_that_is_a_folder(tmp_path: Path):
    env = {"GENSERVE_CONFIG": str(tmp_path)}
    found(look("settings.file", env=env)["settings.file"], "fail", "Is a directory", "unset GENSERVE_CONFIG")
    (tmp_path / "genserve.toml").write_text("[router]\ngpu_queue_size = 9\n")
    finding = look("settings.file", env=env)["settings.file"]
    found(finding, "fail", "Is a directory", f"export GENSERVE_CONFIG={tmp_path}/genserve.toml")
    finding = look("settings.file", env={"GENSERVE_CONFIG": f"{tmp_path}/genserve.toml"})["settings.file"]
    assert finding.detail == f"{tmp_path}/genserve.toml sets 1 value"


def test_a_settings_file_that_everybody_may_change(tmp_path: Path):
    path = tmp_path / "genserve.toml"
    path.write_text("[router]\n")
    path.chmod(0o666)
    finding = look("settings.file", env={"GENSERVE_CONFIG": str(path)})["settings.file"]
    found(finding, "warn", "everybody on this machine may change", f"chmod o-w {path}")


def test_every_fault_of_a_file_is_told_and_what_is_right_in_it_counts(tmp_path: Path):
    path = tmp_path / "genserve.toml"
    path.write_text("[router]\ngpu_qeue_size = 5\n[gateway]\nport = 'x'\ndrain_s = 7.5\n")
    findings = look("settings", env={"GENSERVE_CONFIG": str(path)}, port=None)
    assert "gpu_qeue_size" in findings["settings.file"].detail
    assert "gateway.port = 'x'" in findings["settings.file"].detail
    assert findings["settings.values"].detail == f"gateway.drain_s = 7.5 ({path})"


@pytest.mark.parametrize(("env", "said", "mend"), VARIABLES)
def test_a_wrong_variable_is_named_with_its_mend(env: dict[str, str], said: str, mend: str):
    found(look("settings.environment", env=env, port=None)["settings.environment"], "fail", said, mend)


@pytest.mark.parametrize(("env", "said", "mend"), CONFLICTS)
def test_settings_that_contradict_each_other(env: dict[str, str], said: str, mend: str):
    found(look("settings.conflicts", env=env, port=None)["settings.conflicts"], "fail", said, mend)


def test_a_conflict_in_a_file_is_mended_in_its_line(tmp_path: Path):
    path = tmp_path / "genserve.toml"
    path.write_text('[gateway]\nport = 12413\n[router]\nworker_endpoint = "tcp://127.0.0.1:12413"\n')
    finding = look("settings.conflicts", env={"GENSERVE_CONFIG": str(path)}, port=None)["settings.conflicts"]
    found(finding, "fail", "both port 12413", f"""sed -i '4s|=.*|= "tcp://127.0.0.1:12415"|' {path}""")


def test_each_of_three_on_one_port_is_given_a_port_of_its_own():
    env = {"GENSERVE_ROUTER_WORKER_ENDPOINT": "tcp://127.0.0.1:3001", "GENSERVE_GATEWAY_PORT": "3001"}
    env["GENSERVE_ROUTER_CLIENT_ENDPOINT"] = "tcp://*:3001"
    finding = look("settings.conflicts", env=env, port=None)["settings.conflicts"]
    assert finding.fix.splitlines() == [
        "export GENSERVE_ROUTER_WORKER_ENDPOINT=tcp://127.0.0.1:3002",
        "export GENSERVE_ROUTER_CLIENT_ENDPOINT='tcp://*:3003'",
    ]


@pytest.mark.parametrize("everywhere", ["*", "0.0.0.0", "[::]"])
def test_a_router_that_listens_everywhere_is_met_at_any_address_of_its_port(everywhere: str):
    env = {"GENSERVE_ROUTER_WORKER_ENDPOINT": f"tcp://{everywhere}:3002"}
    env["GENSERVE_GPU_DAEMON_ROUTER_ENDPOINT"] = "tcp://127.0.0.1:3002"
    assert look("settings.conflicts", env=env, port=None)["settings.conflicts"].status == "ok"
    env["GENSERVE_GPU_DAEMON_ROUTER_ENDPOINT"] = "tcp://127.0.0.1:3003"
    finding = look("settings.conflicts", env=env, port=None)["settings.conflicts"]
    own = "[::1]" if everywhere == "[::]" else "127.0.0.1"
    found(finding, "fail", "they would not meet", "export GENSERVE_GPU_DAEMON_ROUTER_ENDPOINT=")
    assert f"tcp://{own}:3002" in finding.fix


def test_older_names_and_what_only_looks_like_them():
    env = {"FLUX_GPU": "0", "FLUX_MODEL_PATH": "/a", "GENSERVE_GPU_DAEMON_MODEL_PATH": "/b"}
    finding = look("settings.older", env=env)["settings.older"]
    found(finding, "warn", "FLUX_GPU is set and GenServe does not read it; did you mean FLUX_GPUS?", "unset FLUX_GPU")
    assert "GENSERVE_GPU_DAEMON_MODEL_PATH = '/b' wins over FLUX_MODEL_PATH = '/a'" in finding.detail


def test_values_are_told_with_where_each_came_from(tmp_path: Path):
    path = tmp_path / "genserve.toml"
    path.write_text("[router]\ngpu_queue_size = 9\n")
    env = {"GENSERVE_CONFIG": str(path), "FLUX_GPUS": "cpu"}
    finding = look("settings.values", env=env, port=None)["settings.values"]
    assert finding.detail.splitlines() == [f"router.gpu_queue_size = 9 ({path})", "up.gpus = 'cpu' (FLUX_GPUS)"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu:0,cpu:0", "cpu:0 is named twice"),
        ("gpu0", "'gpu0' in the list of devices 'gpu0' is no device"),
    ],
)
def test_devices_that_cannot_be_served(text: str, said: str):
    found(look("gpus.assignment", env={"FLUX_GPUS": text})["gpus.assignment"], "fail", said, "export FLUX_GPUS=")


def test_one_name_for_two_daemons():
    env = {"FLUX_GPUS": "cpu,cpu", "GENSERVE_GPU_DAEMON_WORKER_ID": "me"}
    finding = look("gpus.assignment", env=env)["gpus.assignment"]
    found(finding, "fail", "names one daemon, and 2 would start", "unset GENSERVE_GPU_DAEMON_WORKER_ID")
