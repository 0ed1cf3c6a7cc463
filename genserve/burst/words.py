"""The words of `genserve burst` that are more than a number: rates, sizes, steps, priorities.

Pure. Each raises typer.BadParameter, which names the flag and says what would be right.
"""

import re

import typer

from common.messages import SIDE_MAX, STEPS_MAX

RATE_PER_S_MAX = 10_000.0
CHOICES_MAX = 8  # of sizes, steps and priorities
_UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_rate(text: str) -> float:
    """Requests a second of '5/s', '300/m' or '5'."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/(s|m|min|h))?", text.strip())
    rate = float(found[1]) / _UNITS_S[found[2] or "s"] if found else 0.0
    if not 0 < rate <= RATE_PER_S_MAX:
        raise typer.BadParameter(
            f"{text!r} is no rate such as 5/s or 300/m, up to {RATE_PER_S_MAX:.0f}/s", param_hint="--rate"
        )
    return rate


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Sizes in pixels of '128x128,256x128'; (0, 0), the model's own, of 'auto'."""
    sizes = []
    for word in _words(text, "--sizes"):
        found = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", word)
        size = (int(found[1]), int(found[2])) if found else (0, 0)
        if word != "auto" and not (0 < size[0] <= SIDE_MAX and 0 < size[1] <= SIDE_MAX):
            raise typer.BadParameter(f"{word!r} is no WIDTHxHEIGHT such as 512x512", param_hint="--sizes")
        sizes.append(size)
    return tuple(sizes)


def parse_steps(text: str) -> tuple[int, ...]:
    """Steps of '4,20'; 0, the model's own, of 'auto'."""
    return tuple(0 if word == "auto" else _number(word, 1, STEPS_MAX, "--steps") for word in _words(text, "--steps"))


def parse_priorities(text: str) -> tuple[int, ...]:
    """Priorities of '-5,0,5'."""
    return tuple(_number(word, -10, 10, "--priorities") for word in _words(text, "--priorities"))


def _words(text: str, option: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if len(words) > CHOICES_MAX:
        raise typer.BadParameter(f"there are {len(words)}, and may be {CHOICES_MAX}", param_hint=option)
    return words


def _number(word: str, least: int, most: int, option: str) -> int:
    if not re.fullmatch(r"-?\d{1,6}", word) or not least <= int(word) <= most:
        raise typer.BadParameter(f"{word!r} is no number from {least} to {most}", param_hint=option)
    return int(word)
