"""Models that load but cannot draw, and models that do not load although their files are whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import GenServeError
from common.messages import DeviceInfo
from common.settings import GpuDaemonSettings
from gpu_daemon.engine.flux import FluxBackend
from gpu_daemon.model_folder import EMBEDDED


def _nan_transformer(folder: Path) -> None:
    _change(folder / "transformer", "proj_out.weight", lambda weight: torch.full_like(weight, float("nan")))


def _nan_vae(folder: Path) -> None:
    _change(folder / "vae", "decoder.conv_out.weight", lambda weight: torch.full_like(weight, float("nan")))


def _black_vae(folder: Path) -> None:
    _change(folder / "vae", "decoder.conv_out.bias", lambda bias: bias - 100)


def _wrong_shape(folder: Path) -> None:
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_head_dim": 8, "axes_dims_rope": [2, 2, 4]}))


def _change(part: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    path = part / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors[name] = change(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (_nan_transformer, "engine_error", "latents are not finite"),
        (_nan_vae, "engine_error", "pixels are not finite"),
        (_black_vae, "engine_error", "all black"),
        (_wrong_shape, "model_load_failed", "the model cannot be loaded: "),
    ],
)
def test_a_model_that_cannot_draw_never_gets_ready(
    tmp_path: Path, spoil: Callable[[Path], None], code: str, words: str
):
    folder = tmp_path / "broken"
    shutil.copytree(EMBEDDED, folder)
    spoil(folder)
    backend = FluxBackend(GpuDaemonSettings(model_path=str(folder)), DeviceInfo(device="cpu", kind="cpu"))
    with pytest.raises(GenServeError, match=words) as caught:
        backend.load(lambda _stage, _fraction: None)
    assert caught.value.code == code
