"""What the denoiser believes the picture to be before it has drawn it: x0 = x - sigma · v.

Knows diffusers' pipelines and their VAE, no messages. It draws no random number and changes no tensor, so that
the final picture is the same with previews and without.
"""

from typing import Any

import torch
from PIL import Image

PREVIEW_SIDE_MAX = 768  # pixels; where it is drawn larger, its preview is halved until it is not
TENSORS = ("latents", "noise_pred")  # of the denoising loop, after a step
MASKED_TENSORS = (*TENSORS, "mask", "image_latents")  # likewise, where a mask keeps a part of an image


def allow(pipe: Any) -> None:
    """Let `pipe` tell its loop's tensors to callbacks; what it may tell is a list of its own."""
    pipe._callback_tensor_inputs = [*pipe._callback_tensor_inputs, *MASKED_TENSORS[1:]]


def estimate(
    pipe: Any, tensors: dict[str, torch.Tensor], width: int, height: int, device: torch.device
) -> Image.Image | None:
    """The picture that `pipe`, after a step with these tensors, would draw at width × height if it ended there.

    Blurry after the first steps. None where no picture can be made of it, for lack of memory or of finite numbers.
    """
    scheduler, vae = pipe.scheduler, pipe.vae
    sigma = float(scheduler.sigmas[scheduler.step_index])  # of the latents as they are now
    clean = tensors["latents"].float() - sigma * tensors["noise_pred"].float()
    if "mask" in tensors:
        mask = tensors["mask"].float()
        clean = (1 - mask) * tensors["image_latents"].float() + mask * clean
    latents = pipe._unpack_latents(clean, height, width, pipe.vae_scale_factor)
    for _ in range(_halvings(max(width, height))):
        latents = torch.nn.functional.avg_pool2d(latents, 2)
    latents = latents / vae.config.scaling_factor + vae.config.shift_factor
    try:
        # Not vae.decode(): where the model is offloaded that sends the transformer home between two steps.
        vae.to(device)
        latents = latents.to(vae.dtype)
        pixels = vae.decoder(latents if vae.post_quant_conv is None else vae.post_quant_conv(latents))
    except torch.OutOfMemoryError:
        return None
    if not bool(torch.isfinite(pixels).all()):
        return None
    image: Image.Image = pipe.image_processor.postprocess(pixels, output_type="pil")[0]
    return image


def _halvings(side: int) -> int:
    count = 0
    while side >> count > PREVIEW_SIDE_MAX:
        count += 1
    return count
