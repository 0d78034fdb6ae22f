"""The paint of the ``shapes`` data set: one family of textures for objects and grounds alike."""

from __future__ import annotations

import colorsys
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Field = NDArray[np.float32]
"""(size, size) float32."""
Palette = NDArray[np.float32]
"""(3, 3) float32 RGB colours in [0, 1]."""

TEXTURES = ("stripes", "waves", "checks", "dots", "blobs", "noise", "wood", "gradient")


def random_palette(rng: np.random.Generator) -> Palette:
    """Three colours whose hues go together."""
    hue = rng.random()
    step = rng.choice([0.03, 0.08, 0.17, 0.33, 0.5]) * rng.choice([-1, 1])
    colourfulness = rng.uniform(0.1, 0.85)
    values = rng.uniform(0.3, 1.0, 3)
    colours = [
        colorsys.hsv_to_rgb(
            (hue + step * index + rng.normal(0, 0.02)) % 1.0,
            float(np.clip(colourfulness * rng.uniform(0.6, 1.2), 0, 1)),
            value,
        )
        for index, value in enumerate(values.tolist())
    ]
    return np.array(colours, np.float32)


def random_texture(rng: np.random.Generator, palette: Palette, size: int) -> NDArray[np.float32]:
    """A random texture in the palette's colours; returns as :func:`texture`."""
    return texture(rng, TEXTURES[int(rng.integers(len(TEXTURES)))], palette, size)


def texture(
    rng: np.random.Generator, name: str, palette: Palette, size: int
) -> NDArray[np.float32]:
    """A random member of one family of :data:`TEXTURES`, in the palette's colours.

    Returns:
        (size, size, 3) float32 RGB, about [0, 1].
    """
    field = _PATTERNS[name](rng, size)
    field = field + np.float32(0.12) * (
        value_noise(rng, size, cells=size // 6) - 0.5
    )  # nothing is flat
    drift = np.float32(rng.uniform(0, 0.8)) * value_noise(rng, size, cells=2)
    ground = 1 - field
    shares = np.stack([ground * (1 - drift), field, ground * drift], axis=-1)
    return shares @ palette[rng.permutation(3)]


def value_noise(rng: np.random.Generator, size: int, *, cells: int) -> Field:
    """Smooth noise with that many lumps a side, stretched over [0, 1]."""
    grid = Image.fromarray(rng.random((cells + 2, cells + 2), np.float32))
    noise: Field = np.array(grid.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    noise -= noise.min()
    noise /= noise.max()
    return noise


def blurred(field: Field, radius: float) -> Field:
    """Gaussian blur of a field in [0, 1]; the radius is in pixels."""
    image = Image.fromarray(np.round(field * 255).astype(np.uint8))
    smooth = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    return smooth / np.float32(255)


def _axes(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Coordinates of a randomly turned and shifted frame, pixels of a 128 x 128 picture."""
    ticks = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(128 / size)
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    shift = rng.uniform(0, 64, 2).astype(np.float32)
    x, y = ticks[None, :], ticks[:, None]
    return x * cos + y * sin + shift[0], y * cos - x * sin + shift[1]


def _hardened(rng: np.random.Generator, field: Field, level: float = 0.0) -> Field:
    """A field about [-1, 1] cut at the level: crisp edges, or soft ones."""
    return np.clip((field - np.float32(level)) * np.float32(rng.uniform(0.8, 4.0)) + 0.5, 0, 1)


def _period(rng: np.random.Generator, low: float = 7.0, high: float = 24.0) -> np.float32:
    """Angular frequency of a period in pixels of a 128 x 128 picture."""
    return np.float32(2 * math.pi / math.exp(rng.uniform(math.log(low), math.log(high))))


def _stripes(rng: np.random.Generator, size: int) -> Field:
    u, _ = _axes(rng, size)
    return _hardened(rng, np.sin(u * _period(rng)), rng.uniform(-0.5, 0.5))


def _waves(rng: np.random.Generator, size: int) -> Field:
    u, v = _axes(rng, size)
    swing = np.float32(rng.uniform(1.5, 5.0)) * np.sin(v * _period(rng, 18, 50))
    return _hardened(rng, np.sin((u + swing) * _period(rng)), rng.uniform(-0.5, 0.5))


def _checks(rng: np.random.Generator, size: int) -> Field:
    u, v = _axes(rng, size)
    frequency = _period(rng, 12, 30)
    return _hardened(rng, np.sin(u * frequency) * np.sin(v * frequency) * 2)


def _dots(rng: np.random.Generator, size: int) -> Field:
    u, v = _axes(rng, size)
    frequency = _period(rng, 8, 18)
    bumps = np.cos(u * frequency) + np.cos(v * frequency)
    return _hardened(rng, bumps, rng.uniform(0.4, 1.0))


def _blobs(rng: np.random.Generator, size: int) -> Field:
    lumps = value_noise(rng, size, cells=int(rng.integers(6, 16)))
    return _hardened(rng, lumps * 6 - 3, rng.uniform(-0.6, 0.6))


def _noise(rng: np.random.Generator, size: int) -> Field:
    coarse = int(rng.integers(3, 8))
    parts = [value_noise(rng, size, cells=coarse * 2**k) / 2**k for k in range(4)]
    return np.clip(np.sum(parts, axis=0) * 1.1 - 0.55, 0, 1)


def _wood(rng: np.random.Generator, size: int) -> Field:
    """Uneven rings about a point."""
    u, v = _axes(rng, size)
    point = rng.uniform(-64, 64, 2).astype(np.float32)
    distance = np.hypot(u - point[0], v - point[1])
    distance += np.float32(rng.uniform(0, 8)) * value_noise(rng, size, cells=4)
    return _hardened(rng, np.sin(distance * _period(rng)), rng.uniform(-0.4, 0.4))


def _gradient(rng: np.random.Generator, size: int) -> Field:
    u, _ = _axes(rng, size)
    return np.float32(0.5) + np.float32(0.5) * np.sin(u * _period(rng, 60, 200))


_PATTERNS = {
    "stripes": _stripes,
    "waves": _waves,
    "checks": _checks,
    "dots": _dots,
    "blobs": _blobs,
    "noise": _noise,
    "wood": _wood,
    "gradient": _gradient,
}
