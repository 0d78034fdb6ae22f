"""Training a click head: alone beside a finished network, or with all the rest."""

import pytest
import torch

from deepmac.errors import ConfigError
from deepmac.models.initial_weights import load_initial_weights
from deepmac.nn.clicks import Clicks
from networks import masks_of_whole_boxes

CLICKS = {"click_head": "hourglass10", "click_channels": 4}


def module(**changes):
    return masks_of_whole_boxes(**{**CLICKS, **changes})


def batch(seed=0, count=8, marked=True):
    """Bright discs on dark ground, in boxes that hold more than the disc."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 1, 4, generator=generator) * 6
    boxes[..., 2:] = 62 - boxes[..., 2:]
    centre = 24 + torch.rand(count, 1, 2, generator=generator) * 16
    radius = 8 + torch.rand(count, 1, generator=generator) * 8
    at = torch.arange(64) + 0.5
    images = torch.rand(count, 3, 64, 64, generator=generator) * 60
    steps = (torch.arange(32) + 0.5) / 32
    x = boxes[..., 0, None] + steps * (boxes[..., 2] - boxes[..., 0])[..., None]
    y = boxes[..., 1, None] + steps * (boxes[..., 3] - boxes[..., 1])[..., None]
    apart = (x[..., None, :] - centre[..., 0, None, None]) ** 2
    apart = apart + (y[..., :, None] - centre[..., 1, None, None]) ** 2
    targets = (apart <= radius[..., None, None] ** 2).float()
    far = (at[None, None, :] - centre[..., 0, None]) ** 2
    far = far + (at[None, :, None] - centre[..., 1, None]) ** 2
    images += 180 * (far <= radius[..., None] ** 2).float()[:, None]
    return {
        "images": images,
        "boxes": boxes,
        "mask_boxes": boxes,
        "labels": torch.zeros(count, 1, dtype=torch.long),
        "valid": torch.ones(count, 1, dtype=torch.bool),
        "mask_valid": torch.full((count, 1), marked),
        "mask_targets": targets,
        "true_sizes": torch.tensor([[64, 64]] * count),
        "ignore": torch.zeros(count, 16, 16, dtype=torch.bool),
        "image_ids": torch.arange(count),
    }


def learning(built):
    return {name for name, p in built.network.named_parameters() if p.requires_grad}


def test_all_but_the_click_head__stays_to_the_bit_while_it_learns():
    built = module(freeze="all_but_click_head")
    assert built.training  # as Lightning finds and leaves it
    network = built.network
    assert learning(built) == {n for n, _ in network.named_parameters() if "click_head" in n}
    assert {m.training for m in network.click_head.modules()} == {True}
    assert not network.mask_head.training and not network.backbone.training
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(p for p in built.parameters() if p.requires_grad)
    built.compute_losses(batch())["loss"].backward()
    optimizer.step()
    changed = {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
    assert changed and all(name.startswith("click_head.") for name in changed)


def test_a_few_steps__make_masks_better_after_clicks():
    built = module(freeze="all_but_click_head")
    network, other = built.network, batch(99, 16)

    def iou(clicks):
        built.eval()
        with torch.no_grad():
            stage = network.last_stage(other["images"])
            masks = network.mask_probabilities(stage, other["boxes"], clicks=clicks) > 0.5
        true = other["mask_targets"] > 0.5
        return ((masks & true).sum() / (masks | true).sum()).item()

    optimizer = torch.optim.Adam((p for p in built.parameters() if p.requires_grad), lr=1e-2)
    without = iou(None)
    for step in range(16):
        built.train()
        optimizer.zero_grad()
        built.compute_losses(batch(step))["click"].backward()
        optimizer.step()
    corner = other["boxes"][..., :2] + 4  # beside the disc: the first mask is all of the box
    clicks = Clicks(corner[:, :, None], torch.zeros(16, 1, 1))
    assert iou(None) == without
    assert iou(clicks) > 1.5 * without


def test_steps__are_those_of_a_run_that_was_never_stopped(monkeypatch):
    def losses(built, step):
        monkeypatch.setattr(type(built), "global_step", step)
        built.network.click_head.head.project_out.weight.data.fill_(0.1)
        return built.compute_losses(batch())["click"].item()

    first = module()
    values = [losses(first, step) for step in range(3)]
    torch.rand(100)
    again = module()
    assert [losses(again, 2), losses(again, 1)] == [values[2], values[1]]
    assert len(set(values)) == 3


def test_without_masks_or_freezing__every_part_has_a_gradient_where_it_should():
    built = module()
    built.train()
    built.compute_losses(batch(marked=False))["loss"].backward()
    head = built.network.click_head.head.project_out.weight
    assert head.grad is not None and not head.grad.any()
    built.zero_grad()
    built.compute_losses(batch())["click"].backward()
    assert all(p.grad is None for p in built.network.mask_head.parameters())
    assert built.network.click_head.head.project_out.weight.grad.any()


@pytest.mark.parametrize("click_head", [None, "hourglass10"])
def test_freezing__needs_a_click_head(click_head):
    if click_head:
        module(click_head=click_head, freeze="all_but_click_head")
        return
    with pytest.raises(ConfigError, match="nothing to learn without a click head"):
        module(click_head=click_head, freeze="all_but_click_head")


def test_a_click_head__starts_from_the_mask_head_that_it_is_given(tmp_path):
    torch.save(module(click_head=None).network.state_dict(), tmp_path / "a.pth")
    built = module()
    said = load_initial_weights(built.network, str(tmp_path / "a.pth"), normalization=None)
    assert any("click head starts from" in line for line in said)
    torch.save(built.network.state_dict(), tmp_path / "b.pth")
    said = load_initial_weights(module().network, str(tmp_path / "b.pth"), normalization=None)
    assert not any("click head starts from" in line for line in said)
