"""Names of a service that asks for no keys: a page on a name that its owner points here (DNS rebinding) stays out."""

import socket

import pytest

from gateway.host_names import HostNames
from tests.gateway.conftest import Door

IMAGES = "/v1/images/generations"


@pytest.mark.parametrize(
    ("bound", "allowed", "host", "answered"),
    [
        ("127.0.0.1", (), "localhost:1", True),
        ("127.0.0.1", (), "10.0.0.5", False),
        ("127.0.0.1", (), "gpu-1", False),
        ("127.0.0.1", ("pictures.example.org",), "Pictures.Example.org.:443", True),
        ("127.0.0.1", ("pictures.example.org",), "www.pictures.example.org", False),
        ("0.0.0.0", (), "10.0.0.5:12411", True),
        ("0.0.0.0", (), "[fd00::5]:12411", True),
        ("0.0.0.0", (), "127.0.0.1", True),
        ("0.0.0.0", (), "gpu-1:12411", True),
        ("0.0.0.0", (), "GPU-1.lan.example.org", True),
        ("0.0.0.0", (), "gpu-1.local", True),
        ("0.0.0.0", (), "gpu-1.evil.example", False),
        ("0.0.0.0", (), "evil.example", False),
        ("0.0.0.0", (), "[::", False),
        ("10.0.0.5", ("*",), "evil.example", True),
    ],
)
def test_names_that_are_answered(bound: str, allowed: tuple[str, ...], host: str, answered: bool) -> None:
    assert HostNames(bound, allowed, machine="gpu-1.lan.example.org").answers(host) is answered


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0", "auth": "none", "allowed_hosts": ("studio.example.org",)}])
async def test_a_page_whose_name_was_pointed_here_draws_nothing(door: Door) -> None:
    evil = {"Host": "evil.example", "Origin": "http://evil.example"}
    status, body, _ = await door.post(IMAGES, {"prompt": "a fox"}, headers=evil)
    assert (status, body["error"]["param"]) == (403, "Host")
    assert "gateway.allowed_hosts" in body["error"]["what_to_do"]
    assert socket.gethostname().lower() in body["error"]["message"]
    for host in ("192.0.2.7:12411", "studio.example.org"):
        assert (await door.post(IMAGES, {"prompt": "a fox"}, headers={"Host": host}))[0] == 200
    text = {"Host": "192.0.2.7", "Origin": "http://evil.example", "Content-Type": "text/plain"}
    status, body, _ = await door.post(IMAGES, {"prompt": "a fox"}, headers=text)
    assert (status, body["error"]["param"]) == (403, "Origin")
