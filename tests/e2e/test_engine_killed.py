"""An engine is killed in the middle of a job: nobody but the log notices."""

import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests.service import Service, running, wait_for


def _running_step(service: Service) -> bool:
    _, status = service.get("/status")
    instances = [i for many in status["concurrent_manager"]["model_instances"].values() for i in many]
    return any(instance["is_busy"] for instance in instances)


def test_kill_9_of_an_engine_during_a_job(tmp_path: Path) -> None:
    with running(tmp_path, "--gpus", "cpu") as service:
        answers: list[Any] = []
        ask = {"prompt": "a storm", "size": "256x256", "num_inference_steps": 100, "seed": 9}
        client = threading.Thread(target=lambda: answers.append(service.post("/v1/images/generations", ask)))
        client.start()
        wait_for("running job", lambda: _running_step(service))
        [engine] = service.processes("genserve engine")
        engine.send_signal(signal.SIGKILL)
        wait_for("daemon that says its engine is gone", lambda: service.events("engine.died"))
        _, status = service.get("/status")
        assert status["concurrent_manager"]["total_instances"] == 1, "the daemon stays registered"
        client.join(120)
        [(http_status, body, _)] = answers
        assert http_status == 200
        assert len(body["data"]) == 1
        starts = [line for line in service.events("job.started") if line["process"] == "gpu-daemon"]
        assert len(starts) == 2
        assert service.events("job.requeued")
        [fresh] = service.processes("genserve engine")
        assert fresh.pid != engine.pid
        assert len(service.events("worker.registered")) == 1


def test_no_part_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    service = Service(tmp_path, "--gpus", "cpu", "--engine", "noop")
    try:
        service.wait_ready()
        [engine] = service.processes("genserve engine")
        [daemon] = service.processes("genserve gpu-daemon")
        daemon.send_signal(signal.SIGKILL)
        wait_for("end of the engine", lambda: not _alive(engine), 10)
        wait_for("new daemon", lambda: [d for d in service.processes("genserve gpu-daemon") if d.pid != daemon.pid])
        service.wait_ready()
        everything = service.processes("genserve ")
        service.process.kill()
        service.process.wait()
        for process in everything:
            wait_for(f"end of {process}", partial(_not, _alive, process), 20)
    finally:
        service.kill()


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _not(check: Callable[[psutil.Process], bool], process: psutil.Process) -> bool:
    return not check(process)
