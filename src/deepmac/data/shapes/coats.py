"""Coats of the ``shapes`` data set: with ``difficulty=coats`` a kind is also told by its paint.

Natural classes differ in more than outline: a zebra is striped, a mug has a handle of one colour.
Here every kind has colours of its own and its own pair of textures, for its body and for one
part. A mask head may then learn what the kinds with masks look like, which says nothing
about the others.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepmac.data.shapes.textures import Field, Palette, blurred, texture


@dataclass(frozen=True)
class Coat:
    """The paint of one kind.

    Attributes:
        hue: of the body, in [0, 1].
        body: texture of the body.
        part_hue: of the part.
        part: texture of the part.
        place: where the part is: at one ``end``, in the ``core``, along the ``rim``.
    """

    hue: float
    body: str
    part_hue: float
    part: str
    place: Literal["end", "core", "rim"]


COATS: dict[str, Coat] = {
    "disk": Coat(0.02, "stripes", 0.14, "gradient", "core"),
    "ring": Coat(0.22, "dots", 0.60, "noise", "end"),
    "star": Coat(0.42, "checks", 0.05, "gradient", "core"),
    "arrow": Coat(0.62, "wood", 0.16, "dots", "end"),
    "elbow": Coat(0.82, "waves", 0.35, "noise", "rim"),
    "heart": Coat(0.92, "blobs", 0.55, "stripes", "rim"),
    "gear": Coat(0.12, "noise", 0.95, "checks", "rim"),
    "triangle": Coat(0.32, "gradient", 0.75, "waves", "end"),
    "cross": Coat(0.52, "waves", 0.88, "blobs", "core"),
    "crescent": Coat(0.72, "blobs", 0.25, "wood", "end"),
}
"""By kind. Body hues of kinds with masks and without take turns around the colour circle."""


def paint_coat(
    rng: np.random.Generator, kind: str, alpha: NDArray[np.float32], size: int
) -> NDArray[np.float32]:
    """The paint of one object of a kind, over the whole picture.

    Args:
        rng: source of all randomness: members of a kind vary as its texture and colours allow.
        kind: a key of :data:`COATS`.
        alpha: (size, size) float32, where the object is; its part is placed by it.
        size: side of the picture.

    Returns:
        (size, size, 3) float32 RGB, about [0, 1].
    """
    coat = COATS[kind]
    body = texture(rng, coat.body, _palette_about(rng, coat.hue), size)
    part = texture(rng, coat.part, _palette_about(rng, coat.part_hue), size)
    return np.where(_part(rng, coat, alpha, size)[..., None], part, body)


def _palette_about(rng: np.random.Generator, hue: float) -> Palette:
    """Three colours near the hue: a light one, a middle one and a dark one."""
    hue += rng.normal(0, 0.02)
    colourfulness = rng.uniform(0.45, 0.85)
    values = rng.uniform((0.75, 0.5, 0.3), (1.0, 0.75, 0.5))
    return np.array(
        [
            colorsys.hsv_to_rgb((hue + rng.normal(0, 0.02)) % 1.0, colourfulness, value)
            for value in values.tolist()
        ],
        np.float32,
    )


def _part(
    rng: np.random.Generator, coat: Coat, alpha: NDArray[np.float32], size: int
) -> NDArray[np.bool_]:
    if coat.place == "end":
        angle = rng.uniform(0, 2 * math.pi)
        ticks: Field = np.arange(size, dtype=np.float32)
        along = ticks[None, :] * math.cos(angle) + ticks[:, None] * math.sin(angle)
        inside = along[alpha >= 0.5]
        end: NDArray[np.bool_] = along > np.quantile(inside, rng.uniform(0.6, 0.8))
        return end
    # A wide blur is high deep inside and low at the edge.
    depth = blurred(alpha, 0.12 * math.sqrt(float(alpha.sum())))
    level = np.quantile(depth[alpha >= 0.5], rng.uniform(0.55, 0.75))
    return depth > level if coat.place == "core" else depth < level
