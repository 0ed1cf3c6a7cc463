"""Hundreds of requests that mean harm, at a whole service: each gets its clear error, and memory stays flat."""

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.e2e.hostile_http import BODY, SMUGGLED, Hostile, every
from tests.service import Service, running

REQUESTS = every()
READ_S = 5.0
SECOND_S = 0.05  # within which a second answer, which must not be, would follow
MIB = 1024 * 1024
TIMES = 3  # that all of them are sent, before and after
GROWTH_MIB_MAX = 3  # of the gateway meanwhile
SLOW = 40
TIMEOUT_S = 1.0
FILES = re.compile(rb"root:|\[extensions\]|uid=\d")
GROUPS = sorted({each.name.split("-")[0] for each in REQUESTS})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    env = {
        "GENSERVE_GATEWAY_BODY_TIMEOUT_S": str(TIMEOUT_S),
        "GENSERVE_GATEWAY_HEAD_TIMEOUT_S": str(TIMEOUT_S),
        "GENSERVE_LOG_LEVEL": "info",
    }
    with running(tmp_path_factory.mktemp("hostile"), "--engine", "noop", "--gpus", "cpu", env=env) as ready:
        yield ready


def ask(service: Service, data: bytes) -> bytes:
    """All that comes back for `data` until the service closes, or has answered and waits for more."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=READ_S) as connection:
        with suppress(ConnectionError):  # it may have heard enough, and answered
            connection.sendall(data)
        answer = b""
        with suppress(ConnectionError):
            while not _is_whole(answer) and (more := connection.recv(65536)):
                answer += more
            connection.settimeout(SECOND_S)
            with suppress(TimeoutError):
                while SMUGGLED in data and (more := connection.recv(65536)):
                    answer += more
        return answer


def _is_whole(answer: bytes) -> bool:
    head, ends, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(ends) and length is not None and len(body) >= int(length[1])


def check(service: Service, hostile: Hostile) -> None:
    answer = ask(service, hostile.data)
    head, _, body = answer.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/\d\.\d (\d+) ", head)
    assert status, (hostile.name, answer[:300])
    assert int(status[1]) in hostile.statuses, (hostile.name, answer[:500])
    assert len(re.findall(rb"HTTP/\d\.\d \d+ ", answer)) == 1, (hostile.name, answer[:2000])
    assert b"smuggled" not in answer, hostile.name
    assert b"X-Evil" not in head, hostile.name
    assert not FILES.search(answer), hostile.name
    error = json.loads(body)["error"]
    assert len(error["message"]) > 10, (hostile.name, error)
    assert len(answer) < 4000, (hostile.name, len(answer))
    assert error["what_to_do"], (hostile.name, error)
    if hostile.param:
        assert error["param"] == hostile.param, (hostile.name, error)


def test_there_are_enough_of_them() -> None:
    assert len(REQUESTS) >= 500
    assert len({each.name for each in REQUESTS}) == len(REQUESTS)
    assert any(SMUGGLED in each.data for each in REQUESTS)


@pytest.mark.parametrize("group", GROUPS)
def test_each_is_refused_with_its_error(service: Service, group: str) -> None:
    for hostile in REQUESTS:
        if hostile.name.split("-")[0] == group:
            check(service, hostile)
    assert service.get("/health/live")[0] == 200


def test_memory_stays_flat_and_nothing_was_drawn(service: Service) -> None:
    [gateway] = service.processes("genserve gateway")

    def once() -> float:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda each: ask(service, each.data), REQUESTS))
        return gateway.memory_info().rss / MIB

    before, after = (
        min(once() for _ in range(TIMES)) for _ in range(2)
    )  # the least: large bodies lie there for a while
    assert after - before < GROWTH_MIB_MAX, f"{before:.1f} MiB, then {after:.1f} MiB"
    assert gateway.num_fds() < 60
    stats = service.get("/v1/status")[1]["stats"]
    assert (stats["submitted_total"], stats["protocol_errors_total"]) == (0, 0)


def test_slow_ones_are_cut_and_keep_nobody_waiting(service: Service) -> None:
    """A byte now and then, never a whole request: heads are cut without a word, bodies with 408."""
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"

    def trickle(index: int) -> tuple[bool, bytes, float]:
        body = index % 2 == 0
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", service.port), timeout=READ_S) as connection:
            connection.sendall(head + b"\r\n{" if body else head + b"X: ")
            connection.settimeout(0.1)
            answer = b""
            while time.monotonic() - began < READ_S:
                try:
                    more = connection.recv(65536)
                    if not more:
                        break
                    answer += more
                except TimeoutError:
                    with suppress(ConnectionError):
                        connection.sendall(b"1")
                except ConnectionError:
                    break
        return body, answer, time.monotonic() - began

    with ThreadPoolExecutor(SLOW) as pool:
        slow = [pool.submit(trickle, index) for index in range(SLOW)]
        began = time.monotonic()
        assert service.get("/health/live")[0] == 200
        assert service.post("/v1/jobs", BODY)[0] == 202
        assert time.monotonic() - began < TIMEOUT_S
        for body, answer, took_s in (each.result() for each in slow):
            assert took_s < READ_S
            assert (b" 408 " in answer.split(b"\r\n")[0]) if body else not answer, answer
