"""The small text that the embedded models' tokenizers learn from: captions of simple pictures, written here.

Pure. Languages without a line here still pass: both tokenizers fall back to bytes.
"""

from collections.abc import Iterator
from itertools import product

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "black", "white", "grey", "golden")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "cube", "sphere", "line", "moon", "tree")
SIZES = ("small", "large", "tiny", "huge")
PLACES = ("in the middle", "at the top", "at the bottom", "on the left", "on the right", "in the corner")
STYLES = ("a photo of", "a drawing of", "an oil painting of", "a watercolour of", "a pencil sketch of", "a picture of")
SCENES = (
    "a cat sleeping on a warm wooden table beside an open window",
    "a dog running along the beach while the sun goes down",
    "an old lighthouse above a stormy sea, dramatic clouds, soft light",
    "a city street at night after the rain, neon signs and their reflections",
    "a bowl of fruit with apples, pears and grapes, studio lighting, high detail",
    "a portrait of a woman with short hair, looking at the camera, shallow depth of field",
    "snow on the mountains in the early morning, mist in the valley, wide angle",
    "a cup of coffee and a book, seen from above, muted colours",
    "two birds on a branch in spring, green leaves, blurred background",
    "a small house in a forest with light in every window, winter evening",
    "without text, without people, no blur, low quality, bad anatomy",
    "ein kleines Haus im Wald, im Fenster brennt Licht",
    "un chat noir sur une table en bois, lumière douce",
    "una ciudad de noche después de la lluvia",
    "маленький дом в зимнем лесу",
    "一只猫在窗边睡觉",
    "雪の山と朝の光",
)


def captions() -> Iterator[str]:
    """Every caption once, always in the same order."""
    yield from SCENES
    for style, colour, shape in product(STYLES, COLOURS, SHAPES):
        yield f"{style} a {colour} {shape}"
    for size, colour, shape, place in product(SIZES, COLOURS, SHAPES, PLACES):
        ground = COLOURS[(len(size) + len(shape) + len(place)) % len(COLOURS)]
        yield f"a {size} {colour} {shape} {place} on a {ground} background"
