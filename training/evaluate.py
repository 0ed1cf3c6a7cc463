"""How often the model draws what held-out captions ask: combinations that training never saw, judged by the checker."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from diffusers import FluxPipeline
from numpy.typing import NDArray

from training.captions import caption
from training.checker import problems
from training.scene import Scene, random_scene
from training.tokenizers import PROMPT_TOKENS_MAX

SCENES = {"one": 120, "related": 120, "inside": 40, "placed": 40, "row": 30}  # of each kind; two captions a scene
TITLES = {
    "one": "one object",
    "related": "two objects, above, below, left or right",
    "inside": "one object inside another",
    "placed": "two or three objects with places",
    "row": "two or three objects in a row",
}
NOT_ASKED = ("fill is", "size is", "ground is")  # beyond colour, shape, place and relation


@dataclass(frozen=True, slots=True)
class Question:
    """A held-out caption and the scene it means."""

    kind: str
    language: str
    prompt: str
    scene: Scene


@dataclass(slots=True)
class Score:
    """Of one kind and language: pictures, those right in everything, those right in colour, shape, place, relation."""

    pictures: int = 0
    right: int = 0
    right_where_asked: int = 0
    wrongs: Counter[str] = field(default_factory=Counter)

    def add(self, wrong: Sequence[str]) -> None:
        """Counts one picture with what is wrong in it."""
        self.pictures += 1
        self.right += not wrong
        self.right_where_asked += all(text.startswith(NOT_ASKED) for text in wrong)
        self.wrongs.update(_kind_of(text) for text in wrong)

    def __iadd__(self, other: "Score") -> Self:
        """Counts the other's pictures as well."""
        self.pictures += other.pictures
        self.right += other.right
        self.right_where_asked += other.right_where_asked
        self.wrongs.update(other.wrongs)
        return self


def _kind_of(problem: str) -> str:
    """The checker's words without the particulars: 'colour', 'number of objects', …"""
    if problem[0].isdigit():
        return "number of objects"
    return "relation" if problem.startswith("the ") else problem.split(" is ", maxsplit=1)[0]


def questions(seed: int, share: float = 1.0) -> list[Question]:
    """Held-out scenes, each told once in English and once in Chinese; `share` of the full number."""
    rng = random.Random(seed)
    made = []
    for kind, count in SCENES.items():
        for _ in range(max(1, round(count * share))):
            scene = random_scene(rng, kind=kind, held=True)
            made.append(Question(kind, "English", caption(scene, rng, chinese=False), scene))
            made.append(Question(kind, "Chinese", caption(scene, rng, chinese=True), scene))
    return made


def pictures(
    pipeline: FluxPipeline, prompts: Sequence[str], *, steps: int, guidance: float, batch: int, **sizes: int
) -> Iterator[NDArray[np.uint8]]:
    """Each prompt's picture (height, width, 3); the seed of the i-th is i. `sizes`: width and height."""
    for first in range(0, len(prompts), batch):
        some = list(prompts[first : first + batch])
        seeds = [torch.Generator("cpu").manual_seed(first + index) for index in range(len(some))]
        drawn: Any = pipeline(
            some,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=PROMPT_TOKENS_MAX,
            generator=seeds,
            output_type="np",
            **{"width": 128, "height": 128, **sizes},
        ).images
        yield from (drawn * 255).round().astype(np.uint8)


def scores(
    pipeline: FluxPipeline,
    asked: Sequence[Question],
    *,
    steps: int,
    guidance: float,
    batch: int,
    judges: Executor | None = None,
) -> dict[tuple[str, str], Score]:
    """By kind and language. `judges` look at the pictures while the next are drawn."""
    table: dict[tuple[str, str], Score] = {}
    drawn = pictures(pipeline, [question.prompt for question in asked], steps=steps, guidance=guidance, batch=batch)
    judge: Callable[..., Iterator[list[str]]] = map if judges is None else partial(judges.map, chunksize=16)
    for question, wrong in zip(asked, judge(problems, drawn, [question.scene for question in asked]), strict=True):
        table.setdefault((question.kind, question.language), Score()).add(wrong)
    return table
