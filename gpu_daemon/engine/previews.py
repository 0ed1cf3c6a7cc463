"""After which steps of a drawing a preview is made. Imports no torch: every engine asks this."""


def preview_steps(previews: int, steps: int) -> tuple[int, ...]:
    """The steps, from 1, spread evenly and each once; never the last, which brings the picture itself."""
    if previews >= steps:
        return tuple(range(1, steps))
    return tuple(round(number * steps / (previews + 1)) for number in range(1, previews + 1))
