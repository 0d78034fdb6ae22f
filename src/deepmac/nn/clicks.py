"""Masks corrected by clicks: points drawn into the crop of a box, and the head that reads them.

As in interactive segmentation (RITM, Sofiiuk et al. 2021): clicks on the object and beside it are
two more channels of a network's input, and the mask before them is a third. A head of its own, so
that masks without clicks stay what they are to the bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from deepmac.nn.conventions import Conventions
from deepmac.nn.mask_heads import MaskHead, build_mask_head, check_mask_size
from deepmac.nn.tracing import static_shapes

SIGMA = 1.5
"""Of the Gaussian that a click is drawn as, in cells of the crop."""
_ADDED = 3  # channels: the mask before, clicks on the object, clicks beside it


class Clicks(NamedTuple):
    """Points that somebody set on the objects of boxes, or beside them.

    Attributes:
        points: (B, N, K, 2) float xy in input pixels; NaN where there is no further one.
        labels: (B, N, K) 1 on the object, 0 beside it.
    """

    points: Tensor
    labels: Tensor

    def there(self) -> Tensor:
        """(B, N, K) bool: which are points at all."""
        x, y = self.points.unbind(dim=-1)
        return torch.isfinite(x) & torch.isfinite(y)

    def rows(self) -> Tensor:
        """(B, N) bool: which boxes have any."""
        return self.there().any(dim=-1)

    def joined(self, other: Clicks) -> Clicks:
        """Those of both."""
        return Clicks(*(torch.cat(pair, dim=2) for pair in zip(self, other, strict=True)))


class HeadInputs(NamedTuple):
    """What mask heads see of boxes.

    Attributes:
        pixel: (B, N, 2 + E, S, S) coordinates (y, x), then the cropped pixel embedding.
        instance: (B, N, D) the instance embedding at the boxes' centres, or None.
        frames: (B, N, 4) xyxy in input pixels, what the crops cover.
    """

    pixel: Tensor
    instance: Tensor | None
    frames: Tensor


def draw_clicks(clicks: Clicks, frames: Tensor, size: int) -> Tensor:
    """Clicks as Gaussians of ``SIGMA`` cells; where several meet, the largest counts.

    Args:
        clicks: of the boxes.
        frames: (B, N, 4) xyxy in input pixels: what the crops cover.
        size: S, the cells of a crop's side.

    Returns:
        (B, N, 2, S, S) float32 in 0..1: on the object, then beside it. The middle of cell i lies
        at i + 0.5 of S; a point beyond the frame shows no more of itself than reaches in.
    """
    batch, count, number = clicks.labels.shape
    if not number:
        return frames.new_zeros(batch, count, 2, size, size, dtype=torch.float32)
    there = clicks.there()
    points = torch.where(there[..., None], clicks.points, 0.0).float()
    frames = frames.float()
    sides = (frames[..., 2:] - frames[..., :2]).clamp(min=1e-6)
    place = (points - frames[..., None, :2]) / sides[..., None, :] * size
    middle = torch.arange(size, device=place.device, dtype=place.dtype) + 0.5
    across, down = (place[..., None] - middle).square().unbind(dim=-2)  # (B, N, K, S) each
    drawn = torch.exp((down[..., :, None] + across[..., None, :]) / (-2 * SIGMA**2))
    kinds = [(there & (clicks.labels == label)).to(drawn.dtype) for label in (1, 0)]
    return torch.stack([(drawn * kind[..., None, None]).amax(dim=2) for kind in kinds], dim=2)


class ClickHead(nn.Module):
    """What clicks change about a mask: added to the logits of the first head, at first nothing.

    Args:
        name: of a mask head that reads the instance embedding as channels, if at all.
        pixel_channels: of the crop, coordinates included.
        instance_channels: of the instance embedding; 0 without.
        width: channels the head starts with.
        mask_size: side of the crop.
        conventions: norms and initial weights.

    Raises:
        ValueError: see :func:`deepmac.nn.mask_heads.build_mask_head`.
    """

    def __init__(
        self,
        name: str,
        *,
        pixel_channels: int,
        instance_channels: int,
        width: int,
        mask_size: int,
        conventions: Conventions,
    ) -> None:
        super().__init__()
        self.pixel_channels = pixel_channels
        channels = pixel_channels + _ADDED + instance_channels
        self.head: MaskHead = build_mask_head(
            name, channels, width, mask_size, conventions=conventions
        )
        check_mask_size(name, mask_size, self.head.size_divisor)
        last = getattr(self.head, "project_out", None)
        if isinstance(last, nn.Conv2d):
            nn.init.zeros_(last.weight)
            if last.bias is not None:
                nn.init.zeros_(last.bias)

    def forward(
        self, pixel: Tensor, instance: Tensor | None, logits: Tensor, drawn: Tensor
    ) -> Tensor:
        """Logits of the corrected masks.

        Args:
            pixel: (M, C, S, S) coordinates and crops, as the first head got them.
            instance: (M, D), or None.
            logits: (M, S, S) of the first head.
            drawn: (M, 2, S, S) see :func:`draw_clicks`.

        Returns:
            (M, S, S) float32.
        """
        before = logits.sigmoid()[:, None].to(pixel.dtype)
        seen = torch.cat([pixel, before, drawn.to(pixel.dtype)], dim=1)
        return logits.float() + self.head(seen, instance, None).float()

    def corrected(self, inputs: HeadInputs, logits: Tensor, clicks: Clicks, rows: Tensor) -> Tensor:
        """Mask logits after clicks.

        Args:
            inputs: of the boxes.
            logits: (B, N, S, S) without clicks.
            clicks: on the boxes' objects and beside them.
            rows: (B, N) bool, which boxes are corrected; the others stay as they are to the bit.

        Returns:
            (B, N, S, S).
        """
        drawn = draw_clicks(clicks, inputs.frames, logits.shape[-1]).flatten(0, 1)
        pixel, first = inputs.pixel.flatten(0, 1), logits.flatten(0, 1)
        instance = None if inputs.instance is None else inputs.instance.flatten(0, 1)
        if static_shapes(logits):
            answer = self(pixel, instance, first, drawn).to(first.dtype)
            answer = answer.unflatten(0, logits.shape[:2])
            return torch.where(rows[..., None, None], answer, logits)
        index = rows.flatten().nonzero().squeeze(1)
        live = None if instance is None else instance[index]
        answer = self(pixel[index], live, first[index], drawn[index]).to(first.dtype)
        return first.index_copy(0, index, answer).view_as(logits)

    @torch.no_grad()
    def start_from(self, mask_head: nn.Module) -> int:
        """Take over the mask head's weights where both are of one kind and width, but the last.

        The channels that it does not know start fresh.

        Returns:
            How many tensors were taken.
        """
        own, taken = self.head.state_dict(), 0
        for name, value in mask_head.state_dict().items():
            mine = own.get(name)
            if mine is None or name.startswith("project_out."):
                continue
            at = self.pixel_channels
            if mine.shape == value.shape:
                mine.copy_(value)
            elif mine.ndim == 4 and _with_more_channels(value) == mine.shape:
                mine[:, :at].copy_(value[:, :at])
                mine[:, at + _ADDED :].copy_(value[:, at:])
            else:
                continue
            taken += 1
        return taken


def _with_more_channels(weight: Tensor) -> torch.Size:
    out, channels, *kernel = weight.shape
    return torch.Size([out, channels + _ADDED, *kernel])
