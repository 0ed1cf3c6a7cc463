"""One client floods the queue; another's single job finds a place in it, and does not wait behind the flood."""

import pytest

from bench.played_fleet import PlayedFleet
from common.messages import Accepted, JobSpec, Rejected

FLOOD = 500


def _spec(client: str) -> JobSpec:
    return JobSpec(prompt="x", width=512, height=512, steps=4, client=client)


class _Flood:
    """A client that wants FLOOD pictures, and repeats what is refused as it is told to."""

    def __init__(self, fleet: PlayedFleet) -> None:
        self._fleet = fleet
        self.admitted = 0
        self.refusals: list[Rejected] = []
        for _ in range(FLOOD):
            self._ask()

    def _ask(self) -> None:
        answer = self._fleet.submit(_spec("flood"))
        if isinstance(answer, Accepted):
            self.admitted += 1
            return
        assert (answer.code, answer.retry_after_s is not None) == ("queue_full", True)
        self.refusals.append(answer)
        self._fleet.after(answer.retry_after_s or 0.0, self._ask)


@pytest.mark.parametrize(("gpus", "after_s"), [(1, 0.0), (2, 0.0), (2, 60.0), (5, 13.7)])
def test_a_flood_keeps_nobody_out_and_nobody_waiting(gpus: int, after_s: float) -> None:
    fleet = PlayedFleet([0.5] * gpus, check=True)
    flood = _Flood(fleet)
    begin = fleet.now
    fleet.run(lambda: fleet.now >= begin + after_s)
    while isinstance(fleet.submit(_spec("flood")), Accepted):  # full to the last place that it may take
        pass
    waiting, now = len(fleet.broker.state.live), fleet.now
    single = fleet.submit(_spec("other"))
    assert isinstance(single, Accepted), single
    assert waiting >= 50 + 6 * gpus
    assert single.job.position == 1
    fleet.run(lambda: any(job_id == single.job_id for _, _, job_id in fleet.started))
    further = [worker_id for when, worker_id, job_id in fleet.started if when > now and job_id != single.job_id]
    assert len(further) == len(set(further)), "a GPU began a second further job of the flood before"
    if not after_s:
        fleet.check = False  # the rest is long, and nothing new
        fleet.run(lambda: flood.admitted == FLOOD)
        assert flood.refusals


def test_two_floods_share_the_gpus_evenly() -> None:
    fleet = PlayedFleet([0.5, 0.5], check=True, global_queue_size=200, gpu_queue_size=0, global_queue_reserve=0)
    owners = {}
    for name in ["first"] * 60 + ["second"] * 60:
        answer = fleet.submit(_spec(name))
        assert isinstance(answer, Accepted)
        owners[answer.job_id] = name
    fleet.run(lambda: len(fleet.drawn) == 60)
    drawn = [owners[one.job_id] for one in fleet.drawn]
    assert abs(drawn.count("first") - drawn.count("second")) <= 4
