"""The page where HTTP asks for keys: it asks its reader, keeps the key to itself, and says when it will not do."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.page.browser import Seen, opened
from tests.service import GENSERVE, Service, clean_environment, running

REFUSED = ("401 (Unauthorized)", "403 (Forbidden)")
STORED = "JSON.stringify([Object.entries(localStorage), location.href, document.cookie])"


def keys_command(file: Path, *words: str) -> str:
    command = [GENSERVE, "keys", *words, "--file", str(file)]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=True).stdout.strip()


@dataclass
class Keyed:
    service: Service
    file: Path
    texts: dict[str, str]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = Path(tmp_path_factory.mktemp("page-keys"))
    file = folder / "http-keys.toml"
    texts = {
        "alice": keys_command(file, "add-http", "alice"),
        "drawer": keys_command(file, "add-http", "drawer", "--rights", "generate"),
    }
    env = {"GENSERVE_GATEWAY_HTTP_KEYS_FILE": str(file), "GENSERVE_GATEWAY_AUTH": "keys"}
    with running(folder, "--gpus", "cpu", env=env) as service:
        yield Keyed(service, file, texts)


def give(seen: Seen, key: str) -> None:
    seen("#key-field").fill(key)
    seen("#key-dialog button[type=submit]").click()


def test_a_key_is_asked_for_used_and_given_up(browser: Browser, keyed: Keyed) -> None:
    with opened(browser, keyed.service.http_url, ready="#key-dialog[open]", excused=REFUSED) as seen:
        assert seen.faults() == []
        give(seen, "gs-wrong")
        expect(seen("#key-wrong")).to_contain_text("no key of this service")
        assert seen.faults() == []
        give(seen, keyed.texts["alice"])
        expect(seen("#key-dialog")).not_to_be_visible()
        seen("#model option").first.wait_for(state="attached")
        seen.draw("a red star", steps=12)
        seen(".frame img[data-preview].there").first.wait_for()
        seen.finished()
        seen("#tab-fleet").click()
        seen(".gpu").first.wait_for()
        assert keyed.texts["alice"] not in seen.page.evaluate(STORED), "it is forgotten with the tab"
        seen.page.reload()
        seen(".gpu").first.wait_for()
        keys_command(keyed.file, "revoke-http", "alice")
        expect(seen("#key-wrong")).to_contain_text("'alice' was revoked")


def test_a_key_that_may_only_draw_draws(browser: Browser, keyed: Keyed) -> None:
    with opened(browser, keyed.service.http_url, ready="#key-dialog[open]", excused=REFUSED) as seen:
        give(seen, keyed.texts["drawer"])
        seen("#model option").first.wait_for(state="attached")
        seen.draw("a red star", steps=4)
        seen.finished()
        expect(seen("#pulse-text")).to_have_text("Key may only draw")
        seen("#tab-fleet").click()
        expect(seen("#view-fleet")).to_contain_text("this needs the right read")
        expect(seen(".figures")).not_to_be_visible()
        assert seen.faults() == []
