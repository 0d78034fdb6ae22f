"""The edge head: a mask's cells and the picture's own pixels, from which a finer mask is made.

A box's mask has S x S cells; its picture often has more pixels than that, and says by its colours
where an object ends. A U-Net of few channels looks at both on a grid of 64 or 128 cells, and adds
to the logits, at first nothing (after PointRend, Kirillov et al. 2020, and BPR, Tang et al. 2021,
which refine masks by a network of their own, too). It reads no features of the network: on the
photographs that this one was trained on they say more than they do elsewhere
(docs/leaderboard.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRIDS = (64, 128)
"""Cells on each side of a refined mask: of frames of few pixels, and of others."""
_LOGIT_EPSILON = 1e-3
_BINS = 16
"""Of the histograms, for each of red, green and blue."""
_MOST = 3.0
"""Bound on the logarithm of a colour's odds."""


class EdgeHead(nn.Module):
    """Logits of masks on a finer grid.

    Args:
        width: channels on half of the grid; deeper levels have two and three times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = _ColorUNet(_SEEN, width)

    def forward(self, probabilities: Tensor, picture: Tensor) -> Tensor:
        """Mask logits on the picture's grid.

        Args:
            probabilities: (N, S, S) in 0..1, over frames.
            picture: (N, 3, G, G) RGB in 0..1 over the same frames, G a multiple of 8.

        Returns:
            (N, G, G) float32.
        """
        grid = picture.shape[-1]
        logits = torch.logit(probabilities.float(), _LOGIT_EPSILON)[:, None]
        if not len(picture):
            return logits.new_zeros(0, grid, grid)
        half = F.interpolate(logits, size=grid // 2, mode="bilinear", align_corners=False)
        cells = half[:, 0].sigmoid()
        evidence = color_evidence(F.avg_pool2d(picture, 2), cells)
        fine = F.pixel_unshuffle(2 * picture - 1, 2)
        parts = [fine, half / 4, cells[:, None] - 0.5, evidence[:, None] / _MOST]
        added = F.pixel_shuffle(self.net(torch.cat(parts, dim=1)).float(), 2)
        full = F.interpolate(logits, size=grid, mode="bilinear", align_corners=False)
        return (full + added)[:, 0]


_SEEN = 4 * 3 + 3  # four pixels a cell of half the grid; its logit, its probability, its colour


class _ColorUNet(nn.Module):
    """(N, channels, H, H) to (N, 4, H, H), by way of a half and a quarter of the side."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        wide, deep = 2 * width, 3 * width
        self.look = ConvReLU(channels, width, 3, padding=1)
        self.down = ConvReLU(width, wide, 3, stride=2, padding=1)
        self.deeper = ConvReLU(wide, deep, 3, stride=2, padding=1)
        self.deep = nn.Sequential(ConvStep(deep), ConvStep(deep))
        self.rise = nn.Conv2d(deep, wide, 1)
        self.wide = nn.Sequential(ConvStep(wide), ConvStep(wide))
        self.lift = nn.Conv2d(wide, width, 1)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.project_out = nn.Conv2d(width, 4, 3, padding=1)
        nn.init.zeros_(self.project_out.weight)
        if self.project_out.bias is not None:
            nn.init.zeros_(self.project_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.look(x)
        half = self.down(fine)
        quarter = self.deep(self.deeper(half))
        half = self.wide(F.relu(half + F.interpolate(self.rise(quarter), scale_factor=2.0)))
        up = F.interpolate(self.lift(half), scale_factor=2.0, mode="bilinear", align_corners=False)
        fine = F.relu(fine + up)
        answer: Tensor = self.project_out(F.relu(fine + self.last(fine)))
        return answer


class ConvReLU(nn.Conv2d):
    """A convolution and the ReLU of it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class ConvStep(nn.Module):
    """Two convolutions and a way around them, without norms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvReLU(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def color_evidence(guide: Tensor, probabilities: Tensor) -> Tensor:
    """How much more often a cell's colour is the object's than its surroundings', as a logarithm.

    By two histograms weighted with the probabilities: the colour models of GrabCut (Rother et al.
    2004), in one step and softly.

    Args:
        guide: (N, 3, G, G) in 0..1.
        probabilities: (N, G, G) in 0..1; sure cells count more.

    Returns:
        (N, G, G) in -3..3.
    """
    n = len(guide)
    red, green, blue = (guide * (_BINS - 1)).round().long().flatten(2).unbind(1)
    index = (red * _BINS + green) * _BINS + blue
    weight = torch.stack([probabilities, 1 - probabilities]).square().flatten(2)
    counts = weight.new_zeros(2, n, _BINS**3).scatter_add_(2, index.expand(2, -1, -1), weight)
    blur = _blur(counts)
    smooth = counts.view(-1, _BINS, _BINS) @ blur
    smooth = (blur @ smooth).view(2 * n, _BINS, -1)
    smooth = blur @ smooth
    counts = smooth.view(2, n, -1) + index.shape[1] * 1e-5
    frequency = counts / (counts.sum(2, keepdim=True) + 1)
    odds = (frequency[0] / frequency[1]).log().clamp(-_MOST, _MOST)
    return odds.gather(1, index).view_as(probabilities)


def _blur(like: Tensor) -> Tensor:
    """(bins, bins): a quarter to each neighbour; products are sooner done than convolutions."""
    distance = (torch.arange(_BINS)[:, None] - torch.arange(_BINS)).abs()
    return ((2 - distance).clamp(min=0) / 4).to(like)
