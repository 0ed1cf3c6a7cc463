"""Keys for tests: a router's store in a folder, and sockets that come in with them, or try to."""

from pathlib import Path
from typing import Any

import zmq

from common.keys import KeyFile, read_key
from genserve.keys import Store


class Keyring:
    """The keys of one router, made as `genserve keys` makes them. This host is called 'here'."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "keys", folder / "peers.toml")
        self.store.init("here")

    def path(self, file: str) -> Path:
        return self.store.keys_folder / file

    def key(self, file: str) -> KeyFile:
        """'gateway.key', 'daemon.key', 'client.key' (this host's operator), or NAME.key."""
        return read_key(self.path(file))

    def new(self, name: str, role: Any) -> KeyFile:
        return self.store.new(name, role, self.path(f"{name}.key")).key

    def revoke(self, name: str) -> None:
        assert self.store.revoke(name)[1], f"{name} was revoked before"

    @property
    def router_settings(self) -> dict[str, str]:
        """As environment variables."""
        return {
            "GENSERVE_ROUTER_SERVER_KEY_FILE": str(self.path("server.key")),
            "GENSERVE_ROUTER_PEERS_FILE": str(self.store.peers_file),
        }


def come_in_with(socket: Any, key: KeyFile) -> None:
    """What a raw client sets before it connects."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, key.router_public_key.encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public_key.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret_key.encode())
