"""Training an edge head: alone beside a finished network, or with all the rest."""

import pytest
import torch

from deepmac.errors import ConfigError
from deepmac.losses.edges import pooled_targets
from networks import masks_of_whole_boxes


def module(**changes):
    return masks_of_whole_boxes(**{"edge_channels": 4, **changes})


def batch(seed=0, count=6, marked=True):
    """The right half of each box is bright and the object."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 64, 64, generator=generator) * 60
    images[..., 32:] += 180
    boxes = torch.tensor([[[16.0, 16, 48, 48], [0, 0, 0, 0]]]).repeat(count, 1, 1)
    targets = torch.zeros(count, 2, 128, 128)
    targets[:, 0, :, 64:] = 1
    there = torch.tensor([[True, False]]).repeat(count, 1)
    return {
        "images": images,
        "boxes": boxes,
        "mask_boxes": boxes,
        "labels": torch.zeros(count, 2, dtype=torch.long),
        "valid": there,
        "mask_valid": there & marked,
        "mask_targets": targets,
        "true_sizes": torch.tensor([[64, 64]] * count),
        "ignore": torch.zeros(count, 16, 16, dtype=torch.bool),
        "image_ids": torch.arange(count),
    }


def test_targets__are_as_fine_as_the_finest_grid_and_the_mask_head_gets_their_means():
    assert module().targets.mask_size == 128
    assert module(edge_channels=0).targets.mask_size == 32
    fine = torch.rand(2, 3, 128, 128)
    means = pooled_targets(fine, 32)
    assert means.shape == (2, 3, 32, 32)
    torch.testing.assert_close(means[1, 2, 0, 1], fine[1, 2, :4, 4:8].mean())
    coarse = {**batch(), "mask_targets": pooled_targets(batch()["mask_targets"], 32)}
    with torch.no_grad():
        with_head = module().compute_losses(batch())
        without = module(edge_channels=0).compute_losses(coarse)
    assert with_head["mask"] == without["mask"] and "edge" not in without


def test_all_but_the_edge_head__stays_to_the_bit_while_it_learns():
    built = module(freeze="all_but_edge_head")
    network = built.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam((p for p in built.parameters() if p.requires_grad), lr=1e-2)
    seen = []
    for step in range(30):
        built.train()
        losses = built.compute_losses(batch(step))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        seen.append(losses["edge"].item())
    assert seen[-1] < 0.3 * seen[0]
    changed = {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
    assert changed and all(name.startswith("edge_head.") for name in changed)


def test_with_everything_learning__the_edge_loss_reaches_the_edge_head_alone():
    built = module(losses={"mask_weight": 0.0})
    built.compute_losses(batch())["loss"].backward()
    moved = {n for n, p in built.network.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved and all(name.startswith("edge_head.") for name in moved)


def test_without_masks__every_part_of_it_has_a_gradient_that_is_nothing():
    built = module()
    losses = built.compute_losses(batch(marked=False))
    assert losses["edge"] == 0
    losses["loss"].backward()
    assert all(p.grad is None or not p.grad.any() for p in built.network.edge_head.parameters())


def test_freezing_all_but_what_is_not_there__is_refused():
    with pytest.raises(ConfigError, match=r"without an edge head: set model\.edge_channels=16"):
        module(edge_channels=0, freeze="all_but_edge_head")
