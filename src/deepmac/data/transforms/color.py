"""The original's four colour changes, one by one and as one fast pass over a uint8 image."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 1 << 16
"""Pixels worked on at once: with fewer the calls cost more than the caches save."""

Window = tuple[int, int, int, int]
"""top, left, bottom, right"""


def adjust_hue(image: Tensor, delta: float) -> Tensor:
    """Rotate the hue in HSV space by ``delta`` turns (``tf.image.adjust_hue``).

    Value and saturation stay, so a pixel's largest and smallest channel value stay. A channel is
    its ramp ``2 c - middle`` clipped to these two; the rotation moves the ramp by
    ``6 delta (largest - smallest)``, down for red where green > blue, and so on cyclically. That
    equals the way through HSV for up to a sixth of a turn, without sectors and divisions.

    Args:
        image: (3, ...) float RGB, any range.
        delta: in turns, -1/6..1/6.
    """
    if not -1 / 6 <= delta <= 1 / 6:
        raise ValueError(f"hue delta {delta} is outside -1/6..1/6")
    red, green, blue = image
    low, high = torch.minimum(red, green), torch.maximum(red, green)
    smallest, largest = torch.minimum(low, blue), torch.maximum(high, blue)
    middle = torch.maximum(low, torch.minimum(high, blue))
    out = torch.empty_like(image)
    _rotate_hue(image, smallest, middle.neg(), largest, delta, out)
    return out


def adjust_contrast(image: Tensor, factor: float) -> Tensor:
    """(3, H, W) float RGB; scale the distance to each channel's mean, clip to 0..1."""
    mean = image.mean(dim=(-2, -1), keepdim=True)
    return (mean + factor * (image - mean)).clamp(0, 1)


def adjust_saturation(image: Tensor, factor: float) -> Tensor:
    """(3, ...) float RGB in 0..1; scale the saturation in HSV space, at most to 1.

    Largest - channel is proportional to the saturation, so no HSV is needed.
    """
    largest = image.amax(dim=0)
    room = largest / (largest - image.amin(dim=0) + 1e-20)
    return torch.lerp(largest.expand_as(image), image, room.clamp(max=factor).expand_as(image))


def adjust_brightness(image: Tensor, delta: float) -> Tensor:
    """Float image in 0..1; add ``delta``, clip to 0..1."""
    return (image + delta).clamp(0, 1)


def distort_color(
    image: Tensor, *, hue: float, contrast: float, saturation: float, brightness: float
) -> Tensor:
    """Hue, contrast, saturation, brightness in this order, rounded once.

    Equal to the four functions above on float32, in two passes (contrast needs the mean of the
    whole image after the hue) over pieces that fit into the cache.

    Args:
        image: (3, H, W) uint8 RGB, any memory layout.
        hue: delta in turns.
        contrast: factor.
        saturation: factor.
        brightness: addend, of 1.

    Returns:
        (3, H, W) uint8, contiguous.
    """
    height, width = image.shape[1:]
    out = torch.empty(3, height, width, dtype=torch.uint8)
    rotated = _rotated(image.numpy(), hue)
    for top, piece in _recolored(rotated, (0, 0, height, width), contrast, saturation, brightness):
        # torch converts float to uint8 one by one, but by way of int16 many at once.
        out[:, top : top + piece.shape[1]] = piece.to(torch.int16)
    return out


def distort_color_packed(
    image: NDArray[np.uint8],
    window: Window,
    out: Tensor,
    *,
    hue: float,
    contrast: float,
    saturation: float,
    brightness: float,
) -> None:
    """The same for a part of an image, a pixel's three bytes as one number.

    Args:
        image: (3, H, W), any strides.
        window: the part that is wanted; contrast takes the mean of the whole image all the same.
        out: (h, w) int32 of the window's size, becomes red + 256 green + 65536 blue.
        hue: see :func:`distort_color`; likewise the others.
        contrast: as there.
        saturation: as there.
        brightness: as there.
    """
    for top, piece in _recolored(_rotated(image, hue), window, contrast, saturation, brightness):
        red, green, blue = piece.floor_()
        red.add_(green, alpha=256).add_(blue, alpha=65536)  # below 2 ** 24: exact
        out[top : top + len(red)] = red


def _rotated(image: NDArray[np.uint8], hue: float) -> Tensor:
    """(3, H, W) float32 after the rotation of the hue."""
    _, height, width = image.shape
    rows = max(1, _CHUNK // max(width, 1))
    out = torch.empty(3, height, width)
    # Decoders interleave the channels; planes are what the processor works on.
    planes = np.empty((6, min(rows, height), width), dtype=np.uint8)
    for top in range(0, height, rows):
        piece = image[:, top : top + rows]
        here = planes[:, : piece.shape[1]]
        here[:3] = piece
        red, green, blue, smallest, middle, largest = here
        np.minimum(red, green, out=smallest)
        np.maximum(red, green, out=largest)
        np.minimum(largest, blue, out=middle)
        np.maximum(smallest, middle, out=middle)
        np.minimum(smallest, blue, out=smallest)
        np.maximum(largest, blue, out=largest)
        values = torch.from_numpy(here).to(torch.float32)
        low, negative, high = values[3:]
        _rotate_hue(values[:3], low, negative.neg_(), high, hue, out[:, top : top + rows])
    return out


def _recolored(
    rotated: Tensor, window: Window, contrast: float, saturation: float, brightness: float
) -> Iterator[tuple[int, Tensor]]:
    """Rows of the window from the first number on: (3, rows, w) that are to be cut off below."""
    y0, x0, y1, x1 = window
    rows = max(1, _CHUNK // max(x1 - x0, 1))
    offset = (1 - contrast) * rotated.mean(dim=(1, 2), keepdim=True)
    # Adding the half here and cutting off below rounds to nearest.
    shift = 255 * brightness + 0.5
    for top in range(y0, y1, rows):
        piece = rotated[:, top : min(top + rows, y1), x0:x1]
        piece = torch.add(offset, piece, alpha=contrast).clamp_(0, 255)
        red, green, blue = piece
        largest = torch.maximum(red, green)
        largest = torch.maximum(largest, blue, out=largest)
        if saturation <= 1:  # always room for that
            torch.lerp(largest, piece, saturation, out=piece)
        else:
            room = torch.minimum(red, green)
            room = torch.minimum(room, blue, out=room)
            torch.sub(largest, room, out=room).add_(1e-20)
            torch.div(largest, room, out=room).clamp_(max=saturation)
            torch.lerp(largest, piece, room, out=piece)
        yield top - y0, piece.add_(shift).clamp_(0.5, 255.5)


def _rotate_hue(
    image: Tensor, smallest: Tensor, negative: Tensor, largest: Tensor, delta: float, out: Tensor
) -> None:
    """``negative``: of the middle one of a pixel's three values."""
    red, green, blue = image
    step = torch.sub(largest, smallest).mul_(6 * abs(delta))
    slope = torch.empty_like(step)
    cycle = (blue, red, green) if delta >= 0 else (green, blue, red)
    opposite = (green, blue, red) if delta >= 0 else (blue, red, green)
    for index, channel in enumerate(image):
        # Equal neighbours: the ramp is a full range away from both limits, the sign cannot matter.
        torch.sub(cycle[index], opposite[index], out=slope).sign_()
        torch.addcmul(negative, step, slope, out=slope).add_(channel, alpha=2)
        torch.clamp(slope, smallest, largest, out=out[index])
