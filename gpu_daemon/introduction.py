"""Who a daemon is to its router: its name, its device, its model; what REGISTER says at every registration."""

import socket
import uuid
from importlib.metadata import version

from common.errors import SettingsError
from common.keys import KeyFile
from common.messages import DeviceInfo, Register
from common.models import ModelCard
from common.settings import GpuDaemonSettings
from gpu_daemon.engine.noop import noop_card


def introduce(settings: GpuDaemonSettings, device: DeviceInfo, key: KeyFile | None = None) -> Register:
    """Who this daemon is. Raises model_load_failed for a folder that cannot be served, SettingsError for a name."""
    card, path = _model(settings)
    host = socket.gethostname()
    owner = key.name if key else host
    if key and settings.worker_id and not settings.worker_id.startswith(f"{owner}/"):
        raise SettingsError(
            f"gpu_daemon.worker_id = {settings.worker_id!r} must begin with {owner + '/'!r}, the name of this host's "
            "key and a slash; leave it out to have it made"
        )
    return Register(
        worker_id=settings.worker_id or f"{owner}/{device.device}",
        boot_id=uuid.uuid4().hex,
        nonce="",
        host=host,
        device=device,
        models=(card,),
        model_path=path,
        job_timeout_s=settings.job_timeout_s,
        version=version("genserve"),
    )


def _model(settings: GpuDaemonSettings) -> tuple[ModelCard, str]:
    if settings.engine == "noop":
        return noop_card(settings), ""
    from gpu_daemon.model_folder import open_model  # noqa: PLC0415  # a noop daemon needs no model folder

    folder = open_model(settings)
    return folder.card, str(folder.path)
