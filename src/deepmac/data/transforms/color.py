"""The original's four colour changes, one by one and as one fast pass over a uint8 image."""

import torch
from torch import Tensor

_CHUNK = 1 << 15
"""Pixels worked on at once: seven float planes of this size stay in a core's second-level cache."""


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
    out = torch.empty_like(image)
    red, green, blue = image
    _rotate_hue(red, green, blue, delta, out)
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
        hue: see ``adjust_hue``; likewise the others.
        contrast: factor.
        saturation: factor.
        brightness: addend, of 1.
        hue: delta in turns, contrast, saturation: factors, brightness: delta on the 0..1 scale.

    Returns:
        (3, H, W) uint8, contiguous.
    """
    _, height, width = image.shape
    rows = max(1, _CHUNK // max(width, 1))
    rotated = torch.empty(3, height, width)
    for top in range(0, height, rows):
        piece = image[:, top : top + rows]
        # Decoders interleave the channels; planes are what the processor works on.
        red, green, blue = piece.to(torch.float32, memory_format=torch.contiguous_format)
        _rotate_hue(red, green, blue, hue, rotated[:, top : top + rows])
    mean = rotated.mean(dim=(1, 2), keepdim=True)
    offset = (1 - contrast) * mean
    # Adding the half here and cutting off below rounds to nearest.
    shift = 255 * brightness + 0.5
    out = torch.empty(3, height, width, dtype=torch.uint8)
    for top in range(0, height, rows):
        piece = torch.add(offset, rotated[:, top : top + rows], alpha=contrast).clamp_(0, 255)
        red, green, blue = piece
        largest = torch.maximum(red, green)
        largest = torch.maximum(largest, blue, out=largest)
        room = torch.minimum(red, green)
        room = torch.minimum(room, blue, out=room)
        torch.sub(largest, room, out=room).add_(1e-20)
        torch.div(largest, room, out=room).clamp_(max=saturation)
        torch.lerp(largest, piece, room, out=piece)
        # torch converts float to uint8 one by one, but by way of int16 many at once.
        out[:, top : top + rows] = piece.add_(shift).clamp_(0.5, 255.5).to(torch.int16)
    return out


def _rotate_hue(red: Tensor, green: Tensor, blue: Tensor, delta: float, out: Tensor) -> None:
    low, high = torch.minimum(red, green), torch.maximum(red, green)
    smallest, largest = torch.minimum(low, blue), torch.maximum(high, blue)
    middle = torch.minimum(high, blue, out=high)
    middle = torch.maximum(low, middle, out=middle)
    step = torch.sub(largest, smallest, out=low).mul_(6 * abs(delta))
    slope = torch.empty_like(step)
    cycle = (blue, red, green) if delta >= 0 else (green, blue, red)
    opposite = (green, blue, red) if delta >= 0 else (blue, red, green)
    for index, channel in enumerate((red, green, blue)):
        # Equal neighbours: the ramp is a full range away from both limits, the sign cannot matter.
        torch.sub(cycle[index], opposite[index], out=slope)
        torch.copysign(step, slope, out=slope)
        torch.sub(slope, middle, out=slope).add_(channel, alpha=2)
        torch.clamp(slope, smallest, largest, out=out[index])
