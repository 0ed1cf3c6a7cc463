"""What a peer that is not let in is told, how often: against a real router's socket, with the test's own clock."""

import zmq

from common.errors import GenServeError
from common.handshakes import TOLD_AGAIN_S, Handshakes
from common.keys import KeyFile, new_key
from common.sockets import Curve, Socket, dealer_socket, monitor_socket, router_socket
from tests.ports import free_ports
from tests.service import wait_for

REFUSED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
SERVER = new_key("server", "server")
FOR_ANOTHER = new_key("host-b", "daemon", new_key("another", "server").public_key)


def bound(context: zmq.Context[Socket], endpoint: str) -> Socket | None:
    """A router without keys, as soon as its port is free."""
    try:
        return router_socket(context, endpoint)
    except GenServeError:
        return None


def test_a_reason_that_stays_the_same_is_told_every_ten_seconds_and_another_at_once() -> None:
    context: zmq.Context[Socket] = zmq.Context()
    endpoint = f"tcp://127.0.0.1:{free_ports()}"
    server = router_socket(context, endpoint, Curve(SERVER, "worker"))
    refusals = monitor_socket(context, server, REFUSED, 1000)
    handshakes = Handshakes(context, FOR_ANOTHER)
    told: list[str] = []

    def connected(key: KeyFile) -> Socket:
        return dealer_socket(context, endpoint, key, watch=handshakes.watch)

    def look(now: float, attempts: int) -> list[str]:
        """What is told by the time of so many attempts more."""
        told.clear()
        for _ in range(attempts):
            wait_for("an attempt", lambda: refusals.poll(100))
            refusals.recv_multipart()
            told.extend(filter(None, [handshakes.refusal(now)]))
        return told

    dealer = connected(FOR_ANOTHER)
    try:
        assert len(look(100.0, 4)) == 1
        assert "hung up on the key 'host-b'" in told[0]
        handshakes.close()
        dealer.close()
        dealer = connected(FOR_ANOTHER)  # as its owner does where libzmq has given up
        assert look(100.0 + TOLD_AGAIN_S / 2, 4) == []
        assert len(look(100.0 + TOLD_AGAIN_S, 4)) == 1
        server.unbind(endpoint)
        without_keys = wait_for("its port", lambda: bound(context, endpoint))
        changed = wait_for("another reason", lambda: handshakes.refusal(101.0 + TOLD_AGAIN_S))
        assert "the router uses no keys" in changed
        without_keys.close()
    finally:
        handshakes.close()
        refusals.close()
        context.destroy(linger=0)
