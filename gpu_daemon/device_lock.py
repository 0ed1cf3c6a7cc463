"""One daemon a GPU: a lock by the GPU's UUID that ends with its process and leaves nothing behind.

The lock is an abstract Unix socket name, which the kernel frees however the process ends. It holds within
one network namespace: containers that share a GPU but no network do not see each other.
"""

import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from common.errors import GenServeError
from common.messages import DeviceInfo

NAMES = Path("/proc/net/unix")


def is_held(device: DeviceInfo) -> bool:
    """Does a daemon serve this GPU? Only looks: taking the lock could keep out a daemon that is just starting."""
    return any(line.endswith(f" @{_name(device)}") for line in NAMES.read_text("utf-8", "replace").splitlines())


class DeviceLock:
    """Held from `with` to its end, or to the end of the process. CPUs are not locked."""

    def __init__(self, device: DeviceInfo) -> None:
        self._device = device
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        """Take it. Raises device_unavailable where another daemon holds this GPU."""
        if self._device.kind != "cuda":
            return self
        name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            name.bind(f"\0{_name(self._device)}")
        except OSError as error:
            name.close()
            raise GenServeError(
                "device_unavailable",
                f"{self._device.device} ({self._device.name}, {self._device.uuid}) is held by another GenServe daemon "
                f"on this machine ({error.strerror}): one daemon serves one GPU, so stop that one or choose another",
            ) from None
        self._socket = name
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _name(device: DeviceInfo) -> str:
    return f"genserve-device-{device.uuid}"
