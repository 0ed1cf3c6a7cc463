"""The settings file that is made from the declared settings: whole, true, and what a process reads."""

import re
import tomllib
from pathlib import Path

import pytest

from common.settings import OLDER_NAMES, SECTIONS, GpuDaemonSettings, RouterSettings, load_settings
from common.settings.reference import LINE_CHARACTERS, digest_line, reference

SWITCHED_OFF = re.compile(r"^#(?=\w+ = )", re.MULTILINE)
EVERY = [(section.SECTION, key) for section in SECTIONS.values() for key in section.__struct_fields__]


def test_as_it_is_it_changes_nothing() -> None:
    assert tomllib.loads(reference()) == {name: {} for name in SECTIONS}


@pytest.mark.parametrize("section", SECTIONS.values(), ids=lambda section: section.SECTION)
def test_with_every_setting_switched_on_it_says_the_defaults(section: type, tmp_path: Path) -> None:
    path = tmp_path / "genserve.toml"
    path.write_text(SWITCHED_OFF.sub("", reference()), "utf-8")
    loaded = load_settings(section, env={"GENSERVE_CONFIG": str(path)})
    assert loaded.settings == section()
    assert {name for name, source in loaded.sources.items() if source == str(path)} == set(loaded.sources)


@pytest.mark.parametrize(("section", "key"), EVERY)
def test_each_setting_stands_once_with_its_meaning_and_its_variable(section: str, key: str) -> None:
    table = re.search(rf"^\[{section}\](.*?)(?=^\[|\Z)", reference(), re.MULTILINE | re.DOTALL)
    assert table is not None
    (entry,) = re.findall(rf"\n\n((?:# .+\n)+)#{key} = .+\n", table[1])
    variables = [name for name, place in OLDER_NAMES.items() if place == (section, key)]
    for variable in (f"GENSERVE_{section}_{key}".upper(), *variables):
        assert re.search(rf"\b{variable}\b", entry)
    assert re.search(r"^# \(.+", entry, re.MULTILINE)  # what may be said


@pytest.mark.parametrize(
    ("key", "unit"),
    [
        ("dead_after_s", "seconds"),
        ("disk_free_min_mb", "MiB"),
        ("offload_below_gb", "GiB"),
        ("body_bytes_max", "bytes"),
    ],
)
def test_a_number_says_its_unit(key: str, unit: str) -> None:
    assert re.search(rf"^# \(.*, in {unit}\) .*\n(?:# .*\n)*#{key} = ", reference(), re.MULTILINE)


def test_lines_fit_an_editor() -> None:
    assert [line for line in reference().splitlines() if len(line) > LINE_CHARACTERS + 2] == []


def test_a_chosen_value_is_switched_on_and_the_rest_is_not() -> None:
    chosen = reference({("gpu_daemon", "router_endpoint"): "tcp://10.0.0.5:12413", ("router", "prefetch_s"): 1.5})
    assert tomllib.loads(chosen) == {
        **{name: {} for name in SECTIONS},
        GpuDaemonSettings.SECTION: {"router_endpoint": "tcp://10.0.0.5:12413"},
        RouterSettings.SECTION: {"prefetch_s": 1.5},
    }
    assert digest_line() in chosen  # whatever is chosen, the reference is the same
