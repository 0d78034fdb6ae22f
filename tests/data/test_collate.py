"""Padding never invents objects, and what does not fit is counted."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmac.data.collate import collate


def sample(count: int, size: tuple[int, int] = (8, 12), masked: tuple[int, ...] = ()) -> dict:
    """Objects whose boxes grow with their number."""
    number = torch.arange(count)
    boxes = torch.zeros(count, 4)
    boxes[:, 2:] = number[:, None] + 1.0
    mask_valid = torch.zeros(count, dtype=torch.bool)
    mask_valid[list(masked)] = True
    return {
        "images": torch.full((3, *size), 9, dtype=torch.uint8),
        "true_sizes": torch.tensor(size),
        "boxes": boxes,
        "labels": number + 1,
        "valid": torch.ones(count, dtype=torch.bool),
        "mask_valid": mask_valid,
        "mask_weights": mask_valid.float(),
        "mask_boxes": boxes,
        "mask_targets": torch.ones(count, 4, 4),
        "ignore": torch.ones(-(-size[0] // 4), -(-size[1] // 4), dtype=torch.bool),
        "image_ids": torch.tensor(count),
        "annotation_ids": number + 100,
        "geometry": torch.eye(2, 3),
        "original_sizes": torch.tensor(size),
    }


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_collate__pads_to_the_largest_count_and_at_least_one(counts):
    batch = collate([sample(count) for count in counts])
    slots = max(1, *counts)
    assert batch["boxes"].shape == (len(counts), slots, 4)
    assert batch["mask_targets"].shape == (len(counts), slots, 4, 4)
    assert batch["valid"].sum(dim=1).tolist() == counts
    assert batch["dropped_boxes"].tolist() == [0] * len(counts)
    padding = ~batch["valid"]
    assert (batch["annotation_ids"][padding] == -1).all()
    for name in ("boxes", "labels", "mask_valid", "mask_boxes", "mask_targets"):
        assert (batch[name][padding] == 0).all()


def test_collate__pads_images_at_the_bottom_and_right():
    batch = collate([sample(1, (8, 12)), sample(1, (16, 4))])
    assert batch["images"].shape == (2, 3, 16, 12) and batch["images"].dtype == torch.uint8
    assert batch["ignore"].shape == (2, 4, 3)
    assert batch["images"][0, :, :8].eq(9).all() and batch["images"][0, :, 8:].eq(0).all()
    assert batch["images"][1, :, :, :4].eq(9).all() and batch["images"][1, :, :, 4:].eq(0).all()
    assert batch["true_sizes"].tolist() == [[8, 12], [16, 4]]


def test_collate__over_max_boxes_keeps_supervised_then_larger_objects_and_counts_the_rest():
    batch = collate([sample(6, masked=(1, 2)), sample(2)], max_boxes=3)
    assert batch["annotation_ids"].tolist() == [[101, 102, 105], [100, 101, -1]]
    assert batch["mask_valid"].tolist() == [[True, True, False], [False] * 3]
    assert batch["dropped_boxes"].tolist() == [3, 0]
    crowded = collate([sample(6, masked=(0, 1, 3, 5))], max_boxes=2)
    assert crowded["annotation_ids"].tolist() == [[103, 105]]


def test_collate__has_a_fixed_shape_with_max_boxes():
    assert collate([sample(0)], max_boxes=7)["boxes"].shape == (1, 7, 4)
