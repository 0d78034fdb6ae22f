"""The mask heads: names, parameter counts, channels, padding rows."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deepmac.nn.mask_heads import (
    COND_INST_HEADS,
    MASK_HEADS,
    MaskHead,
    build_mask_head,
)

# Of the TensorFlow original at width 64 and 50 input channels: parameters, and with moving
# statistics.
PARAMETER_COUNTS = {
    "hourglass10": (1_605_249, 1_608_705),
    "hourglass20": (5_530_625, 5_539_585),
    "hourglass32": (10_440_065, 10_455_553),
    "hourglass52": (23_454_593, 23_483_905),
    "hourglass100": (47_221_121, 47_276_545),
    "hourglass20_uniform_size": (5_513_985, 5_522_689),
    "hourglass20_no_shortcut": (4_644_353, 4_651_777),
    "resnet4": (529_217, 530_625),
    "resnet8": (1_120_577, 1_123_521),
    "resnet12": (1_711_937, 1_716_417),
    "resnet16": (2_303_297, 2_309_313),
    "resnet20": (3_546_817, 3_555_009),
}
NORMALIZED = ["hourglass10", "hourglass20_no_shortcut", "resnet4"]
PIXEL, EMBEDDING, SIZE = 6, 4, 8


def small_head(name: str) -> MaskHead:
    torch.manual_seed(0)
    takes_parameters = name in COND_INST_HEADS or name == "embedding_projection"
    in_channels = PIXEL if takes_parameters else PIXEL + EMBEDDING
    return build_mask_head(name, in_channels, PIXEL if name == "cond_inst1" else 3, SIZE)


def inputs(name: str, rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    width = PIXEL if name == "cond_inst1" else 3
    dim = EMBEDDING
    if name in COND_INST_HEADS:  # weights and biases, layer by layer
        widths = [PIXEL, *[width] * (COND_INST_HEADS[name] - 1), 1]
        dim = sum(i * o + o for i, o in pairwise(widths))
    elif name == "embedding_projection":
        dim = PIXEL
    return (
        torch.randn(rows, PIXEL, SIZE, SIZE, generator=generator),
        torch.randn(rows, dim, generator=generator),
    )


def test_mask_heads__are_the_seventeen_of_the_original() -> None:
    assert len(MASK_HEADS) == len(set(MASK_HEADS)) == 17


@pytest.mark.parametrize("name", PARAMETER_COUNTS)
def test_mask_head__has_the_parameters_of_the_original(name: str) -> None:
    with torch.device("meta"):
        head = build_mask_head(name, 50, 64, 32)
    parameters = sum(parameter.numel() for parameter in head.parameters())
    buffers = sum(buffer.numel() for buffer in head.buffers())
    assert (parameters, parameters + buffers) == PARAMETER_COUNTS[name]


@pytest.mark.parametrize("name", MASK_HEADS)
def test_mask_head__gives_one_mask_a_row(name: str) -> None:
    size = 32 if name in ("hourglass52", "hourglass100") else SIZE
    with torch.device("meta"):
        head = small_head(name)
        pixel, instance = (torch.empty(rows.shape) for rows in inputs(name, 2))
        pixel = torch.empty(2, PIXEL, size, size)
        assert head(pixel, instance).shape == (2, size, size)
        assert head.trunk(pixel, instance).shape == (2, head.trunk_channels, size, size)


@pytest.mark.parametrize("name", ["hourglass20", "resnet8", "fully_connected"])
def test_mask_head__ignores_the_embedding_when_channels_leave_no_room(name: str) -> None:
    head = build_mask_head(name, PIXEL, 2, SIZE).eval()
    pixel, instance = inputs(name, 2)
    assert torch.equal(head(pixel, instance), head(pixel))


@pytest.mark.parametrize("name", ["hourglass20", "resnet8", "fully_connected"])
def test_mask_head__sees_the_embedding_after_the_pixels(name: str) -> None:
    head = build_mask_head(name, PIXEL + EMBEDDING, 2, SIZE).eval()
    pixel, instance = inputs(name, 2)
    spread = instance[:, :, None, None].expand(-1, -1, SIZE, SIZE)
    assert torch.equal(head(pixel, instance), head(torch.cat([pixel, spread], 1)))


@pytest.mark.parametrize("name", MASK_HEADS)
def test_mask_head__says_which_channels_do_not_fit(name: str) -> None:
    pixel, instance = inputs(name, 1)
    with pytest.raises(ValueError, match="takes"):
        small_head(name)(pixel[:, 1:], instance)
    with pytest.raises(ValueError, match="takes"):
        small_head(name)(pixel, None)


def test_mask_head__says_which_sizes_do_not_fit() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        build_mask_head("hourglass52", PIXEL, 2, 32)(torch.zeros(1, PIXEL, 24, 24))
    with pytest.raises(ValueError, match="crops of 8x8"):
        build_mask_head("fully_connected", PIXEL, 2, SIZE)(torch.zeros(1, PIXEL, 9, 9))


def test_build_mask_head__refuses_unknown_names_and_impossible_widths() -> None:
    with pytest.raises(ValueError, match="known are hourglass10"):
        build_mask_head("hourglass11", 50, 64, 32)
    with pytest.raises(ValueError, match="cond_inst1 needs"):
        build_mask_head("cond_inst1", 10, 8, 32)


def test_dynamic_heads__take_as_many_numbers_as_their_layers_have() -> None:
    counts = [
        build_mask_head(name, 10, width, SIZE).parameter_count
        for name, width in (("cond_inst1", 10), ("cond_inst2", 8), ("cond_inst3", 8))
    ]
    assert counts == [11, 97, 169]


@pytest.mark.parametrize(
    "name", [n for n in MASK_HEADS if n not in ("hourglass52", "hourglass100")]
)
def test_mask_head__batch_of_one_equals_batch_of_many_in_eval_mode(name: str) -> None:
    head = small_head(name).double().eval()
    pixel, instance = (part.double() for part in inputs(name, 3))
    with torch.no_grad():
        together = head(pixel, instance)
        alone = torch.cat([head(pixel[i : i + 1], instance[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", [*NORMALIZED, "fully_connected", "cond_inst2"])
@given(valid=st.lists(st.booleans(), min_size=2, max_size=5).filter(any), junk=st.floats(-99, 99))
@settings(max_examples=6, deadline=None)
def test_mask_head__masked_rows_equal_packed_rows(
    name: str, valid: list[bool], junk: float
) -> None:
    mask = torch.tensor(valid)
    pixel, instance = inputs(name, len(valid))
    pixel = torch.where(mask[:, None, None, None], pixel, junk)
    instance = torch.where(mask[:, None], instance, -junk)
    packed, masked = small_head(name).double(), small_head(name).double()
    pixel, instance = pixel.double(), instance.double()
    ours = masked(pixel, instance, mask)[mask]
    theirs = packed(pixel[mask], instance[mask])
    torch.testing.assert_close(ours, theirs)
    for loss in (ours.square().mean(), theirs.square().mean()):
        if loss.requires_grad:
            loss.backward()
    for a, b in zip(masked.parameters(), packed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for c, d in zip(masked.buffers(), packed.buffers(), strict=True):
        torch.testing.assert_close(c, d)


@pytest.mark.parametrize("name", NORMALIZED)
@pytest.mark.parametrize("rows", [0, 2])
def test_mask_head__without_valid_rows_keeps_statistics_and_stays_finite(
    name: str, rows: int
) -> None:
    head = small_head(name).train()
    before = [buffer.clone() for buffer in head.buffers()]
    pixel, instance = inputs(name, rows)
    logits = head(pixel, instance, torch.zeros(rows, dtype=torch.bool))
    assert logits.shape == (rows, SIZE, SIZE) and logits.isfinite().all()
    (logits.sum() * 0).backward()
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())
    assert all(map(torch.equal, before, head.buffers()))


@pytest.mark.parametrize("name", ["cond_inst3", "embedding_projection"])
def test_mask_head__without_parameters_has_an_empty_state(name: str) -> None:
    assert not small_head(name).state_dict()
