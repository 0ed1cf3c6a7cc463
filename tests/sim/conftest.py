"""How many runs are played: what fits the budget of each share, or exactly `--sim-seeds N` in all."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sim-seeds", type=int, default=None, help="runs of the simulation, in place of its time budget")


@pytest.fixture(scope="session")
def sim_seeds(pytestconfig: pytest.Config) -> int | None:
    """What `--sim-seeds` asks for."""
    asked: int | None = pytestconfig.getoption("--sim-seeds")
    return asked
