"""The flow's training: transformer and both text encoders together, by the velocity from picture to noise.

x = (1 - sigma) * picture + sigma * noise, sigma logit-normal, the target is noise - picture. In the second
part half of each batch learns guidance: the target moves by (scale - 1) times the difference that the
caption makes to the running average's own prediction, and the transformer is told the scale. So guidance
costs nothing when drawing.
"""

import copy
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor, nn

from training.data import CaptionedBatch, stream, token_ids
from training.learner import Differentiate, Learner
from training.models import NATIVE_SIDE
from training.muon import Muon
from training.progress import Budget, Log
from training.render import render
from training.team import Team

BATCH = 512
STEPS = 12_000
LEARNING_RATE = 1e-3
WARMUP_STEPS = 100  # after a resume too: the optimizer's moments are not kept
DECAY_SHARE = 0.35  # of the run, at its end
EMA_DECAY = 0.999
KEEP_EVERY_S = 60.0  # seconds
CAPTION_DROP = 0.1  # of the unguided: the empty caption's prediction is what guidance leads away from
GUIDED_FROM = 0.8  # share of the run after which half of each batch learns guidance
GUIDANCE_RANGE = (1.0, 5.0)
WEIGHT_DECAY = 0.01
NATIVE = (NATIVE_SIDE, NATIVE_SIDE)
SIGMA_MEAN, SIGMA_SPREAD = 1.0, 1.3  # of sigma's logit: only near pure noise is it the caption that says what to draw


class Denoiser(nn.Module):
    """Token ids, noisy latents, sigma and guidance to velocity: everything that the flow loss trains."""

    def __init__(self, pipeline: FluxPipeline) -> None:
        super().__init__()
        self.transformer = pipeline.transformer
        self.text_encoder = pipeline.text_encoder
        self.text_encoder_2 = pipeline.text_encoder_2

    def forward(
        self, noisy: Tensor, sigma: Tensor, guidance: Tensor, ids: tuple[Tensor, Tensor], grid: Tensor
    ) -> Tensor:
        """Noisy (B, tokens, 32), sigma and guidance (B,), ids of CLIP and T5 (B, 64), grid (tokens, 3)."""
        words = self.text_encoder_2(ids[1])[0]
        velocity: Tensor = self.transformer(
            hidden_states=noisy,
            encoder_hidden_states=words,
            pooled_projections=self.text_encoder(ids[0]).pooler_output,
            timestep=sigma,
            guidance=guidance,
            img_ids=grid,
            txt_ids=torch.zeros(words.shape[1], 3, device=noisy.device),
            return_dict=False,
        )[0]
        return velocity.float()


@dataclass(frozen=True, slots=True)
class Run:
    """One stretch of training, from step `first` on; it ends at `steps` or, undecayed, when `pause` is spent.

    `batch` is one process's; so are the budgets, of which the first process's count.
    """

    folder: Path  # with the tokenizers
    seed: int
    first: int
    steps: int
    batch: int
    device: str
    workers: int
    pause: Budget
    finish: Budget  # the whole schedule is squeezed to end with it
    compiled: bool
    captured: bool  # steps at the native size are CUDA graphs
    team: Team


class FlowTrainer:
    """Trains a pipeline's transformer and text encoders; `shipped` draws with their running average."""

    def __init__(self, pipeline: FluxPipeline, run: Run, log: Log) -> None:
        self._run, self._log = run, log
        self._vae: Any = pipeline.vae.to(run.device).eval()
        for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
            encoder.set_attn_implementation("eager")  # fused attention has no sound gradient for a shared bias
        self._model = Denoiser(pipeline).to(run.device).train()
        self._average = copy.deepcopy(self._model).requires_grad_(False).eval()
        parts = {name: getattr(self._average, name) for name in ("transformer", "text_encoder", "text_encoder_2")}
        self.shipped = FluxPipeline(**{**pipeline.components, **parts})  # what is drawn with: the running average
        self._followed: tuple[list[Tensor], list[Tensor]] = (
            list(self._average.parameters()), list(self._model.parameters()),
        )  # fmt: skip
        self._learner = Learner(self._model, run.team, partial(_optimizers, self._model))
        self._chance = torch.Generator(run.device).manual_seed(
            (run.seed * 1_000_003 + run.first) * run.team.size + run.team.rank
        )
        self._empty = tuple(ids.to(run.device) for ids in token_ids([""], pipeline.tokenizer, pipeline.tokenizer_2))
        if run.compiled:
            for denoiser in (self._model, self._average):
                denoiser.transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)
                if run.captured or denoiser is self._model:  # a mask made eagerly is copied from the CPU: no capture
                    denoiser.text_encoder.compile(dynamic=False)
                    denoiser.text_encoder_2.compile(dynamic=False)
            self._vae.encoder.compile(dynamic=False)
        self._grids: dict[tuple[int, int], Tensor] = {}
        self._render = torch.compile(render, dynamic=False) if run.compiled else render

    def train(self, keep: Callable[[int], None]) -> int:
        """Returns the step reached. `keep(step)` is called now and then, to save what is shipped."""
        run, step = self._run, self._run.first
        if run.compiled:
            self._prepare(next(stream(run.folder, run.seed, run.batch, first=0, last=1, workers=0, native_share=1.0)))
        kept = Budget(KEEP_EVERY_S)
        behind, spent = run.first / run.steps, run.finish.share_used()
        for batch in self._batches():
            used = (run.finish.share_used() - spent) / (1 - spent)
            progress = max(step / run.steps, behind + (1 - behind) * used)
            progress = run.team.agree(progress if run.pause.left_s() > 0 else 1.0)
            if progress >= 1:
                break
            rate = learning_rate(progress, step - run.first)
            loss = self._step(batch, guided=progress >= GUIDED_FROM, rate=rate)
            self._follow(step)
            if step % 100 == 0:
                self._log_loss(step, loss.item(), rate)
            step += 1
            if run.team.leads and kept.share_used() >= 1:
                keep(step)
                kept = Budget(KEEP_EVERY_S)
        return step

    def _log_loss(self, step: int, loss: float, rate: float) -> None:
        if not math.isfinite(loss):
            raise ArithmeticError(f"the loss is {loss} at step {step}; what was kept before is of no use either")
        if self._run.team.leads:
            self._log.write(stage="flow", step=step, loss=loss, rate=rate)

    def _prepare(self, batch: CaptionedBatch) -> None:
        """Compile and capture both kinds of step: no later one stops for it, or fails."""
        kinds: dict[Hashable, Differentiate] = {
            guided: partial(self._differentiate, NATIVE, guided) for guided in (True, False)
        }
        if self._run.captured:
            self._learner.capture(kinds, self._inputs(batch), self._chance)
        else:
            self._learner.prepare(kinds, self._inputs(batch))

    def _batches(self) -> Iterator[CaptionedBatch]:
        run = self._run
        return stream(
            run.folder, run.seed, run.batch,
            first=run.first, last=run.steps, workers=run.workers, rank=run.team.rank,
        )  # fmt: skip

    def _inputs(self, batch: CaptionedBatch) -> tuple[Tensor, ...]:
        device = self._run.device
        return batch.things.to(device), batch.grounds.to(device), batch.clip_ids.to(device), batch.t5_ids.to(device)

    def _step(self, batch: CaptionedBatch, *, guided: bool, rate: float) -> Tensor:
        size = (batch.width, batch.height)
        inputs = (batch.things, batch.grounds, batch.clip_ids, batch.t5_ids)
        kind = guided if size == NATIVE else size
        return self._learner.step(kind, partial(self._differentiate, size, guided), inputs, rate)

    def _differentiate(self, size: tuple[int, int], guided: bool, inputs: Sequence[Tensor]) -> Tensor:
        """Gradients of (things, grounds, ids of CLIP, ids of T5), which lie on the device; returns the loss."""
        things, grounds, *captions = inputs
        device = self._run.device
        half_precision = torch.autocast(device, torch.bfloat16, enabled=device == "cuda")
        with _eager_unless(size == NATIVE), half_precision:
            clean = self._latents(things, grounds, size)
            ids = self._drop_captions(captions, guided=guided)
            count = len(clean)
            normal = torch.randn(count, device=device, generator=self._chance)
            sigma = torch.sigmoid(SIGMA_MEAN + SIGMA_SPREAD * normal).bfloat16().float()
            noise = torch.randn(clean.shape, device=device, generator=self._chance)
            noisy = torch.lerp(clean, noise, sigma[:, None, None])
            grid = self._grid(size)
            scale = torch.ones(count, device=device)
            target = noise - clean
            if guided:
                half = count // 2
                low, high = GUIDANCE_RANGE
                scale[half:] = low + (high - low) * torch.rand(count - half, device=device, generator=self._chance)
                target[half:] += self._guidance(
                    noisy[half:], sigma[half:], scale[half:], (ids[0][half:], ids[1][half:]), grid
                )
            off: Tensor = self._model(noisy, sigma, scale, ids, grid) - target
            loss = off.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return loss.detach()

    def _grid(self, size: tuple[int, int]) -> Tensor:
        if size not in self._grids:
            width, height = size
            device = self._run.device
            self._grids[size] = FluxPipeline._prepare_latent_image_ids(
                1, height // 8, width // 8, device, torch.float32
            )
        return self._grids[size]

    @torch.no_grad()
    def _guidance(
        self, noisy: Tensor, sigma: Tensor, scale: Tensor, ids: tuple[Tensor, Tensor], grid: Tensor
    ) -> Tensor:
        count, plain = len(noisy), torch.ones(2 * len(noisy), device=noisy.device)
        both = tuple(torch.cat([some, empty.expand(count, -1)]) for some, empty in zip(ids, self._empty, strict=True))
        told, untold = self._average(noisy.repeat(2, 1, 1), sigma.repeat(2), plain, both, grid).chunk(2)
        more: Tensor = (scale - 1)[:, None, None] * (told - untold)
        return more

    @torch.no_grad()
    def _latents(self, things: Tensor, grounds: Tensor, size: tuple[int, int]) -> Tensor:
        config = self._vae.config
        pixels = self._render(things, grounds, *size) * 2 - 1
        latents = self._vae.encode(pixels).latent_dist.mode().float()
        latents = (latents - config.shift_factor) * config.scaling_factor
        packed: Tensor = FluxPipeline._pack_latents(latents, *latents.shape)
        return packed

    def _drop_captions(self, ids: Sequence[Tensor], *, guided: bool) -> tuple[Tensor, Tensor]:
        count = len(ids[0])
        drop = torch.rand(count, 1, device=ids[0].device, generator=self._chance) < CAPTION_DROP
        if guided:
            drop[count // 2 :] = False
        clip, t5 = (torch.where(drop, empty, some) for some, empty in zip(ids, self._empty, strict=True))
        return clip, t5

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self._followed, 1 - decay)


def _optimizers(model: Denoiser, rate: Tensor) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks and layers, AdamW for all else."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    inside = [p for name, p in named if p.ndim == 2 and any(part in name for part in ("blocks.", "layers.", "layer."))]
    inner = [p for p in inside if min(p.shape) >= 64]
    others = [p for _, p in named if all(p is not q for q in inner)]
    return [
        Muon(inner, lr=rate, weight_decay=WEIGHT_DECAY),
        torch.optim.AdamW(
            others, lr=rate, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True, capturable=rate.is_cuda
        ),
    ]


def learning_rate(progress: float, steps_since_start: int) -> float:
    """Warm-up, then constant, then a cosine to zero; progress 0..1 of the whole run."""
    rate = LEARNING_RATE * min(1.0, (steps_since_start + 1) / WARMUP_STEPS)
    if progress <= 1 - DECAY_SHARE:
        return rate
    return rate * 0.5 * (1 + math.cos(math.pi * (progress - 1 + DECAY_SHARE) / DECAY_SHARE))


def _eager_unless(native: bool) -> AbstractContextManager[Any]:
    """Only the native size is worth compiling for."""
    return nullcontext() if native else torch.compiler.set_stance("force_eager")
