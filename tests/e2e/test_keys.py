"""`genserve keys` and `genserve up` with them, as their user would: every door, the raw one of docs/protocol.md too."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.rawclient import RawClient
from tests.service import GENSERVE, Service, running, wait_for

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
TIMEOUT_S = 60


@dataclass
class Keyed:
    """A service with keys, and the commands that speak with it."""

    service: Service
    folder: Path
    env: dict[str, str]

    def run(self, *arguments: str, key: str = "client", **env: str) -> subprocess.CompletedProcess[str]:
        """One command; `key`: of which file, '' for none."""
        more = {"GENSERVE_CLIENT_KEY_FILE": str(self.file(key))} if key else {}
        return run(*arguments, cwd=self.folder, **self.env, **more, **env)

    def file(self, name: str) -> Path:
        return self.folder / "k" / "keys" / f"{name}.key"

    def connections(self, name: str) -> Any:
        listed = json.loads(self.run("keys", "list", "--json").stdout)
        return {key["name"]: key["connections"] for key in listed}[name]


def run(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GENSERVE_")}
    return subprocess.run(
        [GENSERVE, *arguments], cwd=cwd, env={**clean, **env}, capture_output=True, text=True, check=False,
        timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = Path(tmp_path_factory.mktemp("keyed"))
    made = run("keys", "init", "--folder", "k", "--host", "here", cwd=folder)
    assert made.returncode == 0, made.stderr
    env = {
        "GENSERVE_ROUTER_SERVER_KEY_FILE": str(folder / "k/keys/server.key"),
        "GENSERVE_ROUTER_PEERS_FILE": str(folder / "k/peers.toml"),
    }
    with running(folder, "--gpus", "cpu", "--engine", "noop", env=env) as service:
        yield Keyed(service, folder, {**env, "GENSERVE_GATEWAY_ROUTER_ENDPOINT": service.client_endpoint})


def test_http_draws_and_the_operator_sees_it(keyed: Keyed) -> None:
    status, body, _ = keyed.service.post("/v1/jobs", {"prompt": "x", "seed": 7})
    assert status == 202
    wait_for("picture", lambda: keyed.service.get(f"/v1/jobs/{body['id']}")[1]["state"] == "done")
    shown = keyed.run("jobs", "show", body["id"], "--json")
    assert json.loads(shown.stdout)["job"]["owner"] == "local"
    assert "here/cpu" in keyed.run("status", "--json").stdout
    assert (keyed.connections("here"), keyed.connections("here-gateway") >= 1) == (1, True)
    with RawClient(keyed.service.client_endpoint, key=tomllib.loads(keyed.file("client").read_text())) as raw:
        name, _, payload = raw.ask(b"FETCH", rid="1", job_id=body["id"])
        assert (name, payload[:4]) == (b"RESULT", b"\x89PNG")
    panel = keyed.service.log_text()
    assert f"--key-file {keyed.file('client')}" in panel


def test_a_client_key_sees_its_own_and_no_key_sees_nothing(keyed: Keyed) -> None:
    assert keyed.run("keys", "new", "lab", "--role", "client").returncode == 0
    drawn = keyed.run("generate", "x", "-o", "x.png", key="lab")
    assert drawn.returncode == 0, drawn.stderr
    http = keyed.service.post("/v1/jobs", {"prompt": "x"})[1]["id"]
    assert f"no job {http}" in keyed.run("jobs", "show", http, key="lab").stderr
    refused = keyed.run("status", key="")
    assert refused.returncode == 1
    assert "lets nobody in without a key" in refused.stderr
    refused = keyed.run("status", key="daemon")
    assert refused.returncode == 78
    assert "is a daemon key" in refused.stderr


def test_what_another_key_drew_does_not_exist_over_http(keyed: Keyed) -> None:
    assert keyed.run("keys", "new", "studio", "--role", "client").returncode == 0
    key = tomllib.loads(keyed.file("studio").read_text())
    with RawClient(keyed.service.client_endpoint, key=key) as studio:
        _, drawn, _ = studio.draw(prompt="x")
    for job_id in (drawn["job_id"], "0" * 32):  # theirs and nobody's: the same answer
        for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/image", f"/task/{job_id}"):
            status, body = keyed.service.get(path)
            assert (status, body["error"]["code"]) == (404, "not_found")
        assert keyed.service.delete(f"/v1/jobs/{job_id}")[0] == 404
    assert drawn["job_id"] not in json.dumps(keyed.service.get("/v1/status")[1])


def test_the_page_for_raw_clients_tells_how_to_use_a_key(keyed: Keyed, tmp_path: Path) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(text.splitlines()) <= 26
    (tmp_path / "client.py").write_text(text)
    assert keyed.run("keys", "new", "raw", "--role", "client", "-o", str(tmp_path / "raw.key")).returncode == 0
    done = subprocess.run(
        [sys.executable, "-P", "client.py", "raw.key", keyed.service.client_endpoint],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ACCEPTED [0-9a-f]{32} 0 bytes$", done.stdout, re.MULTILINE)
    assert re.search(r"^RESULT [0-9a-f]{32} \d{3,} bytes$", done.stdout, re.MULTILINE)


def test_a_revoked_key_is_told_so(keyed: Keyed) -> None:
    assert keyed.run("keys", "new", "lost", "--role", "admin").returncode == 0
    assert keyed.run("status", key="lost").returncode == 0
    assert "is revoked" in keyed.run("keys", "revoke", "lost").stderr

    def refusal() -> Any:  # the router looks at the file every second
        said = keyed.run("status", key="lost")
        return said if said.returncode == 1 else None

    refused = wait_for("refusal of the revoked key", refusal, 5.0)
    assert "does not let the key 'lost' in" in refused.stderr
    again = keyed.run("keys", "revoke", "lost")
    assert (again.returncode, "was revoked before" in again.stderr) == (0, True)
