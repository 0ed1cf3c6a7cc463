"""HTTP for other machines: an address that they reach, keys that the gateway asks for, and one that is taken back."""

import fcntl
import http.client
import json
import socket
import struct
from typing import Any

from common.settings.reference import reference
from tests.service import wait_for
from tests.system.machine import COMMAND, Machine
from tests.system.service import GATEWAY, ROUTER, SOCKET, picture, wait_up

SETTINGS, HTTP_KEYS = "/etc/genserve/genserve.toml", "/etc/genserve/http-keys.toml"
UNIT = f"/etc/systemd/system/{SOCKET}"
OTHERS = "10.20.30.40"  # an address of the machine that is not loopback
PORT = 12411
SIOCSIFADDR = 0x8916  # netdevice(7)
REVOKED_WITHIN_S = 10.0
REACH = {("gateway", "host"): "0.0.0.0"}


def add_address() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(OTHERS))
        fcntl.ioctl(any_socket, SIOCSIFADDR, struct.pack("16s16s", b"lo:1", address))


def from_outside(machine: Machine, key: str = "") -> tuple[int, Any]:
    """(status, JSON body) of a small picture, asked for at the address of others; (0, why) of one refused or cut."""

    def ask() -> tuple[int, Any]:
        connection = http.client.HTTPConnection(OTHERS, PORT, timeout=60)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        try:
            connection.request("POST", "/v1/images/generations", json.dumps({"prompt": "x", "size": "64x64"}), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except ConnectionError as error:
            return 0, str(error)
        finally:
            connection.close()

    return machine.in_network(ask)


def listened_on(machine: Machine) -> str:
    return machine.property(SOCKET, "Listen")


def test_it_is_moved_to_where_others_reach_it_once_there_are_keys(ready: Machine) -> None:
    ready.in_network(add_address)
    assert from_outside(ready)[0] == 0
    router, gateway = (ready.property(unit, "MainPID") for unit in (ROUTER, GATEWAY))
    ready.write(SETTINGS, reference(REACH))
    for words in ("install", "upgrade"):
        done = ready.try_(COMMAND, words)
        assert done.returncode == 1
        assert "genserve keys add-http NAME" in done.stderr
    assert (ready.property(GATEWAY, "MainPID"), listened_on(ready)) == (gateway, f"127.0.0.1:{PORT} (Stream)")
    alice = ready.genserve("keys", "add-http", "alice").strip()
    bob = ready.genserve("keys", "add-http", "bob").strip()
    assert ready.run("stat", "--format=%a %U", HTTP_KEYS).strip() == "644 root"
    said = ready.genserve("upgrade")
    assert f"HTTP moves to 0.0.0.0:{PORT}" in said
    assert listened_on(ready) == f"0.0.0.0:{PORT} (Stream)"
    assert [ready.property(unit, "ActiveState") for unit in (SOCKET, GATEWAY)] == ["active", "active"]
    assert ready.property(ROUTER, "MainPID") != router  # an upgrade as any other
    assert "gateway.address_ignored" not in ready.run("journalctl", "--unit", GATEWAY, "--since=-30s", "--output=cat")
    assert from_outside(ready)[0] == 401
    assert from_outside(ready, "gs-wrong")[0] == 401
    assert from_outside(ready, alice)[0] == from_outside(ready, bob)[0] == 200
    assert picture(ready).result()[0] == 401  # on loopback as well, since a proxy would come from there

    pid = ready.property(GATEWAY, "MainPID")
    ready.genserve("keys", "revoke-http", "alice")
    wait_for("alice kept out", lambda: from_outside(ready, alice)[0] == 401, REVOKED_WITHIN_S)
    assert from_outside(ready, bob)[0] == 200
    assert ready.property(GATEWAY, "MainPID") == pid  # which has read the keys again by itself


def test_a_move_that_was_interrupted_is_finished_by_installing_again(ready: Machine) -> None:
    ready.write(SETTINGS, reference())
    ready.run("sed", "--in-place", f"s/0.0.0.0:{PORT}/127.0.0.1:{PORT}/", UNIT)
    ready.run("systemctl", "daemon-reload")  # as far as it came: the socket holds nothing now, the gateway its copy
    pid = ready.property(GATEWAY, "MainPID")
    assert f"{UNIT}\n" in ready.genserve("install")
    assert listened_on(ready) == f"127.0.0.1:{PORT} (Stream)"
    wait_up(ready, GATEWAY, other_than=pid)
    assert from_outside(ready)[0] == 0
    assert picture(ready).result()[0] == 200
    ready.run("rm", HTTP_KEYS)


def test_a_key_file_that_the_gateway_cannot_read_is_told_of_first(ready: Machine) -> None:
    ready.write(SETTINGS, reference(REACH))
    ready.genserve("keys", "add-http", "alice")
    ready.run("chmod", "600", HTTP_KEYS)
    done = ready.try_(COMMAND, "upgrade")
    ready.write(SETTINGS, reference())
    ready.run("rm", HTTP_KEYS)
    assert done.returncode == 1
    assert f"genserve-gateway cannot read {HTTP_KEYS}: chmod 644" in done.stderr
