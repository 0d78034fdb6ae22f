"""RoIAlign as torchvision's operator, weighted sums or matrix products, and the original's crop.

A crop on a regular grid is separable: ``crop = Wy @ features @ Wx.T`` with one small
interpolation matrix per axis and box. The averaging of several samples per cell and
torchvision's border rule separate as well, so the matrix form gives torchvision's numbers
with nothing but products: static shapes, a deterministic backward, no custom operator.
"""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

CropImpl = Literal["auto", "torchvision", "gathered", "separable", "corner_aligned"]
CROP_IMPLS: tuple[CropImpl, ...] = (
    "auto",
    "torchvision",
    "gathered",
    "separable",
    "corner_aligned",
)

OutputSize = int | tuple[int, int]

_GATHERED_AT_ONCE = 64  # boxes: 12 MB of places and weights with 32 x 32 cells
_SEPARABLE = 160  # cells a side up to which a CPU learns through the separable form sooner
FARTHEST = 2.0**20
"""Boxes are cut here, in either direction, before they are cropped: see ``bounded_boxes``."""


def roi_crop(
    features: Tensor,
    boxes: Tensor,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
    impl: CropImpl = "auto",
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Tensor:
    """Crop every box out of its image's feature map.

    Args:
        features: (B, C, h, w) float maps.
        boxes: (B, N, 4) xyxy; times ``spatial_scale`` they are map pixels, edges at integers.
        output_size: cells of the crop, one number or (height, width).
        spatial_scale: map pixels per box unit, 0.25 for input pixels and a stride-4 map.
        impl: ``torchvision``, ``gathered`` or ``separable`` (equal numbers), ``corner_aligned``
            (the original's crop; ignores ``sampling_ratio`` and ``aligned``), or ``auto``:
            torchvision's operator in eager mode on CUDA; on a CPU ``gathered`` where nothing
            learns, and where something does the separable form up to maps of 160 cells a side,
            torchvision's operator beyond; the separable form on other devices, while compiling,
            exporting or tracing, and where deterministic results were asked for.
        sampling_ratio: samples per cell and axis, at least 1.
        aligned: the half-pixel shift of torchvision's operator.

    Returns:
        (B, N, C, height, width) in the dtype of ``features``. No gradient reaches the boxes. A box
        that is not finite or lies absurdly far off means nothing, and does no harm.

    Raises:
        ValueError: a sampling ratio below 1, an unknown ``impl`` or shapes that do not fit.
    """
    if impl == "auto":
        impl = _best_for(features)
    if impl == "torchvision":
        return torchvision_roi_align(
            features, boxes, output_size, spatial_scale, sampling_ratio, aligned
        )
    if impl == "gathered":
        return gathered_roi_align(
            features, boxes, output_size, spatial_scale, sampling_ratio, aligned
        )
    if impl == "separable":
        return separable_roi_align(
            features, boxes, output_size, spatial_scale, sampling_ratio, aligned
        )
    if impl == "corner_aligned":
        return corner_aligned_crop(features, boxes, output_size, spatial_scale)
    raise ValueError(f"crop impl {impl!r} is unknown: use one of {', '.join(CROP_IMPLS)}.")


def grow_boxes(boxes: Tensor, scale: float) -> Tensor:
    """(..., 4) xyxy boxes with their sides times ``scale``, about their centres."""
    if scale == 1.0:
        return boxes
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = (boxes[..., 2:] - boxes[..., :2]) * (scale / 2)
    return torch.cat([centre - half, centre + half], dim=-1)


def box_coordinates(
    height: int,
    width: int,
    *,
    far: float = 1.0,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """(2, height, width): y then x of the cells of a crop, from ``-far`` to ``far``."""
    y = torch.linspace(-far, far, height, device=device, dtype=dtype)
    x = torch.linspace(-far, far, width, device=device, dtype=dtype)
    return torch.stack([y[:, None].expand(height, width), x[None, :].expand(height, width)])


def bounded_boxes(boxes: Tensor) -> Tensor:
    """Boxes on which no crop can fail: NaN becomes 0, and no edge lies beyond ``FARTHEST``.

    torchvision's operator reads outside its memory where a box is NaN or infinite. Ordinary boxes
    stay as they are, bit for bit; the shape never depends on the values.

    Args:
        boxes: (..., 4) floating.

    Returns:
        The same shape and dtype.
    """
    return torch.where(boxes.isnan(), 0.0, boxes).clamp(-FARTHEST, FARTHEST)


def separable_roi_align(
    features: Tensor,
    boxes: Tensor,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Tensor:
    """``torchvision.ops.roi_align`` as two matrix products; arguments as in ``roi_crop``."""
    _check(features, boxes, sampling_ratio)
    height, width = _pair(output_size)
    x_start, y_start, x_end, y_end = _box_edges(features, boxes, spatial_scale)
    wy = _roi_align_weights(y_start, y_end, height, features.shape[2], sampling_ratio, aligned)
    wx = _roi_align_weights(x_start, x_end, width, features.shape[3], sampling_ratio, aligned)
    return _apply_weights(features, wy, wx)


def gathered_roi_align(
    features: Tensor,
    boxes: Tensor,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Tensor:
    """``torchvision.ops.roi_align``, each cell a weighted sum of map cells; arguments as there.

    On CPUs it takes half the time: all channels of a cell at once, boxes on all threads. What it
    gives is laid out with the channels last. Half precision is computed in float32.
    """
    _check(features, boxes, sampling_ratio)
    height, width = _pair(output_size)
    batch, channels, rows, columns = features.shape
    x_start, y_start, x_end, y_end = _box_edges(features, boxes, spatial_scale)
    y, wy = _taps(y_start, y_end, height, rows, sampling_ratio, aligned)
    x, wx = _taps(x_start, x_end, width, columns, sampling_ratio, aligned)
    first = torch.arange(batch, dtype=torch.int32, device=y.device)[:, None, None, None] * rows
    y = ((first + y) * columns).flatten(0, 1)
    x, wx, wy = x.flatten(0, 1), wx.flatten(0, 1), wy.flatten(0, 1)
    cells = features.to(_coordinate_dtype(features)).permute(0, 2, 3, 1).reshape(-1, channels)
    taps = y.shape[-1] * x.shape[-1]
    crops = [
        F.embedding_bag(
            (y[some, :, None, :, None] + x[some, None, :, None, :]).view(-1, taps),
            cells,
            per_sample_weights=(wy[some, :, None, :, None] * wx[some, None, :, None, :]).view(
                -1, taps
            ),
            mode="sum",
        )
        for some in (slice(i, i + _GATHERED_AT_ONCE) for i in range(0, len(y), _GATHERED_AT_ONCE))
    ]
    joined = torch.cat(crops) if crops else cells.new_zeros(0, channels)
    shape = (*boxes.shape[:2], height, width, channels)
    return joined.to(features.dtype).view(shape).permute(0, 1, 4, 2, 3)


def torchvision_roi_align(
    features: Tensor,
    boxes: Tensor,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Tensor:
    """torchvision's operator on padded boxes; arguments as in ``roi_crop``.

    Half precision is computed in float32 and cast back: the CPU operator has no bfloat16, and
    box coordinates above 256 would lose their fractions.
    """
    _check(features, boxes, sampling_ratio)
    height, width = _pair(output_size)
    batch, count = boxes.shape[:2]
    dtype = _coordinate_dtype(features)
    image = torch.arange(batch, device=boxes.device, dtype=dtype)
    rois = torch.cat(
        [
            image.view(batch, 1, 1).expand(batch, count, 1),
            bounded_boxes(boxes.detach().to(dtype)),
        ],
        dim=-1,
    )
    crops = roi_align(
        features.to(dtype),
        rois.reshape(batch * count, 5),
        (height, width),
        spatial_scale=spatial_scale,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )
    return crops.to(features.dtype).reshape(batch, count, features.shape[1], height, width)


def corner_aligned_crop(
    features: Tensor, boxes: Tensor, output_size: OutputSize, spatial_scale: float = 1.0
) -> Tensor:
    """The original's crop (``matmul_crop_and_resize``), for converted weights.

    The original takes boxes normalised to the padded square. Here that is
    ``box * spatial_scale / (w, h)``, so a box of the whole map has the edges 0 and w. Sample i
    of S lies at ``(start + i / (S - 1) * (end - start)) * (size - 1)``: box corners meet pixel
    *centres*. One bilinear sample per cell; neighbours outside the map count zero, one by one;
    a single cell samples the middle of the box; inverted boxes flip.

    Args:
        features: (B, C, h, w) float maps.
        boxes: (B, N, 4) xyxy, as in ``roi_crop``.
        output_size: cells of the crop, one number or (height, width).
        spatial_scale: map pixels per box unit.

    Returns:
        (B, N, C, height, width) in the dtype of ``features``.
    """
    _check(features, boxes, sampling_ratio=1)
    height, width = _pair(output_size)
    x_start, y_start, x_end, y_end = _box_edges(features, boxes, spatial_scale)
    wy = _corner_aligned_weights(y_start, y_end, height, features.shape[2])
    wx = _corner_aligned_weights(x_start, x_end, width, features.shape[3])
    return _apply_weights(features, wy, wx)


def _best_for(features: Tensor) -> CropImpl:
    if _needs_plain_operations(features):
        return "separable"
    if features.device.type == "cpu" and not (torch.is_grad_enabled() and features.requires_grad):
        return "gathered"
    small = features.device.type == "cpu" and max(features.shape[-2:]) <= _SEPARABLE
    return "separable" if small else "torchvision"


def _needs_plain_operations(features: Tensor) -> bool:
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        return True
    if features.device.type not in ("cpu", "cuda"):
        return True
    # On CUDA the operator's backward adds atomically, in any order.
    return features.device.type == "cuda" and torch.are_deterministic_algorithms_enabled()


def _roi_align_weights(
    start: Tensor, end: Tensor, cells: int, size: int, sampling_ratio: int, aligned: bool
) -> Tensor:
    """(B, N, cells, size) rows that average ``sampling_ratio`` bilinear samples per cell."""
    total: Tensor | None = None
    for position, inside in _samples(start, end, cells, size, sampling_ratio, aligned):
        weights = _hat(position, size) * inside.unsqueeze(-1)
        total = weights if total is None else total + weights
    assert total is not None
    return total / sampling_ratio


def _taps(
    start: Tensor, end: Tensor, cells: int, size: int, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """The same rows as the places of what is not zero, int32, and its weights.

    (B, N, cells, 2 ``sampling_ratio``) both.
    """
    places, weights = [], []
    for position, inside in _samples(start, end, cells, size, sampling_ratio, aligned):
        low = position.floor()
        share = position - low
        places += [low, (low + 1).clamp(max=size - 1)]
        weights += [(1 - share) * inside / sampling_ratio, share * inside / sampling_ratio]
    return torch.stack(places, -1).int(), torch.stack(weights, -1)


def _samples(
    start: Tensor, end: Tensor, cells: int, size: int, sampling_ratio: int, aligned: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each sample of the cells, (B, N, cells): its place within the map, whether it counts."""
    # Same operations in the same order as torchvision: samples on the border rule's edge agree.
    offset = 0.5 if aligned else 0.0
    start, end = start - offset, end - offset
    length = end - start if aligned else (end - start).clamp(min=1.0)
    step = (length / cells).unsqueeze(-1)
    cell = torch.arange(cells, device=start.device, dtype=start.dtype)
    corner = start.unsqueeze(-1) + cell * step
    for sample in range(sampling_ratio):
        position = corner + (sample + 0.5) * step / sampling_ratio
        inside = (position >= -1.0) & (position <= size)
        yield position.clamp(min=0).clamp(max=size - 1), inside


def _corner_aligned_weights(start: Tensor, end: Tensor, cells: int, size: int) -> Tensor:
    """(B, N, cells, size) rows that take one bilinear sample, zero outside the map."""
    start, end = (start / size).unsqueeze(-1), (end / size).unsqueeze(-1)
    if cells == 1:
        position = (start + end) / 2
    else:
        fraction = torch.arange(cells, device=start.device, dtype=start.dtype) / (cells - 1)
        position = start + fraction * (end - start)
    return _hat(position * (size - 1), size)


def _hat(position: Tensor, size: int) -> Tensor:
    """Bilinear weight of each of ``size`` pixels at every position: (...) -> (..., size)."""
    pixel = torch.arange(size, device=position.device, dtype=position.dtype)
    return (1.0 - (position.unsqueeze(-1) - pixel).abs()).clamp(min=0.0)


def _apply_weights(features: Tensor, wy: Tensor, wx: Tensor) -> Tensor:
    """(B, C, h, w), (B, N, S, h), (B, N, T, w) -> (B, N, C, S, T)."""
    batch, count, height = wy.shape[:3]
    channels, width = features.shape[1], features.shape[3]
    wy, wx = wy.to(features.dtype), wx.to(features.dtype)
    # Batch and boxes are never folded into one dimension: that would bake N into an export.
    rows = torch.matmul(wy.flatten(1, 2), features.transpose(1, 2).flatten(2))
    rows = rows.view(batch, count, height * channels, width)
    crops = torch.matmul(rows, wx.transpose(-1, -2))
    return crops.view(batch, count, height, channels, wx.shape[2]).transpose(2, 3)


def _box_edges(
    features: Tensor, boxes: Tensor, spatial_scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four (B, N) edges in map pixels, never in half precision."""
    scaled = bounded_boxes(boxes.detach().to(_coordinate_dtype(features))) * spatial_scale
    return scaled[..., 0], scaled[..., 1], scaled[..., 2], scaled[..., 3]


def _coordinate_dtype(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def _pair(output_size: OutputSize) -> tuple[int, int]:
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
    if height < 1 or width < 1:
        raise ValueError(f"a crop needs at least one cell, but output_size is {output_size}.")
    return height, width


def _check(features: Tensor, boxes: Tensor, sampling_ratio: int) -> None:
    if sampling_ratio < 1:
        raise ValueError(
            f"sampling_ratio must be at least 1, got {sampling_ratio}: the adaptive sampling that "
            "torchvision ties to 0 and -1 has no static shape."
        )
    if features.ndim != 4 or boxes.ndim != 3 or boxes.shape[-1] != 4:
        raise ValueError(
            "cropping needs features (B, C, h, w) and boxes (B, N, 4), got "
            f"{tuple(features.shape)} and {tuple(boxes.shape)}."
        )
    if features.shape[0] != boxes.shape[0]:
        raise ValueError(
            f"features of {features.shape[0]} images cannot go with boxes of {boxes.shape[0]}."
        )
