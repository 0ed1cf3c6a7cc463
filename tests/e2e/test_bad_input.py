"""Bad input at every door of a running service: each gets its clear error, and the service is unmoved."""

from typing import Any

import msgpack
import pytest
import zmq

from tests.common.bad_frames import CLIENT_FRAMES, WORKER_FRAMES
from tests.gateway.bad_bodies import BAD_BODIES, BadBody
from tests.rawclient import RawClient
from tests.service import Service


def _counts(service: Service) -> dict[str, Any]:
    with RawClient(service.client_endpoint) as client:
        _, status, _ = client.ask(b"STATUS", rid="s")
    stats = status["stats"]
    return {key: stats[key] for key in ("submitted_total", "done_total", "failed_total", "queued", "running")} | {
        "workers": [(w["worker_id"], w["state"], w["granted_total"]) for w in status["workers"]]
    }


def test_there_are_enough_of_them() -> None:
    assert len(BAD_BODIES) >= 30
    assert len(CLIENT_FRAMES) + len(WORKER_FRAMES) >= 200


@pytest.mark.parametrize("bad", BAD_BODIES, ids=lambda bad: bad.name)
def test_malformed_bodies(noop_pair: Service, bad: BadBody) -> None:
    before = _counts(noop_pair)
    status, body, _ = noop_pair.post(bad.path, bad.body, headers=bad.headers)
    assert status == bad.status, body
    error = body["error"]
    assert error["code"] == bad.code
    assert error["message"]
    assert error["what_to_do"]
    assert bad.says in error["message"]
    assert _counts(noop_pair) == before


def _answers(endpoint: str, frames_sent: list[list[bytes]]) -> list[tuple[bytes, dict[str, Any]]]:
    """The answer to each of `frames_sent`, one connection for all."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 10_000)
    socket.connect(endpoint)
    try:
        answers = []
        for frames in frames_sent:
            socket.send_multipart(frames)
            _, name, header = socket.recv_multipart()
            answers.append((name, msgpack.unpackb(header)))
        return answers
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize("door", ["client", "worker"])
def test_malformed_frames(noop_pair: Service, door: str) -> None:
    before = _counts(noop_pair)
    frames = CLIENT_FRAMES if door == "client" else WORKER_FRAMES
    endpoint = noop_pair.client_endpoint if door == "client" else noop_pair.worker_endpoint
    for sent, (name, header) in zip(frames, _answers(endpoint, frames), strict=True):
        assert name == b"ERROR", sent
        assert header["code"] == "protocol_error"
        assert header["message"]
    assert _counts(noop_pair) == before


def test_an_error_is_never_answered(noop_pair: Service) -> None:
    with RawClient(noop_pair.client_endpoint, timeout_s=5) as client:
        client.send(b"ERROR", code="protocol_error", message="yours was wrong")
        assert client.ask(b"PING", rid="1")[0] == b"PONG"


def test_an_unregistered_daemon_is_told_to_register(noop_pair: Service) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.RCVTIMEO, 10_000)
    socket.connect(noop_pair.worker_endpoint)
    try:
        socket.send_multipart([b"GS1", b"CREDIT", msgpack.packb({"epoch": 1, "granted_total": 1000})])
        assert socket.recv_multipart()[1] == b"RESYNC"
    finally:
        context.destroy(linger=0)


def test_frames_that_the_transport_drops_hurt_nobody_else(noop_pair: Service) -> None:
    before = _counts(noop_pair)
    with RawClient(noop_pair.client_endpoint) as hostile:
        hostile.socket.send_multipart([b"GS1", b"PING", b"x" * (2 * 1024 * 1024)])
    assert _counts(noop_pair) == before


def test_requests_for_what_is_not_there(noop_pair: Service) -> None:
    with RawClient(noop_pair.client_endpoint) as client:
        for name in (b"WATCH", b"JOB", b"FETCH", b"CANCEL"):
            answer, header, _ = client.ask(name, rid="1", job_id="0" * 32)
            assert (answer, header["code"]) == (b"ERROR", "not_found")
            assert header["rid"] == "1"
    for path in ("/task/0123", f"/task/{'0' * 32}", "/v1/models/nope", "/nope"):
        status, body = noop_pair.get(path)
        assert status == 404
        assert body["error"]
