"""The autoencoder's training: drawn pictures in, the same pictures out, latents of unit variance between."""

import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.data import stream
from training.progress import Budget, Log
from training.render import render

BATCH = 128
STEPS = 6_000
LEARNING_RATE = 1e-3
KL_WEIGHT = 3e-5  # of the mean over latents, against the mean over pixels
STATISTICS_BATCHES = 24


def train_vae(
    vae: AutoencoderKL,
    folder: Path,
    *,
    seed: int,
    steps: int,
    batch_size: int,
    device: str,
    workers: int,
    compiled: bool,
    budget: Budget,
    log: Log,
) -> None:
    """Trains in place and sets the config's scaling and shift factors. Tokenizers are read from `folder`."""
    vae.to(device).train()
    if compiled:
        vae.encoder.compile(dynamic=False)
        vae.decoder.compile(dynamic=False)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    batches = stream(folder, seed + 1, batch_size, first=0, last=steps, workers=workers, native_share=1.0)
    step = 0
    for step, batch in enumerate(batches):
        progress = max(step / steps, budget.share_used())
        if progress >= 1:
            break
        rate = LEARNING_RATE * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        pictures = _pictures(batch.things, batch.grounds, batch.width, batch.height, device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            posterior = vae.encode(pictures).latent_dist
            drawn = vae.decode(posterior.sample()).sample.float()
            off = drawn - pictures
            edges = off.diff(dim=2).abs().mean() + off.diff(dim=3).abs().mean()
            loss = off.abs().mean() + 2 * off.square().mean() + edges
            loss = loss + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            log.write(stage="vae", step=step, loss=off.detach().abs().mean().item(), rate=rate)
    vae.eval()
    _normalise(vae, folder, seed=seed, batch_size=batch_size, device=device, workers=workers)


def _pictures(things: Tensor, grounds: Tensor, width: int, height: int, device: str) -> Tensor:
    return render(things.to(device), grounds.to(device), width, height) * 2 - 1


@torch.no_grad()
def _normalise(vae: AutoencoderKL, folder: Path, *, seed: int, batch_size: int, device: str, workers: int) -> None:
    latents = []
    for batch in stream(
        folder, seed + 2, batch_size, first=0, last=STATISTICS_BATCHES, workers=workers, native_share=1.0
    ):
        pictures = _pictures(batch.things, batch.grounds, batch.width, batch.height, device)
        latents.append(vae.encode(pictures).latent_dist.mode().flatten())
    every = torch.cat(latents)
    vae.register_to_config(scaling_factor=1 / every.std().item(), shift_factor=every.mean().item())
