"""Depthwise convolutions in bfloat16 on a CPU: their own backward, the same gradients."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from deepmac.nn.backbones import build_backbone
from deepmac.nn.depthwise import as_made, learn_sooner

CASES = [  # kernel, stride, padding, height, width
    (5, 1, 2, 9, 12),
    (5, 2, 2, 16, 13),
    (5, 2, 0, 19, 18),
    (7, 1, 3, 11, 8),
    (3, 2, 1, 15, 16),
    ((3, 5), (2, 1), (1, 0), 12, 12),
]


def half():
    return torch.autocast("cpu", torch.bfloat16)


def gradients(layer, x, told):
    out = layer(x)
    return out, *torch.autograd.grad(out, [x, *layer.parameters()], told.to(out.dtype))


@pytest.mark.parametrize(("kernel", "stride", "padding", "height", "width"), CASES)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients__are_those_of_the_convolution(kernel, stride, padding, height, width, bias):
    torch.manual_seed(0)
    exact = nn.Conv2d(6, 6, kernel, stride, padding, groups=6, bias=bias)
    x = torch.randn(2, 6, height, width).to(memory_format=torch.channels_last).requires_grad_()
    told = torch.randn_like(exact(x))
    expected = gradients(exact, x, told)
    ours = copy.deepcopy(exact)
    learn_sooner(ours)
    with half():
        found = gradients(ours, x, told)
    assert "Convolution" in str(found[0].grad_fn)
    assert found[0].dtype == torch.bfloat16
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == (torch.bfloat16 if one is found[0] else torch.float32)
        assert (one - other).abs().max() <= 0.02 * other.abs().max()


def test_same_padding__has_the_gradients_of_timms_convolution():
    torch.manual_seed(0)
    exact = Conv2dSame(6, 6, 5, stride=2, groups=6, bias=False)
    x = torch.randn(1, 6, 17, 14).requires_grad_()
    told = torch.randn_like(exact(x))
    ours = copy.deepcopy(exact)
    learn_sooner(ours)
    with half():
        found = gradients(ours, x, told)
    for one, other in zip(found, gradients(exact, x, told), strict=True):
        assert (one - other).abs().max() <= 0.02 * other.abs().max()


def test_float32_and_prediction__are_left_to_torch():
    layer = nn.Sequential(nn.Conv2d(6, 6, 5, groups=6))
    learn_sooner(layer)
    x = torch.zeros(1, 6, 9, 9)
    assert type(layer(x).grad_fn).__name__ == "ConvolutionBackward0"
    with half(), torch.no_grad():
        assert layer(x).grad_fn is None
    frozen = layer.requires_grad_(False)
    with half():
        assert frozen(x).grad_fn is None


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 6, 3, groups=6),  # oneDNN is fast there
        nn.Conv2d(6, 6, 4, groups=6),
        nn.Conv2d(6, 6, 5, groups=6, dilation=2),
        nn.Conv2d(6, 6, 5, groups=6, padding="same"),
        nn.Conv2d(6, 6, 5, groups=6, padding=5),
        nn.Conv2d(6, 6, 5, groups=6, padding_mode="reflect"),
        nn.Conv2d(6, 12, 5, groups=6),
        nn.Conv2d(6, 6, 5, groups=3),
        nn.Conv2d(6, 6, 5),
    ],
    ids=str,
)
def test_other_convolutions__stay_as_they_are(layer):
    learn_sooner(layer)
    assert type(layer) is nn.Conv2d


def test_a_backbone__learns_with_it_and_gives_the_same_features():
    torch.manual_seed(0)
    backbone = build_backbone("tf_efficientnet_lite0", pyramid_width=8).eval()
    plain = copy.deepcopy(backbone)
    as_made(plain)
    kinds = [
        sum(type(m).__name__.startswith("_Depthwise") for m in one.modules())
        for one in (backbone, plain)
    ]
    assert kinds == [11, 0]
    assert backbone.state_dict().keys() == plain.state_dict().keys()
    images = torch.rand(1, 3, 64, 64)
    told = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for one in (backbone, plain):
        with half():
            (features,) = one(images)
        weights = list(one.parameters())
        told = told.to(features.dtype)
        found.append([features, *torch.autograd.grad(features, weights, told, allow_unused=True)])
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(*found, strict=True):
        if one is not None and other.abs().max() > 1e-3:
            assert (one - other).norm() <= 0.05 * other.norm()
