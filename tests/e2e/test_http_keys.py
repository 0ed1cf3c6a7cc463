"""Keys of HTTP as their operator makes them, at a whole service that other machines could reach."""

import base64
import http.client
import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from common.process import EXIT_CONFIG
from tests.ports import free_ports
from tests.service import GENSERVE, Service, clean_environment, running, wait_for

NOOP = ("--engine", "noop", "--gpus", "cpu")
EVERYWHERE = ("--host", "0.0.0.0")  # that is the test
TIMEOUT_S = 30.0
STEP_S = "0.2"  # of a job that is to be found running
LONG, SHORT = {"prompt": "x", "num_inference_steps": 50}, {"prompt": "x", "num_inference_steps": 1}


def keys_command(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [GENSERVE, "keys", *arguments, "--file", str(file)]
    return subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )


@dataclass
class Keyed:
    """A service that asks for keys, and the texts of those that were made."""

    service: Service
    file: Path
    texts: dict[str, str]

    def ask(self, who: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """(status, JSON or bytes, headers)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=TIMEOUT_S)
        try:
            if who:
                headers["Authorization"] = f"Bearer {self.texts[who]}"
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            said = answer.read()
            is_json = answer.getheader("Content-Type", "").startswith("application/json")
            return answer.status, json.loads(said) if is_json else said, answer.headers
        finally:
            connection.close()

    def job(self, who: str, body: Any = None, **headers: str) -> str:
        status, job, _ = self.ask(who, "POST", "/v1/jobs", body or SHORT, **headers)
        assert status == 202, job
        return str(job["id"])

    def state(self, who: str, job_id: str) -> str:
        return str(self.ask(who, "GET", f"/v1/jobs/{job_id}")[1]["state"])


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = Path(tmp_path_factory.mktemp("http-keys"))
    file, texts = folder / "http-keys.toml", {}
    for name, more in {
        "alice": (),
        "bob": ("--rights", "generate", "--weight", "2"),
        "few": ("--jobs-max", "2"),
        "thrifty": ("--gpu-seconds-per-minute", "1"),
        "lost": (),
        "gone": (),
        "watcher": ("--rights", "read"),
        "root": ("--rights", "admin"),
    }.items():
        made = keys_command(file, "add-http", name, *more)
        assert made.returncode == 0, made.stderr
        texts[name] = made.stdout.strip()
    keys_command(file, "revoke-http", "gone")
    env = {"GENSERVE_GATEWAY_HTTP_KEYS_FILE": str(file), "GENSERVE_GPU_DAEMON_NOOP_STEP_S": STEP_S}
    with running(folder, *NOOP, *EVERYWHERE, env=env) as service:
        yield Keyed(service, file, texts)
        assert not [name for name, text in texts.items() if text in service.log_text()]
        assert not [name for name, text in texts.items() if text in file.read_text()]


def openai_client(keyed: Keyed, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{keyed.service.http_url}/v1", api_key=key)


def test_without_a_key_nothing_is_told_of_jobs(keyed: Keyed) -> None:
    job = keyed.job("alice")
    for path in ("/v1/jobs", f"/v1/jobs/{job}", f"/v1/jobs/{job}/image", f"/task/{job}", "/status", "/v1/models"):
        status, body, headers = keyed.ask("", "GET", path)
        assert (status, body["error"]["code"]) == (401, "invalid_api_key"), path
        assert headers["WWW-Authenticate"].startswith("Bearer")
    assert keyed.ask("", "POST", "/v1/images/generations", SHORT)[0] == 401
    assert keyed.ask("", "GET", "/health")[0] == 200
    assert keyed.ask("watcher", "POST", "/v1/jobs", SHORT)[1]["error"]["code"] == "forbidden"
    assert keyed.ask("watcher", "GET", "/v1/status")[0] == 200
    assert keyed.ask("bob", "GET", "/v1/status")[0] == 403


def test_a_job_is_there_for_its_own_key_and_an_admins(keyed: Keyed) -> None:
    job = keyed.job("alice")
    wait_for("picture", lambda: keyed.state("alice", job) == "done")
    about = [
        *(("GET", f"/v1/jobs/{job}{more}") for more in ("", "/image", "/events")),
        ("GET", f"/task/{job}"),
        ("DELETE", f"/v1/jobs/{job}"),
    ]
    for method, path in about:
        status, body, _ = keyed.ask("bob", method, path)
        assert (status, body["error"]["code"]) == (404, "not_found"), (method, path)
    for who in ("alice", "root"):
        assert keyed.ask(who, "GET", f"/v1/jobs/{job}/image")[1][:4] == b"\x89PNG"
        assert job in [each["id"] for each in keyed.ask(who, "GET", "/v1/jobs")[1]["data"]]
    assert job not in [each["id"] for each in keyed.ask("bob", "GET", "/v1/jobs")[1]["data"]]


def test_openais_client_with_a_key(keyed: Keyed) -> None:
    with openai_client(keyed, keyed.texts["bob"]) as client:
        answer = client.images.generate(prompt="x", extra_body={"num_inference_steps": 1})
        assert answer.data
        assert base64.b64decode(answer.data[0].b64_json or "").startswith(b"\x89PNG")
        assert client.models.list().data


@pytest.mark.parametrize(
    ("key", "error", "said"),
    [
        ("gs-wrong", openai.AuthenticationError, "this is no key of this service"),
        ("gone", openai.AuthenticationError, "the key 'gone' was revoked"),
        ("watcher", openai.PermissionDeniedError, "this needs the right generate"),
    ],
)
def test_openais_client_with_a_key_that_does_not_let_it(
    keyed: Keyed, key: str, error: type[openai.APIStatusError], said: str
) -> None:
    with openai_client(keyed, keyed.texts.get(key, key)) as client, pytest.raises(error) as refused:
        client.images.generate(prompt="x")
    assert said in refused.value.message
    assert refused.value.response.headers["x-should-retry"] == "false", "asked once, whatever it would retry"
    body = refused.value.body
    assert isinstance(body, dict)
    assert (body["code"], body["param"]) in {("invalid_api_key", "Authorization"), ("forbidden", None)}


def test_the_same_idempotency_key_of_two_keys_is_two_jobs(keyed: Keyed) -> None:
    same = {"Idempotency-Key": "mine"}
    first = keyed.job("alice", **same)
    assert keyed.ask("alice", "POST", "/v1/jobs", SHORT, **same)[1]["id"] == first
    assert keyed.job("bob", **same) != first


def test_limits_that_the_router_keeps(keyed: Keyed) -> None:
    jobs = [keyed.job("few", LONG) for _ in range(2)]
    status, body, headers = keyed.ask("few", "POST", "/v1/jobs", SHORT)
    assert (status, body["error"]["code"], body["error"]["param"]) == (429, "rate_limit_exceeded", "jobs_max")
    assert 1 <= int(headers["Retry-After"]) <= 120
    for job in jobs:
        assert keyed.ask("root", "DELETE", f"/v1/jobs/{job}")[0] == 200
    ended = keyed.job("thrifty", {"prompt": "x", "num_inference_steps": 10})
    wait_for("picture", lambda: keyed.state("thrifty", ended) == "done")
    status, body, headers = keyed.ask("thrifty", "POST", "/v1/jobs", SHORT)
    assert (status, body["error"]["param"]) == (429, "gpu_seconds_per_minute")
    assert 30 <= int(headers["Retry-After"]) <= 120
    assert "GPU seconds a minute" in body["error"]["message"]


def test_a_key_that_is_revoked_is_cut_off_and_its_synchronous_job_ends(keyed: Keyed) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", keyed.service.port, timeout=TIMEOUT_S)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {keyed.texts['lost']}"}
    connection.request("POST", "/v1/images/generations", json.dumps(LONG), headers)

    def found(state: str) -> list[Any]:
        return [job for job in keyed.ask("root", "GET", "/v1/jobs")[1]["data"] if job["state"] == state]

    (job,) = wait_for("running job", lambda: found("running"))
    assert "is revoked" in keys_command(keyed.file, "revoke-http", "lost").stdout
    answer = connection.getresponse()
    said = json.loads(answer.read())["error"]
    assert (answer.status, said["code"], said["message"]) == (401, "invalid_api_key", "the key 'lost' was revoked")
    connection.close()
    wait_for("end of its job", lambda: keyed.state("root", job["id"]) == "cancelled")
    status, body, _ = keyed.ask("lost", "GET", "/v1/jobs")
    assert (status, "'lost' was revoked" in body["error"]["message"]) == (401, True)
    again = keys_command(keyed.file, "revoke-http", "lost")
    assert (again.returncode, "before" in again.stdout) == (0, True)
    listed = json.loads(keys_command(keyed.file, "list-http", "--json").stdout)
    assert [key["name"] for key in listed if key["revoked"]] == ["lost", "gone"]


@pytest.mark.parametrize("revoked", [False, True])
def test_up_does_not_start_where_nobody_could_be_let_in(tmp_path: Path, revoked: bool) -> None:
    file = tmp_path / "http-keys.toml"
    if revoked:
        keys_command(file, "add-http", "lab")
        keys_command(file, "revoke-http", "lab")
    refused = subprocess.run(
        [GENSERVE, "up", *NOOP, *EVERYWHERE, "--port", str(free_ports())],
        cwd=tmp_path, env={**clean_environment(), "GENSERVE_GATEWAY_HTTP_KEYS_FILE": str(file)},
        capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert refused.returncode == EXIT_CONFIG
    assert "genserve keys add-http NAME" in refused.stderr
    assert revoked or "--no-auth" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_up_starts_where_it_is_said_that_anybody_may(tmp_path: Path) -> None:
    env = {"GENSERVE_GATEWAY_HTTP_KEYS_FILE": str(tmp_path / "none.toml")}
    with running(tmp_path, *NOOP, *EVERYWHERE, "--no-auth", env=env) as service:
        assert service.post("/v1/jobs", SHORT, headers={"Authorization": "Bearer whatever"})[0] == 202


def burst_command(keyed: Keyed, tmp_path: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    report = str(tmp_path / "burst.html")
    words = ["--url", f"http://127.0.0.1:{keyed.service.port}", "-n", "3", "-c", "2", "--steps", "1", "--warm-up", "0"]
    return subprocess.run(
        [GENSERVE, "burst", *words, "--json", "--report", report],
        env=clean_environment() | env, capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
    )  # fmt: skip


def test_burst_asks_with_its_key_and_tells_it_to_nobody(keyed: Keyed, tmp_path: Path) -> None:
    text = keyed.texts["alice"]
    done = burst_command(keyed, tmp_path, GENSERVE_API_KEY=text)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["done"] == 3
    assert text not in done.stdout + done.stderr + (tmp_path / "burst.html").read_text()


@pytest.mark.parametrize(
    ("env", "said"),
    [({}, "this service needs a key"), ({"GENSERVE_API_KEY": "gs-wrong"}, "no key of this service")],
)
def test_burst_without_the_right_key_says_what_to_do(
    keyed: Keyed, tmp_path: Path, env: dict[str, str], said: str
) -> None:
    refused = burst_command(keyed, tmp_path, **env)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert "genserve keys add-http NAME" in refused.stderr
    assert "GENSERVE_API_KEY" in refused.stderr
    assert "gs-wrong" not in refused.stderr
    assert "Traceback" not in refused.stderr


def test_burst_with_a_key_that_may_not_read(keyed: Keyed, tmp_path: Path) -> None:
    refused = burst_command(keyed, tmp_path, GENSERVE_API_KEY=keyed.texts["bob"])
    assert "this needs the right read" in refused.stderr


def test_up_draws_its_first_picture_with_the_key_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "http-keys.toml"
    text = keys_command(file, "add-http", "me").stdout.strip()
    env = {"GENSERVE_GATEWAY_HTTP_KEYS_FILE": str(file), "GENSERVE_API_KEY": text}
    words = [GENSERVE, "up", *NOOP, *EVERYWHERE, "--port", str(free_ports()), "--state-dir", str(tmp_path / "state")]
    with subprocess.Popen(
        words, cwd=tmp_path, env=clean_environment() | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as up:
        wait_for("first picture", (tmp_path / "output" / "first-picture.png").exists)
        up.send_signal(signal.SIGINT)
        said, _ = up.communicate(timeout=TIMEOUT_S)
    assert up.returncode == 0, said
    assert text not in said


def test_a_limit_that_is_none_is_refused_by_its_flag(tmp_path: Path) -> None:
    refused = keys_command(tmp_path / "http-keys.toml", "add-http", "lab", "--jobs-max", "0")
    assert refused.returncode == 1
    assert "--jobs-max 0 is not right: say a whole number from 1 to 1000000" in refused.stderr
    made = keys_command(tmp_path / "http-keys.toml", "add-http", "lab", "--jobs-max", "1")
    assert "1 job at one time" in made.stderr
