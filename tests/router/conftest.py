"""Every test of the router's pure rooms ends with every invariant checked."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.router.rig import Rig


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**settings: Any) -> Rig:
        rigs.append(Rig(**settings))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.broker.check_invariants()
        assert not [c for c in rig.all if getattr(c, "event", "") == "router.bug"]


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()
