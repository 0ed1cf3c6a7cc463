"""One loaded backend, and one plain pipeline beside it, for all tests of the engine."""

import os
from typing import Any

import pytest

from common.messages import DeviceInfo
from common.settings import GpuDaemonSettings
from gpu_daemon.engine.flux import ENVIRONMENT, FluxBackend
from gpu_daemon.model_folder import EMBEDDED

os.environ.update(ENVIRONMENT)  # before the first test file imports torch


@pytest.fixture(scope="session")
def backend() -> FluxBackend:
    backend = FluxBackend(GpuDaemonSettings(), DeviceInfo(device="cpu", kind="cpu"))
    backend.load(lambda _stage, _fraction: None)
    return backend


@pytest.fixture(scope="session")
def pipe(backend: FluxBackend) -> Any:
    """Plain diffusers, at the thread count that the backend has set."""
    import torch  # noqa: PLC0415  # after the environment above has been set
    from diffusers import FluxPipeline  # noqa: PLC0415  # after the environment above has been set

    pipe = FluxPipeline.from_pretrained(EMBEDDED, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe
