"""The autoencoder's training: drawn pictures in, the same pictures out, latents of unit variance between."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.data import stream
from training.learner import Learner
from training.models import NATIVE_SIDE
from training.progress import Budget, Log
from training.render import render
from training.team import Team

BATCH = 128  # of each GPU
STEPS = 6_000
LEARNING_RATE = 1e-3
KL_WEIGHT = 3e-5  # of the mean over latents, against the mean over pixels
STATISTICS_BATCHES = 12
NATIVE = (NATIVE_SIDE, NATIVE_SIDE)


@dataclass(frozen=True, slots=True)
class Lesson:
    """How the autoencoder is trained. `batch` is one process's."""

    seed: int
    steps: int
    batch: int
    device: str
    workers: int
    compiled: bool
    captured: bool
    minutes: float | None  # the schedule is squeezed to end with them
    team: Team


def train_vae(vae: AutoencoderKL, folder: Path, lesson: Lesson, log: Log) -> None:
    """Trains in place and sets the config's scaling and shift factors. Tokenizers are read from `folder`."""
    device, team = lesson.device, lesson.team
    vae.to(device).train()
    if lesson.compiled:
        vae.encoder.compile(dynamic=False)
        vae.decoder.compile(dynamic=False)
    learner = Learner(vae, team, partial(_optimizers, vae))
    differentiate = partial(_differentiate, vae, torch.compile(render, dynamic=False) if lesson.compiled else render)
    batches = stream(
        folder, lesson.seed + 1, lesson.batch,
        first=0, last=lesson.steps, workers=lesson.workers, native_share=1.0, rank=team.rank,
    )  # fmt: skip
    if lesson.captured:
        first = next(
            stream(folder, lesson.seed, lesson.batch, first=0, last=1, workers=0, native_share=1.0, rank=team.rank)
        )
        learner.capture({"vae": differentiate}, (first.things.to(device), first.grounds.to(device)), None)
    budget = Budget(None if lesson.minutes is None else lesson.minutes * 60)
    for step, batch in enumerate(batches):
        progress = team.agree(max(step / lesson.steps, budget.share_used()))
        if progress >= 1:
            break
        rate = LEARNING_RATE * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * progress))
        loss = learner.step("vae", differentiate, (batch.things, batch.grounds), rate)
        if step % 200 == 0 and team.leads:
            log.write(stage="vae", step=step, loss=loss.item(), rate=rate)
    vae.eval()
    _normalise(vae, folder, lesson)


def _optimizers(vae: AutoencoderKL, rate: Tensor) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.AdamW(
            vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True, capturable=rate.is_cuda
        )
    ]


def _differentiate(vae: AutoencoderKL, draw: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """Gradients of (things, grounds) on the device; returns the loss."""
    things, grounds = inputs
    device = things.device.type
    pictures = draw(things, grounds, *NATIVE) * 2 - 1
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        posterior = vae.encode(pictures).latent_dist
        drawn = vae.decode(posterior.sample()).sample.float()
        off = drawn - pictures
        edges = off.diff(dim=2).abs().mean() + off.diff(dim=3).abs().mean()
        loss = off.abs().mean() + 2 * off.square().mean() + edges
        loss = loss + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
    loss.backward()
    detached: Tensor = loss.detach()
    return detached


@torch.no_grad()
def _normalise(vae: AutoencoderKL, folder: Path, lesson: Lesson) -> None:
    latents = []
    for batch in stream(
        folder, lesson.seed + 2, lesson.batch, first=0, last=STATISTICS_BATCHES, workers=0, native_share=1.0
    ):
        pictures = render(batch.things.to(lesson.device), batch.grounds.to(lesson.device), *NATIVE) * 2 - 1
        latents.append(vae.encode(pictures).latent_dist.mode().flatten())
    every = torch.cat(latents)
    vae.register_to_config(scaling_factor=1 / every.std().item(), shift_factor=every.mean().item())
