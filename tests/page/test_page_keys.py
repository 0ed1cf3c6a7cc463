"""The page at a gateway that asks for keys: one is asked for, kept, refused, revoked, and stays out of addresses."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from genserve.http_keys import HttpStore
from tests.page.browser import Seen, opened
from tests.service import Service, running, wait_for

SAID_BY_THE_BROWSER = ("401 (Unauthorized)", "403 (Forbidden)", "Failed to load resource", "ERR_")
ASKED = "#key-dialog[open]"
LONG = 100  # steps: of a job that is still drawn when its key is revoked
RIGHTS = {"alice": ("generate", "read"), "gone": ("generate", "read"), "drawer": ("generate",), "watcher": ("read",)}


@dataclass
class Keyed:
    """A service that asks for keys, its file of keys, and their texts."""

    service: Service
    store: HttpStore
    texts: dict[str, str]

    def page(self, browser: Browser) -> AbstractContextManager[Seen]:
        """The page, asking for a key."""
        return opened(browser, self.service.http_url, ready=ASKED, excused=SAID_BY_THE_BROWSER)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = Path(tmp_path_factory.mktemp("page-keys"))
    store = HttpStore(folder / "http-keys.toml")
    texts = {name: store.add(name, rights)[1] for name, rights in RIGHTS.items()}
    env = {"GENSERVE_GATEWAY_AUTH": "keys", "GENSERVE_GATEWAY_HTTP_KEYS_FILE": str(store.path)}
    with running(folder, "--gpus", "cpu", env=env) as service:
        yield Keyed(service, store, texts)


def give(seen: Seen, text: str) -> None:
    seen("#key-field").fill(text)
    seen.page.keyboard.press("Enter")


def test_a_key_is_asked_for_kept_in_the_tab_and_sent_in_headers_only(browser: Browser, keyed: Keyed) -> None:
    text, addresses = keyed.texts["alice"], list[str]()
    with keyed.page(browser) as seen:
        seen.page.on("request", lambda request: addresses.append(request.url))
        expect(seen("#key-field")).to_be_focused()
        assert seen.faults() == []
        give(seen, "gs_wrong")
        expect(seen("#key-wrong")).to_contain_text("does not take this key")
        give(seen, text)
        expect(seen("#key-dialog")).to_be_hidden()
        seen.draw("a red star", steps=24)
        seen(".frame img[data-preview].there").first.wait_for()
        seen.finished()
        seen.draw("a blue cross", steps=LONG)
        seen("#cancel").click()
        expect(seen(".line")).to_have_text("Cancelled")
        seen("#tab-fleet").click()
        seen(".gpu").first.wait_for()
        seen.page.reload()
        seen("#model option").first.wait_for(state="attached")  # no key was asked for again
        expect(seen("#key-dialog")).to_be_hidden()
        assert text in seen.page.evaluate("JSON.stringify(sessionStorage)")
        assert text not in seen.page.evaluate("JSON.stringify(localStorage) + location.href")
        assert any(address.endswith("/image") for address in addresses)
        assert not [address for address in addresses if text in address]


def test_a_dialog_that_is_closed_comes_again_when_something_is_to_be_drawn(browser: Browser, keyed: Keyed) -> None:
    with keyed.page(browser) as seen:
        seen.page.keyboard.press("Escape")
        with seen.page.expect_response("**/v1/status"):
            seen("#tab-fleet").click()
        expect(seen("#view-fleet")).to_contain_text("Give yours with the key button")
        expect(seen("#key-dialog")).to_be_hidden()
        seen("#tab-studio").click()
        seen.draw("a red star", steps=4)
        expect(seen("#key-dialog")).to_be_visible()
        seen.page.keyboard.press("Escape")
        seen("#key").click()
        give(seen, keyed.texts["alice"])
        seen("#model option").first.wait_for(state="attached")
        seen.draw("a red star", steps=4)
        seen.finished()


def test_a_key_does_what_it_may_and_says_what_it_may_not(browser: Browser, keyed: Keyed) -> None:
    with keyed.page(browser) as seen:
        give(seen, keyed.texts["drawer"])
        seen("#model option").first.wait_for(state="attached")
        seen.draw("a red star", steps=4)
        seen.finished()
        seen("#tab-fleet").click()
        expect(seen("#view-fleet")).to_contain_text("this needs the right read")
        expect(seen("#pulse-text")).to_have_text("Key may only draw")
        expect(seen(".figures")).to_be_hidden()
        assert seen.faults() == []
        expect(seen("#key-dialog")).to_be_hidden()
        seen("#key").click()
        give(seen, keyed.texts["watcher"])
        seen(".gpu").first.wait_for()
        expect(seen("#view-fleet")).not_to_contain_text("needs the right")
        seen("#tab-studio").click()
        seen.draw("a red star", steps=4)
        expect(seen("#composer-error")).to_contain_text("generate")


def test_a_key_that_is_revoked_is_asked_for_again_and_the_job_goes_on(browser: Browser, keyed: Keyed) -> None:
    with keyed.page(browser) as seen:
        give(seen, keyed.texts["gone"])
        seen("#model option").first.wait_for(state="attached")
        seen.draw("a green circle", steps=LONG)
        seen(".frame img[data-preview].there").first.wait_for()
        keyed.store.revoke("gone")
        expect(seen("#key-wrong")).to_contain_text("'gone' was revoked")
        expect(seen(".line")).to_have_text("Waiting for an API key")
        _, text = keyed.store.add("gone", RIGHTS["gone"])
        wait_for("the new key", lambda: keyed.service.events("keys.read")[1:])
        give(seen, text)
        expect(seen("#key-dialog")).to_be_hidden()
        expect(seen("#tiles li[data-kind=picture]")).to_have_count(1)
