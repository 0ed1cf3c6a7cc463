"""Two hosts with a wire between them: the router and one GPU daemon here, another daemon and a client over there."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests import intruders
from tests.keyring import Keyring
from tests.netns import ADDRESSES, TwoHosts, two_hosts, why_not
from tests.router.process import Dealer
from tests.service import GENSERVE, Log, wait_for

HERE, THERE = 0, 1
CLIENTS, WORKERS = f"tcp://{ADDRESSES[HERE]}:12412", f"tcp://{ADDRESSES[HERE]}:12413"
TOLD_WITHIN_S = 25.0  # of refusals that come as a storm, which they do here, the router tells every 10 s
PUT_OUT_WITHIN_S = 5.0
STEP_S = 0.25
pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"two hosts: {why_not()}")


@dataclass
class Fleet:
    """What runs on the two hosts, with keys copied as an operator would."""

    hosts: TwoHosts
    keys: Keyring
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    dealers: list[Dealer] = field(default_factory=list)

    def start(self, host: int, part: str, *arguments: str, **settings: str) -> Log:
        """`genserve PART` on a host; its log."""
        path = self.folder / f"{part}-{host}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GENSERVE_")}
        with path.open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    self.hosts.command(host, [GENSERVE, part, *arguments]),
                    env={**clean, "GENSERVE_LOG_FORMAT": "json", **settings},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return Log(path)

    def daemon(self, host: int, file: str) -> Log:
        key, router = str(self.keys.path(file)), WORKERS
        arguments = ("--engine", "noop", "--device", "cpu:0", "--router-endpoint", router, "--key-file", key)
        return self.start(host, "gpu-daemon", *arguments, GENSERVE_GPU_DAEMON_NOOP_STEP_S=str(STEP_S))

    def client(self, host: int, file: str) -> Dealer:
        key = self.keys.key(file)
        self.dealers.append(self.hosts.on(host, lambda: Dealer(zmq.Context(), CLIENTS, key=key)))
        return self.dealers[-1]

    def close(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for dealer in self.dealers:
            dealer.socket.context.destroy(linger=0)


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    with two_hosts() as hosts:
        running = Fleet(hosts, Keyring(folder), folder)
        try:
            yield running
        finally:
            running.close()


def _workers(client: Dealer) -> dict[str, Any]:
    status, _ = client.ask(b"STATUS", b"STATUS", rid="s")
    return {worker["worker_id"]: worker for worker in status["workers"]}


def _ready(client: Dealer, name: str) -> bool:
    return _workers(client).get(name, {}).get("state") == "ready"


def _picture(client: Dealer) -> dict[str, Any]:
    """The next job's that ends with one."""
    header, payload = client.until(b"RESULT")
    assert payload[0].startswith(b"\x89PNG")
    job: dict[str, Any] = header["job"]
    return job


def test_two_hosts_register_draw_are_cut_heal_and_are_put_out(tmp_path: Path) -> None:
    with fleet(tmp_path) as two:
        two.keys.new("there", "daemon")
        for name in ("lab", "host-b", "stolen"):
            two.keys.new(name, "daemon" if name == "host-b" else "client")
        two.keys.revoke("stolen")
        log = two.start(
            *(HERE, "router", "--client-endpoint", CLIENTS, "--worker-endpoint", WORKERS.replace(ADDRESSES[HERE], "*")),
            *("--state-dir", str(tmp_path / "state")),
            **two.keys.router_settings,
            GENSERVE_ROUTER_HEARTBEAT_INTERVAL_S="0.3",
            GENSERVE_ROUTER_SUSPECT_AFTER_S="1",
            GENSERVE_ROUTER_DEAD_AFTER_S="2",
        )
        wait_for("router", lambda: log.events("router.listening"))
        there = two.daemon(THERE, "there.key")
        client = two.client(THERE, "lab.key")
        _draws_over_there(client)
        with _intruders(two, log):
            _outlives_a_cut(two, client, log)
        two.daemon(HERE, "daemon.key")
        wait_for("GPU here", lambda: _ready(client, "here/cpu:0"))
        _is_put_out(two, client, log, there)


def _draws_over_there(client: Dealer) -> None:
    wait_for("GPU over there", lambda: _ready(client, "there/cpu:0"))
    client.send(b"SUBMIT", rid="1", job={"prompt": "x"})
    assert _picture(client)["worker_id"] == "there/cpu:0"


def _outlives_a_cut(two: Fleet, client: Dealer, log: Log) -> None:
    """The job that runs there is lost with the wire, and drawn there again when it is back, for the same client."""
    client.send(b"SUBMIT", rid="2", job={"prompt": "x", "steps": 6})
    job_id = client.until(b"ACCEPTED")[0]["job_id"]
    wait_for("start", lambda: _workers(client)["there/cpu:0"].get("busy"))
    two.hosts.cut()
    dead = wait_for("loss", lambda: log.events("worker.dead"))[0]
    assert (dead["worker_id"], dead["jobs"]) == ("there/cpu:0", 1)
    two.hosts.heal()
    wait_for("GPU over there, again", lambda: len(log.events("worker.registered")) > 1)
    client = two.client(THERE, "lab.key")  # one that waits would say WATCH every 5 s
    client.send(b"WATCH", rid="3", job_id=job_id)
    assert _picture(client)["job_id"] == job_id


def _is_put_out(two: Fleet, client: Dealer, log: Log, there: Log) -> None:
    """Its key is revoked while it draws: it is out, the job is drawn here."""
    client = two.client(THERE, "lab.key")
    client.send(b"SUBMIT", rid="4", job={"prompt": "x", "steps": 6})
    client.send(b"SUBMIT", rid="5", job={"prompt": "x", "steps": 6})
    wait_for("start on both", lambda: all(worker.get("busy") for worker in _workers(client).values()))
    two.keys.revoke("there")
    wait_for("end of its connection", lambda: set(_workers(client)) == {"here/cpu:0"}, PUT_OUT_WITHIN_S)
    assert log.events("worker.revoked")[0]["jobs"] == 1
    told = wait_for("its being told", lambda: there.events("router.refused"), PUT_OUT_WITHIN_S)[0]
    assert "'there'" in told["message"]
    wait_for("refusal", lambda: any(line.get("peer_name") == "there" for line in log.events("peer.refused")))
    two.processes[-2].kill()  # it would wait for the acknowledgement of what it has drawn
    assert {_picture(client)["worker_id"] for _ in range(2)} == {"here/cpu:0"}


@contextmanager
def _intruders(two: Fleet, log: Log) -> Iterator[None]:
    """From the other host, every way that is not the right key: by the end of the block each has been refused."""
    recorded = two.hosts.on(THERE, lambda: intruders.recorded_connection(CLIENTS, two.keys.key("lab.key")))

    def refused() -> Any:
        return intruders.found([*log.events("peer.refused"), *log.events("worker.refused")])

    before = refused()
    crowd = two.hosts.on(THERE, lambda: intruders.Intruders(CLIENTS, WORKERS, two.keys, recorded))
    try:
        almost = intruders.expected() - intruders.Counter(silent=1)
        wait_for("refusal of each", lambda: almost <= refused() - before, TOLD_WITHIN_S)
        assert crowd.answered() == [b"ERROR"]
        yield
        wait_for("refusal of each", lambda: intruders.expected() <= refused() - before, TOLD_WITHIN_S)
        assert crowd.answered() == []
    finally:
        crowd.close()
    assert {line["address"] for line in log.events("peer.refused")} <= {ADDRESSES[THERE], ""}
