"""Keys of HTTP: their texts, the file that lists them, and so much a minute."""

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from common.allowance import Allowances
from common.errors import SettingsError
from common.http_keys import (
    KEY_CHARS,
    SECRET_BYTES,
    HttpKey,
    hash_of,
    key_text,
    parse_http_keys,
    render_http_keys,
    what_is_wrong,
)
from common.keys import read_http_keys

KEY = HttpKey(
    name="lab", sha256=hash_of("x"), rights=("generate", "read"), created=datetime(2026, 1, 2, tzinfo=UTC),
    requests_per_minute=60, gpu_seconds_per_minute=1.5, jobs_max=4, weight=2.0,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_one_wrong_character_is_told_from_a_wrong_key(seed: int) -> None:
    chance = random.Random(seed)
    text = key_text(chance.randbytes(SECRET_BYTES))
    assert (len(text), what_is_wrong(text)) == (KEY_CHARS, "")
    at = chance.randrange(3, KEY_CHARS)
    other = chance.choice([each for each in "0Oo1lIz" if each != text[at]])
    assert "mistyped" in what_is_wrong(text[:at] + other + text[at + 1 :])
    assert "not copied whole" in what_is_wrong(text[:-1])
    assert "does not begin" in what_is_wrong(text[1:])


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    revoked = replace(KEY, name="old", sha256=hash_of("y"), revoked=datetime(2026, 2, 3, tzinfo=UTC), jobs_max=None)
    path = tmp_path / "http-keys.toml"
    path.write_text(render_http_keys([KEY, revoked]))
    path.chmod(0o644)
    assert read_http_keys(path) == (KEY, revoked)
    assert (KEY.valid, revoked.valid) == (True, False)
    assert KEY.owner == "http/lab"
    path.chmod(0o666)
    with pytest.raises(SettingsError, match="others may write"):
        read_http_keys(path)
    with pytest.raises(SettingsError, match="add-http NAME"):
        read_http_keys(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rights": ("king",)}, "entry 1"),
        ({"rights": ()}, "entry 1"),
        ({"name": "a/b"}, "entry 1"),
        ({"sha256": "abc"}, "entry 1"),
        ({"weight": 0.0}, "entry 1"),
    ],
)
def test_a_wrong_entry_is_named(change: dict[str, object], said: str) -> None:
    text = render_http_keys([replace(KEY, **change)])
    with pytest.raises(SettingsError, match=said):
        parse_http_keys(text, "keys")
    with pytest.raises(SettingsError, match="the name lab stands twice"):
        parse_http_keys(render_http_keys([KEY, replace(KEY, sha256=hash_of("z"))]), "keys")


@pytest.mark.parametrize("seed", range(20))
def test_nobody_has_more_than_a_minutes_worth_and_what_the_minutes_bring(seed: int) -> None:
    chance = random.Random(seed)
    allowances, per_minute, had, now = Allowances(), chance.choice([1, 6, 60, 1000]), 0.0, 100.0
    began = now
    for _ in range(400):
        now += chance.choice([0.0, 0.01, 1.0, 7.0, 90.0]) * chance.random()
        wait_s = allowances.wait_s("a", per_minute, 1.0, now)
        if wait_s:
            assert allowances.wait_s("a", per_minute, 1.0, now + 0.9 * wait_s) > 0
            now += wait_s
            assert allowances.wait_s("a", per_minute, 1.0, now) == 0.0
        allowances.spend("a", 1.0, now)
        had += 1
        assert had <= per_minute * (1 + (now - began) / 60) + 1e-3
    assert allowances.wait_s("b", per_minute, 1.0, now) == 0.0


def test_names_are_bounded() -> None:
    allowances = Allowances(names_max=3)
    for number in range(10):
        allowances.wait_s(f"n{number}", 1.0, 1.0, float(number))
        allowances.spend(f"n{number}", 1.0, float(number))
    assert len(allowances) == 3
