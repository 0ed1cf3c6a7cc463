"""Webhooks of real jobs: told through a gateway that is killed, to a receiver that refuses at first."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.service import running, wait_for

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


class Receiver(ThreadingHTTPServer):
    """Refuses the first one, takes all further."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hear)
        self.told: list[tuple[dict[str, str], bytes]] = []


class _Hear(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append(({name.lower(): value for name, value in self.headers.items()}, data))
        self.send_response(204 if len(self.server.told) > 1 else 503)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_killed_gateway_and_a_refusal_are_no_end_of_it(receiver: Receiver, tmp_path: Path) -> None:
    env = {"GENSERVE_GATEWAY_WEBHOOK_HOSTS": '["127.0.0.1"]', "GENSERVE_GPU_DAEMON_NOOP_STEP_S": "0.02"}
    with running(tmp_path, "--gpus", "cpu", "--engine", "noop", env=env) as service:
        hook = {"url": f"http://127.0.0.1:{receiver.server_port}/hook", "secret": SECRET}
        status, job, _ = service.post("/v1/jobs", {"prompt": "x", "num_inference_steps": 60, "webhook": hook})
        assert status == 202
        [gateway] = service.processes("genserve gateway")
        gateway.kill()
        wait_for("the webhook, twice", lambda: len(receiver.told) == 2)
        wait_for("the word that it was taken", lambda: service.events("webhook.delivered"))
        assert SECRET not in service.log_text()
    for headers, data in receiver.told:
        signed = f"{job['id']}.{headers['webhook-timestamp']}.".encode() + data
        right = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert (headers["webhook-id"], headers["webhook-signature"]) == (job["id"], f"v1,{right}")
    told = json.loads(receiver.told[-1][1])
    assert (told["type"], told["data"]["id"], told["data"]["state"]) == ("job.done", job["id"], "done")
