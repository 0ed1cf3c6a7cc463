"""The parts of genserve-shapes, new and untrained, and the folder they are shipped in.

The classes are diffusers' and transformers' own, so that `FluxPipeline.from_pretrained(folder)` loads it.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from training.tokenizers import PROMPT_TOKENS_MAX

NAME = "genserve-shapes"
NATIVE_SIDE = 128  # pixels
SIDE_MULTIPLE = 8  # pixels: the autoencoder's factor 4 times the transformer's 2 x 2 patch
SHIFT = 3.0  # of the schedule: more steps at high noise, where the layout is decided
GUIDANCE = 2.5  # default


def new_vae() -> AutoencoderKL:
    """RGB (3, h, w) to latents (8, h/4, w/4). No attention: it is the same at every size."""
    return AutoencoderKL(
        block_out_channels=(32, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
        sample_size=NATIVE_SIDE,
    )


def new_transformer() -> FluxTransformer2DModel:
    """8 heads of 32; each block begins as the identity, the prediction as zero."""
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=32,
        num_layers=2,
        num_single_layers=5,
        attention_head_dim=32,
        num_attention_heads=8,
        joint_attention_dim=192,
        pooled_projection_dim=128,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    blocks: list[Any] = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    modulations = [
        getattr(block, norm).linear
        for block in blocks
        for norm in ("norm", "norm1", "norm1_context")
        if hasattr(block, norm)
    ]
    for linear in (*modulations, transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    return transformer


def new_text_encoders(clip: CLIPTokenizer, t5: PreTrainedTokenizerFast) -> tuple[CLIPTextModel, T5EncoderModel]:
    """CLIP (pooled, 128 wide) and T5 (a vector a token, 192 wide)."""
    clip_config = CLIPTextConfig(
        vocab_size=len(clip),
        hidden_size=128,
        intermediate_size=384,
        projection_dim=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=PROMPT_TOKENS_MAX,
        bos_token_id=clip.bos_token_id,
        eos_token_id=clip.eos_token_id,
        pad_token_id=clip.pad_token_id,
    )
    t5_config = T5Config(
        vocab_size=len(t5),
        d_model=192,
        d_kv=32,
        num_heads=6,
        d_ff=512,
        num_layers=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=64,
        pad_token_id=t5.pad_token_id,
        eos_token_id=t5.eos_token_id,
    )
    return CLIPTextModel(clip_config), T5EncoderModel(t5_config)


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """A fixed shift: the model sees few enough tokens at every size."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT, use_dynamic_shifting=False)


def card() -> dict[str, Any]:
    """What GenServe shows and admits: the fields of its ModelCard."""
    return {
        "name": NAME,
        "description": "Draws coloured shapes where the prompt puts them; small, trained, shipped inside",
        "width": NATIVE_SIDE,
        "height": NATIVE_SIDE,
        "side_min": 64,
        "side_max": 256,
        "side_multiple": SIDE_MULTIPLE,
        "pixels_max": 65536,
        "enlarges": True,
        "enlarged_side_max": 2048,
        "steps": 20,
        "steps_max": 100,
        "guidance_scale": GUIDANCE,
        "guided": True,
        "prompt_tokens_max": PROMPT_TOKENS_MAX,
    }


def save(pipeline: FluxPipeline, folder: Path) -> None:
    """The pipeline in float16 with its card. The pipeline's own weights stay where they are: steps may be captured."""
    halves = FluxPipeline(**{**pipeline.components, **{n: _half(m) for n, m in modules(pipeline).items()}})
    for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):  # the last call's lengths are no part of them
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    halves.save_pretrained(folder, safe_serialization=True)
    index = folder / "model_index.json"  # the name that every version of transformers knows
    index.write_text(index.read_text("utf-8").replace("TokenizersBackend", "PreTrainedTokenizerFast"), "utf-8")
    (folder / "genserve_model.json").write_text(json.dumps(card(), indent=2) + "\n", encoding="utf-8")


def _half(module: Any) -> Any:
    """A copy on the CPU in float16."""
    config = module.config
    if hasattr(config, "to_dict"):  # of transformers
        blank = type(module)(config)
    else:
        blank = type(module)(**{name: value for name, value in config.items() if not name.startswith("_")})
    blank.load_state_dict(module.state_dict())
    return blank.to(torch.float16)


def modules(pipeline: FluxPipeline) -> dict[str, Any]:
    """The parts with weights."""
    return {name: getattr(pipeline, name) for name in ("vae", "transformer", "text_encoder", "text_encoder_2")}
