"""The edge head: a finer mask from a mask's cells and the picture's pixels."""

import pytest
import torch
from torch.nn import functional as F

from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.edge_head import EdgeHead
from deepmac.nn.inference import for_inference
from networks import tiny_network


def discs(count=8, grid=64, seed=0):
    """(N, 3, G, G) noisy red discs on grass, and (N, G, G) what they cover."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(grid) + 0.5, torch.arange(grid) + 0.5, indexing="ij")
    centre = grid * (0.4 + 0.2 * torch.rand(count, 2, 1, 1, generator=generator))
    radius = grid * (0.15 + 0.2 * torch.rand(count, 1, 1, generator=generator))
    masks = ((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2 < radius**2).float()
    red, grass = torch.tensor([0.8, 0.2, 0.1]), torch.tensor([0.2, 0.5, 0.2])
    shown = torch.where(masks[:, None] > 0, red.view(1, 3, 1, 1), grass.view(1, 3, 1, 1))
    return (shown + 0.1 * torch.rand(shown.shape, generator=generator)).clamp(0, 1), masks


def blurred(masks, cells=16):
    coarse = F.avg_pool2d(masks, masks.shape[-1] // cells)[:, None]
    return F.avg_pool2d(coarse, 5, 1, 2)[:, 0]


@pytest.mark.parametrize("grid", [64, 128])
def test_a_fresh_head__changes_nothing(grid):
    pictures, masks = discs(grid=grid)
    coarse = blurred(masks)
    logits = torch.logit(coarse, 1e-3)[:, None]
    expected = F.interpolate(logits, size=grid, mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(EdgeHead(8)(coarse, pictures), expected)


def test_no_boxes__give_no_masks():
    assert EdgeHead(8)(torch.zeros(0, 16, 16), torch.zeros(0, 3, 64, 64)).shape == (0, 64, 64)


def test_a_few_steps__teach_it_where_a_picture_has_its_edges():
    torch.manual_seed(0)
    head = EdgeHead(8)
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for step in range(40):
        pictures, masks = discs(seed=step)
        loss = F.binary_cross_entropy_with_logits(head(blurred(masks), pictures), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pictures, masks = discs(seed=99)
    truth = masks > 0.5

    def iou(found):
        return float((found & truth).sum() / (found | truth).sum())

    before = iou(F.interpolate(blurred(masks)[:, None], size=64, mode="bilinear")[:, 0] > 0.5)
    assert before < 0.9 < 0.97 < iou(head(blurred(masks), pictures) > 0)


@pytest.mark.parametrize(("precision", "error"), [("32", 1e-5), ("bf16", 0.1)])
def test_a_copy_for_inference__answers_as_the_network_does(precision, error):
    network = tiny_network(detector=False, edge_channels=8)
    torch.nn.init.normal_(network.edge_head.net.project_out.weight, std=0.05)
    pictures, masks = discs()
    expected = network.edge_head(blurred(masks), pictures)
    assert not torch.equal(expected, EdgeHead(8)(blurred(masks), pictures))
    found = for_inference(network, precision).edge_head(blurred(masks), pictures)
    assert (found - expected).abs().max() < error


def test_a_network_without_one__has_none():
    assert tiny_network().edge_head is None
    assert tiny_network("deepmarc").edge_head is None
    with pytest.raises(ValueError, match="edge_channels=16 is about crops"):
        tiny_network(edge_channels=16, predict_full_resolution_masks=True)
    with pytest.raises(ValueError, match="a mask_size that divides 128, not 48"):
        tiny_network(edge_channels=16, mask_size=48)
    assert isinstance(tiny_network(edge_channels=4), DeepMAC)
