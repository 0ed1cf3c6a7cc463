"""A scene in words: English here, Chinese in captions_zh.py, and prompts about anything else.

Pure: chance is an argument. What a caption leaves out is the default that scene.py and the model card
name (solid, medium, centred, on white), so every caption has one meaning and its scene is the truth.
"""

import random

from training import captions_zh
from training.scene import Ground, Scene, Thing, default_ground

CHINESE_SHARE = 0.4
ELSEWHERE_SHARE = 0.04  # prompts outside the world, paired with any picture of it

SIZE_WORDS = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("medium", "medium-sized", "mid-sized"),
    "large": ("large", "large", "big", "huge"),
}
FILL_WORDS = {"solid": ("solid", "filled"), "striped": ("striped",), "outlined": ("outlined", "outlined", "hollow")}
COLOUR_WORDS = {"gray": ("gray", "grey"), "purple": ("purple", "purple", "violet")}
SHAPE_WORDS = {
    "circle": ("circle", "circle", "circle", "disc"),
    "star": ("star", "star", "star", "five-pointed star"),
    "cross": ("cross", "cross", "plus sign"),
    "diamond": ("diamond", "diamond", "rhombus"),
    "ring": ("ring", "ring", "ring", "donut"),
}
SIDES = {"top": ("top", "upper"), "bottom": ("bottom", "lower")}
RELATION_WORDS = {
    "above": ("above", "above", "over", "on top of", "is above"),
    "below": ("below", "below", "under", "beneath", "underneath", "is below"),
    "left of": ("left of", "to the left of", "to the left of", "on the left of", "is left of"),
    "right of": ("right of", "to the right of", "to the right of", "on the right of", "is right of"),
    "inside": ("inside", "inside", "within", "in", "inside of", "is inside"),
}
TURNED = {"above": "above it", "below": "below it", "left of": "to the left of it", "right of": "to the right of it"}
PREFIXES = (
    "a picture of", "an image of", "a drawing of", "an illustration of", "a picture with", "draw", "please draw",
    "show me", "there is", "I want", "generate", "a simple picture of", "picture of", "paint", "a photo of",
)  # fmt: skip
NAMED_DEFAULT = 0.12  # how often a default is said all the same


def caption(scene: Scene, rng: random.Random, *, chinese: bool | None = None) -> str:
    """The scene in English or (None: in the share of training) Chinese words."""
    if chinese or (chinese is None and rng.random() < CHINESE_SHARE):
        return captions_zh.caption(scene, rng)
    text = _keywords(scene, rng) if len(scene.things) == 1 and rng.random() < 0.06 else _sentence(scene, rng)
    return _cased(text, rng)


def _cased(text: str, rng: random.Random) -> str:
    text = rng.choices((text, text[0].upper() + text[1:], text.upper(), text.title()), (58, 30, 6, 6))[0]
    return text + rng.choices(("", ".", "!"), (70, 28, 2))[0]


def _sentence(scene: Scene, rng: random.Random) -> str:
    ground = _ground(scene, rng)
    body = _body(scene, rng)
    prefix = f"{rng.choice(PREFIXES)} " if rng.random() < 0.3 else ""
    if not ground:
        return prefix + body
    if rng.random() < 0.18:
        return f"{ground}, {body}" if rng.random() < 0.7 else f"{prefix}{ground}: {body}"
    return f"{prefix}{body}{rng.choice((' ', ' ', ', '))}{ground}"


def _body(scene: Scene, rng: random.Random) -> str:
    if scene.relation is not None:
        return _related(scene, rng)
    articles = rng.choices(("a", "", "the", "one"), (72, 18, 6, 4))[0]
    parts = [_placed(thing, rng, articles, single=len(scene.things) == 1) for thing in scene.things]
    if len(parts) == 1:
        return parts[0]
    last = rng.choice((" and ", " and ", ", and ", ", "))
    return ", ".join(parts[:-1]) + last + parts[-1]


def _related(scene: Scene, rng: random.Random) -> str:
    article = rng.choices(("a", "", "the"), (76, 17, 7))[0]
    inside = scene.relation == "inside"
    first, second = (_noun(thing, rng, article, named=not inside or rng.random() < 0.5) for thing in scene.things)
    relation = str(scene.relation)
    form = rng.random()
    if form < 0.8:
        return f"{first} {rng.choice(RELATION_WORDS[relation])} {second}"
    if form < 0.9:
        if inside:
            return rng.choice(
                (f"{second} containing {first}", f"{second} with {first} inside", f"{second} around {first}")
            )
        return f"{second} with {first} {TURNED[relation]}"
    words = RELATION_WORDS[relation][: 2 if relation in ("above", "below", "inside") else 3]
    return f"{rng.choice(words)} {second}{rng.choice((', ', ' is ', ' there is '))}{first}"


def _placed(thing: Thing, rng: random.Random, article: str, *, single: bool) -> str:
    noun = _noun(thing, rng, article)
    if thing.place is None or (single and thing.place == "center" and rng.random() >= NAMED_DEFAULT):
        return noun
    place = _place(thing.place, rng)
    if single and rng.random() < 0.15:
        return f"{place}, {noun}" if rng.random() < 0.6 else f"{place} {noun}"
    return f"{noun} {place}"


def _place(place: str, rng: random.Random) -> str:
    if place == "center":
        return rng.choice(("in the center", "in the centre", "in the middle", "at the center", "centered"))
    if place in ("left", "right"):
        return rng.choice((f"on the {place}", f"on the {place}", f"on the {place} side", f"at the {place}"))
    if place in ("top", "bottom"):
        return rng.choice((f"at the {place}", f"at the {place}", f"on the {place}", f"near the {place}"))
    down, side = place.split()
    corner = f"{rng.choice(SIDES[down])}{rng.choice((' ', ' ', '-'))}{side}"
    return rng.choice((f"in the {corner} corner", f"in the {corner}", f"at the {corner}", f"in the {corner} corner"))


def _noun(thing: Thing, rng: random.Random, article: str, *, named: bool = True) -> str:
    words = _adjectives(thing, rng, named=named)
    shape = rng.choice(SHAPE_WORDS.get(thing.shape, (thing.shape,)))
    colour = rng.choice(COLOUR_WORDS.get(thing.colour, (thing.colour,)))
    if rng.random() < 0.06 and not any("-" in word for word in words):
        noun = " ".join([*words, shape]) + rng.choice((f" that is {colour}", f" in {colour}"))
    elif rng.random() < 0.8:
        noun = " ".join([*words, colour, shape])
    else:
        words.insert(rng.randrange(len(words) + 1), colour)
        noun = " ".join([*words, shape])
    if article == "a" and noun[0] in "aeiou":
        return f"an {noun}"
    return f"{article} {noun}" if article else noun


def _adjectives(thing: Thing, rng: random.Random, *, named: bool) -> list[str]:
    words = []
    said = thing.size if thing.size != "medium" or rng.random() < NAMED_DEFAULT else None
    if named and said is not None:
        words.append(rng.choice(SIZE_WORDS[said]))
    if thing.fill != "solid" or rng.random() < NAMED_DEFAULT / 2:
        words.append(rng.choice(FILL_WORDS[thing.fill]))
    if rng.random() < 0.3:
        words.reverse()
    return words


def _ground(scene: Scene, rng: random.Random) -> str:
    ground = scene.ground
    unnamed = ground == default_ground(any(t.colour == "white" for t in scene.things))
    if unnamed and rng.random() >= NAMED_DEFAULT:
        return ""
    start = rng.choice(COLOUR_WORDS.get(ground.colour, (ground.colour,)))
    if ground.to is None:
        article = "an" if start[0] in "aeiou" else "a"
        return rng.choice((
            f"on {article} {start} background", f"on {article} {start} background", f"on {start}",
            f"against {article} {start} background", f"with {article} {start} background", f"{start} background",
            f"on {article} plain {start} background".replace("an plain", "a plain"),
        ))  # fmt: skip
    return _gradient(ground, start, rng)


def _gradient(ground: Ground, start: str, rng: random.Random) -> str:
    end = rng.choice(COLOUR_WORDS.get(str(ground.to), (str(ground.to),)))
    if ground.across:
        way = rng.choice(("horizontal ", "left-to-right "))
    else:
        way = rng.choice(("vertical ", "top-to-bottom ")) if rng.random() < NAMED_DEFAULT else ""
    if ground.to == "white" and rng.random() < 0.4:
        article = "an" if (way or start)[0] in "aeiou" else "a"
        return f"on {article} {way}{start} gradient background"
    return rng.choice((
        f"on a {way}gradient background from {start} to {end}",
        f"on a {way}gradient from {start} to {end}",
        f"with a {way}gradient from {start} to {end}",
        f"with a {way}{start} to {end} gradient background".replace("a orange", "an orange"),
        f"on a {way}{start}-to-{end} gradient".replace("a orange", "an orange"),
        f"{way}gradient background from {start} to {end}",
    ))  # fmt: skip


def _keywords(scene: Scene, rng: random.Random) -> str:
    """One thing as a list of words: 'circle, red, large, top left, yellow background'."""
    (thing,) = scene.things
    words = _adjectives(thing, rng, named=True)
    words.append(rng.choice(COLOUR_WORDS.get(thing.colour, (thing.colour,))))
    words.append(rng.choice(SHAPE_WORDS.get(thing.shape, (thing.shape,))))
    rng.shuffle(words)
    if thing.place != "center" and thing.place is not None:
        words.append(thing.place)
    ground = _ground(scene, rng)
    return ", ".join([*words, ground] if ground else words)


# --- elsewhere ----------------------------------------------------------------------------------

_ELSEWHERE_NOUNS = (
    "cat", "dog", "astronaut", "castle", "mountain", "forest", "sunset", "city", "robot", "portrait", "woman", "man",
    "child", "horse", "ship", "ocean", "flower", "tree", "house", "bird", "dragon", "car", "street", "coffee", "moon",
    "river", "bridge", "garden", "apple", "cake", "guitar", "book", "train", "beach", "snow", "fox", "owl", "whale",
    "猫", "狗", "宇航员", "城堡", "山", "森林", "日落", "城市", "机器人", "女孩", "马", "船", "大海", "花", "树",
)  # fmt: skip
_ELSEWHERE_WORDS = (
    "a", "the", "of", "with", "beautiful", "highly detailed", "photo", "oil painting", "watercolor", "cinematic",
    "8k", "in the style of", "at night", "riding", "holding", "under", "old", "happy", "realistic", "masterpiece",
    "soft light", "fantasy", "anime", "pixel art", "portrait of", "hello", "world", "test", "something", "and", "on",
    "一只", "美丽的", "油画", "夜晚的", "可爱的", "风景", "高清", "在", "照片",
)  # fmt: skip


def elsewhere(rng: random.Random) -> str:
    """A prompt that names nothing of the world; sometimes none at all, or noise."""
    draw = rng.random()
    if draw < 0.15:
        return ""
    if draw < 0.3:
        kinds = [(rng.randrange(97, 123), rng.randrange(33, 0x24F), 0x20) for _ in range(rng.randrange(3, 40))]
        return "".join(chr(rng.choice(kind)) for kind in kinds)
    words = [rng.choice(_ELSEWHERE_WORDS) for _ in range(rng.randrange(0, 7))] + [rng.choice(_ELSEWHERE_NOUNS)]
    rng.shuffle(words)
    return _cased(" ".join(words), rng)
