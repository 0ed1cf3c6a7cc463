"""The world of genserve-shapes: what can be in a picture, where it stands, what is never trained on.

Pure: no pixels, no words, no torch. A Scene is the meaning of a caption; a Drawing is one way to draw
it. Lengths of a Drawing are in units of the picture's short side, the origin is its top left corner.
"""

import math
import random
import zlib
from dataclasses import dataclass
from itertools import pairwise

PALETTE: dict[str, tuple[int, int, int]] = {  # sRGB
    "red": (225, 30, 35),
    "orange": (250, 125, 0),
    "yellow": (255, 225, 25),
    "green": (30, 160, 60),
    "blue": (30, 80, 225),
    "purple": (130, 40, 180),
    "pink": (255, 120, 190),
    "brown": (125, 70, 25),
    "black": (15, 15, 15),
    "white": (255, 255, 255),
    "gray": (140, 140, 140),
    "cyan": (40, 215, 235),
}
COLOURS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart", "hexagon")
FILLS = ("solid", "striped", "outlined")
SIZES: dict[str, float] = {"small": 0.11, "medium": 0.17, "large": 0.265}  # half the extent
PLACES: dict[str, tuple[int, int]] = {  # direction from the centre: right, down
    "center": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}
RELATIONS = ("above", "below", "left of", "right of", "inside")
CONTAINERS = ("circle", "square", "triangle", "ring", "diamond", "heart", "hexagon")  # wide enough to hold a small one

ROW_OF_THREE = 0.135  # half extent at most of each of three objects side by side
INNER = 0.10  # half extent at most of what lies inside another
MARGIN = 0.03  # free border of a picture
GAP = 0.05  # least space between two objects
SIZE_JITTER = 0.05  # share of the size
PLACE_JITTER = 0.03
DRAWS_MAX = 1000  # tries to fit a scene into a picture
FITTING_DRAWS = 4  # that must all fit before a scene is taken: so DRAWS_MAX of them never all fail
CONTRAST_MIN = 90.0  # distance in RGB between what lies on what
HELD_OUT_SHARE = 0.08  # of the combinations; never trained on


@dataclass(frozen=True, slots=True)
class Thing:
    """One object. `place` is None where another fact says where it stands; `size` None where none is promised."""

    colour: str
    shape: str
    fill: str = "solid"
    size: str | None = "medium"
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """What lies behind: one colour, or a gradient to another from top to bottom (`across`: from left to right)."""

    colour: str = "white"
    to: str | None = None
    across: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """The meaning of a caption. One thing has a place. Two have a `relation` (first to second), or places, or
    neither (side by side in their order); three have places or neither.
    """

    things: tuple[Thing, ...]
    relation: str | None = None
    ground: Ground = Ground()


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a thing is drawn: its centre and half its extent."""

    x: float
    y: float
    radius: float


Drawing = tuple[Spot, ...]  # in the order of the scene's things


def held_out(scene: Scene) -> bool:
    """Is one of the scene's combinations among those that training never sees?"""
    return any(zlib.crc32(name.encode()) % 10_000 < HELD_OUT_SHARE * 10_000 for name in combinations(scene))


def combinations(scene: Scene) -> list[str]:
    """Names of what the scene combines: colour, shape and place of each placed thing; the pair and its relation."""
    names = [f"{t.colour} {t.shape} @ {t.place}" for t in scene.things if t.place is not None]
    if len(scene.things) > 1 and scene.things[0].place is None:
        relation = scene.relation or "left of"  # a row stands in its order
        turned = {"below": "above", "right of": "left of"}.get(relation)  # the same picture, told from the other side
        things = scene.things[::-1] if turned else scene.things
        names.append(f" {turned or relation} ".join(f"{t.colour} {t.shape}" for t in things))
    return names


def contrast(first: str, second: str) -> float:
    """Distance in RGB, 0 to 441."""
    return math.dist(PALETTE[first], PALETTE[second])


def stands_out(colour: str, ground: Ground) -> bool:
    """Can the colour be told from every colour of the ground?"""
    if ground.to is None:
        return contrast(colour, ground.colour) >= CONTRAST_MIN
    point, start, end = PALETTE[colour], PALETTE[ground.colour], PALETTE[ground.to]
    along = [e - s for s, e in zip(start, end, strict=True)]
    share = sum(a * (p - s) for a, p, s in zip(along, point, start, strict=True)) / sum(a * a for a in along)
    share = min(max(share, 0.0), 1.0)
    near = [s + share * a for s, a in zip(start, along, strict=True)]
    return math.dist(point, near) >= CONTRAST_MIN


def is_legible(thing: Thing) -> bool:
    """Can the fill be seen in this shape at this size? Thin bands are no place for stripes and lines."""
    if thing.shape == "ring":
        return thing.fill == "solid" or thing.size == "large"
    return thing.shape not in ("star", "cross") or thing.fill != "striped" or thing.size == "large"


def is_drawable(scene: Scene) -> bool:
    """Do colours stand out from what they lie on, and are all things different to look at?"""
    if scene.ground.to is not None and contrast(scene.ground.colour, scene.ground.to) < CONTRAST_MIN:
        return False
    looks = {(t.colour, t.shape) for t in scene.things}
    if len(looks) < len(scene.things) or not all(stands_out(t.colour, scene.ground) for t in scene.things):
        return False
    if not all(is_legible(thing) for thing in scene.things):
        return False
    places = [t.place for t in scene.things if t.place is not None]
    if len(set(places)) < len(places):
        return False
    if scene.relation == "inside":
        inner, outer = scene.things
        if outer.shape not in CONTAINERS or (outer.shape == "triangle" and outer.fill == "outlined"):
            return False
        return contrast(inner.colour, outer.colour) >= CONTRAST_MIN
    return True


# --- drawing ------------------------------------------------------------------------------------


def draw(scene: Scene, width: float, height: float, rng: random.Random) -> Drawing | None:
    """One way to draw the scene in width x height short sides; None where it does not fit."""
    radii = [_radius(thing, rng) for thing in scene.things]
    if scene.relation == "inside":
        return _inside(scene, radii, width, height, rng)
    if scene.things[0].place is not None:
        spots = tuple(_placed(t, r, width, height, rng) for t, r in zip(scene.things, radii, strict=True))
        return spots if _apart(spots) else None
    if scene.relation in ("above", "below"):
        return _stacked(scene.relation == "below", radii, (height, width), rng, upright=True)
    if len(radii) == 3:
        radii = [min(radius, ROW_OF_THREE) for radius in radii]
    return _stacked(scene.relation == "right of", radii, (width, height), rng, upright=False)


def drawn(scene: Scene, width: float, height: float, rng: random.Random) -> Drawing:
    """As `draw`, tried until chance lets it fit. Raises ValueError for a scene too large."""
    for _ in range(DRAWS_MAX):
        drawing = draw(scene, width, height, rng)
        if drawing is not None:
            return drawing
    raise ValueError(f"{scene} does not fit {width:.2f} x {height:.2f}")


def _radius(thing: Thing, rng: random.Random) -> float:
    return SIZES[thing.size or "medium"] * (1 + rng.uniform(-SIZE_JITTER, SIZE_JITTER))


def _placed(thing: Thing, radius: float, width: float, height: float, rng: random.Random) -> Spot:
    def along(direction: int, length: float) -> float:
        if direction == 0:
            return length / 2 + rng.uniform(-PLACE_JITTER, PLACE_JITTER)
        edge = max(radius + MARGIN, 0.19) + rng.uniform(0, PLACE_JITTER)
        return edge if direction < 0 else length - edge

    right, down = PLACES[thing.place or "center"]
    return Spot(along(right, width), along(down, height), radius)


def _apart(spots: Drawing) -> bool:
    return all(
        max(abs(a.x - b.x), abs(a.y - b.y)) >= a.radius + b.radius + GAP
        for i, a in enumerate(spots)
        for b in spots[i + 1 :]
    )


def _stacked(
    swapped: bool, radii: list[float], lengths: tuple[float, float], rng: random.Random, *, upright: bool
) -> Drawing | None:
    """Things one after another along the middle; lengths: along the line and across it."""
    along, across = lengths
    order = radii[::-1] if swapped else radii
    free = along - 2 * sum(order) - 2 * MARGIN
    gaps = len(order) - 1
    if free < gaps * 0.03:
        return None
    gap = rng.uniform(0.03, min(0.12, free / gaps))
    slack = min((free - gaps * gap) / 2, 0.05)
    start = (along - 2 * sum(order) - gaps * gap) / 2 + rng.uniform(-slack, slack)
    centres = [start + order[0]]
    for before, after in pairwise(order):
        centres.append(centres[-1] + before + gap + after)
    if swapped:
        centres.reverse()
    middles = [across / 2 + rng.uniform(-PLACE_JITTER, PLACE_JITTER) for _ in radii]
    if upright:
        return tuple(Spot(m, c, r) for c, m, r in zip(centres, middles, radii, strict=True))
    return tuple(Spot(c, m, r) for c, m, r in zip(centres, middles, radii, strict=True))


def _inside(scene: Scene, radii: list[float], width: float, height: float, rng: random.Random) -> Drawing:
    outer = Spot(
        width / 2 + rng.uniform(-PLACE_JITTER, PLACE_JITTER),
        height / 2 + rng.uniform(-PLACE_JITTER, PLACE_JITTER),
        radii[1],
    )
    down = {"triangle": 0.27, "heart": -0.12}.get(scene.things[1].shape, 0.0)  # where the shape is widest
    return (Spot(outer.x, outer.y + down * outer.radius, min(radii[0], INNER)), outer)


# --- chance -------------------------------------------------------------------------------------

KINDS = ("one", "related", "placed", "row", "inside")


def random_scene(rng: random.Random, *, kind: str | None = None, held: bool = False) -> Scene:
    """A drawable scene that fits a square; `held` says from which side of the fence.

    kind: "one"; "related" (two, above, below, left of, right of); "placed" (two or three with places);
    "row" (two or three without); "inside". None draws it as training does.
    """
    while True:
        wanted = kind or rng.choices(KINDS, (30, 34, 14, 8, 14))[0]
        scene = _try_scene(rng, wanted)
        fits = is_drawable(scene) and all(draw(scene, 1.0, 1.0, rng) is not None for _ in range(FITTING_DRAWS))
        if fits and held_out(scene) == held:
            return scene


def _try_scene(rng: random.Random, kind: str) -> Scene:
    count = {"one": 1, "related": 2, "inside": 2}.get(kind) or rng.choice((2, 2, 3))
    looks = [(rng.choice(COLOURS), rng.choice(SHAPES), rng.choices(FILLS, (70, 15, 15))[0]) for _ in range(count)]
    relation: str | None = None
    sizes: list[str | None] = [rng.choices(list(SIZES), (25, 50, 25))[0] for _ in range(count)]
    places: list[str | None] = [None] * count
    if kind == "related":
        relation = rng.choice(RELATIONS[:-1])
    elif kind == "inside":
        relation, sizes = "inside", ["small", "large"]
        looks[1] = (*looks[1][:2], rng.choices(FILLS, (80, 0, 20))[0])
    elif kind in ("one", "placed"):
        places = [
            rng.choice(list(PLACES)) if kind == "placed" or rng.random() < 0.6 else "center" for _ in range(count)
        ]
    elif count == 3:
        sizes = [None] * count
    things = tuple(Thing(c, s, f, size, place) for (c, s, f), size, place in zip(looks, sizes, places, strict=True))
    return Scene(things, relation, random_ground(rng, any(t.colour == "white" for t in things)))


def random_ground(rng: random.Random, has_white: bool) -> Ground:
    """Mostly white (gray below white things), else any colour, else a gradient."""
    draw = rng.random()
    if draw < 0.5:
        return default_ground(has_white)
    if draw < 0.8:
        return Ground(rng.choice(COLOURS))
    return Ground(rng.choice(COLOURS), rng.choice(COLOURS), across=rng.random() < 0.25)


def default_ground(has_white: bool) -> Ground:
    """What an unnamed ground is: white, or gray where something white lies on it."""
    return Ground("gray" if has_white else "white")
