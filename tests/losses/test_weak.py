"""Losses for boxes without masks: what each asks for, and the original's numbers."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from deepmac.data.original.soft_targets import original_mask_targets
from deepmac.errors import ConfigError
from deepmac.losses.color import (
    color_consistency,
    color_similarity,
    lab_of_crops,
    lab_of_map,
    rgb_to_lab,
    same_label_probability,
)
from deepmac.losses.criterion import DeepMACCriterion
from deepmac.losses.grids import alone_in_class, inside_boxes
from deepmac.losses.options import (
    BoxConsistency,
    ColorConsistency,
    LossOptions,
    PointSupervision,
    SelfSupervision,
    WeakLossOptions,
)
from deepmac.losses.original import (
    OriginalCriterion,
    OriginalSecondView,
    OriginalWeakLosses,
    original_alone_in_class,
    original_inside_boxes,
    original_lab_of_map,
)
from deepmac.losses.second_view import (
    SecondView,
    Teacher,
    View,
    draw_view,
    undo_view,
    undo_view_of_crops,
    view_boxes,
    view_images,
)
from deepmac.losses.training_masks import training_boxes, training_mask_logits
from deepmac.losses.weak import (
    WeakLosses,
    box_consistency,
    cross_entropy,
    dice,
    point_supervision,
    self_supervision,
    warmup,
)
from deepmac.nn.conventions import TF_LATEST
from deepmac.nn.full_resolution import original_resize
from deepmac.nn.roi_crop import corner_aligned_crop
from networks import tiny_network

SIDE = 32
IMAGE = torch.tensor([0.0, 0.0, SIDE, SIDE])
LOG_2 = math.log(2)
ALL_ON = LossOptions(
    box_consistency=BoxConsistency(1.0),
    color_consistency=ColorConsistency(1.0),
    self_supervision=SelfSupervision(1.0),
    point_supervision=PointSupervision(1.0),
)


def box(*edges: float) -> torch.Tensor:
    return torch.tensor(edges, dtype=torch.float32).reshape(1, 1, 4)


def painted(inside: torch.Tensor, foreground: float = 20.0) -> torch.Tensor:
    """Logits of exactly the mask ``inside``."""
    return (2 * inside - 1) * foreground


def random_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, 3, 2, generator=generator) * 14
    size = 4 + torch.rand(2, 3, 2, generator=generator) * 12
    boxes = torch.cat([corner, corner + size], dim=2)
    boxes[1, 2] = 0
    return {
        "images": (torch.rand(2, 3, SIDE, SIDE, generator=generator) * 255).to(torch.uint8),
        "true_sizes": torch.tensor([[32, 32], [24, 32]]),
        "boxes": boxes,
        "mask_boxes": boxes,
        "labels": torch.tensor([[0, 0, 1], [2, 2, 0]]),
        "valid": torch.tensor([[True, True, True], [True, True, False]]),
        "points": torch.rand(2, 3, 4, 2, generator=generator) * SIDE,
        "point_labels": torch.randint(0, 2, (2, 3, 4), generator=generator).float(),
    }


# Boxes on grids.


def test_inside_boxes__are_the_cells_whose_centre_the_box_holds() -> None:
    inside = inside_boxes(box(8, 4, 20, 13), IMAGE, (8, 8))[0, 0]
    expected = torch.zeros(8, 8)
    expected[1:3, 2:5] = 1  # rows 4..12 of 4 pixels: centre 14 lies beyond 13
    assert torch.equal(inside, expected)


def test_inside_boxes__never_lose_a_box_smaller_than_a_cell() -> None:
    inside = inside_boxes(box(4.1, 8.1, 4.4, 8.3), IMAGE, (8, 8))[0, 0]
    assert inside.nonzero().tolist() == [[2, 1]]


@settings(deadline=None, max_examples=20)
@given(st.tuples(*[st.floats(1, 30)] * 2), st.tuples(*[st.floats(0.5, 60)] * 2))
def test_inside_boxes__fill_the_crop_of_the_box_itself(corner, size) -> None:
    own = box(*corner, corner[0] + size[0], corner[1] + size[1])
    assert inside_boxes(own, own, (7, 5)).min() == 1


def test_inside_boxes__are_none_in_an_empty_frame() -> None:
    assert inside_boxes(box(0, 0, 0, 0), box(0, 0, 0, 0), (4, 4)).max() == 0


# Box consistency.


@pytest.mark.parametrize("normalization", ["auto", "groundtruth_count", "balanced"])
@pytest.mark.parametrize("tightness", [False, True])
def test_box_consistency__of_a_mask_that_spans_the_box_is_zero(normalization, tightness) -> None:
    inside = inside_boxes(box(4, 8, 20, 28), IMAGE, (8, 8))
    diagonal = torch.zeros(1, 1, 8, 8)
    for row in range(2, 7):
        diagonal[..., row, min(row - 1, 4)] = 1
    for mask in (inside, diagonal):
        options = WeakLossOptions(BoxConsistency(normalization=normalization, tightness=tightness))
        loss = WeakLosses(options).box_consistency(painted(mask), inside, {}, True)
        assert loss.item() < 1e-6


def test_box_consistency__of_a_crop_asks_for_foreground_in_every_line() -> None:
    own = box(3, 5, 9, 30)
    inside = inside_boxes(own, own, (8, 8))
    full, one_line = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    one_line[..., 3, :] = 1
    assert box_consistency(painted(full), inside).item() < 1e-6
    assert box_consistency(painted(one_line), inside).item() == pytest.approx(20 * 7 / 8, rel=1e-4)


def test_box_consistency__of_a_jittered_crop_follows_the_box_within_it() -> None:
    inside = inside_boxes(box(8, 8, 24, 24), box(4, 4, 28, 28), (6, 6))
    assert inside[0, 0].sum(0).tolist() == [0, 4, 4, 4, 4, 0]
    assert box_consistency(painted(inside), inside).item() < 1e-6
    assert box_consistency(painted(torch.ones(1, 1, 6, 6)), inside).item() > 10


def test_tightness__is_not_met_by_foreground_beside_the_box() -> None:
    inside = inside_boxes(box(4, 4, 12, 28), IMAGE, (8, 8))
    beside = torch.zeros(1, 1, 8, 8)
    beside[..., 1:7, 5] = 1
    beside[..., 0, 1:3] = 1
    loose = box_consistency(painted(beside), inside)
    options = WeakLossOptions(BoxConsistency(tightness=True))
    tight = WeakLosses(options).box_consistency(painted(beside), inside, {}, True)
    assert tight > loose + 10
    hidden = OriginalWeakLosses(options).box_consistency(painted(beside), inside, {}, True)
    assert hidden < tight  # a zero from outside hides every negative logit within


def test_balanced__weighs_lines_within_and_without_alike() -> None:
    inside = inside_boxes(box(0, 0, 4, 4), IMAGE, (8, 8))
    loss = box_consistency(torch.zeros(1, 1, 8, 8), inside, normalization="balanced")
    assert loss.item() == pytest.approx(4 * LOG_2)


# Colours.


def test_rgb_to_lab__of_white_black_grey_and_red() -> None:
    rgb = torch.tensor([[1.0, 1, 1], [0, 0, 0], [0.5, 0.5, 0.5], [1, 0, 0]]).T[None, :, None]
    expected = [[100, 0, 0], [0, 0, 0], [53.389, 0, 0], [53.241, 80.092, 67.203]]
    assert rgb_to_lab(rgb)[0, :, 0].T.numpy() == pytest.approx(np.array(expected), abs=0.02)


def test_color_consistency__ignores_edges_between_unlike_colours() -> None:
    colors = torch.zeros(1, 1, 3, 8, 8)
    colors[..., 4:] = 50
    inside, seen = torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    along, across = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    along[..., 4:], across[..., 4:, :] = 1, 1
    assert color_consistency(painted(along), colors, inside, seen=seen).item() < 1e-5
    assert color_consistency(painted(across), colors, inside, seen=seen).item() > 1


def test_color_consistency__counts_no_pair_that_leaves_the_picture() -> None:
    colors = torch.zeros(1, 1, 3, 8, 8)
    full = painted(torch.ones(1, 1, 8, 8))
    inside = torch.ones(1, 1, 8, 8)
    seen = torch.ones(1, 1, 8, 8)
    assert color_consistency(full, colors, inside, seen=seen).item() < 1e-5
    assert color_consistency(full, colors, inside).item() > 1  # black beyond the edge, no mask
    half = torch.where(torch.arange(8) < 4, 20.0, -20.0).expand(1, 1, 8, 8)
    seen[..., 4:] = 0
    assert color_consistency(half, colors, inside, seen=seen).item() < 1e-5


def test_lab_of_map__averages_cells() -> None:
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    images[..., 1:3, 1:3] = 255
    lightness = lab_of_map(images, 4)[0, 0, 0]
    quarter = rgb_to_lab(torch.full((1, 3, 1, 1), 0.25))[0, 0].item()
    assert lightness[0, 0].item() == pytest.approx(quarter, rel=1e-5)
    assert original_lab_of_map(images, 4)[0, 0, 0, 0, 0].item() == pytest.approx(100, abs=0.01)
    assert lightness[1, 1].item() == pytest.approx(0, abs=1e-4)
    assert lab_of_crops(images, box(0, 0, 8, 8), 4).shape == (1, 1, 3, 4, 4)


# Second views.


def test_self_supervision__of_equal_masks_is_zero_and_teaches_one_side_only() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 6, 6, generator=generator).requires_grad_()
    weights = torch.ones(1, 2, 6, 6)
    for kind in ("mse", "kl"):
        assert self_supervision(logits, logits, weights, kind=kind).abs().max() < 1e-6
    sharp = logits.detach() * 1e3
    assert self_supervision(sharp, sharp, weights, kind="dice").abs().max() < 0.1
    teacher = torch.randn(1, 2, 6, 6, generator=generator).requires_grad_()
    for kind in ("dice", "mse", "kl"):
        self_supervision(logits, teacher, weights, kind=kind).sum().backward()
    assert teacher.grad is None
    assert logits.grad is not None and logits.grad.abs().max() > 0


def test_undo_view__inverts_flip_shift_and_scale_together() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    masks = torch.stack([3 * x + y, x * y])[None].repeat(2, 1, 1, 1)
    view = View(
        shift=torch.tensor([[0.12, -0.07], [-0.1, 0.2]]),
        scale=torch.tensor([[1.25, 0.8], [0.9, 1.1]]),
        flip=torch.tensor([True, False]),
    )
    seen = view_images(masks, view)
    back, shown = undo_view(seen, view)
    assert 0.5 < shown.mean() < 1
    # Away from edges, where half a pixel is repeated, the masks are linear: nothing is lost.
    shown = -torch.nn.functional.max_pool2d(-shown, 5, stride=1, padding=2)
    shown[..., :2] = shown[..., -2:] = 0
    shown[..., :2, :] = shown[..., -2:, :] = 0
    assert shown.mean() > 0.3
    assert ((back - masks).abs() * shown).max() < 1e-4
    seen = view_images(masks, view, crop=corner_aligned_crop)
    slipped = OriginalSecondView(ALL_ON).undo(seen, masks, view, (SIDE, SIDE), True).logits
    assert ((slipped - masks).abs() * shown).max() > 0.3


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_view_boxes__move_with_the_pixels(seed: int) -> None:
    options = WeakLossOptions(
        self_supervision=SelfSupervision(max_translation=0.15, scale_max=1.3, flip_probability=0.5)
    )
    view = draw_view(options, 2, torch.Generator().manual_seed(seed))
    boxes = box(10, 12, 20, 18).expand(2, 1, 4)
    image = inside_boxes(boxes, IMAGE, (SIDE, SIDE))
    moved = view_boxes(boxes, view, (SIDE, SIDE))
    seen = view_images(image, view)
    predicted = inside_boxes(moved, IMAGE, (SIDE, SIDE))
    assert ((seen - predicted).abs() > 0.51).float().mean() < 0.01


def test_view_images__fill_what_lies_beyond_the_edge() -> None:
    view = View(torch.tensor([[0.3, 0.0]]), torch.ones(1, 2), torch.tensor([False]))
    images = torch.full((1, 3, 8, 8), 9.0)
    assert view_images(images, view)[0, 0, 0].tolist() == [0, 0, 9, 9, 9, 9, 9, 9]
    filled = view_images(images, view, fill=torch.tensor([1.0, 2, 3]))
    assert filled[0, 2, 0].tolist() == [3, 3, 9, 9, 9, 9, 9, 9]


def test_undo_view_of_crops__only_flips_and_knows_what_was_hidden() -> None:
    view = View(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([True]))
    logits = torch.arange(16.0).reshape(1, 1, 4, 4)
    back, shown = undo_view_of_crops(logits, box(-8, 0, 8, 16), view, (SIDE, SIDE))
    assert torch.equal(back, logits.flip(-1))
    assert shown[0, 0, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("full_resolution", [False, True])
@pytest.mark.parametrize(
    ("compat", "kind"), [(None, SecondView), ("tf_latest", OriginalSecondView)]
)
def test_second_view__that_changes_nothing_finds_the_same_masks(
    full_resolution, compat, kind
) -> None:
    network = tiny_network(
        mask_head="resnet4",
        mask_size=8,
        predict_full_resolution_masks=full_resolution,
        compat=compat,
    )
    batch = random_batch()
    teachers = kind(ALL_ON).teachers(network, batch)
    with torch.no_grad():
        for stage, teacher in zip(network(batch["images"]), teachers, strict=True):
            boxes = training_boxes(network, batch)
            own = training_mask_logits(network, stage, boxes, batch["valid"])
            assert torch.allclose(teacher.logits, own, atol=1e-3 * own.abs().max().item())
            assert teacher.seen[batch["valid"]].min() == 1
    assert not teachers[0].logits.requires_grad
    assert len(kind(ALL_ON).teachers(network, batch, only_last_stage=True)) == 1


# Points, overlaps, warm-up.


def test_point_supervision__counts_only_points_that_exist_in_the_frame() -> None:
    logits = torch.full((1, 1, 4, 4), -20.0)
    logits[..., 1, 2] = 20
    points = torch.tensor([[[[5.0, 3.0], [1.0, 1.0], [math.nan, 0], [99.0, 99.0]]]])
    labels = torch.tensor([[[1.0, 1.0, 1.0, 1.0]]])
    frame = box(0, 0, 8, 8)
    loss = point_supervision(logits, points, labels, frame)
    assert loss.item() == pytest.approx(10, rel=1e-4)
    loss = OriginalWeakLosses(ALL_ON).point_supervision(logits, points, labels, frame)
    assert loss.item() == pytest.approx(10, rel=1e-4)  # (0 + 20 + 0 + 20) / 4
    moved = point_supervision(logits, points + 3, labels, frame + 3)
    assert moved.item() == pytest.approx(10, rel=1e-4)


def test_overlap_of_one_class__carries_no_mask_loss() -> None:
    boxes = torch.tensor([[[0.0, 0, 16, 16], [8, 8, 24, 24], [8, 8, 24, 24]]])
    labels, valid = torch.tensor([[0, 0, 1]]), torch.ones(1, 3, dtype=torch.bool)
    counted = alone_in_class(boxes, labels, valid, boxes, (4, 4))
    assert counted[0, 0, 2:, 2:].max() == 0 and counted[0, 0].sum() == 12
    assert counted[0, 1, :2, :2].max() == 0 and counted[0, 1].sum() == 12
    assert counted[0, 2].min() == 1
    logits = torch.full((1, 3, 4, 4), 20.0)
    targets = torch.ones(1, 3, 4, 4)
    targets[0, 0, 2:, 2:] = 0
    assert cross_entropy(logits, targets, counted).max() < 1e-6
    kept = OriginalCriterion(LossOptions(), TF_LATEST)._masked_loss(logits, targets, counted)
    assert kept[0].tolist() == pytest.approx([LOG_2 / 4, LOG_2 / 4, 0], abs=1e-6)


def test_dice__is_zero_for_the_same_mask_and_one_for_disjoint_ones() -> None:
    mask = inside_boxes(box(0, 0, 16, 32), IMAGE, (8, 8))
    assert dice(painted(mask), mask).item() == pytest.approx(0, abs=1e-6)
    assert dice(painted(1 - mask), mask).item() == pytest.approx(1, abs=1e-6)


def test_warmup__rises_once_and_is_off_without_steps() -> None:
    assert [warmup(s, 10, 20).item() for s in (0, 10, 20, 30, 99)] == [0, 0, 0.5, 1, 1]
    assert warmup(torch.tensor(0), 0, 0).item() == 1


# All together.


@pytest.mark.parametrize("full_resolution", [False, True])
@pytest.mark.parametrize("original", [False, True])
def test_weak_losses__are_finite_with_gradients_even_in_padding(full_resolution, original) -> None:
    criterion = OriginalCriterion(ALL_ON, TF_LATEST) if original else DeepMACCriterion(ALL_ON)
    batch = random_batch()
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 8, 8, generator=generator).requires_grad_()
    view = draw_view(ALL_ON, 2)
    teacher = criterion.second_view.undo(
        torch.randn(2, 3, 8, 8, generator=generator),
        view_boxes(batch["boxes"], view, (SIDE, SIDE)),
        view,
        (SIDE, SIDE),
        full_resolution,
    )
    losses = criterion.weak(
        logits, batch, full_resolution=full_resolution, stride=4, teacher=teacher, step=5
    )
    assert set(losses) == set(ALL_ON.weak_weights())
    total = torch.stack(list(losses.values()))
    assert total.shape == (4, 2, 3) and total.isfinite().all()
    total.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    counted = criterion.weak.alone(batch, (8, 8), full_resolution)
    assert counted.shape == (2, 3, 8, 8)


def test_weak_losses__without_weights_are_none() -> None:
    logits = torch.zeros(2, 3, 8, 8)
    none = WeakLosses(WeakLossOptions())
    assert not none(logits, random_batch(), full_resolution=False, stride=4)


def test_weak_losses__rise_with_the_step() -> None:
    options = WeakLossOptions(color_consistency=ColorConsistency(1.0, warmup_steps=10))
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def at(step: int | None) -> torch.Tensor:
        losses = WeakLosses(options)(
            logits, random_batch(), full_resolution=False, stride=4, step=step
        )
        return losses["color_consistency"]

    assert at(0).abs().max() == 0
    assert torch.allclose(at(5) * 2, at(None))


def test_weak_losses__say_that_points_are_missing() -> None:
    batch = random_batch()
    del batch["points"]
    with pytest.raises(ConfigError, match=r"point_supervision\.weight"):
        WeakLosses(ALL_ON)(torch.zeros(2, 3, 8, 8), batch, full_resolution=False, stride=4)


def test_weak_losses__never_depend_on_values_for_their_shapes() -> None:
    batch = random_batch()
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def run(batch, logits, full_resolution):
        teacher = Teacher(-logits, torch.ones_like(logits))
        return WeakLosses(ALL_ON)(
            logits, batch, full_resolution=full_resolution, stride=4, teacher=teacher
        )

    for full_resolution in (False, True):
        # Fake tensors have no values: tracing fails at the first one that a shape needs.
        traced = make_fx(partial(run, full_resolution=full_resolution), tracing_mode="fake")
        graph = traced(batch, logits)
        other = random_batch(seed=7)
        expected = run(other, logits, full_resolution)
        for name, value in graph(other, logits).items():
            assert torch.allclose(expected[name], value, atol=1e-5), name


# The original's numbers.


def test_pieces__are_the_originals(shared: Path) -> None:
    folder = shared / "reference_fixtures" / "losses"
    with np.load(folder / "weak_pieces.npz") as arrays:
        theirs = {k: torch.from_numpy(v.astype(np.float32)) for k, v in arrays.items()}
    with np.load(folder / "official_all_classes.npz") as arrays:
        classes = torch.from_numpy(arrays["gt::classes"])
    logits, grid = theirs["logits"], (SIDE, SIDE)
    boxes = theirs["boxes"][..., [1, 0, 3, 2]] * SIDE
    frames = IMAGE.expand_as(boxes)
    colors = theirs["lab_image"].permute(0, 3, 1, 2)

    def same(ours, key, tolerance):
        expected = theirs[key]
        assert ours.shape == expected.shape
        assert (ours - expected).abs().max() <= tolerance * expected.abs().max(), key

    inside = original_inside_boxes(boxes, frames, grid)
    same(inside, "fill_boxes", 0)
    alone = original_alone_in_class(boxes, classes.argmax(2), classes.sum(2) > 0, frames, grid)
    same(alone, "no_class_overlap", 0)
    rgb = theirs["rgb"].permute(0, 3, 1, 2)
    same(rgb_to_lab(rgb).permute(0, 2, 3, 1), "rgb_to_lab", 1e-6)
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    for dilation in (1, 2):
        ours = torch.stack([color_similarity(colors, s, dilation=dilation) for s in steps])
        same(ours, f"color_similarity_d{dilation}", 1e-6)
        p = logits.sigmoid()
        ours = torch.stack([same_label_probability(p, s, dilation=dilation) for s in steps])
        same(ours, f"same_label_d{dilation}", 5e-4)  # stored in float16
    same(color_consistency(logits, colors[:, None], inside), "color_loss", 2e-6)
    same(box_consistency(logits, inside), "box_consistency_fullres", 1e-6)
    for kind, key in (("dice", "dice"), ("mse", "mse"), ("kl", "kl_div")):
        ours = self_supervision(logits, theirs["other_logits"], inside, kind=kind)
        same(ours, f"selfsup_loss_{key}", 1e-6)
    tx, ty, sx, sy, flip = theirs["t_params"]
    view = View(torch.stack([tx, ty], 1), torch.stack([sx, sy], 1), flip > 0)
    seen = view_images(colors, view, crop=corner_aligned_crop)
    same(seen.permute(0, 2, 3, 1), "t_image", 1e-5)
    same(view_boxes(boxes, view, grid)[..., [1, 0, 3, 2]] / SIDE, "t_boxes", 1e-6)
    same(view_images(logits, view, crop=corner_aligned_crop), "t_masks", 1e-5)


def test_original_resize__doubles_and_shrinks_between_pixel_centres() -> None:
    row = torch.tensor([0.0, 4.0]).expand(1, 1, 2, 2)
    assert original_resize(row, (2, 4))[0, 0, 0].tolist() == [0, 1, 3, 4]
    eight = torch.arange(8.0).expand(1, 1, 8, 8)
    assert original_resize(eight, (2, 2))[0, 0, 0].tolist() == [1.5, 5.5]


def test_original_mask_targets__are_soft_with_corners_on_pixel_centres() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    target = original_mask_targets(mask, box(0, 0, 8, 8), 3)[0, 0, 0]
    assert target.tolist() == [0, 0.5, 1]


def test_a_margin_around_the_box__does_not_change_what_the_weak_losses_ask_for():
    """Grids over grown boxes: a mask that fills its box exactly is what projections want."""
    boxes = torch.tensor([[[16.0, 16.0, 48.0, 48.0]]])
    frames = torch.tensor([[[8.0, 8.0, 56.0, 56.0]]])
    batch = {
        "images": torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        "boxes": boxes,
        "mask_boxes": boxes,
        "mask_frames": frames,
    }
    losses = WeakLosses(WeakLossOptions(box_consistency=BoxConsistency(weight=1.0)))
    inside = losses.inside(batch, (24, 24), False)
    assert inside[0, 0].sum() == 16 * 16
    assert inside[0, 0, 4:20, 4:20].all()
    filled = torch.where(inside > 0, 9.0, -9.0)
    whole = torch.full_like(filled, 9.0)
    assert losses.box_consistency(filled, inside, batch, False).max() < 0.01
    assert losses.box_consistency(whole, inside, batch, False).min() > 0.1  # reaches beyond
