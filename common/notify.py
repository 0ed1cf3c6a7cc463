"""Tells systemd how a service stands: READY, STATUS, STOPPING, WATCHDOG (sd_notify(3))."""

import os
import socket


def notify(**fields: str | int) -> bool:
    """Send fields such as READY=1, STATUS='two GPUs ready'; False where nobody listens.

    Raises OSError where NOTIFY_SOCKET is set but does not take the datagram.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    text = "\n".join(f"{name}={str(value).replace(chr(10), ' ')}" for name, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
        peer.connect("\0" + address[1:] if address.startswith("@") else address)
        peer.sendall(text.encode())
    return True
