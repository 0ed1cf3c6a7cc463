"""Drawings into pixels: a batch of pictures from signed distances, antialiased, on any torch device.

Knows nothing of captions. A picture is described by numbers alone (`Batch`), so that worker processes
make the numbers and the GPU draws.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.scene import FILLS, PALETTE, SHAPES, Drawing, Scene, drawn

THINGS_MAX = 3
THING_FIELDS = 8  # shape (-1: none), fill, red, green, blue, x, y, radius (pixels)


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures of one size: things (B, 3, 8), painted first to last; grounds (B, 7). float32, colours 0..1."""

    things: NDArray[np.float32]
    grounds: NDArray[np.float32]


def numbers(scene: Scene, drawing: Drawing, short_side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One picture's things (3, 8) and ground (7,)."""
    things = np.full((THINGS_MAX, THING_FIELDS), -1, np.float32)
    for row, thing, spot in zip(things, reversed(scene.things), reversed(drawing), strict=False):
        colour = [level / 255 for level in PALETTE[thing.colour]]
        place = [spot.x * short_side, spot.y * short_side, spot.radius * short_side]
        row[:] = [SHAPES.index(thing.shape), FILLS.index(thing.fill), *colour, *place]
    start, end = PALETTE[scene.ground.colour], PALETTE[scene.ground.to or scene.ground.colour]
    levels = [level / 255 for level in (*start, *end)]
    return things, np.array([*levels, float(scene.ground.across)], np.float32)


def picture(scene: Scene, rng: random.Random, width: int = 128, height: int = 128) -> NDArray[np.uint8]:
    """One picture of the scene, (height, width, 3). Raises ValueError for a scene too large."""
    short = min(width, height)
    things, ground = numbers(scene, drawn(scene, width / short, height / short, rng), short)
    pixels = render(torch.from_numpy(things)[None], torch.from_numpy(ground)[None], width, height)
    return (pixels[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def render(things: Tensor, grounds: Tensor, width: int, height: int) -> Tensor:
    """Things (B, 3, 8) on grounds (B, 7) -> pictures (B, 3, height, width), 0..1."""
    down = (torch.arange(height, device=things.device) + 0.5)[None, :, None]
    right = (torch.arange(width, device=things.device) + 0.5)[None, None, :]
    share = torch.where(grounds[:, 6, None, None] > 0.5, right / width, down / height)[:, None]
    start, end = grounds[:, :3, None, None], grounds[:, 3:6, None, None]
    pixels = start + (end - start) * share
    for index in range(things.shape[1]):
        thing = things[:, index]
        paint = thing[:, 2:5, None, None]
        pixels = pixels + (paint - pixels) * coverage(thing, right, down, min(width, height))[:, None]
    return pixels


def coverage(thing: Tensor, right: Tensor, down: Tensor, short_side: int) -> Tensor:
    """How much of each pixel one thing (B, 8) covers, 0..1: (B, height, width)."""
    shape, fill, x, y, radius = (thing[:, field, None, None] for field in (0, 1, 5, 6, 7))
    across, along = (right - x), (down - y)
    depth = distance(shape, across / radius, along / radius) * radius  # pixels, negative inside
    line = torch.clamp(0.010 * short_side + 0.12 * radius, min=1.6)
    period = torch.clamp(0.045 * short_side + 0.16 * radius, min=5.0)
    outline = torch.maximum(depth, -depth - line)
    stripe = torch.abs(torch.remainder((across + along) * 0.7071, period) - period / 2) - period / 4
    striped = torch.maximum(depth, torch.minimum(-depth - 0.6 * line, stripe))
    filled = torch.where(fill < 0.5, depth, torch.where(fill < 1.5, striped, outline))
    return torch.where(shape < -0.5, 0.0, torch.clamp(0.5 - filled, 0.0, 1.0))


def distance(shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance, in units of the radius, from (x right, y down) to the edge of SHAPES[shape]."""
    ax, ay = x.abs(), y.abs()
    far = torch.sqrt(x * x + y * y + 1e-12)
    distances = (
        far - 1,
        torch.maximum(ax, ay) - 0.88,
        torch.maximum(y - 0.84, (1.72 * ax - (y + 0.88)) / 1.99),
        _star(x, y - 0.08),
        (far - 0.775).abs() - 0.225,
        torch.minimum(torch.maximum(ax - 0.92, ay - 0.33), torch.maximum(ax - 0.33, ay - 0.92)),
        (ax / 0.82 + ay - 1) * 0.634,
        _heart(ax, y),
        torch.maximum(ay, 0.866 * ax + 0.5 * ay) - 0.866,
    )
    chosen = distances[0]
    for index, candidate in enumerate(distances[1:], 1):
        chosen = torch.where(shape == index, candidate, chosen)
    return chosen


def _star(x: Tensor, y: Tensor) -> Tensor:
    sector = 2 * torch.pi / 5
    turn = torch.remainder(torch.atan2(x, -y) + sector / 2, sector) - sector / 2
    far = torch.sqrt(x * x + y * y + 1e-12)
    u, v = far * torch.cos(turn), far * torch.sin(turn).abs()
    tip, inner_u, inner_v = 1.05, 0.47 * 0.80902, 0.47 * 0.58779  # an inner corner lies half a sector from the tip
    edge_u, edge_v = inner_u - tip, inner_v
    length = (edge_u**2 + edge_v**2) ** 0.5
    edge: Tensor = ((u - tip) * edge_v - v * edge_u) / length
    return edge


def _heart(ax: Tensor, y: Tensor) -> Tensor:
    half = 0.555
    down = y - 0.085
    tilted_u, tilted_v = (ax + down) * 0.7071, (down - ax) * 0.7071
    square = torch.maximum(tilted_u.abs(), tilted_v.abs()) - half
    lobe = torch.sqrt((ax - half * 0.7071) ** 2 + (down + half * 0.7071) ** 2 + 1e-12) - half
    return torch.minimum(square, lobe)
