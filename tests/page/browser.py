"""A real headless Chromium for the page's tests, and what is looked at in it.

Its Python package opens an event loop in the thread that uses it, so a browser lives as long as one file of tests.
"""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

CHROMIUM = "chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
DESKTOP, PHONE = (1360, 860), (390, 844)
WITHIN_MS = 30_000
SERIOUS = ("serious", "critical")
# The pixels of an <img>, through a canvas: the policy lets nothing fetch a blob.
PIXELS = """image => {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}"""


def why_not() -> str:
    """What is missing to start a browser here; '' where nothing is."""
    return "" if shutil.which(CHROMIUM) else "chromium is not installed: apt-get install chromium"


@contextmanager
def started() -> Iterator[Browser]:
    """Chromium, until the end of the block."""
    expect.set_options(timeout=WITHIN_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Seen:
    """An open page, and its complaints: console errors, crashes, what the policy refuses, addresses elsewhere."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    excused: tuple[str, ...] = ()  # parts of complaints that a test provokes

    def __call__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in self.excused):
            self.complaints.append(f"{message.type}: {message.text}")

    def draw(self, prompt: str, *, steps: int, count: int = 1) -> None:
        """Write a prompt and draw it by the keyboard."""
        self("#steps").fill(str(steps))
        self(f"#counts input[value='{count}']").check(force=True)
        self("#prompt").fill(prompt)
        self.page.keyboard.press("Control+Enter")

    def pixels(self, image: Locator) -> bytes:
        """What an <img> shows, as PNG."""
        return base64.b64decode(image.evaluate(PIXELS))

    def finished(self) -> Locator:
        """The large picture, once it is there."""
        image = self(".frame img[data-picture].there")
        image.wait_for()
        return image

    def faults(self) -> list[str]:
        """Serious faults of accessibility, by axe-core."""
        found: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [
            f"{each['id']}: {node['html'][:160]} {node['failureSummary']}"
            for each in found
            if each["impact"] in SERIOUS
            for node in each["nodes"]
        ]

    def overflows(self) -> bool:
        """Is it wider than its window?"""
        return bool(self.page.evaluate("document.scrollingElement.scrollWidth > innerWidth"))


@contextmanager
def opened(
    browser: Browser,
    url: str,
    *,
    size: tuple[int, int] = DESKTOP,
    scheme: str = "light",
    locale: str = "en-GB",
    view: str = "",
    ready: str = "#model option",
    touch: bool = False,
    excused: tuple[str, ...] = (),
) -> Iterator[Seen]:
    """The page in a fresh profile, once `ready` is there; at the end it must have complained of nothing."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        locale=locale,
        reduced_motion="reduce",
        has_touch=touch,
        is_mobile=touch,
    )
    context.set_default_timeout(WITHIN_MS)
    seen = Seen(context.new_page(), url, excused=excused)
    seen.page.on("console", seen.heard)
    seen.page.on("pageerror", lambda error: seen.complaints.append(f"crash: {error}"))
    seen.page.on(
        "request",
        lambda request: (
            request.url.startswith((url, "blob:", "data:")) or seen.complaints.append(f"asks {request.url}")
        ),
    )
    seen.page.goto(f"{url}/{view}")
    seen("html[data-ready]").wait_for()
    seen(ready).first.wait_for(state="attached")
    yield seen
    context.close()
    assert seen.complaints == [], seen.complaints
