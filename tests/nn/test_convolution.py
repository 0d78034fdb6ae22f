"""Gradients of convolutions that are summed over strips."""

import pytest
import torch
from torch import nn

from deepmac.nn import convolution
from deepmac.nn.convolution import convolve
from deepmac.nn.hourglass import ConvBlock, NormOptions


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (5, 2), (7, 3), ((3, 1), (1, 0)), (3, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_strips__have_the_gradients_of_the_whole(monkeypatch, kernel, padding, stride, bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, kernel, stride, padding, bias=bias)
    x = torch.randn(2, 8, 37, 40).to(memory_format=torch.channels_last).requires_grad_()
    told = torch.randn_like(layer(x))

    def gradients():
        out = convolve(layer, x)
        return out, *torch.autograd.grad(out, [x, *layer.parameters()], told)

    whole = gradients()
    assert "_Strips" not in str(whole[0].grad_fn)
    monkeypatch.setattr(convolution, "_STRIP", 30_000)  # a few rows each
    strips = gradients()
    assert "_Strips" in str(strips[0].grad_fn)
    for ours, theirs in zip(strips, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_strips__are_of_large_maps_that_learn_in_float32():
    block = ConvBlock(256, 256, 3, options=NormOptions())
    large = torch.zeros(1, 256, 96, 96).to(memory_format=torch.channels_last)

    def kind(x):
        return str(convolve(block.conv, x).grad_fn)

    assert "_Strips" in kind(large)
    assert "_Strips" not in kind(large[:, :, :48, :48].contiguous())
    with torch.autocast("cpu", torch.bfloat16):
        assert "_Strips" not in kind(large)
    with torch.no_grad():
        assert kind(large) == "None"
    block.requires_grad_(False)
    assert "_Strips" not in kind(large)
