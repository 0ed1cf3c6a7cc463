"""Who may use HTTP: real requests to a gateway that asks for keys."""

from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from common.errors import SettingsError
from common.http_keys import HttpKey, Right, hash_of, key_text, render_http_keys
from common.messages import JobQuery, Submit, Terms
from common.settings import GatewaySettings
from gateway import access
from gateway.callers import KnownKeys
from gateway.listener import check_reach, needs_keys
from tests.gateway.conftest import Door, until
from tests.gateway.fake_router import FakeRouter

NAMES: dict[str, tuple[Right, ...]] = {
    "alice": ("generate",),
    "bob": ("generate", "read"),
    "watcher": ("read",),
    "root": ("admin",),
    "hasty": ("generate",),
}
TEXTS = {name: key_text(bytes([number]) * 20) for number, name in enumerate(NAMES)}
KEYS = {
    name: HttpKey(name=name, sha256=hash_of(TEXTS[name]), rights=rights, created=datetime(2026, 1, 1, tzinfo=UTC))
    for name, rights in NAMES.items()
}
KEYS["hasty"] = replace(KEYS["hasty"], requests_per_minute=2, jobs_max=3, gpu_seconds_per_minute=9.0, weight=4.0)


def write(path: Path, keys: dict[str, HttpKey], more: str = "") -> None:
    path.write_text(render_http_keys(list(keys.values())) + more)
    path.chmod(0o644)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "http-keys.toml"
    write(path, KEYS)
    return path


@pytest.fixture
def settings(keys_file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(access, "LOOK_EVERY_S", 0.02)
    return {"auth": "keys", "http_keys_file": str(keys_file), "cors_origins": ("https://studio.example.org",)}


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TEXTS[name]}"}


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "needs a key"),
        ({"Authorization": "Basic YTpi"}, "not 'Bearer KEY'"),
        ({"Authorization": "Bearer sk-123"}, "does not begin with gs-"),
        ({"Authorization": f"Bearer {TEXTS['bob'][:-1]}"}, "not copied whole"),
        ({"Authorization": f"Bearer {TEXTS['bob'][:-1]}~"}, "mistyped"),
        ({"X-API-Key": key_text(bytes(range(20)))}, "no key of this service"),
    ],
)
async def test_who_has_no_key_is_told_what_to_send(
    door: Door, router: FakeRouter, headers: dict[str, str], said: str
) -> None:
    status, body, told = await door.post("/v1/jobs", {"prompt": "x"}, headers=headers)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert said in body["error"]["message"]
    assert "add-http" in body["error"]["what_to_do"]
    assert told["WWW-Authenticate"].startswith("Bearer")
    assert told["x-should-retry"] == "false"
    assert router.jobs == {}
    for value in headers.values():
        assert value.removeprefix("Bearer ") not in str(body)


async def test_what_tells_nothing_is_open(door: Door) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        assert (await door.get(path))[0] in (200, 503)
    async with door.client.get(f"{door.url}/") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [
        ("alice", "/v1/status", 403),
        ("alice", "/v1/models", 200),
        ("bob", "/status", 200),
        ("watcher", "/gpu/load", 200),
        ("watcher", "/v1/models", 200),
        ("watcher", "/v1/jobs", 403),
        ("watcher", f"/v1/jobs/{'0' * 32}", 403),
        ("root", "/config", 200),
    ],
)
async def test_rights(door: Door, name: str, path: str, status: int) -> None:
    got, body, _ = await door.get(path, headers=by(name))
    assert got == status
    if status == 403:
        assert (body["error"]["code"], "needs the right" in body["error"]["message"]) == ("forbidden", True)


async def test_jobs_belong_to_the_key_that_asks(door: Door, router: FakeRouter) -> None:
    _, job, _ = await door.post("/v1/jobs", {"prompt": "x"}, headers={"X-API-Key": TEXTS["hasty"]})
    submit = next(each for each in router.received if isinstance(each, Submit))
    assert submit.owner == "http/hasty"
    assert submit.terms == Terms(weight=4.0, jobs_max=3, gpu_seconds_per_minute=9.0)
    for name, owner in (("alice", "http/alice"), ("root", "*")):
        await door.get(f"/v1/jobs/{job['id']}", headers=by(name))
        query = [each for each in router.received if isinstance(each, JobQuery)][-1]
        assert query.owner == owner


async def test_too_many_requests_a_minute(door: Door) -> None:
    for _ in range(2):
        assert (await door.post("/v1/jobs", {"prompt": "x"}, headers=by("hasty")))[0] == 202
    status, body, headers = await door.post("/v1/jobs", {"prompt": "x"}, headers=by("hasty"))
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "2 times a minute" in body["error"]["message"]
    assert 1 <= int(headers["Retry-After"]) <= 30
    assert (await door.post("/v1/jobs", {"prompt": "x"}, headers=by("bob")))[0] == 202


async def test_more_at_once_than_a_key_may_have_is_never_tried(door: Door, router: FakeRouter) -> None:
    asked = {"prompt": "x", "n": 4}
    status, body, _ = await door.post("/v1/images/generations", asked, headers=by("hasty"))
    assert (status, body["error"]["param"], "3 jobs at one time" in body["error"]["message"]) == (400, "n", True)
    assert router.jobs == {}


def test_hashes_are_compared_whole_and_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that begin alike, as an attacker who knows the file might have them, are told apart as well."""
    compared: list[tuple[str, str]] = []

    def compare(ours: str, theirs: str) -> bool:
        compared.append((ours, theirs))
        return compare_digest(ours, theirs)

    monkeypatch.setattr("gateway.callers.compare_digest", compare)
    alike = replace(KEYS["bob"], name="alike", sha256=KEYS["bob"].sha256[:-1] + "0")
    known = KnownKeys([replace(KEYS["bob"], sha256=hash_of(TEXTS["bob"])), alike])
    assert known.find(TEXTS["bob"]) == KEYS["bob"]
    assert [ours for ours, _ in compared] == [KEYS["bob"].sha256, alike.sha256]
    assert known.find(TEXTS["alice"]) is None
    assert known.find("gs-\udce9" + "x" * 33) is None


async def test_a_revoked_key_is_out_and_what_it_has_open_is_cut(
    door: Door, router: FakeRouter, keys_file: Path
) -> None:
    router.draws = lambda _spec: False
    _, job, _ = await door.post("/v1/jobs", {"prompt": "x"}, headers=by("bob"))
    async with door.client.get(f"{door.url}/v1/jobs/{job['id']}/events", headers=by("bob")) as stream:
        await stream.content.readline()
        write(keys_file, {**KEYS, "bob": replace(KEYS["bob"], revoked=datetime(2026, 2, 2, tzinfo=UTC))})
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.content.read()
    status, body, _ = await door.get("/v1/models", headers=by("bob"))
    assert (status, "'bob' was revoked" in body["error"]["message"]) == (401, True)
    assert (await door.get("/v1/models", headers=by("alice")))[0] == 200


async def test_a_file_that_cannot_be_read_leaves_the_keys_in_force(door: Door, keys_file: Path) -> None:
    write(keys_file, {}, more="[[key")
    await until(lambda: door.server._gateway.access._said, "the file to be looked at")
    assert (await door.get("/v1/models", headers=by("alice")))[0] == 200
    write(keys_file, {"root": KEYS["root"]})
    await until(lambda: not door.server._gateway.access._said, "the file to be read again")
    assert (await door.get("/v1/models", headers=by("alice")))[0] == 401


async def test_pages_of_the_named_origins_may_and_no_others(door: Door) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Origin": "https://studio.example.org"}
    async with door.client.options(f"{door.url}/v1/jobs", headers=asks) as answer:
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, asks["Origin"])
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    _, _, headers = await door.get("/v1/models", headers={**by("bob"), "Origin": asks["Origin"]})
    assert (headers["Access-Control-Allow-Origin"], headers["Vary"]) == (asks["Origin"], "Origin")
    for origin in ("https://evil.example", "null"):
        async with door.client.options(f"{door.url}/v1/jobs", headers={**asks, "Origin": origin}) as answer:
            assert answer.status == 403 or "Access-Control-Allow-Origin" not in answer.headers
        status, body, headers = await door.post("/v1/jobs", {"prompt": "x"}, headers={**by("bob"), "Origin": origin})
        assert (status, body["error"]["param"], "Access-Control-Allow-Origin" in headers) == (403, "Origin", False)


@pytest.mark.parametrize("settings", [{}])
async def test_on_loopback_nobody_needs_one(door: Door, router: FakeRouter) -> None:
    assert (await door.post("/v1/jobs", {"prompt": "x"}, headers={"Authorization": "Bearer none"}))[0] == 202
    submit = next(each for each in router.received if isinstance(each, Submit))
    assert (submit.owner, submit.terms) == ("local", None)


@pytest.mark.parametrize("auth", ["auto", "keys", "none"])
def test_where_others_can_reach_it_somebody_must_say_who_may(auth: Any, tmp_path: Path, keys_file: Path) -> None:
    def check(file: Path, host: str = "0.0.0.0") -> None:  # nothing listens
        check_reach(GatewaySettings(host=host, auth=auth, http_keys_file=str(file)), host, "gateway.host")

    check(keys_file)
    check(tmp_path / "none", "127.0.0.1")
    if needs_keys(GatewaySettings(host="0.0.0.0", auth=auth)):
        old = tmp_path / "old"
        write(old, {"bob": replace(KEYS["bob"], revoked=datetime(2026, 2, 2, tzinfo=UTC))})
        with pytest.raises(SettingsError, match="lets nobody in"):
            access.Access(GatewaySettings(host="0.0.0.0", auth=auth, http_keys_file=str(old)))
    if auth == "none":
        check(tmp_path / "none")
    else:
        with pytest.raises(SettingsError, match="genserve keys add-http NAME"):
            check(tmp_path / "none")
