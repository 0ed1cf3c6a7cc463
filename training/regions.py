"""Masks in the plane: what hangs together, what lies within. Pure numpy; no colours, no shapes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels; right and bottom are just outside."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def x(self) -> float:
        """The middle, across."""
        return (self.left + self.right) / 2

    @property
    def y(self) -> float:
        """The middle, down."""
        return (self.top + self.bottom) / 2

    def grown(self, pixels: float, width: int, height: int) -> "Box":
        """Larger on every side, within the picture."""
        return Box(
            max(0, self.left - pixels), max(0, self.top - pixels),
            min(width, self.right + pixels), min(height, self.bottom + pixels),
        )  # fmt: skip

    def touches(self, other: "Box") -> bool:
        """Do the two overlap?"""
        return min(self.right, other.right) > max(self.left, other.left) and min(self.bottom, other.bottom) > max(
            self.top, other.top
        )

    def around(self, other: "Box") -> "Box":
        """The smallest box that holds both."""
        return Box(
            min(self.left, other.left), min(self.top, other.top),
            max(self.right, other.right), max(self.bottom, other.bottom),
        )  # fmt: skip

    def mask(self, width: int, height: int) -> Mask:
        """True inside."""
        inside = np.zeros((height, width), bool)
        inside[int(self.top) : int(np.ceil(self.bottom)), int(self.left) : int(np.ceil(self.right))] = True
        return inside


def _neighbours(mask: Mask) -> NDArray[np.int64]:
    """How many of the 3 x 3 around each pixel are set, itself included."""
    padded = np.pad(mask, 1).astype(np.int64)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    counts: NDArray[np.int64] = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return counts


def core(mask: Mask) -> Mask:
    """Set pixels that are more than a one-pixel line: four of their 3 x 3 or more are set."""
    return mask & (_neighbours(mask) >= 4)


def dilate(mask: Mask, pixels: int) -> Mask:
    """Grown by so many pixels, corners included."""
    for _ in range(pixels):
        mask = _neighbours(mask) > 0
    return mask


def regions(mask: Mask, inner: Mask) -> Iterator[tuple[Box, int]]:
    """What hangs together in the mask, or whose boxes overlap: (box, pixels of `inner` within)."""
    merged: list[tuple[Box, int]] = []
    for box, count in _connected(mask, inner):
        if count == 0:
            continue
        current = (box, count)
        while partner := next((other for other in merged if other[0].touches(current[0])), None):
            merged.remove(partner)
            current = (current[0].around(partner[0]), current[1] + partner[1])
        merged.append(current)
    yield from merged


def _connected(mask: Mask, inner: Mask) -> Iterator[tuple[Box, int]]:
    """Components of eight neighbours, by runs of rows joined through a union of sets."""
    parents: list[int] = []
    runs: list[tuple[int, int, int]] = []
    before: list[int] = []

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for row, line in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
        current = []
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            index = len(runs)
            runs.append((row, start, end))
            parents.append(index)
            current.append(index)
            for other in before:
                if runs[other][1] <= end and runs[other][2] >= start:
                    parents[root(other)] = root(index)
        before = current
    groups: dict[int, list[int]] = {}
    for index in range(len(runs)):
        groups.setdefault(root(index), []).append(index)
    for members in groups.values():
        parts = [runs[index] for index in members]
        box = Box(min(p[1] for p in parts), parts[0][0], max(p[2] for p in parts), parts[-1][0] + 1)
        yield box, sum(int(inner[row, start:end].sum()) for row, start, end in parts)
