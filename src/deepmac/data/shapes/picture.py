"""One picture of the ``shapes`` data set: textured objects in front of a textured ground."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from deepmac.data.shapes.coats import paint_coat
from deepmac.data.shapes.outlines import SHAPES, Shape, random_rings, rasterize
from deepmac.data.shapes.textures import (
    Palette,
    blurred,
    random_palette,
    random_texture,
    value_noise,
)

Difficulty = Literal["default", "hard", "coats"]

MIN_VISIBLE_FRACTION = 0.6
MIN_VISIBLE_AREA = 100.0  # pixels of a 128 x 128 picture


@dataclass(frozen=True)
class Knobs:
    """What makes a picture hard.

    Attributes:
        camouflage: share of objects painted with the colours of the ground.
        contrast: least mean difference between an object and what it covers, of brightness 1.
        overlap: share of objects placed on purpose beside another one.
        shading: strongest light and shadow on an object, as a share of full brightness.
        clutter: most patches of other textures in the ground; they look like objects' paint.
        noise: largest standard deviation of pixel noise, in 1/255.
        extent: shortest and longest of the objects' longer sides, pixels at 128 x 128.
        most_objects: most objects that are tried to be placed.
        coats: paint every kind in its own coat (``shapes_coats.py``) instead of any paint.
    """

    camouflage: float
    contrast: float
    overlap: float
    shading: float
    clutter: int
    noise: float
    extent: tuple[float, float]
    most_objects: int
    coats: bool = False


KNOBS: dict[Difficulty, Knobs] = {
    "default": Knobs(0.03, 0.2, 0.1, 0.5, 1, 3.0, (46.0, 88.0), 3),
    "hard": Knobs(0.4, 0.07, 0.5, 0.4, 4, 9.0, (20.0, 64.0), 6),
    "coats": Knobs(0.0, 0.1, 0.4, 0.5, 3, 4.0, (30.0, 70.0), 5, coats=True),
}


@dataclass
class PlacedObject:
    """An object in a picture.

    Attributes:
        shape: its class.
        alpha: (size, size) float32, share of each pixel it would cover if it were in front.
        visible: (size, size) bool, its pixels that nothing hides.
        full_area: pixels of its whole outline, hidden and outside parts included.
    """

    shape: Shape
    alpha: NDArray[np.float32]
    visible: NDArray[np.bool_]
    full_area: int


def draw_picture(
    rng: np.random.Generator, *, size: int, difficulty: Difficulty
) -> tuple[NDArray[np.uint8], list[PlacedObject]]:
    """A picture and its objects, at least one, back to front.

    An object is only placed where every object keeps :data:`MIN_VISIBLE_FRACTION` of its outline
    and :data:`MIN_VISIBLE_AREA` visible, so nothing in the picture is without its annotation.

    Returns:
        (size, size, 3) uint8 RGB, and the objects.
    """
    knobs = KNOBS[difficulty]
    objects = _place_objects(rng, size, knobs)
    palette = random_palette(rng)
    canvas = _paint_ground(rng, palette, size, knobs)
    light = rng.uniform(0, 2 * math.pi)
    for placed in objects:
        _paint_object(rng, canvas, placed, palette, light, knobs)
    return _photograph(rng, canvas, knobs), objects


def _place_objects(rng: np.random.Generator, size: int, knobs: Knobs) -> list[PlacedObject]:
    scale = size / 128
    wanted = int(rng.integers(1, knobs.most_objects + 1))
    shortest, longest = knobs.extent
    if wanted > 4:  # room for many
        longest *= 0.8
    objects: list[PlacedObject] = []
    while not objects:  # the first may fall too far outside the picture
        for _ in range(wanted):
            shape = SHAPES[int(rng.integers(len(SHAPES)))]
            extent = math.exp(rng.uniform(math.log(shortest), math.log(longest))) * scale
            rings = random_rings(shape, rng, extent=extent)
            for _ in range(6):
                center = _random_center(rng, objects, extent, size, knobs)
                alpha, full_area = rasterize(rings, center=center, size=size)
                if _fits(objects, alpha, full_area, scale):
                    front = alpha >= 0.5
                    for other in objects:
                        other.visible &= ~front
                    objects.append(PlacedObject(shape, alpha, front, full_area))
                    break
    return objects


def _random_center(
    rng: np.random.Generator, objects: list[PlacedObject], extent: float, size: int, knobs: Knobs
) -> tuple[float, float]:
    if objects and rng.random() < knobs.overlap:
        other = objects[int(rng.integers(len(objects)))]
        ys, xs = np.nonzero(other.visible)
        pick = int(rng.integers(len(ys)))  # some visible pixel, then half an object away from it
        angle, away = rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 0.7) * extent
        x, y = xs[pick] + away * math.cos(angle), ys[pick] + away * math.sin(angle)
        return float(np.clip(x, 0, size)), float(np.clip(y, 0, size))
    margin = min(0.4 * extent, 0.45 * size)
    x, y = rng.uniform(margin, size - margin, 2)
    return float(x), float(y)


def _fits(
    objects: list[PlacedObject], alpha: NDArray[np.float32], full_area: int, scale: float
) -> bool:
    front = alpha >= 0.5
    remaining = [(int(front.sum()), full_area)]
    remaining += [(int((o.visible & ~front).sum()), o.full_area) for o in objects]
    least = MIN_VISIBLE_AREA * scale**2
    return all(seen >= max(least, MIN_VISIBLE_FRACTION * full) for seen, full in remaining)


def _paint_ground(
    rng: np.random.Generator, palette: Palette, size: int, knobs: Knobs
) -> NDArray[np.float32]:
    canvas = random_texture(rng, palette, size)
    for _ in range(int(rng.integers(0, knobs.clutter + 1))):
        patch = value_noise(rng, size, cells=int(rng.integers(2, 5)))
        softness = rng.uniform(0.01, 0.06)
        alpha = np.clip((patch - rng.uniform(0.5, 0.65)) / softness, 0, 1)[..., None]
        other = palette if rng.random() < 0.5 else random_palette(rng)
        canvas += alpha * (random_texture(rng, other, size) - canvas)
    lighting = 1 + rng.uniform(0, 0.5) * (value_noise(rng, size, cells=2) - 0.5)
    return canvas * lighting[..., None]


def _paint_object(
    rng: np.random.Generator,
    canvas: NDArray[np.float32],
    placed: PlacedObject,
    ground: Palette,
    light: float,
    knobs: Knobs,
) -> None:
    size, alpha = len(canvas), placed.alpha
    camouflaged = rng.random() < knobs.camouflage
    for attempt in range(4):  # repainted where it would be invisible
        if knobs.coats:
            body = paint_coat(rng, placed.shape.name, alpha, size)
        else:
            body = _any_paint(rng, ground if camouflaged and attempt == 0 else None, size)
        if np.abs(body - canvas)[alpha >= 0.5].mean() >= knobs.contrast:
            break

    strength = rng.uniform(0.25, 1.0) * knobs.shading
    relief = blurred(alpha, rng.uniform(1.2, 3.5) * size / 128)
    dy, dx = np.gradient(relief)
    slope = (dx * math.cos(light) + dy * math.sin(light)) * 4.0  # a bevel lit from one side
    rim = 1 - np.clip(relief * 2 - 1, 0, 1)
    body = body * (1 + strength * (slope - 0.35 * rim))[..., None]

    reach = rng.uniform(1.0, 4.0) * size / 128
    offset = (round(reach * math.sin(light)), round(reach * math.cos(light)))
    shadow = _shifted(relief, offset) * (0.8 * strength)
    canvas *= (1 - shadow * (1 - alpha))[..., None]
    canvas += alpha[..., None] * (body - canvas)


def _any_paint(rng: np.random.Generator, palette: Palette | None, size: int) -> NDArray[np.float32]:
    """A random texture in the palette or any other, some in two parts."""
    body = random_texture(rng, random_palette(rng) if palette is None else palette, size)
    if rng.random() < 0.25:
        other = random_texture(rng, random_palette(rng), size)
        body = np.where((value_noise(rng, size, cells=3) > 0.5)[..., None], other, body)
    return body


def _shifted(field: NDArray[np.float32], offset: tuple[int, int]) -> NDArray[np.float32]:
    """The field moved by (rows, columns), zeros moving in."""
    out = np.zeros_like(field)
    (dy, dx), (h, w) = offset, field.shape
    out[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = field[
        max(-dy, 0) : h + min(-dy, 0), max(-dx, 0) : w + min(-dx, 0)
    ]
    return out


def _photograph(
    rng: np.random.Generator, canvas: NDArray[np.float32], knobs: Knobs
) -> NDArray[np.uint8]:
    """Bytes of the canvas, with the blur and noise of a camera."""
    picture = Image.fromarray(np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.7)))
    noise = rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(0, knobs.noise))
    return np.round(np.clip(np.asarray(picture) + noise, 0, 255)).astype(np.uint8)
