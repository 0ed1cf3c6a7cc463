"""Pictures seen as they form, through every process: engine, daemon, router, client."""

import hashlib
import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.rawclient import ENDS, RawClient
from tests.service import GENSERVE, Service

JOB = {"prompt": "a large red heart on a yellow background", "seed": 3, "steps": 20}


def _seen(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)


def _draw(client: RawClient, rid: str, **job: Any) -> tuple[list[tuple[dict[str, Any], bytes]], bytes]:
    client.send(b"SUBMIT", rid=rid, job=job)
    previews = []
    while True:
        name, header, payload = client.receive()
        if header["rid"] != rid:
            continue
        if name == b"PROGRESS" and header.get("preview"):
            previews.append((header, payload))
        if name in ENDS:
            assert name == b"RESULT", header
            return previews, payload


def test_each_preview_is_nearer_to_the_picture_which_is_the_same_without(service: Service) -> None:
    with RawClient(service.client_endpoint) as client:
        previews, data = _draw(client, "1", previews=3, **JOB)
        none, plain = _draw(client, "2", **JOB)
    assert (none, plain) == ([], data)
    assert [(header["step"], header.get("preview_index", 0)) for header, _ in previews] == [(5, 0), (10, 1), (15, 2)]
    for header, payload in previews:
        assert hashlib.sha256(payload).hexdigest() == header["preview"]["sha256"]
    assert len({payload for _, payload in previews}) == 3
    distances = [np.abs(_seen(payload) - _seen(data)).mean() for _, payload in previews]
    assert distances == sorted(distances, reverse=True)


def test_the_noop_engine_sends_them_too(noop_pair: Service) -> None:
    with RawClient(noop_pair.client_endpoint) as client:
        previews, data = _draw(client, "1", prompt="x", width=64, height=48, seed=1, steps=4, previews=20)
    colours = [tuple(_seen(payload)[0, 0]) for payload in (*(payload for _, payload in previews), data)]
    assert len(colours) == len(set(colours)) == 4


def test_cancelled_within_a_step_although_each_has_a_preview(service: Service) -> None:
    with RawClient(service.client_endpoint) as client:
        job = {"prompt": "a long walk", "width": 256, "height": 256, "steps": 100, "previews": 20}
        client.send(b"SUBMIT", rid="1", job=job)
        while not (header := client.receive()[1]).get("preview"):
            pass
        client.send(b"CANCEL", rid="2", job_id=header["job_id"])
        while client.receive()[0] != b"CANCELLED":
            pass
        assert client.draw(rid="3", prompt="next", width=64, height=64, steps=1)[0] == b"RESULT"
    (stopped,) = [line for line in service.events("job.stopped") if line["job_id"] == header["job_id"]]
    assert stopped["elapsed_s"] < 20.0, "100 steps take longer"


def test_the_command_writes_them_beside_the_picture(service: Service, tmp_path: Path) -> None:
    done = subprocess.run(
        [GENSERVE, "generate", JOB["prompt"], "-o", str(tmp_path / "heart.png"), "--steps", "6", "--previews", "2",
         "--router", service.client_endpoint],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "heart-preview-1.jpg", "heart-preview-2.jpg", "heart.png",
    ]  # fmt: skip
    assert "heart-preview-1.jpg after step 2 of 6" in done.stderr
