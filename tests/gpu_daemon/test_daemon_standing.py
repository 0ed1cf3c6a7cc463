"""How a daemon stands, in words, and when its watchdog is not fed: pure, on the real session."""

from collections.abc import Iterator

import pytest

from common.health import Standing
from gpu_daemon.engine_messages import Broken, Loading, Step
from gpu_daemon.events import DrainAsked, EngineDied, EngineStarted
from gpu_daemon.standing import STOP_MARGIN_S, standing
from gpu_daemon.work import STUCK_AFTER_S
from tests.gpu_daemon.test_daemon_session import READY, SETTINGS, A, Driver

STOP_S = SETTINGS.drain_s + SETTINGS.job_stop_grace_s + STOP_MARGIN_S
STARTED = 1000.0  # when the engine was


@pytest.fixture
def driver() -> Iterator[Driver]:
    made = Driver()
    made.do(EngineStarted(1))
    yield made
    made.session.check_invariants()


def stands(driver: Driver) -> Standing:
    return standing(driver.session, STARTED, driver.now)


def test_from_loading_to_drawing_to_draining(driver: Driver) -> None:
    driver.engine(Loading(stage="loading transformer", fraction=0.5))
    driver.at(42.0)
    assert stands(driver) == Standing("loading noop on cpu, 42 s: loading transformer", usable=False, needs_s=60.0)
    driver.engine(READY)
    assert stands(driver) == Standing("noop ready on cpu, nothing to draw; the router does not answer")
    driver.welcome()
    assert stands(driver) == Standing("noop ready on cpu, nothing to draw")
    driver.dispatch(A)
    assert stands(driver) == Standing("drawing job 00000000 on cpu")
    driver.engine(Step(token=A, step=1, steps=4, step_s=0.1, load=READY.load))
    assert stands(driver) == Standing(
        f"drawing job 00000000 step 1/{driver.session.work.hand.all()[0].job.steps} on cpu"
    )
    driver.do(DrainAsked())
    assert stands(driver) == Standing("draining: 1 job still runs", stopping=True, needs_s=STOP_S)
    driver.drawn(A)
    assert stands(driver) == Standing("draining: nothing runs any more", stopping=True, needs_s=STOP_S)


def test_a_start_that_failed_once_is_given_no_more_time(driver: Driver) -> None:
    driver.engine(Broken(code="model_load_failed", message="the transformer is damaged"))
    assert stands(driver) == Standing("cpu cannot be used: the transformer is damaged", usable=False)
    driver.do(EngineDied("ended with status 1"))
    driver.do(EngineStarted(2))
    driver.engine(Loading(stage="importing torch", fraction=0.0))
    assert stands(driver) == Standing("loading noop on cpu, 0 s: importing torch", usable=False)


def test_a_job_that_outlives_every_limit_feeds_no_watchdog(driver: Driver) -> None:
    """The engine that hangs is killed; a control process that does not manage even that is started anew."""
    driver.engine(READY)
    driver.do(EngineStarted(1))
    driver.welcome()
    driver.dispatch(A)
    limit_s = SETTINGS.job_timeout_s + SETTINGS.job_stop_grace_s
    stuck = driver.session.work.stuck
    assert stuck(driver.now + limit_s + STUCK_AFTER_S) == ""
    assert stuck(driver.now + limit_s + STUCK_AFTER_S + 1) == f"job {A.job_id} should have ended 31 s ago"
    driver.drawn(A)
    assert stuck(driver.now + 1e6) == ""
