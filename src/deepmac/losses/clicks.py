"""Clicks as a person would set them, simulated: where a mask is most wrong, one after the other.

After RITM (Sofiiuk et al. 2021): the next click lies within the thickest wrong region of the
current mask, anywhere in its inner half, and says what it should have been.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmac.data.batch import Batch
from deepmac.losses.weak import cross_entropy, dice
from deepmac.nn.clicks import Clicks, HeadInputs
from deepmac.nn.deepmac import DeepMAC


def next_clicks(
    probabilities: Tensor, targets: Tensor, threshold: float, numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the next click of each mask lies, and what it says.

    Args:
        probabilities: (M, S, S) of the masks.
        targets: (M, S, S) in 0..1, foreground above one half.
        threshold: a cell belongs to a mask above it.
        numbers: (M, S, S) in 0..1: of the cells that are deep enough the one with the largest.

    Returns:
        (M, 2) x, y of the cell, NaN where nothing is wrong, and (M,) int64 labels, 1 on the object.
    """
    inside, true = probabilities > threshold, targets > 0.5
    wrong = torch.stack([inside & ~true, true & ~inside], dim=1)  # labels 0 and 1
    deep = depth(wrong)
    best = deep.flatten(2).amax(dim=2)
    labels = best.argmax(dim=1)
    row = torch.arange(len(labels), device=labels.device)
    chosen, most = deep[row, labels], best[row, labels]
    candidates = torch.where(chosen > most[:, None, None] / 2, numbers + 1, 0.0)
    cell = candidates.flatten(1).argmax(dim=1)
    size = targets.shape[-1]
    place = torch.stack([cell % size, cell // size], dim=1).float()
    return torch.where(most[:, None] > 0, place, torch.nan), labels


def depth(regions: Tensor) -> Tensor:
    """(M, R, S, S) of bool: how many cells each lies from the nearest one outside its region.

    In the chessboard metric; the border of the map is outside, and outside is 0.
    """
    left = F.pad(regions.float(), (1, 1, 1, 1))
    total = left
    for _ in range((regions.shape[-1] - 1) // 2):
        left = -F.max_pool2d(F.pad(-left, (1, 1, 1, 1)), 3, stride=1)
        total = total + left
    return total[..., 1:-1, 1:-1]


@torch.no_grad()
def simulated_clicks(
    network: DeepMAC,
    inputs: HeadInputs,
    logits: Tensor,
    batch: Batch,
    *,
    number: int,
    threshold: float,
    seed: int,
) -> Clicks:
    """Clicks on the masks of a batch, each where the mask after those before it is most wrong.

    Points that annotations give come first; they are somebody's own.

    Args:
        network: with a click head, whose mode does not matter: it answers as in use.
        inputs: of all boxes.
        logits: (B, N, S, S) without clicks.
        batch: with targets of the masks.
        number: clicks simulated for each object with a mask.
        threshold: a cell belongs to a mask above it.
        seed: equal ones give equal clicks.

    Returns:
        Of (B, N, K) points.
    """
    head = network.click_head
    assert head is not None
    rows, targets = batch["mask_valid"], batch["mask_targets"].float()
    size = targets.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    clicks = given_clicks(batch)
    training = head.training
    head.eval()
    for _ in range(number):
        answer = logits
        if clicks.labels.shape[2]:
            answer = head.corrected(inputs, logits, clicks, clicks.rows() & rows)
        numbers = torch.rand(*targets.shape, generator=generator).flatten(0, 1)
        within = torch.rand(*rows.shape, 2, generator=generator)
        cells, labels = next_clicks(
            answer.float().sigmoid().flatten(0, 1),
            targets.flatten(0, 1),
            threshold,
            numbers.to(targets.device),
        )
        place = (cells.view(*rows.shape, 2) + within.to(targets.device)) / size
        frames = inputs.frames.float()
        points = frames[..., :2] + place * (frames[..., 2:] - frames[..., :2])
        points = torch.where(rows[..., None], points, torch.nan)
        clicks = clicks.joined(Clicks(points[:, :, None], labels.view(rows.shape)[:, :, None]))
    head.train(training)
    return clicks


def given_clicks(batch: Batch) -> Clicks:
    """The points of a batch's annotations."""
    if "points" in batch:
        return Clicks(batch["points"], batch["point_labels"])
    shape = (*batch["valid"].shape, 0)
    device = batch["valid"].device
    return Clicks(
        torch.zeros(*shape, 2, device=device), torch.zeros(shape, dtype=torch.int64, device=device)
    )


def click_loss(logits: Tensor, batch: Batch, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and dice of corrected masks.

    Args:
        logits: (B, N, S, S).
        batch: with targets of the masks.
        rows: (B, N) bool, which masks were corrected.

    Returns:
        (B, N) the loss of each, times the trust in its target, and (B, N) float32, 1 for those that
        count.
    """
    targets, counted = batch["mask_targets"].float(), rows.float()
    loss = cross_entropy(logits, targets, torch.ones_like(targets)) + dice(logits, targets)
    return loss * batch.get("mask_weights", counted) * counted, counted
