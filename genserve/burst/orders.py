"""The requests of a run, by seed: the same options give the same requests, whatever becomes of them.

Pure: chance comes from the seed alone.
"""

import itertools
import random
from collections.abc import Iterator

from genserve.burst.record import Options, Order

GIVE_UP_WITHIN_S = 2.0
_HOW = ("a large", "a small", "a striped", "a dotted", "a big")
_COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "white", "black")
_SHAPES = ("star", "circle", "square", "triangle", "heart", "ring", "cross", "diamond")


def orders(options: Options) -> Iterator[Order]:
    """All requests, in the order in which they are due."""
    chance = random.Random(f"burst {options.seed}")
    due_s = 0.0
    doors = ("http", "zmq") if options.over == "both" else (options.over,)
    for number, door in zip(range(options.requests), itertools.cycle(doors), strict=False):
        width, height = chance.choice(options.sizes)
        steps, priority = chance.choice(options.steps), chance.choice(options.priorities)
        gives_up = chance.random() * 100 < options.give_up_percent
        prompt = _prompt(chance)
        yield Order(
            number=number,
            door=door,
            at_s=due_s,
            client=f"burst-{number // len(doors) % options.clients + 1}",
            prompt=prompt,
            width=width,
            height=height,
            steps=steps,
            seed=chance.randrange(2**32),
            priority=priority,
            give_up_after_s=chance.uniform(0, GIVE_UP_WITHIN_S) if gives_up else None,
        )
        if options.rate_per_s:
            due_s += chance.expovariate(options.rate_per_s)


def warm_up_orders(options: Options, gpus: int, most: int) -> list[Order]:
    """Those before the measurement: each size with the fewest steps, once for each GPU, unless a number was asked."""
    chance = random.Random(f"warm-up {options.seed}")
    count = min(gpus * len(options.sizes), most) if options.warm_up is None else options.warm_up
    door = "http" if options.over == "both" else options.over
    return [
        Order(
            number=-1 - index,
            door=door,
            at_s=0.0,
            client="burst-warm-up",
            prompt=_prompt(chance),
            width=options.sizes[index % len(options.sizes)][0],
            height=options.sizes[index % len(options.sizes)][1],
            steps=min(options.steps),
            seed=index,
            priority=0,
            give_up_after_s=None,
        )
        for index in range(count)
    ]


def _prompt(chance: random.Random) -> str:
    how, colour, shape = chance.choice(_HOW), chance.choice(_COLOURS), chance.choice(_SHAPES)
    ground = chance.choice([each for each in _COLOURS if each != colour])
    return f"{how} {colour} {shape} on a {ground} background"
