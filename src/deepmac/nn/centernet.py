"""CenterNet: prediction heads on the feature map, and peaks decoded into boxes."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmac.nn.convolution import convolve

HEATMAP_BIAS = -2.19
"""The heatmap starts at a probability of 0.1, so that empty cells do not swamp the first steps."""

PEAK_TOLERANCE = 1e-6


@dataclass(frozen=True)
class HeadSpec:
    """One prediction head: its output channels and the kernel of its first convolution."""

    out_channels: int
    kernel: int | tuple[int, int] = 3
    bias_init: float | None = None


class CenterNetHeads(nn.ModuleDict):
    """The heads on one output of the backbone, by name; make one of these per stack.

    Detection needs ``heatmap`` (C logits), ``size`` (2: width, height in cells) and ``offset``
    (2: x, y of the centre within its cell); the mask branch adds its embeddings. The original
    orders the two values of size and offset (y, x).

    Args:
        in_channels: channels of the feature map.
        channels: width of every head's hidden layer.
        specs: the heads by name.
    """

    def __init__(self, in_channels: int, channels: int, specs: Mapping[str, HeadSpec]) -> None:
        super().__init__(
            {
                name: PredictionHead(
                    in_channels, channels, spec.out_channels, spec.kernel, spec.bias_init
                )
                for name, spec in specs.items()
            }
        )

    def forward(self, features: Tensor, only: Collection[str] | None = None) -> dict[str, Tensor]:
        """(B, in_channels, h, w) -> each head's (B, out_channels, h, w); ``only`` picks heads."""
        return {name: head(features) for name, head in self.items() if only is None or name in only}


class PredictionHead(nn.Sequential):
    """k x k convolution, ReLU, 1 x 1 convolution; no norm.

    Starts as the original does: Glorot's uniform kernels, zero biases, the last bias on request.

    Args:
        in_channels: channels of the input.
        channels: channels of the hidden layer.
        out_channels: channels of the output.
        kernel: odd size of the first convolution, one number or (height, width). The newest
            original has (1, 3) for the embeddings, the released checkpoint 3.
        bias_init: value of the last bias.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 3,
        bias_init: float | None = None,
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        first = nn.Conv2d(in_channels, channels, (height, width), padding=(height // 2, width // 2))
        last = nn.Conv2d(channels, out_channels, 1)
        super().__init__(first, nn.ReLU(inplace=True), last)
        self.kernel, self.out_channels = (height, width), out_channels
        for layer in (first, last):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        if bias_init is not None:
            assert last.bias is not None
            nn.init.constant_(last.bias, bias_init)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w)."""
        first, *others = self
        maps = convolve(first, features)
        for layer in others:
            maps = layer(maps)
        return maps

    def at(self, features: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """The output at some cells alone.

        Args:
            features: (B, in_channels, h, w).
            y: (B, N) int64, rows of the cells.
            x: (B, N) int64, columns.

        Returns:
            (B, N, out_channels), as :meth:`forward` gives it there up to rounding.
        """
        if not y.numel():
            return features.new_zeros(*y.shape, self.out_channels)
        down, right = (side // 2 for side in self.kernel)
        height, width = features.shape[-2:]
        rows = y[..., None, None] + torch.arange(-down, down + 1, device=y.device)[:, None]
        columns = x[..., None, None] + torch.arange(-right, right + 1, device=x.device)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        images = torch.arange(len(y), device=y.device)[:, None, None, None]
        around = features[images, :, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
        patches = torch.where(inside[..., None], around, 0.0).flatten(0, 1).permute(0, 3, 1, 2)
        maps: Tensor = self(patches.contiguous(memory_format=torch.channels_last))
        return maps[:, :, down, right].unflatten(0, y.shape)


class Detections(NamedTuple):
    """The K best detections of every image, best first; a score of 0 is no detection.

    Attributes:
        boxes: (B, K, 4) float32 xyxy in input pixels.
        labels: (B, K) int64 class indices.
        scores: (B, K) float32.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor


def no_detections(batch: int, device: torch.device) -> Detections:
    """What a network without a detector finds in a batch of images."""
    return Detections(
        torch.zeros(batch, 0, 4, device=device),
        torch.zeros(batch, 0, dtype=torch.int64, device=device),
        torch.zeros(batch, 0, device=device),
    )


def decode_detections(
    heatmap_logits: Tensor,
    size: Tensor,
    offset: Tensor,
    *,
    stride: int,
    max_detections: int = 100,
    true_sizes: Tensor | None = None,
) -> Detections:
    """Detections of the raw head outputs of one stack.

    Every shape is static and nothing waits for the device. There is no non-maximum suppression
    beyond the 3 x 3 peaks.

    Args:
        heatmap_logits: (B, C, h, w).
        size: (B, 2, h, w) width and height in cells, clipped at 0.
        offset: (B, 2, h, w) x and y in cells.
        stride: input pixels per cell.
        max_detections: K, lowered to C * h * w on tiny maps.
        true_sizes: (B, 2) int (height, width) of the content. Cells that start beyond it hold no
            peaks and boxes are clipped to it. Without, boxes are clipped to the map, which is
            the frame of the original's mask branch.

    Returns:
        ``Detections``.
    """
    probabilities = heatmap_logits.float().sigmoid()
    if true_sizes is not None:
        probabilities = probabilities * cells_inside(true_sizes, probabilities, stride)
    return decode_peaks(
        find_peaks(probabilities),
        size,
        offset,
        stride=stride,
        max_detections=max_detections,
        true_sizes=true_sizes,
    )


def find_peaks(probabilities: Tensor) -> Tensor:
    """Keep what equals the maximum of its 3 x 3 neighbours within 1e-6, and zero the rest.

    Args:
        probabilities: (B, C, h, w), not negative. All cells of a plateau are kept.

    Returns:
        (B, C, h, w) of the same dtype.
    """
    return probabilities * ((probabilities - _neighbourhood(probabilities)).abs() < PEAK_TOLERANCE)


def decode_peaks(
    peaks: Tensor,
    size: Tensor,
    offset: Tensor,
    *,
    stride: int,
    max_detections: int = 100,
    true_sizes: Tensor | None = None,
) -> Detections:
    """Boxes of the highest peaks.

    Equal scores are ordered by row, column and class, as the original's.

    Args:
        peaks: (B, C, h, w) of ``find_peaks``.
        size: (B, 2, h, w), as of ``decode_detections``.
        offset: likewise.
        stride: input pixels per cell.
        max_detections: K.
        true_sizes: (B, 2) int (height, width) that boxes are clipped to; None: the map.

    Returns:
        ``Detections``.
    """
    classes, height, width = peaks.shape[1:]
    flat = peaks.permute(0, 2, 3, 1).flatten(1)
    scores, index = _top_k(flat, min(max_detections, classes * height * width))
    cell, labels = index // classes, index % classes
    row = cell // width
    column = cell - row * width  # ONNX has no remainder by a side that is free
    extent = read_cells(size, cell).clamp(min=0.0)
    centre = torch.stack([column, row], dim=-1) + read_cells(offset, cell)
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=-1) * stride
    if true_sizes is None:
        limits = torch.tensor([[height * stride, width * stride]], device=peaks.device)
    else:
        limits = true_sizes
    return Detections(clip_boxes(boxes, limits), labels, scores)


def clip_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Clip (B, N, 4) xyxy boxes to images of ``sizes`` (B, 2) (height, width)."""
    limits = sizes.to(boxes.dtype).flip(-1).repeat(1, 2).unsqueeze(1)
    return torch.minimum(boxes.clamp(min=0.0), limits)


def _neighbourhood(maps: Tensor) -> Tensor:
    """The 3 x 3 maximum, one axis at a time: max_pool2d takes 20 times as long on a CPU."""
    padded = F.pad(maps, (1, 1, 1, 1))
    rows = torch.maximum(padded[..., :-2], padded[..., 2:]).maximum(padded[..., 1:-1])
    return torch.maximum(rows[..., :-2, :], rows[..., 2:, :]).maximum(rows[..., 1:-1, :])


def _top_k(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """torch.topk with equal values in the order of their index (they come in any order there)."""
    scores, index = values.topk(k, dim=1)
    higher = scores.unsqueeze(1) > scores.unsqueeze(2)
    earlier = (scores.unsqueeze(1) == scores.unsqueeze(2)) & (
        index.unsqueeze(1) < index.unsqueeze(2)
    )
    order = (higher | earlier).sum(-1).argsort(dim=1)
    return scores.gather(1, order), index.gather(1, order)


def read_cells(maps: Tensor, cell: Tensor) -> Tensor:
    """(B, C, h, w) read at the flat cells (B, K) -> (B, K, C) float32."""
    flat = maps.float().flatten(2)
    return flat.gather(2, cell.unsqueeze(1).expand(-1, flat.shape[1], -1)).transpose(1, 2)


def cells_inside(true_sizes: Tensor, maps: Tensor, stride: int) -> Tensor:
    """(B, 1, h, w) bool: cells of (..., h, w) that begin within images of ``true_sizes`` (B, 2)."""
    height, width = maps.shape[-2:]
    rows = torch.arange(height, device=maps.device) * stride
    columns = torch.arange(width, device=maps.device) * stride
    inside_rows = rows < true_sizes[:, :1]
    inside_columns = columns < true_sizes[:, 1:]
    return (inside_rows.unsqueeze(2) & inside_columns.unsqueeze(1)).unsqueeze(1)
