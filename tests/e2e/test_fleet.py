"""Two daemons: work is shared, nothing idles while something waits, and too much is refused politely."""

import base64
import io
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.rawclient import RawClient
from tests.service import Service, running

ASK = {"prompt": "a quiet harbour", "size": "64x64", "num_inference_steps": 4}
CAPACITY = 2  # jobs a daemon takes: what runs and what comes next


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(Path(tmp_path_factory.mktemp("pair")), "--gpus", "cpu,cpu", workers=2) as started:
        yield started


def _generate(service: Service, seed: int, **more: Any) -> tuple[int, Any, dict[str, str]]:
    return service.post("/v1/images/generations", {**ASK, "seed": seed, **more})


def _pixels(body: Any) -> bytes:
    return Image.open(io.BytesIO(base64.b64decode(body["data"][0]["b64_json"]))).tobytes()


def _done(service: Service) -> dict[str, int]:
    _, status = service.get("/status")
    instances = [i for many in status["concurrent_manager"]["model_instances"].values() for i in many]
    return {instance["device"]: instance["total_generations"] for instance in instances}


class _Watcher(threading.Thread):
    """Asks for STATUS over and over, and remembers every moment at which a GPU idled while a job waited."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self.endpoint, self.stop = endpoint, threading.Event()
        self.seen, self.idle_while_waiting = 0, list[Any]()

    def run(self) -> None:
        with RawClient(self.endpoint) as client:
            while not self.stop.wait(0.002):
                _, status, _ = client.ask(b"STATUS", rid="s")
                workers = status["workers"]
                sent = sum(CAPACITY - w["credit"] - w["busy"] for w in workers)
                waiting = status["stats"]["queued"] - sent
                self.seen += waiting > 0
                if waiting > 0 and any(w["state"] == "ready" and w["credit"] == CAPACITY for w in workers):
                    self.idle_while_waiting.append(status)


def test_twenty_at_once_are_shared_and_right(pair: Service) -> None:
    alone = {seed: _pixels(_generate(pair, seed)[1]) for seed in range(4)}
    before = _done(pair)
    watcher = _Watcher(pair.client_endpoint)
    watcher.start()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda seed: _generate(pair, seed), range(20)))
    watcher.stop.set()
    watcher.join()
    assert [status for status, *_ in answers] == [200] * 20
    for seed, pixels in alone.items():
        assert _pixels(answers[seed][1]) == pixels
    assert len({_pixels(body) for _, body, _ in answers}) == 20
    shares = Counter(body["data"][0]["genserve"]["device"] for _, body, _ in answers)
    assert set(shares) == {"cpu:0", "cpu:1"}
    assert {device: total - before[device] for device, total in _done(pair).items()} == dict(shares)
    assert watcher.seen > 0, "no moment was seen at which a job waited"
    assert not watcher.idle_while_waiting


def test_two_equal_engines_get_equal_shares(noop_pair: Service) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda seed: _generate(noop_pair, seed, num_inference_steps=10), range(20)))
    shares = Counter(body["data"][0]["genserve"]["device"] for _, body, _ in answers)
    assert abs(shares["cpu:0"] - shares["cpu:1"]) <= 1
    assert sum(shares.values()) == 20


def test_a_hundred_at_once_fill_the_queues_and_the_rest_is_told_when_to_come_back(noop_pair: Service) -> None:
    places = 2 * (1 + 5) + 50
    gate = threading.Barrier(100)

    def ask(seed: int) -> tuple[int, Any, dict[str, str]]:
        gate.wait()
        return _generate(noop_pair, seed, num_inference_steps=50)  # a second each: none ends while they are sent

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(ask, range(100)))
    by_status = Counter(status for status, *_ in answers)
    assert set(by_status) == {200, 429}
    assert places <= by_status[200] <= places + 4, by_status  # a job that ends meanwhile frees a place
    for status, body, headers in answers:
        if status == 429:
            assert body["error"]["code"] == "queue_full"
            assert int(headers["Retry-After"]) >= 1
        else:
            assert _pixels(body)


def test_n_pictures_are_admitted_together_or_not_at_all(noop_pair: Service) -> None:
    _, before = noop_pair.get("/status")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda seed: _generate(noop_pair, seed * 100, n=10, num_inference_steps=25), range(12)))
    assert {status for status, *_ in answers} == {200, 429}
    drawn = sum(len(body["data"]) for status, body, _ in answers if status == 200)
    assert drawn == 10 * sum(status == 200 for status, *_ in answers)
    for status, body, _ in answers:
        if status == 200:
            seeds = [item["genserve"]["seed"] for item in body["data"]]
            assert seeds == list(range(seeds[0], seeds[0] + 10))
    _, after = noop_pair.get("/status")
    was, now = (s["concurrent_manager"]["stats"]["completed_tasks"] for s in (before, after))
    assert drawn <= now - was
