"""Links cannot be made or changed by others, and their secret is kept, by one file for all gateways of a user."""

import stat
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from common.errors import SettingsError
from gateway.dialects import links
from gateway.dialects.errors import HttpError
from gateway.secret import NAME, link_secret

JOB = "ab" * 16


def _parts(path: str) -> tuple[str, str, dict[str, str]]:
    parts = urlsplit(path)
    _, job_id, part = parts.path.rsplit("/", 2)
    return job_id, part, {name: values[0] for name, values in parse_qs(parts.query).items()}


@pytest.mark.parametrize("owner", ["local", "Ana & Co\n?=&#"])
def test_a_link_is_good_until_it_expires(owner: str) -> None:
    job_id, part, query = _parts(links.path_of(b"s", JOB, owner=owner, expires_at=1000))
    assert (job_id, part) == (JOB, "image")
    assert links.check(b"s", job_id, part, query, wall_s=999.9) == owner
    with pytest.raises(HttpError) as over:
        links.check(b"s", job_id, part, query, wall_s=1000)
    assert (over.value.status, over.value.param) == (403, "expires")


def test_nothing_of_it_may_be_changed() -> None:
    job_id, part, query = _parts(links.path_of(b"s", JOB, owner="ana", expires_at=1000))
    forged = [
        (b"t", job_id, part, query),
        (b"s", "cd" * 16, part, query),
        (b"s", job_id, "mask", query),
        (b"s", job_id, part, {**query, "owner": "bob"}),
        (b"s", job_id, part, {name: value for name, value in query.items() if name != "owner"}),
        (b"s", job_id, part, {**query, "expires": "2000"}),
        (b"s", job_id, part, {**query, "expires": "1000 "}),
        (b"s", job_id, part, {**query, "expires": "x"}),
        (b"s", job_id, part, {**query, "signature": query["signature"].upper()}),
        (b"s", job_id, part, {**query, "signature": "é\ud800"}),
        (b"s", job_id, part, {}),
    ]
    for secret, *given in forged:
        with pytest.raises(HttpError) as refused:
            links.check(secret, *given, wall_s=5)  # type: ignore[arg-type]  # three values of three types
        assert (refused.value.status, refused.value.code) == (403, "forbidden")
        assert refused.value.param == "signature"


def test_the_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    env, found = {"STATE_DIRECTORY": str(tmp_path / "state")}, set[bytes]()
    threads = [threading.Thread(target=lambda: found.add(link_secret("", env))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert len(found.pop()) == 32
    (file,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        link_secret("", env)


def test_the_secret_that_is_given_wins(tmp_path: Path) -> None:
    given, folder = tmp_path / "mine", tmp_path / "credentials"
    folder.mkdir()
    given.write_text("0a" * 32 + "\n")
    given.chmod(0o600)
    (folder / NAME).write_text("0b" * 32)
    env = {"CREDENTIALS_DIRECTORY": str(folder), "STATE_DIRECTORY": str(tmp_path / "state")}
    assert link_secret(str(given), env) == b"\x0a" * 32
    assert link_secret("", env) == b"\x0b" * 32  # whatever its mode: systemd guards it
    given.write_text("no secret")
    for wrong in (given, tmp_path / "none"):
        with pytest.raises(SettingsError, match=str(wrong)):
            link_secret(str(wrong), env)


def test_where_none_can_be_kept_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert link_secret("", {"STATE_DIRECTORY": str(tmp_path / "file")}) == b""
