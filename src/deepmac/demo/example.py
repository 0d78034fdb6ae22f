"""A generated picture for those who have none at hand."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

from deepmac.data.shapes.picture import draw_picture

_SEED, _SIDE = 0, 512


@cache
def example_png() -> bytes:
    """A picture of the ``shapes`` set, always the same, as a PNG file."""
    pixels, _ = draw_picture(np.random.default_rng(_SEED), size=_SIDE, difficulty="default")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
