"""How busy a GPU is, as its driver says: the share of the last moments in which anything ran on it.

Asked by the control process with each heartbeat; on a CPU, or where the driver will not say, nothing is told.
"""

from typing import Any

from msgspec.structs import replace

from common.messages import DeviceInfo, DeviceLoad, Heartbeat, Message


class Utilization:
    """Of one device."""

    def __init__(self, device: DeviceInfo) -> None:
        self._nvml: Any = None
        if device.kind != "cuda" or not device.uuid:
            return
        import pynvml  # noqa: PLC0415  # part of the `gpu` extra: there is a GPU, so it is there

        try:
            pynvml.nvmlInit()  # for as long as this process lives
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(device.uuid)
        except pynvml.NVMLError:
            return
        self._nvml = pynvml

    def percent(self) -> int | None:
        """Just now; None where nobody knows."""
        if self._nvml is None:
            return None
        try:
            return int(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
        except self._nvml.NVMLError:  # of MIG parts, or of a GPU that has fallen off the bus: diagnose tells of it
            return None

    def told(self, message: Message) -> Message:
        """`message`; a HEARTBEAT with it, once its engine has measured the device's memory."""
        if not isinstance(message, Heartbeat) or message.load == DeviceLoad():
            return message
        return replace(message, load=replace(message.load, utilization_percent=self.percent()))
