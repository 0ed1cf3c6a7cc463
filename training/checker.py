"""Is the picture what the scene says? Judged from pixels alone, with nothing learned.

`find` sees the ground and the objects (colour, shape, fill, place, size); `problems` compares them with a
scene. Templates come from the renderer, so both share one notion of a shape and nothing else.
"""

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray

from training.regions import Box, core, dilate, regions
from training.render import coverage
from training.scene import COLOURS, FILLS, PALETTE, PLACES, SHAPES, SIZES, Ground, Scene, Thing, is_legible

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

GROUND_OFF_MAX = 60.0  # distance in RGB of a ground's end from the palette's colour
GRADIENT_MIN = 70.0  # distance between the ends of a gradient
APART = 45.0  # distance of an object's pixel from the ground
TRUE_COLOUR = 55.0  # distance of an object's inner pixels from the palette's colour
CORE_PIXELS_MIN = 22  # inner pixels of an object, in a picture of 128
GRID = 40  # an object's mask is compared at this size
LIKENESS_MIN = 0.55  # intersection over union with the best template
MIDDLE = (0.40, 0.60)  # of the picture: where the centre ends and the sides begin
RADII = (0.10, 0.11, 0.135, 0.17, 0.265)  # of the short side: where templates are drawn

_RGB = np.array(list(PALETTE.values()), np.float64)


@dataclass(frozen=True, slots=True)
class Found:
    """One object seen: x, y of its middle as shares of width and height, its radius as a share of the short side."""

    colour: str
    shape: str
    fill: str
    x: float
    y: float
    radius: float
    box: Box

    @property
    def size(self) -> str:
        """The nearest of SIZES."""
        return min(SIZES, key=lambda name: abs(np.log(self.radius / SIZES[name])))

    @property
    def place(self) -> str:
        """The place whose cell holds the middle."""
        cell = tuple(int(share > MIDDLE[1]) - int(share < MIDDLE[0]) for share in (self.x, self.y))
        return next(name for name, direction in PLACES.items() if direction == cell)


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen in a picture. `ground` is None where its colours are none of the palette's."""

    ground: Ground | None
    found: tuple[Found, ...]


def problems(picture: NDArray[np.uint8], scene: Scene) -> list[str]:
    """What is wrong with the picture (height, width, 3); empty when it shows the scene."""
    sight = find(picture)
    wrong = [] if _same_ground(sight.ground, scene.ground) else [f"ground is {sight.ground}, not {scene.ground}"]
    if len(sight.found) != len(scene.things):
        return [*wrong, f"{len(sight.found)} objects, not {len(scene.things)}: {_names(sight.found)}"]
    orders = (_mismatches(order, scene) for order in permutations(sight.found))
    return wrong + min(orders, key=len)


def _names(found: tuple[Found, ...]) -> str:
    return ", ".join(f"{f.size} {f.fill} {f.colour} {f.shape} {f.place}" for f in found)


def _same_ground(seen: Ground | None, wanted: Ground) -> bool:
    return seen == wanted


def _mismatches(found: tuple[Found, ...], scene: Scene) -> list[str]:
    wrong = [text for seen, thing in zip(found, scene.things, strict=True) for text in _differences(seen, thing)]
    if scene.relation is not None and not _related(found[0], found[1], scene.relation):
        wrong.append(f"the {found[0].colour} {found[0].shape} is not {scene.relation} the other")
    if scene.relation != "inside" and any(_overlap(a, b) for i, a in enumerate(found) for b in found[i + 1 :]):
        wrong.append("objects overlap")
    return wrong


def _differences(seen: Found, thing: Thing) -> list[str]:
    pairs = [
        ("colour", seen.colour, thing.colour),
        ("shape", seen.shape, thing.shape),
        ("fill", seen.fill, thing.fill),
        ("size", seen.size, thing.size or seen.size),
        ("place", seen.place, thing.place or seen.place),
    ]
    return [f"{name} is {have}, not {want}" for name, have, want in pairs if have != want]


def _related(first: Found, second: Found, relation: str) -> bool:
    a, b = first.box, second.box
    right, down = b.x - a.x, b.y - a.y
    if relation == "inside":
        return a.left >= b.left and a.right <= b.right and a.top >= b.top and a.bottom <= b.bottom
    if relation in ("above", "below"):
        return (down > abs(right)) if relation == "above" else (-down > abs(right))
    return (right > abs(down)) if relation == "left of" else (-right > abs(down))


def _overlap(first: Found, second: Found) -> bool:
    a, b = first.box, second.box
    across = min(a.right, b.right) - max(a.left, b.left)
    along = min(a.bottom, b.bottom) - max(a.top, b.top)
    return across > 2 and along > 2 and min(across, along) > 0.25 * min(a.right - a.left, b.right - b.left)


# --- seeing -------------------------------------------------------------------------------------


def find(picture: NDArray[np.uint8]) -> Sight:
    """Ground and objects of a picture (height, width, 3)."""
    pixels = picture.astype(np.float64)
    height, width = picture.shape[:2]
    short = min(height, width)
    ground, behind = _ground(pixels)
    apart = np.linalg.norm(pixels - behind, axis=2)
    distances = np.linalg.norm(pixels[:, :, None] - _RGB, axis=3)
    nearest = distances.argmin(axis=2)
    sure = (apart > APART) & (distances.min(axis=2) < np.minimum(TRUE_COLOUR, apart))
    cores = [core(sure & (nearest == index)) for index in range(len(COLOURS))]
    present = [index for index, mask in enumerate(cores) if mask.sum() >= _enough(short)]
    if not present:
        return Sight(ground, ())
    reach = np.stack([dilate(cores[index], 2) for index in present], axis=2)
    offered = np.where(reach, distances[:, :, present], np.inf)
    labels = np.where((apart > APART * 0.8) & (offered.min(axis=2) < apart + 1e-9), offered.argmin(axis=2), -1)
    found = []
    for order, index in enumerate(present):
        for box, inner in regions(labels == order, cores[index]):
            if inner >= _enough(short):
                found.append(_recognise(pixels, behind, labels, order=order, present=present, region=box))
    return Sight(ground, tuple(found))


def _enough(short: int) -> float:
    return CORE_PIXELS_MIN * (short / 128) ** 2


def _ground(pixels: Floats) -> tuple[Ground | None, Floats]:
    """Its name, and its colour at every pixel, from the picture's border."""
    height, width = pixels.shape[:2]
    rows = np.concatenate([pixels[:, :2], pixels[:, -2:]], axis=1)
    columns = np.concatenate([pixels[:2], pixels[-2:]], axis=0)
    down = _line(np.median(rows, axis=1))
    across = _line(np.median(columns, axis=0))
    turns = [float(np.linalg.norm(line[-1] - line[0])) for line in (down, across)]
    if max(turns) < GRADIENT_MIN:
        plain = np.median(np.concatenate([rows.reshape(-1, 3), columns.reshape(-1, 3)]), axis=0)
        name = _name(plain)
        return (None if name is None else Ground(name)), np.broadcast_to(plain, (height, width, 3)).astype(np.float64)
    sideways = turns[1] > turns[0]
    line = across if sideways else down
    start, end = _name(line[0]), _name(line[-1])
    behind = np.broadcast_to(line[None] if sideways else line[:, None], (height, width, 3)).astype(np.float64)
    return (None if start is None or end is None else Ground(start, end, sideways)), behind


def _line(colours: Floats) -> Floats:
    """The straight line nearest to colours (n, 3)."""
    steps = np.arange(len(colours))
    slope, start = np.polyfit(steps, colours, 1)
    return np.asarray(start + steps[:, None] * slope)


def _name(colour: Floats) -> str | None:
    off = np.linalg.norm(_RGB - colour, axis=1)
    return COLOURS[int(off.argmin())] if off.min() < GROUND_OFF_MAX else None


def _lies_on(labels: NDArray[np.int64], region: Box, order: int) -> int:
    """The label that most of the frame around the region has; -1: the ground."""
    height, width = labels.shape
    frame = region.grown(4, width, height).mask(width, height) & ~region.grown(2, width, height).mask(width, height)
    around = labels[frame & (labels != order)]
    return int(np.bincount(around + 1).argmax()) - 1 if len(around) else -1


def _recognise(
    pixels: Floats, behind: Floats, labels: NDArray[np.int64], *, order: int, present: list[int], region: Box
) -> Found:
    height, width = labels.shape
    colour = present[order]
    short = min(height, width)
    below = _lies_on(labels, region, order)
    behind = behind if below < 0 else np.broadcast_to(_RGB[present[below]], pixels.shape)
    way = _RGB[colour] - behind
    share = ((pixels - behind) * way).sum(axis=2) / (way**2).sum(axis=2)
    mine = labels == order
    hidden = (labels != below) & (labels >= 0) & ~mine
    alpha = np.where(dilate(mine, 1) & ~hidden, np.clip(share, 0, 1), 0.0)
    alpha = np.where(region.grown(1, width, height).mask(width, height), alpha, 0.0)
    box = _extent(alpha)
    seen, care = _sample(alpha, box), _sample(hidden.astype(np.float64), box) < 0.3
    radius = max(box.right - box.left, box.bottom - box.top) / 2 / short
    ratio = np.log((box.right - box.left) / (box.bottom - box.top))
    best = max(
        _templates(min(RADII, key=lambda r: abs(np.log(radius / r)))), key=lambda t: t.likeness(seen, care, ratio)
    )
    return Found(
        COLOURS[colour],
        best.shape if best.likeness(seen, care, ratio) >= LIKENESS_MIN else "something",
        best.fill,
        box.x / width,
        box.y / height,
        radius / best.extent,
        box,
    )


def _extent(alpha: Floats) -> Box:
    """Where the mask is, to a fraction of a pixel: a border row counts by how strong it is."""
    down, across = alpha.max(axis=1), alpha.max(axis=0)
    top, bottom = _ends(down)
    left, right = _ends(across)
    return Box(left, top, right, bottom)


def _ends(strength: Floats) -> tuple[float, float]:
    solid = np.flatnonzero(strength > 0.5)
    if not len(solid):
        return 0.0, float(len(strength))
    first, last = int(solid[0]), int(solid[-1])
    before = strength[first - 1] if first > 0 else 0.0
    after = strength[last + 1] if last + 1 < len(strength) else 0.0
    return first + (1 - min(1.0, strength[first])) - before, last + min(1.0, strength[last]) + after


def _sample(values: Floats, box: Box) -> Floats:
    """The box's content on a GRID x GRID raster, bilinear."""
    height, width = values.shape
    steps = (np.arange(GRID) + 0.5) / GRID
    rows = np.clip(box.top + steps * (box.bottom - box.top) - 0.5, 0, height - 1.001)
    columns = np.clip(box.left + steps * (box.right - box.left) - 0.5, 0, width - 1.001)
    r, c = rows.astype(int), columns.astype(int)
    fr, fc = (rows - r)[:, None], (columns - c)[None]
    upper = values[np.ix_(r, c)] * (1 - fc) + values[np.ix_(r, c + 1)] * fc
    lower = values[np.ix_(r + 1, c)] * (1 - fc) + values[np.ix_(r + 1, c + 1)] * fc
    return np.asarray(upper * (1 - fr) + lower * fr)


@dataclass(frozen=True, slots=True, eq=False)
class _Template:
    shape: str
    fill: str
    mask: Floats
    ratio: float  # logarithm of width over height
    extent: float  # half the longer side, in radii

    def likeness(self, seen: Floats, care: Mask, ratio: float) -> float:
        """Intersection over union where nothing else lies above, less what the proportions are off."""
        both = (np.minimum(self.mask, seen) * care).sum()
        either = (np.maximum(self.mask, seen) * care).sum()
        return float(both / max(either, 1e-9) - 1.5 * abs(self.ratio - ratio))


@cache
def _templates(radius: float) -> tuple[_Template, ...]:
    size = {0.10: "small", 0.11: "small", 0.135: None, 0.17: "medium", 0.265: "large"}[radius]
    made = []
    for number, shape in enumerate(SHAPES):
        for kind, fill in enumerate(FILLS):
            if is_legible(Thing("red", shape, fill, size)):
                made.append(_template(shape, fill, torch.tensor([[number, kind, 0, 0, 0, 64.0, 64.0, radius * 128]])))
    return tuple(made)


def _template(shape: str, fill: str, thing: torch.Tensor) -> _Template:
    middles = torch.arange(128) + 0.5
    alpha = coverage(thing, middles[None, None, :], middles[None, :, None], 128)[0].double().numpy()
    box = _extent(alpha)
    wide, high = box.right - box.left, box.bottom - box.top
    return _Template(
        shape, fill, _sample(alpha, box), float(np.log(wide / high)), max(wide, high) / 2 / float(thing[0, 7])
    )
