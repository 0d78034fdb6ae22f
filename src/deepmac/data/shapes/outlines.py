"""The outlines of the ``shapes`` data set: ten families of closed curves, some with holes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Ring = NDArray[np.float64]
"""(n, 2) float64 points x, y of a closed curve; y points down."""

_TURN = 2 * math.pi
_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Shape:
    """One class of the data set.

    Attributes:
        name: category name.
        supercategory: ``round``, ``pointed`` or ``bent``.
        seen: True where the training file has masks of the class; the others have boxes only.
        draw: makes a random member: the outer ring, then the holes, about the origin.
    """

    name: str
    supercategory: str
    seen: bool
    draw: Callable[[np.random.Generator], list[Ring]]


def random_rings(shape: Shape, rng: np.random.Generator, *, extent: float) -> list[Ring]:
    """A random member of the class: squeezed, gently bent, rotated and scaled.

    Args:
        shape: the class.
        rng: source of all randomness.
        extent: longer side of the resulting bounding box in pixels.

    Returns:
        The outer ring, then the holes, centred on the origin.
    """
    rings = [_densify(ring) for ring in shape.draw(rng)]
    squeeze = math.exp(rng.uniform(-0.22, 0.22))
    bend, phase = rng.uniform(0.0, 0.07), rng.uniform(0, _TURN, 2)
    angle = rng.uniform(0, _TURN)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    out = []
    for ring in rings:
        bent = ring + bend * np.sin(2.6 * ring[:, ::-1] + phase)
        out.append((bent * (squeeze, 1 / squeeze)) @ turn)
    low, high = out[0].min(axis=0), out[0].max(axis=0)
    scale = extent / float((high - low).max())
    return [(ring - (low + high) / 2) * scale for ring in out]


def rasterize(
    rings: list[Ring], *, center: tuple[float, float], size: int
) -> tuple[NDArray[np.float32], int]:
    """Share of every pixel inside the rings, of a shape that may stick out of the picture.

    Args:
        rings: outer ring, then holes, in pixels about the origin.
        center: x, y of the origin in the picture, pixels with edges at integer coordinates.
        size: side of the square picture.

    Returns:
        (size, size) float32 in [0, 1], and the pixels that are at least half inside, those
        outside the picture included.
    """
    low = np.floor(rings[0].min(axis=0) + center).astype(int) - 1
    width, height = np.ceil(rings[0].max(axis=0) + center).astype(int) + 1 - low
    canvas = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    for index, ring in enumerate(rings):
        # Coarse numbers: the last bit of a sine may differ between machines, the mask may not.
        points = np.round((ring + center - low) * _SUPERSAMPLING - 0.5, 2)
        pen.polygon([(x, y) for x, y in points.tolist()], fill=0 if index else 255)
    shares = np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / 255
    x, y = low.tolist()
    out = np.zeros((size, size), np.float32)
    window = shares[max(-y, 0) : max(size - y, 0), max(-x, 0) : max(size - x, 0)]
    top, left = max(y, 0), max(x, 0)
    out[top : top + window.shape[0], left : left + window.shape[1]] = window
    return out, int((shares >= 0.5).sum())


def _densify(ring: Ring, step: float = 0.12) -> Ring:
    """Points at most ``step`` apart, so that a bent edge bends."""
    pieces = []
    for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        count = max(1, math.ceil(float(np.hypot(*(end - start))) / step))
        pieces.append(start + (end - start) * (np.arange(count) / count)[:, None])
    return np.concatenate(pieces)


def _polar(radius: float | NDArray[np.float64], angle: NDArray[np.float64]) -> Ring:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _circle(radius: float) -> Ring:
    return _polar(radius, np.linspace(0, _TURN, 56, endpoint=False))


def _disk(rng: np.random.Generator) -> list[Ring]:
    return [_circle(1.0)]


def _ring(rng: np.random.Generator) -> list[Ring]:
    return [_circle(1.0), _circle(rng.uniform(0.42, 0.66))]


def _star(rng: np.random.Generator) -> list[Ring]:
    points = int(rng.integers(5, 7))
    inner = rng.uniform(0.42, 0.56) if points == 5 else rng.uniform(0.5, 0.62)
    radius = np.tile(np.array([1.0, inner]), points)
    return [_polar(radius, np.linspace(0, _TURN, 2 * points, endpoint=False))]


def _arrow(rng: np.random.Generator) -> list[Ring]:
    shaft, head = rng.uniform(0.18, 0.32), rng.uniform(0.62, 0.85)
    neck, barb = rng.uniform(-0.15, 0.15), rng.uniform(0.0, 0.15)
    upper = [(1.0, 0.0), (neck - barb, head), (neck, shaft), (-1.0, shaft)]
    lower = [(x, -y) for x, y in reversed(upper[1:])]
    return [np.array(upper + lower)]


def _elbow(rng: np.random.Generator) -> list[Ring]:
    long, short = rng.uniform(0.5, 0.8, 2)
    foot = rng.uniform(1.4, 2.0)
    corner = [(0.0, 0.0), (foot, 0.0), (foot, short), (long, short), (long, 2.0), (0.0, 2.0)]
    return [np.array(corner) - (foot / 2, 1.0)]


def _triangle(rng: np.random.Generator) -> list[Ring]:
    return [np.array([(rng.uniform(-0.5, 0.5), -0.9), (1.0, 0.8), (-1.0, 0.8)])]


def _heart(rng: np.random.Generator) -> list[Ring]:
    t = np.linspace(0, _TURN, 72, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([np.sin(t) ** 3, -y / 16], axis=1)]


def _gear(rng: np.random.Generator) -> list[Ring]:
    teeth, root = int(rng.integers(6, 10)), rng.uniform(0.68, 0.78)
    pitch = _TURN / teeth
    tooth = np.array([0.0, 0.3, 0.42, 0.88]) * pitch  # two points of the tip, two of the gap
    angle = (np.arange(teeth)[:, None] * pitch + tooth).ravel()
    radius = np.tile(np.array([1.0, 1.0, root, root]), teeth)
    return [_polar(radius, angle), _circle(rng.uniform(0.22, 0.38))]


def _crescent(rng: np.random.Generator) -> list[Ring]:
    bite, shift = rng.uniform(0.72, 0.84), rng.uniform(0.46, 0.6)
    x = (1 - bite**2 + shift**2) / (2 * shift)
    y = math.sqrt(1 - x**2)
    tip, inner = math.atan2(y, x), math.atan2(y, x - shift)
    outside = _polar(1.0, np.linspace(tip, _TURN - tip, 48))
    inside = _polar(bite, np.linspace(_TURN - inner, inner, 40)) + np.array([shift, 0.0])
    return [np.concatenate([outside, inside[1:-1]])]


def _cross(rng: np.random.Generator) -> list[Ring]:
    a, b = rng.uniform(0.26, 0.42, 2)
    lift = rng.uniform(0.0, 0.25)  # some are Latin crosses
    right = [(a, -1.0), (a, -b - lift), (1.0, -b - lift), (1.0, b - lift), (a, b - lift), (a, 1.0)]
    left = [(-x, y) for x, y in reversed(right)]
    return [np.array(right + left)]


SHAPES: tuple[Shape, ...] = (
    Shape("disk", "round", True, _disk),
    Shape("ring", "round", True, _ring),
    Shape("heart", "round", False, _heart),
    Shape("gear", "round", False, _gear),
    Shape("star", "pointed", True, _star),
    Shape("triangle", "pointed", False, _triangle),
    Shape("arrow", "pointed", True, _arrow),
    Shape("elbow", "bent", True, _elbow),
    Shape("cross", "bent", False, _cross),
    Shape("crescent", "bent", False, _crescent),
)
"""The classes in category order (ids 1 to 10).

Both groups, with and without masks, hold convex and concave outlines, a hole, and thin parts.
"""
