"""The recursive hourglass: shapes, counts, padding rows, recomputation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from deepmac.nn.conventions import Compat, conventions_of
from deepmac.nn.hourglass import (
    HOURGLASS_BACKBONES,
    HourglassNetwork,
    HourglassSpec,
    Residual,
    hourglass_backbone,
    plus_upsampled,
    upsample_nearest,
)
from deepmac.nn.norm import BatchNorm2d


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def total_count(module: nn.Module) -> int:
    return parameter_count(module) + sum(buffer.numel() for buffer in module.buffers())


def small_network(
    *, compat: Compat = None, checkpoint_activations: bool = False
) -> HourglassNetwork:
    torch.manual_seed(0)
    return HourglassNetwork(
        in_channels=3,
        spec=HourglassSpec(4, (6, 6, 8), (1, 2, 2), stacks=2),
        conventions=conventions_of(compat),
        checkpoint_activations=checkpoint_activations,
    )


def test_upsample_nearest__repeats_every_cell_four_times() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(upsample_nearest(x), nn.functional.interpolate(x, scale_factor=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_plus_upsampled__is_the_sum_in_place_where_nothing_learns(dtype, layout) -> None:
    fine = torch.randn(2, 3, 8, 10).to(dtype).to(memory_format=layout)
    coarse = torch.randn(2, 3, 4, 5, dtype=dtype)
    before, wanted = fine.clone(), fine + upsample_nearest(coarse)
    assert torch.equal(plus_upsampled(fine, coarse), wanted)
    assert torch.equal(fine, before)
    with torch.no_grad():
        assert torch.equal(plus_upsampled(fine, coarse), wanted)
    assert torch.equal(fine, wanted)


def test_hourglass_104__has_the_parameters_of_the_original() -> None:
    with torch.device("meta"):
        network = hourglass_backbone("hourglass_104")
    assert parameter_count(network) == 187_700_352
    assert total_count(network) == 187_817_856  # with moving statistics
    assert (network.out_channels, network.num_outputs, network.size_divisor) == (256, 2, 128)


@pytest.mark.parametrize(
    ("name", "out_channels", "divisor"),
    [
        ("hourglass_52", 128, 128),
        ("hourglass_32", 96, 32),
        ("hourglass_20", 96, 16),
        ("hourglass_10", 64, 8),
        ("hourglass_tiny2", 16, 16),
    ],
)
def test_hourglass_backbone__gives_stride_4_maps(
    name: str, out_channels: int, divisor: int
) -> None:
    with torch.device("meta"):
        network = hourglass_backbone(name).eval()
        outputs = network(torch.zeros(1, 3, divisor, 2 * divisor))
    assert network.size_divisor == divisor
    assert len(outputs) == network.num_outputs == HOURGLASS_BACKBONES[name].stacks
    shape = (1, out_channels, divisor // 4, divisor // 2)
    assert all(output.shape == shape for output in outputs)


def test_hourglass_backbone__stride_8_is_one_more_residual_block() -> None:
    network = hourglass_backbone("hourglass_tiny2", stride=8).eval()
    assert network.size_divisor == 32
    assert network(torch.zeros(1, 3, 32, 64))[-1].shape == (1, 16, 4, 8)
    four = hourglass_backbone("hourglass_tiny2")
    assert four.state_dict().keys() < network.state_dict().keys()


def test_hourglass_backbone__refuses_unknown_names_strides_and_sizes() -> None:
    with pytest.raises(ValueError, match="known are hourglass_104"):
        hourglass_backbone("hourglass104")
    with pytest.raises(ValueError, match="stride 4 or 8"):
        hourglass_backbone("hourglass_10", stride=16)
    with pytest.raises(ValueError, match="multiples of 8"):
        hourglass_backbone("hourglass_10")(torch.zeros(1, 3, 20, 16))


def test_residual__projects_its_skip_only_where_shapes_change() -> None:
    options = BatchNorm2d(1).options
    assert Residual(4, 4, options=options).skip is None
    assert Residual(4, 6, options=options).skip is not None
    assert Residual(4, 4, stride=2, options=options).skip is not None


def test_hourglass__batch_of_one_equals_batch_of_many_in_eval_mode() -> None:
    network = small_network().double().eval()
    x = torch.randn(3, 3, 8, 8).double()
    with torch.no_grad():
        together, alone = network(x)[-1], torch.cat([network(row[None])[-1] for row in x])
    torch.testing.assert_close(together, alone)


def test_hourglass__padding_rows_change_nothing_in_training() -> None:
    packed, masked = small_network().double(), small_network().double()
    x = torch.randn(4, 3, 8, 8).double()
    valid = torch.tensor([True, False, True, True])
    x[1] = 100
    for network, out in ((packed, packed(x[valid])), (masked, masked(x, valid))):
        live = out[-1] if network is packed else out[-1][valid]
        live.square().mean().backward()
    for (name, a), b in zip(packed.named_parameters(), masked.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    for (name, c), d in zip(packed.named_buffers(), masked.buffers(), strict=True):
        torch.testing.assert_close(c, d, msg=name)


@pytest.mark.parametrize("compat", [None, "tf_latest"])
@pytest.mark.parametrize("valid", [None, torch.tensor([True, False])], ids=["all", "masked"])
def test_checkpoint_activations__changes_neither_gradients_nor_statistics(
    compat: Compat, valid: Tensor | None
) -> None:
    plain = small_network(compat=compat)
    saving = small_network(compat=compat, checkpoint_activations=True)
    x = torch.randn(2, 3, 8, 8)
    for network in (plain, saving):
        network(x, valid)[-1].square().mean().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for c, d in zip(plain.buffers(), saving.buffers(), strict=True):
        assert torch.equal(c, d)


def test_hourglass__every_parameter_of_two_stacks_gets_a_gradient() -> None:
    network = small_network()
    sum(output.square().mean() for output in network(torch.randn(2, 3, 8, 8))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("compat", "std"), [(None, (2 / 144) ** 0.5), ("tf_latest", (2 / 288) ** 0.5)]
)
def test_hourglass__initial_weights_follow_compat(compat: Compat, std: float) -> None:
    torch.manual_seed(0)
    spec = HourglassSpec(8, (16, 16), (1, 1))
    network = HourglassNetwork(in_channels=3, spec=spec, conventions=conventions_of(compat))
    weight = network.get_parameter("outputs.0.conv.weight")
    assert weight.std().item() == pytest.approx(std, rel=0.1)
