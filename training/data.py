"""Batches for training, made by worker processes: scenes, their captions as token ids, their numbers for the GPU.

Batch i of a seed is the same whoever makes it, so runs repeat and resume at any step.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from training.captions import ELSEWHERE_SHARE, caption, elsewhere
from training.models import NATIVE_SIDE
from training.render import numbers
from training.scene import drawn, random_scene
from training.tokenizers import PROMPT_TOKENS_MAX

NATIVE_SHARE = 0.95  # of the batches; the others take a size of the menu
SIZES = (
    (64, 64), (96, 96), (192, 192), (256, 256), (192, 128), (128, 192), (160, 96), (96, 160), (256, 128), (128, 256),
    (256, 192), (192, 256), (64, 128), (128, 64), (256, 64), (64, 256), (144, 112), (112, 144), (224, 224), (80, 80),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CaptionedBatch:
    """Pictures of one size as numbers (see render.Batch), and their captions: ids (B, 64) of both tokenizers."""

    width: int
    height: int
    things: Tensor
    grounds: Tensor
    clip_ids: Tensor
    t5_ids: Tensor


class Batches(Dataset[CaptionedBatch]):
    """Batch i, for every i; each rank has its own."""

    def __init__(self, folder: Path, seed: int, size: int, native_share: float, rank: int = 0) -> None:
        self.folder, self.seed, self.size, self.native_share, self.rank = folder, seed, size, native_share, rank
        self._tokenizers: tuple[CLIPTokenizer, PreTrainedTokenizerFast] | None = None

    def __getitem__(self, index: int) -> CaptionedBatch:
        rng = random.Random(self.seed * 1_000_003 + index)
        width, height = (NATIVE_SIDE, NATIVE_SIDE) if rng.random() < self.native_share else rng.choice(SIZES)
        rng = random.Random(rng.getrandbits(64) + self.rank)  # ranks see pictures of one size at a time
        count = min(self.size, max(8, self.size * NATIVE_SIDE**2 // (width * height)))
        short = min(width, height)
        captions, things, grounds = [], [], []
        for _ in range(count):
            scene = random_scene(rng)
            captions.append(elsewhere(rng) if rng.random() < ELSEWHERE_SHARE else caption(scene, rng))
            thing, ground = numbers(scene, drawn(scene, width / short, height / short, rng), short)
            things.append(thing)
            grounds.append(ground)
        if self._tokenizers is None:
            self._tokenizers = load_tokenizers(self.folder)
        clip_ids, t5_ids = token_ids(captions, *self._tokenizers)
        return CaptionedBatch(
            width, height, torch.from_numpy(np.stack(things)), torch.from_numpy(np.stack(grounds)), clip_ids, t5_ids
        )


def load_tokenizers(folder: Path) -> tuple[CLIPTokenizer, PreTrainedTokenizerFast]:
    """From the pipeline folder: CLIP's and T5's."""
    clip = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return clip, PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer_2")


def token_ids(captions: list[str], clip: CLIPTokenizer, t5: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """Captions -> ids of CLIP and T5, each (B, 64), cut and padded as FluxPipeline does."""
    return _ids(captions, clip), _ids(captions, t5)


def _ids(captions: list[str], tokenizer: PreTrainedTokenizerFast) -> Tensor:
    options = {"padding": "max_length", "max_length": PROMPT_TOKENS_MAX, "truncation": True}
    ids = tokenizer(captions, return_attention_mask=False, **options).input_ids
    return torch.from_numpy(np.array(ids, np.int64))  # return_tensors="pt" takes as long as all the rest


def stream(
    folder: Path,
    seed: int,
    size: int,
    *,
    first: int,
    last: int,
    workers: int,
    native_share: float = NATIVE_SHARE,
    rank: int = 0,
) -> Iterator[CaptionedBatch]:
    """Batches first..last-1, made ahead by `workers` processes."""
    loader: DataLoader[CaptionedBatch] = DataLoader(
        Batches(folder, seed, size, native_share, rank),
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        prefetch_factor=8 if workers else None,
    )
    return iter(loader)
