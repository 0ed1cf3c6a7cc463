"""The simulation bites: each planted bug is found, and soon."""

import pytest

from tests.sim.planted import PLANTED, Plant
from tests.sim.runner import first_failure

FIRST_SEED = 1000
SEEDS_MAX = 500


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found = first_failure(range(FIRST_SEED, FIRST_SEED + SEEDS_MAX))
    assert found is not None, f"{plant.__name__} was not found in {SEEDS_MAX} seeds"
