"""The copy of a network that answers sooner."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from deepmac.nn import packed
from deepmac.nn.backbones import IMAGENET
from deepmac.nn.inference import for_inference, has_bfloat16
from deepmac.nn.network import SegmentationNetwork
from deepmac.nn.norm import BatchNorm2d
from deepmac.nn.packed import PackedConvolution, can_pack
from networks import tiny_network

BOXES = torch.tensor([[[3.0, 5, 40, 50], [0, 0, 64, 64]]])


def with_statistics(network: nn.Module) -> nn.Module:
    """Norms as a training leaves them: away from 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, BatchNorm2d | nn.BatchNorm2d):
            for name, low, high in (
                ("running_mean", -0.3, 0.3),
                ("running_var", 0.5, 2.0),
                ("weight", 0.6, 1.4),
                ("bias", -0.2, 0.2),
            ):
                values = torch.rand(module.weight.shape, generator=generator)
                getattr(module, name).data.copy_(low + (high - low) * values)
    return network.eval()


WIDE = {"pyramid_width": 16, "pixel_embedding_dim": 16, "dim": 32}  # values of the order of one


def deepmac(backbone: str, mask_head: str = "hourglass10", **options) -> SegmentationNetwork:
    network = tiny_network(num_classes=2, backbone=backbone, mask_head=mask_head, **WIDE, **options)
    return with_statistics(network)


def answers(network) -> list[torch.Tensor]:
    images = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(2))
    labels = torch.zeros(1, 2, dtype=torch.int64)
    with torch.no_grad():
        stage = network.last_stage(images.to(torch.uint8))
        maps = [stage["0"]] if isinstance(stage, dict) else [stage.heatmap, stage.size]
        return [network.mask_probabilities(stage, BOXES, labels=labels), *maps]


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(lambda: deepmac("hourglass_tiny2"), id="hourglass"),
        pytest.param(lambda: deepmac("hourglass_tiny2", compat="tf_release"), id="original"),
        pytest.param(lambda: deepmac("tf_efficientnet_lite0", "resnet4"), id="efficientnet"),
        pytest.param(lambda: deepmac("resnet18"), id="resnet"),
        pytest.param(lambda: deepmac("densenet121"), id="densenet"),
        pytest.param(lambda: deepmac("mobilenetv4_conv_small"), id="mobilenet"),
        pytest.param(lambda: deepmac("mobilenetv3_small_100"), id="hardswish and squeezing"),
        pytest.param(lambda: deepmac("efficientnet_b0"), id="silu"),
        pytest.param(lambda: deepmac("convnext_atto"), id="convnext without batch norms"),
        pytest.param(
            lambda: with_statistics(
                tiny_network("deepmarc", backbone="resnet18", mask_size=32, proposals=8)
            ),
            id="deepmarc",
        ),
    ],
)  # fmt: skip
def test_for_inference__changes_no_number_and_not_the_network(network) -> None:
    original = network()
    before = {name: value.clone() for name, value in original.state_dict().items()}
    copy = for_inference(original)
    for ours, theirs in zip(answers(copy), answers(original), strict=True):
        assert (ours - theirs).abs().max() <= 2e-5 * max(1, theirs.abs().max())
    assert all(torch.equal(before[name], value) for name, value in original.state_dict().items())
    assert for_inference(copy) is copy
    assert (copy.prepared, original.prepared) == ("32", None)


@pytest.mark.parametrize("backbone", ["hourglass_tiny2", "tf_efficientnet_lite0", "resnet18"])
def test_for_inference__leaves_no_norm_behind_a_convolution(backbone: str) -> None:
    left = [m for m in for_inference(deepmac(backbone)).modules() if hasattr(m, "running_mean")]
    assert not left


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet18"])
def test_for_inference__leaves_activations_and_sums_to_convolutions(backbone: str) -> None:
    copied = for_inference(deepmac(backbone))
    left = [m for m in copied.backbone.modules() if isinstance(m, nn.ReLU | nn.ReLU6)]
    plus = [m for m in copied.modules() if type(m).__name__ == "_WithSkip"]
    blocks = [m for m in deepmac(backbone).modules() if getattr(m, "has_skip", False)]
    # The last ReLU of a ResNet's block reads a sum.
    assert len(left) == (0 if backbone == "tf_efficientnet_lite0" else 8)
    assert len(plus) == len(blocks)


class ReadTwice(nn.Module):
    """A map whose activation is not all that reads it."""

    out_channels, stride, num_outputs, size_divisor = 8, 4, 1, 4
    normalization = IMAGENET

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU()

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        wide = self.conv(images)
        return [self.act(wide) - wide]


def test_activation_beside_other_readers__stays_where_it_is() -> None:
    original = deepmac("hourglass_tiny2")
    original.backbone = ReadTwice()
    original.heads = original.heads[:1]
    for head in original.heads[0].values():
        head[0] = nn.Conv2d(8, head[0].out_channels, 3, padding=1)
    for ours, theirs in zip(answers(for_inference(original)), answers(original), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_bf16__stays_close() -> None:
    original = deepmac("tf_efficientnet_lite0")
    masks, *_ = answers(for_inference(original, "bf16"))
    assert masks.dtype == torch.float32
    torch.testing.assert_close(masks, answers(original)[0], atol=0.05, rtol=0)


def test_auto__is_bf16_where_the_device_computes_in_it() -> None:
    wanted = "bf16" if has_bfloat16(torch.device("cpu")) else "32"
    assert for_inference(deepmac("hourglass_tiny2"), "auto").prepared == wanted
    with pytest.raises(ValueError, match="precision is auto, 32, bf16"):
        for_inference(deepmac("hourglass_tiny2"), "16")  # type: ignore[arg-type]


def test_last_stage__runs_no_head_that_is_not_read() -> None:
    network = deepmac("hourglass_tiny2").eval()
    ran = []
    for number, heads in enumerate(network.heads):
        for name, head in heads.items():
            head.register_forward_hook(lambda *_, key=(number, name): ran.append(key))
    images = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        stage = network.last_stage(images)
        assert ran == []
        network.mask_probabilities(stage, BOXES)
        assert sorted(ran) == [(1, "instance_embedding"), (1, "pixel_embedding")]
        network.detect(stage)
        network.mask_probabilities(stage, BOXES)
    again = (1, "instance_embedding")  # around the boxes' centres alone, each time
    assert sorted(ran[2:]) == [(1, "heatmap"), again, (1, "offset"), (1, "size")]


@pytest.mark.parametrize("compat", [None, "tf_latest"])
@pytest.mark.parametrize("count", [0, 1, 5, 60])
def test_last_stage__reads_the_instance_embedding_at_the_centres_of_boxes(compat, count) -> None:
    network = deepmac("hourglass_tiny2", compat=compat)
    images = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(3))
    corners = torch.rand(2, count, 4, generator=torch.Generator().manual_seed(4)) * 64
    corners[:, :1] = torch.tensor([64.0, 64, 96, 64])  # a centre on the very edge
    boxes = torch.cat([corners[..., :2], corners[..., :2] + corners[..., 2:]], -1)
    with torch.inference_mode():
        stage = network.last_stage(images.to(torch.uint8))
        masks = network.mask_logits(stage, boxes)
        spared = "instance_embedding" not in stage.__dict__
        stage = network.last_stage(images.to(torch.uint8))
        assert stage.instance_embedding is not None  # from now on read off the whole map
        whole = network.mask_logits(stage, boxes)
    assert spared == (count < 24)  # of 16 x 24 cells
    torch.testing.assert_close(masks, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("groups", [1, 4])
def test_packed_convolution__is_the_convolution(stride, kernel, groups) -> None:
    torch.manual_seed(0)
    for kind, more in ((nn.Conv2d, {"padding": kernel // 2}), (Conv2dSame, {})):
        plain = kind(8, 12, kernel, stride=stride, groups=groups, **more)
        laid_out = PackedConvolution(plain)
        with torch.inference_mode():
            for size in (9, 16, 9):
                x = torch.randn(2, 8, size, size).to(memory_format=torch.channels_last)
                out = plain(x)
                torch.testing.assert_close(laid_out(x), out, rtol=1e-5, atol=1e-5)
                other = torch.randn_like(out)
                torch.testing.assert_close(
                    laid_out.plus(x, other, relu=True), (out + other).relu(), rtol=1e-5, atol=1e-5
                )


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
def test_packed_convolution__of_many_sizes_stays_the_convolution() -> None:
    plain = nn.Conv2d(96, 64, 1)
    laid_out = PackedConvolution(plain)
    with torch.inference_mode():
        for size in (8, 9, 10, 11, 12, 16, 20, 24, 9):
            x = torch.randn(1, 96, size, size).to(memory_format=torch.channels_last)
            torch.testing.assert_close(laid_out(x), plain(x), rtol=1e-5, atol=1e-5)
    weights = {id(weight) for weight in laid_out._laid_out.values()}
    assert len(weights) == len(laid_out._layouts) < 8


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "mobilenetv4_conv_small"])
def test_expanded_maps__may_be_made_some_channels_at_a_time(backbone: str, monkeypatch) -> None:
    original = deepmac(backbone, "resnet4")
    monkeypatch.setattr(packed, "_AT_ONCE", 1 << 30)
    whole = answers(for_inference(original))
    for limit in (1 << 16, 1 << 10):
        monkeypatch.setattr(packed, "_AT_ONCE", limit)
        for ours, theirs in zip(answers(for_inference(original)), whole, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["hourglass10", "hourglass20", "resnet4"])
@pytest.mark.parametrize("embeds", [True, False])
def test_prepared_mask_head__is_the_mask_head_at_any_size(name: str, embeds: bool) -> None:
    original = deepmac("hourglass_tiny2", name, use_instance_embedding=embeds)
    prepared = for_inference(original)
    with torch.inference_mode():
        for height, width in ((8, 8), (4, 16), (32, 32)):
            pixel = torch.randn(3, 18, height, width)
            instance = torch.randn(3, 32) if embeds else None
            torch.testing.assert_close(
                prepared.mask_head(pixel, instance),
                original.mask_head(pixel, instance),
                rtol=1e-4,
                atol=1e-5,
            )
        with pytest.raises(ValueError, match="17 of the pixel part"):
            prepared.mask_head(pixel[:, :17], instance[:, :1] if embeds else None)


def test_copy_that_moves_to_a_card__is_not_laid_out_for_the_processor():
    network = deepmac("hourglass_tiny2")
    copied = for_inference(network, runs_on=torch.device("cuda"))
    assert not any(isinstance(module, PackedConvolution) for module in copied.modules())
    for ours, given in zip(answers(copied), answers(network), strict=True):
        torch.testing.assert_close(ours, given, rtol=1e-3, atol=1e-3)
