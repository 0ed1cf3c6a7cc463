"""The example clients of the protocol page, as a stranger runs them."""

import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.service import Service

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
TIMEOUT_S = 120
INSTALL_TIMEOUT_S = 300
MODULES_OF_PYTHON = {"sys", "time", "uuid", "hashlib"}


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def test_python(service: Service, tmp_path: Path) -> None:
    done = run(
        sys.executable,
        "-P",
        str(EXAMPLES / "client.py"),
        "a red circle",
        "x.png",
        service.client_endpoint,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^x\.png seed \d+$", done.stdout, re.MULTILINE)


def test_python_tells_a_refusal(service: Service, tmp_path: Path) -> None:
    done = run(sys.executable, "-P", str(EXAMPLES / "client.py"), "", "x.png", service.client_endpoint, cwd=tmp_path)
    assert done.returncode == 1
    assert "protocol_error" in done.stderr
    assert "prompt" in done.stderr


def test_python_keeps_the_picture_as_it_forms(service: Service, tmp_path: Path) -> None:
    ask = ("a red circle", "x", service.client_endpoint)
    done = run(sys.executable, "-P", str(EXAMPLES / "previews.py"), *ask, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"after step {step} of 20" for step in (4, 8, 12, 16)]
    previews = [(tmp_path / f"x-{index}.jpg").read_bytes() for index in range(4)]
    assert len(set(previews)) == 4
    assert all(data.startswith(b"\xff\xd8\xff") for data in previews)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_the_python_example_at_a_port_that_is_no_routers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" + b"Server: x\r\n" * 40)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        done = run(sys.executable, "-P", str(EXAMPLES / "client.py"), "x", "x.png", endpoint, cwd=tmp_path)
        thread.join()
    assert done.returncode == 1
    assert done.stderr == f"what listens at {endpoint} is no router's client port\n"


def test_the_picture_as_it_forms_over_http(service: Service, tmp_path: Path) -> None:
    done = run(sys.executable, "-P", str(EXAMPLES / "events.py"), "a red circle", "x", service.http_url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"after step {step} of 20" for step in (4, 8, 12, 16)]
    previews = [(tmp_path / f"x-{index}.jpg").read_bytes() for index in range(4)]
    assert len(set(previews)) == 4
    assert all(data.startswith(b"\xff\xd8\xff") for data in previews)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["client.py", "previews.py", "edit.py"])
def test_python_needs_pyzmq_and_msgpack_alone(name: str) -> None:
    text = (EXAMPLES / name).read_text("utf-8")
    assert set(re.findall(r"^import (\w+)", text, re.MULTILINE)) <= MODULES_OF_PYTHON | {"msgpack", "zmq"}
    assert len(text.splitlines()) <= 35


@pytest.fixture(scope="session")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "client.mjs"):
        shutil.copy(EXAMPLES / name, folder)
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_TIMEOUT_S,
    )
    if installed.returncode and re.search(r"ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN|network", installed.stderr):
        pytest.skip("npm reaches no registry from here")
    assert installed.returncode == 0, installed.stderr
    return folder


def test_node(service: Service, node_client: Path) -> None:
    done = run("node", "client.mjs", "a red circle", "x.png", service.client_endpoint, cwd=node_client)
    assert done.returncode == 0, done.stderr
    assert (node_client / "x.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^x\.png seed \d+$", done.stdout, re.MULTILINE)


def test_node_tells_a_refusal(service: Service, node_client: Path) -> None:
    done = run("node", "client.mjs", "", "y.png", service.client_endpoint, cwd=node_client)
    assert done.returncode == 1
    assert "protocol_error" in done.stderr
