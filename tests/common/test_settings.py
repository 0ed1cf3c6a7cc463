"""Settings: the order of their sources, and that nothing wrong starts."""

from pathlib import Path

import pytest

from common.errors import SettingsError
from common.settings import SECTIONS, GatewaySettings, GpuDaemonSettings, RouterSettings, UpSettings, load_settings


def test_defaults_are_the_documented_ones() -> None:
    loaded = load_settings(RouterSettings, env={})
    assert (loaded.settings.gpu_queue_size, loaded.settings.global_queue_size) == (5, 50)
    assert loaded.sources["router.gpu_queue_size"] == "default"


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "genserve.toml"
    file.write_text('[router]\ngpu_queue_size = 1\nglobal_queue_size = 2\nresult_ttl_s = 3\n[log]\nlevel = "debug"\n')
    env = {
        "GENSERVE_CONFIG": str(file), "GENSERVE_ROUTER_GLOBAL_QUEUE_SIZE": "20", "GENSERVE_ROUTER_RESULT_TTL_S": "30"
    }  # fmt: skip
    flags = {"result_ttl_s": 300.0, "gpu_queue_size": None}
    loaded = load_settings(RouterSettings, env=env, flags=flags)
    settings = loaded.settings
    assert (settings.gpu_queue_size, settings.global_queue_size, settings.result_ttl_s) == (1, 20, 300.0)
    assert loaded.log.level == "debug"
    assert loaded.sources["router.gpu_queue_size"] == str(file)
    assert loaded.sources["router.global_queue_size"] == "GENSERVE_ROUTER_GLOBAL_QUEUE_SIZE"
    assert loaded.sources["router.result_ttl_s"] == "--result-ttl-s"


def test_older_names_go_on_working() -> None:
    env = {"FLUX_GPUS": "0, 1", "FLUX_MODEL_PATH": "/models/flux", "SAVE_TEST_IMAGES": "True"}
    assert load_settings(UpSettings, env=env).settings.gpus == "0, 1"
    daemon = load_settings(GpuDaemonSettings, env=env).settings
    assert (daemon.model_path, daemon.save_images) == ("/models/flux", True)


@pytest.mark.parametrize("value", ["yes", "on", "1", "true", "TRUE"])
def test_yes_is_true(value: str) -> None:
    assert load_settings(GpuDaemonSettings, env={"SAVE_TEST_IMAGES": value}).settings.save_images


@pytest.mark.parametrize("value", ["no", "off", "0", "false", ""])
def test_no_is_false(value: str) -> None:
    assert not load_settings(GpuDaemonSettings, env={"SAVE_TEST_IMAGES": value}).settings.save_images


def test_words_of_a_choice_stay_words() -> None:
    assert load_settings(GpuDaemonSettings, env={"GENSERVE_GPU_DAEMON_OFFLOAD": "on"}).settings.offload == "on"


def test_tables_come_as_json() -> None:
    env = {"GENSERVE_GATEWAY_MODEL_ALIASES": '{"gpt-image-1": "flux1-schnell"}'}
    assert load_settings(GatewaySettings, env=env).settings.model_aliases == {"gpt-image-1": "flux1-schnell"}


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"GENSERVE_ROUTER_GPU_QEUE_SIZE": "5"}, "did you mean GENSERVE_ROUTER_GPU_QUEUE_SIZE"),
        ({"GENSERVE_ROUTER_GPU_QUEUE_SIZE": "five"}, "router.gpu_queue_size = 'five' (from GENSERVE"),
        ({"GENSERVE_ROUTER_GPU_QUEUE_SIZE": "-1"}, "say a whole number from 0 to 10000"),
        ({"GENSERVE_ROUTER_SUSPECT_AFTER_S": "0.5"}, "heartbeat_interval_s < suspect_after_s"),
        ({"GENSERVE_ROUTER_DEAD_AFTER_S": "nan"}, "say a number above 0 to 10000000"),
        ({"GENSERVE_LOG_LEVEL": "loud"}, "say debug, error, info or warning"),
        ({"GENSERVE_GPU_DAEMON_DEVICE": "gpu0"}, "say something like cuda:0, cpu or cpu:1"),
        ({"GENSERVE_GATEWAY_PORT": "65536"}, "say a whole number from 0 to 65535"),
        ({"GENSERVE_ROUTER_CLIENT_ENDPOINT": "udp://x:1"}, "say something like tcp://127.0.0.1:12412"),
        ({"GENSERVE_ROUTER_CLIENT_ENDPOINT": "tcp://127.0.0.1:65536"}, "router.client_endpoint"),
        ({"SAVE_TEST_IMAGES": "perhaps"}, "gpu_daemon.save_images = 'perhaps' (from SAVE_TEST_IMAGES)"),
        ({"SAVE_TEST_IMAGES": "perhaps"}, "say true or false"),
        ({"GENSERVE_GPU_DAEMON_OFFLOAD": "maybe"}, "say auto, off or on"),
        ({"GENSERVE_GPU_DAEMON_WORKER_ID": "x" * 129}, "say a text of 128 or fewer characters"),
        ({"GENSERVE_GATEWAY_HOST": ""}, "say a text of 1 or more characters"),
        ({"GENSERVE_GATEWAY_MODEL_ALIASES": "{"}, 'say something like {"dall-e-3": "flux1-dev"}'),
        ({"GENSERVE_CONFIG": "/nowhere/genserve.toml"}, "cannot be read"),
    ],
)
def test_a_bad_setting_of_any_section_stops_the_start(env: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(RouterSettings, env=env)
    assert said in caught.value.message


EVERY_KEY = [(name, key) for name, section in SECTIONS.items() for key in section.__struct_fields__]


@pytest.mark.parametrize(("section", "key"), EVERY_KEY, ids=".".join)
def test_every_setting_can_say_what_would_be_right(section: str, key: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{section}\.{key} = .* is not right: say .*[^ ]$") as caught:
        load_settings(SECTIONS[section], env={}, flags={key: object()})
    words = caught.value.message.partition("say ")[2]
    assert "^" not in words
    assert "None" not in words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[router]\ngpu_queue_sizes = 1", "did you mean gpu_queue_size"),
        ("[routr]\n", "did you mean router"),
        ("router = 1", "must be a table"),
        ("[router\n", "cannot be read"),
        ("[router]\ngpu_queue_size = 5.5", "gpu_queue_size"),
        ("[gateway]\nport = true", "gateway.port"),
    ],
)
def test_a_bad_file_stops_the_start(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "genserve.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(RouterSettings, env={"GENSERVE_CONFIG": str(file)})
    assert said in caught.value.message
    assert str(file) in caught.value.message


def test_a_file_of_an_editor_that_marks_its_byte_order(tmp_path: Path) -> None:
    file = tmp_path / "genserve.toml"
    file.write_text("[router]\ngpu_queue_size = 7\n", "utf-8-sig")
    assert load_settings(RouterSettings, env={"GENSERVE_CONFIG": str(file)}).settings.gpu_queue_size == 7
