"""Write a folder of FLUX.1-dev's true shapes with random weights: 34 GB that time like the real ones.

    python -m bench.flux_folder FOLDER [--small]

The pictures are noise. The tokenizers are the embedded model's. `--small` writes a few MB of the same
structure, to try the rest of a measurement with. Wants a GPU, unless --small.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

EMBEDDED = Path(__file__).parent.parent / "gpu_daemon" / "models" / "genserve-shapes"
WEIGHT_STD = 0.02
SHARD_SIZE = "10GB"

TRANSFORMER: dict[str, Any] = {"guidance_embeds": True}  # diffusers' defaults are FLUX.1's own
T5: dict[str, Any] = {
    "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu", "is_encoder_decoder": False,
}  # fmt: skip
CLIP: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768, "vocab_size": 49408, "max_position_embeddings": 77,
}  # fmt: skip
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 16, "sample_size": 1024,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
SCHEDULER: dict[str, Any] = {
    "shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}  # fmt: skip


def write(folder: Path, *, small: bool) -> None:
    """Build the parts one after another, save each, and add the tokenizers."""
    if small:
        TRANSFORMER.update(num_layers=1, num_single_layers=1, num_attention_heads=2, joint_attention_dim=64)
        T5.update(d_model=64, d_ff=64, num_heads=2, num_layers=1)
        VAE.update(block_out_channels=(32, 32, 32, 32), layers_per_block=1)
    device = "cpu" if small else "cuda"
    parts: dict[str, Callable[[], Any]] = {
        "transformer": lambda: FluxTransformer2DModel(**TRANSFORMER),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**CLIP)),
        "text_encoder_2": lambda: T5EncoderModel(T5Config(**T5)),
        "vae": lambda: AutoencoderKL(**VAE),
    }
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    for name, build in parts.items():
        with torch.device(device):
            part = build().requires_grad_(False)
        for weight in part.parameters():
            if weight.ndim > 1:
                weight.normal_(0, WEIGHT_STD)
        part.save_pretrained(folder / name, max_shard_size=SHARD_SIZE)
        del part
    FlowMatchEulerDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(EMBEDDED / name, folder / name, dirs_exist_ok=True)
    shutil.copy(EMBEDDED / "model_index.json", folder / "model_index.json")
    FluxPipeline.load_config(folder)  # raises where the index does not fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    write(args.folder, small=args.small)
    total = sum(file.stat().st_size for file in args.folder.rglob("*") if file.is_file())
    print(f"{args.folder}: {total / 2**30:.2f} GiB")
