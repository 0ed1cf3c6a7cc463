"""Makes flux-tiny-random: a true FLUX folder in diffusers format, at toy size, with random weights.

    python -m training.random_model OUT

It draws noise-like pictures and so proves the whole path, from a prompt to a file, on any machine. The
same versions of the libraries make the same folder byte for byte.
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from training.corpus import captions
from training.tokenizer import CLIP_TOKENS_MAX, T5_TOKENS_MAX, train_clip, train_t5

SEED = 20_261_123
WIDTH = 32  # of text embeddings
LATENT_CHANNELS = 4
CONTRAST = 0.6  # standard deviation of the decoded pixels, which run from -1 to 1

CARD = {
    "name": "flux-tiny-random",
    "description": "A toy-sized FLUX with random weights: it draws noise-like pictures to prove that the path works.",
    "width": 128,
    "height": 128,
    "side_min": 64,
    "side_max": 256,
    "side_multiple": 16,
    "pixels_max": 65_536,
    "enlarges": True,
    "enlarged_side_max": 2048,
    "steps": 8,
    "guidance_scale": 3.5,
    "guided": True,
    "prompt_tokens_max": T5_TOKENS_MAX,
}


def make(out: Path) -> None:
    """Write the whole folder to `out`, which must not exist yet."""
    out.mkdir(parents=True)
    texts = list(captions())
    t5_pieces = train_t5(texts, out / "tokenizer_2")
    clip_tokens = train_clip(texts, out / "tokenizer")
    torch.manual_seed(SEED)
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, max_image_seq_len=4096
        ),
        vae=_vae(),
        text_encoder=_clip(clip_tokens),
        tokenizer=CLIPTokenizer.from_pretrained(out / "tokenizer"),
        text_encoder_2=_t5(t5_pieces),
        tokenizer_2=PreTrainedTokenizerFast.from_pretrained(out / "tokenizer_2"),
        transformer=_transformer(),
    )
    _give_contrast(pipe)
    for name in ("scheduler", "vae", "text_encoder", "text_encoder_2", "transformer"):
        getattr(pipe, name).save_pretrained(out / name, safe_serialization=True)
    (out / "genserve_model.json").write_text(json.dumps(CARD, indent=2) + "\n", "utf-8")
    index = {
        "_class_name": "FluxPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _transformer() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )


def _vae() -> AutoencoderKL:
    levels = (8, 8, 16, 16)  # four: one latent pixel is 8 by 8 pixels, as in the real FLUX
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(levels),
        up_block_types=["UpDecoderBlock2D"] * len(levels),
        block_out_channels=levels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=128,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _t5(pieces: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=pieces,
            d_model=WIDTH,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
        )
    )


def _clip(tokens: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokens,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CLIP_TOKENS_MAX,
            projection_dim=WIDTH,
            bos_token_id=tokens - 2,
            eos_token_id=tokens - 1,
            pad_token_id=tokens - 1,
        )
    )


@torch.no_grad()
def _give_contrast(pipe: FluxPipeline) -> None:
    """Scale the last layer of the VAE: fresh weights would draw almost even grey."""
    pipe.vae.eval()
    latents = torch.randn(4, LATENT_CHANNELS, 16, 16) / pipe.vae.config.scaling_factor
    last = pipe.vae.decoder.conv_out
    pixels = pipe.vae.decode(latents, return_dict=False)[0]
    last.bias -= pixels.mean(dim=(0, 2, 3))
    scale = CONTRAST / pixels.std()
    last.weight *= scale
    last.bias *= scale


def main() -> int:
    """Make the folder that the first argument names."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m training.random_model OUT\n")
        return 2
    make(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
