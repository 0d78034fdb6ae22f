"""Masks made finer than the network's cells: edges snapped to the picture, specks and holes gone.

The network answers S x S cells a box. On a finer grid over the same region of the picture its edge
head finds the edges, if it has one (``deepmac.nn.edge_head``). Without one, colours that the object
has more of than its surroundings count for it, the others against it, by two histograms weighted
with the probabilities; then a guided filter (He et al., PAMI 2013; its fast form, arXiv:1505.00996)
explains the result by the colours, window by window, as ``a . colour + b``: where the picture has
an edge near the mask's, the mask takes it over. In the end small islands go, and small holes close.

The constants were chosen on training photographs (docs/leaderboard.md).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmac.losses.grids import inside_boxes
from deepmac.nn.edge_head import GRIDS, EdgeHead, color_evidence

COARSE, GRID = GRIDS
"""Cells of a refined mask on each side, of frames of few pixels and of others. Without an edge head
colours count and explain probabilities on the first."""
FEW_PIXELS = 6 * COARSE
"""Longer side up to which a frame's mask has no more cells than that either: it makes no
difference to its IoU, and takes half the time."""
AT_ONCE = {COARSE: 32, GRID: 8}
"""Masks that are refined together, by their cells: what a cache holds, and no less."""
_RADIUS = 2
"""Of the windows, in coarse cells."""
_EPSILON = 1e-4
"""Variance of a colour, on a scale of 0 to 1, from which on it is an edge."""
_COLOR_WEIGHT = 0.6
"""Of the logarithm of the colour's odds beside the network's logits."""
_LOGIT_EPSILON = 1e-3
_LEAST_CELLS, _PIXELS = 8, 256
"""Cells, and about so many pixels, that are averaged together."""
_PARTS = 32
"""Cells on each side at which parts are told apart, about."""
_ISLAND, _HOLE = 0.05, 0.05
"""Parts and holes of less than this share of the mask's cells are specks."""


def refine_edges(
    probabilities: Tensor,
    frames: Tensor,
    picture: Tensor,
    *,
    threshold: float,
    boxes: Tensor | None = None,
    grid: int = GRID,
    edge_head: EdgeHead | None = None,
) -> Tensor:
    """Probabilities on a finer grid, with edges where the picture has them.

    Args:
        probabilities: (N, S, S) in 0..1, over the frames.
        frames: (N, 4) xyxy in pixels of the picture; may reach beyond it.
        picture: (3, H, W) uint8 RGB.
        threshold: what is above it belongs to the mask.
        boxes: (N, 4) xyxy in pixels of the picture, within the frames: masks end there. None lets
            them fill their frames.
        grid: cells of the result on each side.
        edge_head: the network's own, which finds the edges then.

    Returns:
        (N, grid, grid) float32 in 0..1, over the same frames.
    """
    if not len(probabilities):
        return probabilities.new_zeros(0, grid, grid)
    guide = sample_picture(picture, frames, grid)
    if edge_head is None:
        snapped = _explained(probabilities, guide)
    else:
        snapped = _learned(edge_head, probabilities, guide)
    if boxes is not None:
        snapped = snapped * inside_boxes(boxes, frames, (grid, grid)).float()
    return without_specks(snapped, threshold)


def _learned(edge_head: EdgeHead, probabilities: Tensor, guide: Tensor) -> Tensor:
    """(N, G, G) on the CPU; on XLA in one shape for all N up to ``AT_ONCE``."""
    device, count = next(edge_head.parameters()).device, len(probabilities)
    if device.type == "xla":
        row = torch.arange(max(count, AT_ONCE.get(guide.shape[-1], 1))).clamp(max=count - 1)
        probabilities, guide = probabilities[row], guide[row]
    found = edge_head(probabilities.to(device), guide.to(device)).sigmoid()
    return found.cpu()[:count]


def _explained(probabilities: Tensor, guide: Tensor) -> Tensor:
    """(N, G, G): colours' odds added, then the guided filter."""
    grid = guide.shape[-1]
    coarse = min(COARSE, grid)
    colors, cells = resize_cells(guide, coarse), resize_cells(probabilities.float(), coarse)
    logits = torch.logit(cells, _LOGIT_EPSILON) + _COLOR_WEIGHT * color_evidence(colors, cells)
    slopes, offset = _explain(colors, logits.sigmoid(), _RADIUS, _EPSILON)
    snapped = (resize_cells(slopes, grid) * guide).sum(1) + resize_cells(offset, grid)
    return snapped.clamp(0, 1)


def sample_picture(picture: Tensor, frames: Tensor, size: int) -> Tensor:
    """(N, 3, size, size) float32 in 0..1: the picture over each frame, its border drawn out.

    Cells wider than a pixel average what they cover.
    """
    pixels = picture.permute(1, 2, 0)  # as pictures lie in memory, so that few are copied
    height, width = pixels.shape[:2]
    cut = []
    for x0, y0, x1, y1 in frames.tolist():
        columns = _centres(x0, x1, width, size)
        left, right = _reached(columns, (x1 - x0) / size, width)
        rows = _means(pixels[:, left:right], _centres(y0, y1, height, size), (y1 - y0) / size)
        cut.append(_means(rows.transpose(0, 1), columns - left, (x1 - x0) / size))
    return torch.stack(cut).permute(0, 3, 2, 1).to(frames.device) / 255


def without_specks(probabilities: Tensor, threshold: float) -> Tensor:
    """(N, G, G): small islands brought down to the threshold, small holes lifted above it.

    Parts are told apart on a grid of about 32 cells: what nearly touches is one part.
    """
    mask = probabilities > threshold
    share = mask.sum((1, 2))[:, None, None]
    speck = mask & (_part_sizes(mask, diagonal=True) < _ISLAND * share)
    mask = mask & ~speck
    open_air = F.pad(~mask, (2, 2, 2, 2), value=True)
    gaps = _part_sizes(open_air, diagonal=False)[:, 2:-2, 2:-2]
    hole = ~mask & (gaps < _HOLE * share)
    above = torch.nextafter(torch.tensor(threshold), torch.tensor(1.0)).item()
    low = torch.where(speck, probabilities.clamp(max=threshold), probabilities)
    return torch.where(hole, low.clamp(min=above), low)


def _part_sizes(mask: Tensor, *, diagonal: bool) -> Tensor:
    """(N, H, W): of each cell the size of the part of the mask that it is in or right beside."""
    height, width = mask.shape[1:]
    step = max(1, min(height, width) // _PARTS)
    if height % step or width % step:
        step = 1
    if step == 1:
        return _component_sizes(mask, mask.long(), diagonal=diagonal)
    blocks = F.avg_pool2d(mask[:, None].float(), step)[:, 0]
    sizes = _component_sizes(blocks > 0, (step**2 * blocks).round().long(), diagonal=diagonal)
    return sizes.repeat_interleave(step, 1).repeat_interleave(step, 2)


def _explain(guide: Tensor, values: Tensor, radius: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Guided filter: (N, 3, G, G) slopes and (N, G, G) offsets, already averaged over windows."""
    first, second = torch.triu_indices(3, 3)
    stacked = torch.cat(
        [guide, values[:, None], guide * values[:, None], guide[:, first] * guide[:, second]], 1
    )
    mean = _box_mean(stacked, radius)
    mean_guide, mean_value = mean[:, :3], mean[:, 3]
    covariance = mean[:, 4:7] - mean_guide * mean_value[:, None]
    r, g, b = mean_guide.unbind(1)
    rr, rg, rb, gg, gb, bb = mean[:, 7:].unbind(1)
    rr, gg, bb = rr - r * r + epsilon, gg - g * g + epsilon, bb - b * b + epsilon
    rg, rb, gb = rg - r * g, rb - r * b, gb - g * b
    # The inverse of a symmetric 3 x 3 matrix by its cofactors.
    c_rr, c_rg, c_rb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    determinant = rr * c_rr + rg * c_rg + rb * c_rb
    x, y, z = covariance.unbind(1)
    slopes = (
        torch.stack(
            [
                c_rr * x + c_rg * y + c_rb * z,
                c_rg * x + c_gg * y + c_gb * z,
                c_rb * x + c_gb * y + c_bb * z,
            ],
            1,
        )
        / determinant[:, None]
    )
    offset = mean_value - (slopes * mean_guide).sum(1)
    smooth = _box_mean(torch.cat([slopes, offset[:, None]], 1), radius)
    return smooth[:, :3], smooth[:, 3]


def _box_mean(values: Tensor, radius: int) -> Tensor:
    """Mean over (2 radius + 1)^2 cells, of those that exist.

    Two products with a band of ones, which take a tenth of the time of pooling on a CPU.
    """
    cells = torch.arange(values.shape[-1], device=values.device)
    band = ((cells[:, None] - cells).abs() <= radius).to(values.dtype)
    band = band / band.sum(1, keepdim=True)
    return band @ (values @ band.T)


def _component_sizes(mask: Tensor, weights: Tensor, *, diagonal: bool) -> Tensor:
    """Of each cell of a mask the weight of its connected part; 0 elsewhere.

    Args:
        mask: (N, H, W) bool.
        weights: (N, H, W) int64, 0 outside the mask.
        diagonal: whether cells that share only a corner are connected.

    Returns:
        (N, H, W) int64.
    """
    n, height, width = mask.shape
    count = height * width
    own = torch.arange(1, count + 1, device=mask.device).view(height, width)
    labels = own * mask
    while True:
        # Neighbours take the larger number over; then every cell the number that it names has.
        across = _largest(labels, 1)
        spread = _largest(across if diagonal else labels, 2)
        if not diagonal:
            spread = torch.maximum(across, spread)
        flat = (spread * mask).flatten(1)
        named = F.pad(flat, (1, 0)).gather(1, flat)
        jumped = torch.maximum(flat, named).view_as(labels)
        if torch.equal(jumped, labels):
            break
        labels = jumped
    index = labels.flatten(1)
    sizes = torch.zeros(n, count + 1, dtype=torch.int64, device=mask.device)
    sizes.scatter_add_(1, index, weights.flatten(1))
    return sizes.gather(1, index).view(n, height, width) * mask


def _largest(values: Tensor, axis: int) -> Tensor:
    """The largest of each cell and its two neighbours along an axis."""
    out = values.clone()
    length = values.shape[axis]
    ahead, behind = values.narrow(axis, 1, length - 1), values.narrow(axis, 0, length - 1)
    front, back = out.narrow(axis, 0, length - 1), out.narrow(axis, 1, length - 1)
    torch.maximum(front, ahead, out=front)
    torch.maximum(back, behind, out=back)
    return out


def resize_cells(values: Tensor, size: int) -> Tensor:
    """(N, G, G) or (N, C, G, G) to ``size`` cells on each side: means, or bilinear if finer."""
    if values.ndim == 3:
        return resize_cells(values[:, None], size)[:, 0]
    if values.shape[-1] == size:
        return values
    if values.shape[-1] % size == 0:
        return F.avg_pool2d(values, values.shape[-1] // size)
    return F.interpolate(values, size=(size, size), mode="bilinear", align_corners=False)


def _centres(start: float, end: float, length: int, cells: int) -> Tensor:
    """(cells,) on a scale that has pixel centres at integers, none beyond the border's."""
    steps = (torch.arange(cells) + 0.5) * ((end - start) / cells)
    return (start + steps - 0.5).clamp(0, length - 1)


def _reached(centres: Tensor, step: float, length: int) -> tuple[int, int]:
    """The first pixel that matters to cells, and the one after the last."""
    reach = max(1.0, step)
    first, last = int(centres[0].item() - reach), int(centres[-1].item() + reach + 1)
    return max(0, first), min(length, last + 1)


def _means(pixels: Tensor, centres: Tensor, step: float) -> Tensor:
    """(cells, W, 3) float32: means of rows of (H, W, 3), weighted by a hat two cells wide.

    A few cells at a time: a weight is 0 for nearly all of the rows of a large frame.
    """
    if step <= 1:  # no cell is wider than a pixel: two rows meet in each
        upper = centres.floor().clamp(max=max(0, len(pixels) - 2)).long()
        share = (centres - upper)[:, None, None]
        low, high = (pixels[(upper + i).clamp(max=len(pixels) - 1)].float() for i in (0, 1))
        return low.lerp_(high, share)
    reach, means = step, []
    for some in centres.split(max(_LEAST_CELLS, int(_PIXELS / reach))):
        first, end = _reached(some, step, len(pixels))
        weights = (1 - (some[:, None] - torch.arange(first, end)).abs() / reach).clamp(min=0)
        weights = weights / weights.sum(1, keepdim=True)
        means.append(weights @ pixels[first:end].float().flatten(1))
    return torch.cat(means).view(len(centres), *pixels.shape[1:])
