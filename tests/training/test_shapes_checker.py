"""The checker against the renderer: right pictures pass, one word changed does not."""

import dataclasses
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from training.checker import find, problems
from training.render import picture
from training.scene import COLOURS, FILLS, PLACES, RELATIONS, SHAPES, SIZES, Ground, Scene, Thing, random_scene

PICTURES = 500


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are drawn fastest by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def changed(scene: Scene, rng: random.Random) -> Scene:
    """The scene with one word that its caption says replaced by another."""
    index = rng.randrange(len(scene.things))
    thing = scene.things[index]
    said = ["colour", "shape", "ground"]
    said += ["fill"] if thing.fill != "solid" else []
    said += ["size"] if thing.size not in (None, "medium") and scene.relation != "inside" else []
    said += ["place"] if thing.place not in (None, "center") else []
    said += ["relation"] if scene.relation is not None else []
    word = rng.choice(said)
    values = {
        "colour": COLOURS, "shape": SHAPES, "fill": FILLS, "size": tuple(SIZES), "place": tuple(PLACES),
        "relation": RELATIONS, "ground": COLOURS,
    }[word]  # fmt: skip
    if word == "relation":
        return dataclasses.replace(scene, relation=rng.choice([v for v in values if v != scene.relation]))
    if word == "ground":
        other = rng.choice([v for v in values if v != scene.ground.colour])
        return dataclasses.replace(scene, ground=dataclasses.replace(scene.ground, colour=other))
    other = rng.choice([v for v in values if v != getattr(thing, word)])
    things = [dataclasses.replace(t, **{word: other}) if i == index else t for i, t in enumerate(scene.things)]
    return dataclasses.replace(scene, things=tuple(things))


def test_accepts_what_the_renderer_drew_and_rejects_it_with_one_word_changed():
    rng = random.Random(20)
    accepted = rejected = 0
    for _ in range(PICTURES):
        scene = random_scene(rng)
        drawn = picture(scene, rng)
        accepted += not problems(drawn, scene)
        rejected += bool(problems(drawn, changed(scene, rng)))
    assert accepted >= 0.99 * PICTURES
    assert rejected >= 0.99 * PICTURES


@pytest.mark.parametrize(("width", "height"), [(192, 128), (128, 256), (256, 256)])
def test_judges_other_sizes(width: int, height: int):
    rng = random.Random(4)
    scenes = [random_scene(rng) for _ in range(25)]
    assert sum(not problems(picture(scene, rng, width, height), scene) for scene in scenes) >= 24


def test_survives_noise_and_blur():
    rng = random.Random(6)
    noise = np.random.default_rng(6)
    right = 0
    for _ in range(60):
        scene = random_scene(rng, kind="one")
        drawn = picture(scene, rng).astype(np.float64)
        soft = (drawn * 2 + np.roll(drawn, 1, 0) + np.roll(drawn, 1, 1)) / 4 + noise.normal(0, 4, drawn.shape)
        right += not problems(np.clip(soft, 0, 255).astype(np.uint8), scene)
    assert right >= 54


def test_says_what_is_wrong():
    drawn = picture(Scene((Thing("red", "circle", place="left"),), ground=Ground("yellow")), random.Random(1))
    (wrong,) = problems(drawn, Scene((Thing("red", "circle", place="right"),), ground=Ground("yellow")))
    assert wrong == "place is left, not right"


def test_sees_nothing_in_an_empty_picture_and_no_named_ground_in_noise():
    sight = find(np.full((128, 128, 3), 255, np.uint8))
    assert sight.found == ()
    assert sight.ground == Ground("white")
    noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert problems(noise, Scene((Thing("red", "circle", place="center"),)))
