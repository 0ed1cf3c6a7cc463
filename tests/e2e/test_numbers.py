"""Every number of /status and /gpu/load against a count made without it: by the client, or by the kernel."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.rawclient import RawClient
from tests.service import Service, running, wait_for

PLACES = 2 * (1 + 5) + 50
LONG_STEPS = 100
JOB = {"prompt": "x", "width": 64, "height": 64, "steps": LONG_STEPS}


@pytest.fixture
def slow_pair(tmp_path: Path) -> Iterator[Service]:
    """Two no-op engines whose jobs of LONG_STEPS take 10 s, and fail after 3."""
    env = {
        "GENSERVE_GPU_DAEMON_NOOP_STEP_S": "0.1", "GENSERVE_GPU_DAEMON_JOB_TIMEOUT_S": "3",
        "GENSERVE_GPU_DAEMON_JOB_STOP_GRACE_S": "2",
    }  # fmt: skip
    with running(tmp_path, "--gpus", "cpu,cpu", "--engine", "noop", workers=2, env=env) as started:
        yield started


def _manager(service: Service) -> dict[str, Any]:
    _, body = service.get("/status")
    manager = body["concurrent_manager"]
    assert isinstance(manager, dict)
    return manager


def _submit(client: RawClient, count: int) -> tuple[list[str], int]:
    """(ids of those accepted, how many were refused)."""
    accepted, refused = [], 0
    for number in range(count):
        client.send(b"SUBMIT", rid=str(number), job={**JOB, "seed": number})
    while len(accepted) + refused < count:
        name, header, _ = client.receive()
        if name == b"ACCEPTED":
            accepted.append(header["job_id"])
        elif name == b"REJECTED":
            assert header["code"] == "queue_full"
            refused += 1
    return accepted, refused


def test_a_full_fleet_counts_right(slow_pair: Service) -> None:
    began = time.time()
    with RawClient(slow_pair.client_endpoint) as client:
        accepted, refused = _submit(client, PLACES + 8)
        assert (len(accepted), refused) == (PLACES, 8)
        manager = wait_for("status with both at work", lambda: (m := _manager(slow_pair))["busy_instances"] == 2 and m)
        instances = manager["model_instances"]["noop"]
        current = {instance["current_task"] for instance in instances}
        assert len(current) == 2
        assert current <= set(accepted)
        assert manager["is_running"] is True
        assert manager["worker_threads"] == manager["total_instances"] == len(instances) == 2
        assert manager["total_queue_size"] == PLACES - 2
        assert [instance["queue_size"] for instance in instances] == [5, 5]
        assert manager["global_queue_size"] == PLACES - 2 - 2 * 5 == manager["max_global_queue_size"]
        assert manager["stats"]["total_tasks"] == PLACES
        assert manager["stats"]["queue_full_rejections"] == 8
        assert all(instance["is_busy"] and instance["is_loaded"] for instance in instances)
        assert all(instance["max_queue_size"] == 5 for instance in instances)

        for job_id in accepted:
            if job_id not in current:
                client.send(b"CANCEL", rid="c", job_id=job_id)
        ends = {b"CANCELLED": set[str](), b"FAILED": set[str]()}
        while sum(map(len, ends.values())) < PLACES:
            name, header, _ = client.receive()
            if name in ends:
                ends[name].add(header["job_id"])
        assert ends[b"FAILED"] == current, "the two that ran were stopped at job_timeout_s"
        drawn = [client.draw(rid="d", **{**JOB, "steps": 1, "seed": seed})[0] for seed in range(3)]
        assert drawn == [b"RESULT"] * 3

    manager = _manager(slow_pair)
    assert manager["stats"] == {
        "total_tasks": PLACES + 3, "completed_tasks": 3, "failed_tasks": 2, "cancelled_tasks": PLACES - 2,
        "queue_full_rejections": 8,
    }  # fmt: skip
    assert (manager["total_queue_size"], manager["global_queue_size"], manager["busy_instances"]) == (0, 0, 0)
    instances = manager["model_instances"]["noop"]
    assert sum(instance["total_generations"] for instance in instances) == 3
    assert all(began <= instance["last_used"] <= time.time() for instance in instances)
    assert all(instance["current_task"] is None for instance in instances)


def test_the_memory_of_each_device_is_that_of_its_engine(slow_pair: Service) -> None:
    engines = {name: slow_pair.processes(f"genserve engine {name}")[0] for name in ("cpu:0", "cpu:1")}

    def seen() -> Any:
        _, body = slow_pair.get("/gpu/load")
        loads = body["gpu_load_info"]
        return loads if all(load["free_mb"] is not None for load in loads.values()) else None

    loads = wait_for("measured memory", seen)
    assert set(loads) == set(engines)
    memory = psutil.virtual_memory()
    for name, load in loads.items():
        assert load["allocated_mb"] == pytest.approx(engines[name].memory_info().rss / 2**20, abs=4)
        assert load["cached_mb"] == 0
        assert load["total_mb"] == pytest.approx(memory.total / 2**20, abs=2)
        assert load["free_mb"] == pytest.approx(memory.available / 2**20, abs=1024)
        used = 100 * (load["total_mb"] - load["free_mb"]) / load["total_mb"]
        assert load["utilization_percent"] == pytest.approx(used, abs=0.06)
        assert load["available"] is True
