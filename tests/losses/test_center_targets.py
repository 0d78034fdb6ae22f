"""CenterNet targets: what is drawn, where, and the original's numbers."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from deepmac.losses.center_targets import center_targets, gaussian_radius


def draw(boxes, labels=None, valid=None, **kwargs):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4)
    count = boxes.shape[1]
    labels = torch.zeros(1, count, dtype=torch.long) if labels is None else torch.tensor([labels])
    valid = torch.ones(1, count, dtype=torch.bool) if valid is None else torch.tensor([valid])
    options = {"num_classes": 2, "map_size": (16, 24), "stride": 4, **kwargs}
    return center_targets(boxes, labels, valid, **options)


def test_heatmap__is_exactly_one_at_the_centre_cell_and_below_elsewhere():
    targets = draw([[10, 10, 30, 20]])
    heatmap = targets.heatmap[0, 0]
    assert (heatmap == 1.0).sum() == 1
    assert heatmap[3, 5] == 1.0  # centre (20, 15) / 4
    assert targets.cell[0, 0] == 3 * 24 + 5


def test_heatmap__padding_rows_draw_nothing():
    targets = draw([[10, 10, 30, 20], [0, 0, 0, 0]], valid=[True, False])
    assert torch.equal(targets.heatmap, draw([[10, 10, 30, 20]]).heatmap)
    assert targets.heatmap[0, 1].max() == 0


def test_heatmap__overlapping_objects_of_a_class_merge_by_maximum():
    first, second = [10, 10, 50, 50], [30, 20, 60, 60]
    both = draw([first, second]).heatmap
    assert torch.equal(both, torch.maximum(draw([first]).heatmap, draw([second]).heatmap))


def test_size_and_offset__are_in_cells_with_x_first():
    targets = draw([[10, 10, 33, 20]])
    assert targets.size[0, 0].tolist() == [23 / 4, 10 / 4]
    assert torch.allclose(targets.offset[0, 0], torch.tensor([21.5 / 4 % 1, 15 / 4 % 1]))


def test_centre_on_the_far_edge__falls_into_the_last_cell():
    targets = draw([[92, 60, 100, 68]])  # centre (96, 64): the corner of the map
    assert targets.cell[0, 0] == 15 * 24 + 23
    assert targets.heatmap[0, 0, 15, 23] == 1.0


@settings(deadline=None, max_examples=50)
@given(st.floats(2, 300), st.floats(2, 300), st.floats(0.3, 0.9))
def test_exact_radius__keeps_the_promised_overlap(height, width, min_iou):
    radius = float(
        gaussian_radius(
            torch.tensor(height, dtype=torch.float64),
            torch.tensor(width, dtype=torch.float64),
            min_iou=min_iou,
        )
    )
    box = torch.tensor([[0.0, 0.0, width, height]], dtype=torch.float64)
    r = radius
    moved = torch.tensor(
        [
            [r, r, width + r, height + r],
            [r, r, width - r, height - r],
            [-r, -r, width + r, height + r],
        ],
        dtype=torch.float64,
    )
    overlaps = box_iou(box, moved)[0]
    assert overlaps.min() >= min_iou - 1e-6
    assert overlaps.min() <= min_iou + 1e-6, "the radius is the largest such shift"


def test_against_tf__targets(reference_file):
    reference = np.load(reference_file("targets.npz"))
    boxes, weights = reference["boxes"], reference["weights"]
    for height, width in ((128, 128), (96, 160)):
        size = np.array([height, width, height, width], dtype=np.float32)
        xyxy = (boxes * size)[:, [1, 0, 3, 2]]
        targets = draw(
            xyxy,
            labels=reference["classes"].argmax(1).tolist(),
            valid=(weights > 0).tolist(),
            num_classes=5,
            map_size=(height // 4, width // 4),
            radius_rule="original",
        )
        expected = reference[f"heatmap_{height}x{width}"][0].transpose(2, 0, 1)
        assert np.abs(targets.heatmap[0].numpy() - expected).max() <= 1e-6
        index = reference[f"indices_{height}x{width}"]
        used = reference[f"w_{height}x{width}"] > 0
        flat = index[:, 1] * (width // 4) + index[:, 2]
        # Outside the map the original's index runs into the next row; ours stays in the map.
        inside = used & (index[:, 1] < height // 4) & (index[:, 2] < width // 4)
        assert inside.sum() >= 5
        assert (targets.cell[0].numpy() == flat)[inside].all()
        hw = reference[f"hw_{height}x{width}"][inside][:, ::-1]
        assert np.abs(targets.size[0].numpy()[inside] - hw).max() <= 1e-5
        offset = reference[f"offset_{height}x{width}"][inside][:, ::-1]
        assert np.abs(targets.offset[0].numpy()[inside] - offset).max() <= 1e-5


def test_against_tf__gaussian_radius(reference_file):
    reference = np.load(reference_file("targets.npz"))
    radius = gaussian_radius(
        torch.tensor(reference["rad_h"]), torch.tensor(reference["rad_w"]), rule="original"
    )
    assert np.allclose(radius.numpy(), reference["max_distance"], rtol=1e-4, atol=1e-4)
