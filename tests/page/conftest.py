"""The browser of each file of tests; where there is none its tests are skipped, saying what installs it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.page.browser import started, why_not


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if why := why_not():
        pytest.skip(why)
    with started() as browser:
        yield browser
