"""Colour consistency: neighbouring pixels of like colour belong to the same mask (BoxInst)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmac.nn.roi_crop import CropImpl, roi_crop

_NEIGHBOURS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)  # D65, 2 degrees
_DARKEST = 1e-3  # least probability whose logarithm is taken


def color_consistency(
    logits: Tensor,
    colors: Tensor,
    inside: Tensor,
    *,
    seen: Tensor | None = None,
    threshold: float = 0.4,
    dilation: int = 2,
    theta: float = 2.0,
) -> Tensor:
    """Negative log-probability that neighbours of like colour have the same label.

    Args:
        logits: (B, N, h, w).
        colors: (B, 1 or N, 3, h, w) CIE Lab of the same cells (one map for all boxes, or one
            per box).
        inside: (B, N, h, w) float, cells of the box: only pairs that start there count.
        seen: (B, 1 or N, h, w) float, cells inside the picture: only pairs of two such count.
            None repeats the original, which takes (0, 0, 0) for the colour, and 0 for the
            probability, of what lies outside the map.
        threshold: pairs of at least this similarity count.
        dilation: cells between neighbours.
        theta: colour distance at which similarity falls to 1/e.

    Returns:
        (B, N): sum over pairs, over the number of cells of the box.
    """
    probability = logits.sigmoid()
    total = torch.zeros_like(logits)
    for step in _NEIGHBOURS:
        similarity = color_similarity(colors, step, dilation=dilation, theta=theta)
        like = (similarity > threshold).to(logits.dtype)
        if seen is not None:
            like = like * seen * _shifted(seen, step, dilation)
        same = same_label_probability(probability, step, dilation=dilation)
        total = total - like * same.clamp(_DARKEST, 1).log()
    return (total * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3)).clamp(min=1)


def color_similarity(
    colors: Tensor, step: tuple[int, int], *, dilation: int = 2, theta: float = 2.0
) -> Tensor:
    """(..., h, w) ``exp(-distance / theta)`` between (..., 3, h, w) colours a step (y, x) apart."""
    difference = colors - _shifted(colors, step, dilation)
    return torch.exp(-difference.square().sum(dim=-3).sqrt() / theta)


def same_label_probability(
    probability: Tensor, step: tuple[int, int], *, dilation: int = 2
) -> Tensor:
    """(..., h, w) chance that cells a step (y, x) apart are both foreground or both not."""
    other = _shifted(probability, step, dilation)
    return probability * other + (1 - probability) * (1 - other)


def lab_of_map(images: Tensor, stride: int) -> Tensor:
    """CIE Lab colours on the map of ``stride`` pixels a cell.

    Args:
        images: (B, 3, H, W) RGB in 0..255, H and W multiples of the (even) stride.
        stride: input pixels per cell.

    Returns:
        (B, 1, 3, h, w) float32.
    """
    return rgb_to_lab(cells_of(images, stride).mean(dim=(3, 5)) / 255)[:, None]


def cells_of(images: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) as float32 (B, C, h, stride, w, stride): the pixels of every cell."""
    batch, channels, height, width = images.shape
    return images.float().reshape(
        batch, channels, height // stride, stride, width // stride, stride
    )


def lab_of_crops(images: Tensor, boxes: Tensor, size: int, *, impl: CropImpl = "auto") -> Tensor:
    """CIE Lab colours within boxes, for masks of fixed size.

    Args:
        images: (B, 3, H, W) RGB in 0..255.
        boxes: (B, N, 4) xyxy in input pixels.
        size: S.
        impl: see :func:`deepmac.nn.roi_crop.roi_crop`.

    Returns:
        (B, N, 3, S, S) float32.
    """
    return rgb_to_lab(roi_crop(images.float(), boxes, size, impl=impl) / 255)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1], (..., 3, h, w), to CIE Lab (L in 0..100) under D65."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(min=0) + 0.055) / 1.055).pow(2.4), rgb / 12.92)
    matrix = torch.tensor(_XYZ, device=rgb.device, dtype=rgb.dtype)
    white = torch.tensor(_WHITE, device=rgb.device, dtype=rgb.dtype)
    xyz = torch.einsum("ij,...jhw->...ihw", matrix / white[:, None], linear)
    root = xyz.clamp(min=1e-6).pow(1 / 3)
    f = torch.where(xyz > 0.008856, root, 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def _shifted(values: Tensor, step: tuple[int, int], dilation: int) -> Tensor:
    """Each cell's neighbour at ``step`` times ``dilation`` cells (y, x); 0 beyond the edge."""
    height, width = values.shape[-2:]
    padded = F.pad(values, (dilation,) * 4)
    y, x = (dilation * (1 + s) for s in step)
    return padded[..., y : y + height, x : x + width]
