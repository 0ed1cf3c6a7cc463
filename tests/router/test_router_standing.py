"""How the router stands, in words: pure, on the real broker."""

from common.health import Standing
from router.events import DrainAsked
from router.standing import standing
from tests.router.rig import Rig


def text(rig: Rig) -> str:
    return standing(rig.broker.state).text


def test_gpus_and_jobs_are_counted() -> None:
    rig = Rig()
    assert standing(rig.broker.state) == Standing("no GPU connected, 0 jobs running, 0 waiting")
    first, second = rig.worker("a"), rig.worker("b", ready=False)
    second.heartbeat("loading")
    assert text(rig) == "1 GPU ready, 1 loading, 0 jobs running, 0 waiting"
    second.ready()
    rig.submit()
    (token,) = first.dispatched() or second.dispatched()
    (first if first.dispatched() else second).started(token)
    for _ in range(3):
        rig.submit()
    assert text(rig) == "2 GPUs ready, 1 job running, 3 waiting"
    rig.storage(full=True)
    assert text(rig) == "2 GPUs ready, 1 job running, 3 waiting; new jobs are refused: 1 MiB is free"
    rig.storage(full=False)
    rig.tick(5.0)
    assert text(rig) == "0 GPUs ready, 2 silent, 1 job running, 3 waiting"
    rig.event(DrainAsked(wall=rig.wall))
    assert standing(rig.broker.state) == Standing("draining: 1 job still runs, 3 waiting", stopping=True, needs_s=20.0)
