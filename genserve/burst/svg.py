"""The pieces that the plots are drawn with: axes, points, bars, lines.

Pure. Places are percentages of the plot, so that one drawing fits a desk and a phone and its text is never scaled;
words stand beside the drawing, in HTML.
"""

from collections.abc import Iterable, Sequence
from html import escape

from msgspec import Struct

from genserve.burst.timeline import nice_step

TICKS_MAX = 5
COLOURS = 8  # classes c0 … c7 of page.css


class Axis(Struct, frozen=True, kw_only=True):
    """From 0 to `end`, with a tick each `step`."""

    end: float
    step: float
    unit: str = ""  # '': a number; 's': seconds, told in what suits them

    def part(self, value: float) -> float:
        """Where a value stands, in percent, kept within the axis."""
        return 100 * min(max(value, 0.0), self.end) / self.end

    def ticks(self) -> list[tuple[float, str]]:
        """(percent, words) of each tick."""
        count = int(self.end / self.step + 1e-9)
        return [(self.part(index * self.step), self._word(index * self.step)) for index in range(count + 1)]

    def _word(self, value: float) -> str:
        if self.unit != "s":
            return f"{value:.6g}"
        if not value:
            return "0"
        if self.end < 1:
            return f"{value * 1000:.4g} ms"
        return f"{value:.4g} s" if self.end <= 120 else f"{value / 60:.4g} min"


def axis(most: float, *, unit: str = "", whole: bool = False, full: bool = False) -> Axis:
    """One that takes values up to `most`. `whole`: no parts of a unit; `full`: it ends with a tick."""
    most = most if most > 0 else 1.0
    scale = 60.0 if unit == "s" and most > 120 else 1.0
    step = nice_step(most / scale, TICKS_MAX) * scale
    if whole:
        step = max(1.0, step)
    end = step * -(-most // step) if full else most
    return Axis(end=end, step=step, unit=unit)


def plot(drawing: str, x: Axis, y: Sequence[tuple[float, str]], *, height_px: int, lines: bool = True) -> str:
    """A drawing with its axes. `y`: (percent from below, words)."""
    grid = "".join(_line(100 - at) for at, _ in y) if lines else ""
    below = "".join(f'<span style="left:{at:.2f}%">{escape(word)}</span>' for at, word in x.ticks())
    beside = "".join(f'<span style="top:{100 - at:.2f}%">{escape(word)}</span>' for at, word in y)
    return (
        f'<div class="plot"><div class="y">{beside}</div>'
        f'<svg width="100%" height="{height_px}" aria-hidden="true">{grid}{drawing}</svg>'
        f'<div class="x">{below}</div></div>'
    )


def figure(title: str, note: str, body: str, legend: Sequence[tuple[str, str]] = (), *, wide: bool = False) -> str:
    """A plot with its words. `legend`: (class, words)."""
    keys = "".join(f'<li><i class="{name}"></i>{escape(word)}</li>' for name, word in legend)
    return (
        f'<figure class="card{" wide" if wide else ""}"><figcaption><h2>{escape(title)}</h2><p>{escape(note)}</p>'
        f"</figcaption>{body}{f'<ul class=legend>{keys}</ul>' if keys else ''}</figure>"
    )


def point(x: float, y: float, kind: str, told: str) -> str:
    """A dot; `y` in percent from below."""
    return f'<circle cx="{x:.2f}%" cy="{100 - y:.2f}%" r="3" class="{kind}">{_title(told)}</circle>'


def cross(x: float, y: float, told: str) -> str:
    """Where something failed."""
    return (
        f'<svg x="{x:.2f}%" y="{100 - y:.2f}%" overflow="visible"><path d="M-4-4 4 4M-4 4 4-4" class="bad"/>'
        f"{_title(told)}</svg>"
    )


def bar(kind: str, *, x: float, width: float, height: float, y: float = 0.0, told: str = "") -> str:
    """A rectangle that stands on `y` percent."""
    return (
        f'<rect x="{x:.3f}%" y="{100 - y - height:.2f}%" width="{width:.3f}%" height="{height:.2f}%" class="{kind}">'
        f"{_title(told)}</rect>"
    )


def mark(x: float, kind: str = "mark") -> str:
    """A line from top to bottom."""
    return f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="100%" class="{kind}"/>'


def path(points: Iterable[tuple[float, float]], kind: str, *, filled: bool = False) -> str:
    """A line through points in percent, y from below; `filled` down to the axis."""
    places = [(round(x * 10), round((100 - y) * 10)) for x, y in points]
    if not places:
        return ""
    drawn = "M" + "L".join(f"{x} {y}" for x, y in places)
    if filled:
        drawn += f"L{places[-1][0]} 1000L{places[0][0]} 1000Z"
    return (
        '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">'
        f'<path d="{drawn}" class="{kind}"/></svg>'
    )


def steps(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of a line that keeps each value until the next point."""
    corners: list[tuple[float, float]] = []
    for x, y in points:
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return corners


def _line(y: float) -> str:
    return f'<line x1="0" x2="100%" y1="{y:.2f}%" y2="{y:.2f}%" class="grid"/>'


def _title(told: str) -> str:
    return f"<title>{escape(told)}</title>" if told else ""
