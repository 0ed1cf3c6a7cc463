"""How many runs are played: `--sim-seeds N` (default 60), or the one of `--sim-seed N`."""

import pytest

SEEDS = 60
FIRST_SEED = 1000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sim-seeds", type=int, default=SEEDS, help="runs of the simulation")
    parser.addoption("--sim-seed", type=int, default=None, help="the one run to play again")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "sim_seed" in metafunc.fixturenames:
        one, many = metafunc.config.getoption("--sim-seed"), metafunc.config.getoption("--sim-seeds")
        metafunc.parametrize("sim_seed", [one] if one is not None else range(FIRST_SEED, FIRST_SEED + many))
