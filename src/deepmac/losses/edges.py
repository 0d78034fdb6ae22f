"""What an edge head learns: the masks of objects on a grid finer than the mask head's.

The masks that it starts from are the network's own, which learns nothing by it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmac.data.batch import Batch
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.edge_head import GRIDS
from deepmac.nn.roi_crop import roi_crop
from deepmac.nn.tracing import static_shapes


def pooled_targets(targets: Tensor, size: int) -> Tensor:
    """(B, N, size, size) of (B, N, S, S) shares of cells, S a multiple of ``size``: exact means."""
    return F.avg_pool2d(targets.float(), targets.shape[-1] // size)


def edge_loss(
    network: DeepMAC, batch: Batch, logits: Tensor, *, step: int
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of masks made finer, on the grids of 64 and 128 cells by turns.

    Args:
        network: with an edge head.
        batch: with ``mask_targets`` on the finest grid, and the boxes' ``mask_boxes``.
        logits: (B, N, S, S) of the mask head.
        step: of the optimizer.

    Returns:
        (M,) the loss of each mask that counts, times the trust in its target, and (M,) float32, 1
        for those that count.
    """
    head = network.edge_head
    assert head is not None
    counted = batch["mask_valid"]
    trust = batch.get("mask_weights", counted.float()) * counted
    grid = GRIDS[step % len(GRIDS)]
    frames = network.mask_frames(batch["mask_boxes"])
    pictures = roi_crop(*_with_border(batch["images"], frames), grid, impl="separable")
    targets = pooled_targets(batch["mask_targets"], grid)
    if static_shapes(logits):
        index = torch.arange(counted.numel(), device=counted.device)
    else:
        index = counted.flatten().nonzero().squeeze(1)
    before = logits.detach().float().flatten(0, 1)[index].sigmoid()
    answer = head(before, pictures.flatten(0, 1)[index])
    loss = F.binary_cross_entropy_with_logits(
        answer.float(), targets.flatten(0, 1)[index], reduction="none"
    )
    return loss.mean((1, 2)) * trust.flatten()[index], counted.flatten()[index].float()


def _with_border(images: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures in 0..1, their border drawn out as where masks are refined, and frames in them."""
    side = max(images.shape[-2:]) // 8
    wider = F.pad(images.float() / 255, (side, side, side, side), mode="replicate")
    return wider, frames + side
