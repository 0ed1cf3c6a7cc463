"""Routers of the tests' own, closed when a test ends."""

from collections.abc import Callable, Iterator

import pytest

from tests.genserve.fake_router import FakeRouter, Script


@pytest.fixture
def start() -> Iterator[Callable[..., FakeRouter]]:
    started: list[FakeRouter] = []

    def make(script: Script, endpoint: str = "") -> FakeRouter:
        started.append(FakeRouter(script, endpoint))
        return started[-1]

    yield make
    for router in started:
        router.close()
