"""The world and its words: every caption has one meaning, every scene fits, nothing held out is trained on."""

import random
from pathlib import Path

import pytest

from training.captions import caption, elsewhere
from training.data import Batches
from training.scene import (
    KINDS,
    Ground,
    Scene,
    Thing,
    combinations,
    contrast,
    drawn,
    held_out,
    is_drawable,
    random_scene,
    stands_out,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held", [False, True])
def test_random_scenes_keep_to_their_side_of_the_fence(kind: str, held: bool):
    rng = random.Random(7)
    for _ in range(60):
        scene = random_scene(rng, kind=kind, held=held)
        assert held_out(scene) is held
        assert is_drawable(scene)


def test_a_relation_told_from_the_other_side_is_the_same_combination():
    a, b = Thing("red", "circle"), Thing("blue", "square")
    assert combinations(Scene((a, b), "above")) == combinations(Scene((b, a), "below"))
    assert combinations(Scene((a, b), "left of")) == combinations(Scene((b, a), "right of"))
    assert combinations(Scene((a, b), "above")) != combinations(Scene((b, a), "above"))


@pytest.mark.parametrize(("width", "height"), [(1.0, 1.0), (2.0, 1.0), (1.0, 4.0)])
def test_every_scene_fits_every_shape_of_picture(width: float, height: float):
    rng = random.Random(3)
    for _ in range(400):
        for spot in drawn(random_scene(rng), width, height, rng):
            assert spot.x - spot.radius > 0
            assert spot.x + spot.radius < width
            assert spot.y - spot.radius > 0
            assert spot.y + spot.radius < height


def test_a_scene_too_large_is_refused():
    large = (Thing("red", "circle", size="large"), Thing("blue", "square", size="large"))
    with pytest.raises(ValueError, match="does not fit"):
        drawn(Scene(large, "above"), 1.0, 1.0, random.Random(1))


def test_things_stand_out_from_every_colour_of_the_ground():
    assert not stands_out("white", Ground("white"))
    assert not stands_out("gray", Ground("black", "white"))
    assert stands_out("red", Ground("black", "white"))
    assert contrast("black", "white") > contrast("red", "orange") > 0


def test_captions_name_what_is_not_default():
    rng = random.Random(1)
    scene = Scene((Thing("red", "circle", "striped", "large", "top left"),), ground=Ground("yellow"))
    for _ in range(50):
        english = caption(scene, rng, chinese=False).lower()
        assert "red" in english
        assert "striped" in english
        assert "left" in english
        assert "yellow" in english
        chinese = caption(scene, rng, chinese=True)
        assert "红" in chinese
        assert "条纹" in chinese
        assert "左上角" in chinese
        assert "黄" in chinese


def test_captions_leave_most_defaults_unsaid():
    rng = random.Random(1)
    plain = Scene((Thing("red", "circle", place="center"),))
    told = [caption(plain, rng, chinese=False).lower() for _ in range(200)]
    assert sum("white" in text for text in told) < 60
    assert sum("medium" in text or "mid-sized" in text for text in told) < 60


def test_prompts_from_elsewhere_are_strings_of_many_kinds():
    rng = random.Random(2)
    prompts = [elsewhere(rng) for _ in range(200)]
    assert "" in prompts
    assert len(set(prompts)) > 100


def test_batch_i_is_the_same_whoever_makes_it(shapes_folder: Path):
    first, second = (Batches(shapes_folder, 5, 4, 1.0)[9] for _ in range(2))
    assert first.t5_ids.equal(second.t5_ids)
    assert first.things.equal(second.things)
    assert not first.things.equal(Batches(shapes_folder, 5, 4, 1.0)[10].things)
