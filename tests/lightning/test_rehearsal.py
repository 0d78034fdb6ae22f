"""What a training says of its network first: sizes and cost are true."""

import re

import pytest
import torch
from torch import nn

from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.rehearsal import rehearse


@pytest.mark.parametrize("backbone", ["hourglass_10", "tf_efficientnet_lite0"])
def test_cost__is_that_of_all_layers_counted_one_by_one(backbone):
    module = DeepMACModule(
        backbone=backbone, mask_head="hourglass10", head_channels=8, num_init_channels=4,
        num_classes=3,
    )  # fmt: skip
    said = rehearse(module, 128)
    network = module.make_network(3).eval()
    flop = 0

    def count(layer, inputs, output):
        nonlocal flop
        flop += 2 * output.numel() * layer.weight[0].numel()  # a multiplication and an addition

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, 128, 128))
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert f"{backbone}, mask head hourglass10, {millions:.1f} M parameters" in said
    told = float(re.search(r"([\d.]+) GFLOP an image of 128 pixels before its masks", said)[1])
    assert told > 0 and told == pytest.approx(flop / 1e9, rel=0.01)
