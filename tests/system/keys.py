"""Key files as an operator has them: of each service of a machine, and of the commands on it."""

from dataclasses import dataclass
from typing import Self

import zmq

from tests.system.machine import Machine

FOLDER, PEERS = "/etc/genserve/keys", "/etc/genserve/peers.toml"
NAMES = {"server": "server", "gateway": "gateway", "daemon": "this-host", "admin": "operator"}  # by role
FILES = {"server": "server.key", "gateway": "gateway.key", "daemon": "daemon.key", "admin": "client.key"}


@dataclass(frozen=True)
class Key:
    """One key with its secret."""

    role: str
    public: str
    secret: str

    @classmethod
    def new(cls, role: str) -> Self:
        """A key that never was before."""
        public, secret = zmq.curve_keypair()
        return cls(role, public.decode(), secret.decode())

    def peer(self) -> dict[str, str]:
        """What the router knows of it."""
        return {"name": NAMES[self.role], "role": self.role, "public_key": self.public}

    def file(self, server: "Key") -> str:
        """The text of its file."""
        whom = {} if self == server else {"router_public_key": server.public}
        return _toml({**self.peer(), "secret_key": self.secret, **whom})


def make_keys(machine: Machine) -> None:
    """Put them in place, for root alone; services get theirs with their next start."""
    machine.run("mkdir", "--parents", "--mode=700", FOLDER)
    server, *peers = (Key.new(role) for role in NAMES)
    for key in (server, *peers):
        machine.write(f"{FOLDER}/{FILES[key.role]}", key.file(server))
    machine.run("sh", "-c", f"chmod 600 {FOLDER}/*.key")
    machine.write(PEERS, "\n".join(f"[[peer]]\n{_toml(key.peer())}created = 2026-01-01T00:00:00Z\n" for key in peers))


def _toml(values: dict[str, str]) -> str:
    return "".join(f'{key} = "{value}"\n' for key, value in values.items())
