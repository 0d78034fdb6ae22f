"""Data as the TensorFlow original sees it: pixels, masks, targets, and who is an object."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from deepmac.data.annotations.coco import Category, CocoIndex, ImageRecord, Instance
from deepmac.data.collate import collate
from deepmac.data.mask_targets import TargetSpec
from deepmac.data.original.dataset import OriginalInstances
from deepmac.data.original.soft_targets import original_mask_targets
from deepmac.data.original.source_pixels import SourcePixels
from deepmac.data.original.targets import original_targets
from deepmac.data.original.transforms import (
    OriginalLetterbox,
    OriginalSquareCrop,
    original_color,
    original_evaluation_transform,
    original_training_transform,
)
from deepmac.data.transforms.compose import square_crop, square_crop_window, training_transform
from deepmac.data.transforms.geometry import Geometry
from reference.original_pixels import legacy_resize_nearest

FIXTURES = Path(__file__).parents[1] / "reference" / "fixtures"
SHAPES = ("48x80", "80x48", "30x31", "64x64", "100x200", "33x57")


@pytest.fixture(scope="module")
def resize():
    return np.load(FIXTURES / "resize.npz")


@pytest.fixture(scope="module")
def misc(reference_file):
    return np.load(reference_file("misc.npz"))


def inputs(pixels, boxes=((0, 0, 4, 4),)):
    height, width = pixels.shape[-2:]
    return {
        "image": tv_tensors.Image(pixels),
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes, dtype=torch.float32), format="XYXY", canvas_size=(height, width)
        ),
        "geometry": Geometry.identity(height, width),
        "pixels": SourcePixels.identity(height, width),
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_letterbox__scales_image_and_masks_as_the_original(resize, shape):
    image = torch.from_numpy(resize[f"image_{shape}"]).permute(2, 0, 1)
    out = OriginalLetterbox(64)(inputs(image))
    expected = torch.from_numpy(resize[f"resized_{shape}"]).permute(2, 0, 1)
    assert out["image"].dtype == torch.float32
    assert (out["image"] - expected).abs().max() <= 1e-4
    assert out["geometry"].true_size == tuple(resize[f"shape_{shape}"][0, :2])
    mask = out["pixels"].warp(resize[f"mask_{shape}"][0])
    assert np.array_equal(mask.numpy(), resize[f"resized_mask_{shape}"][0])


def test_letterbox__boxes_follow_the_scaled_sides():
    out = OriginalLetterbox(64)(inputs(torch.zeros(3, 30, 31, dtype=torch.uint8), [[3, 3, 31, 30]]))
    assert torch.allclose(out["boxes"], torch.tensor([[3 * 64 / 31, 3 * 62 / 30, 64.0, 62.0]]))
    assert out["boxes"].canvas_size == out["geometry"].canvas_size == (64, 64)


@pytest.mark.parametrize("draw", range(6))
def test_square_crop__moves_masks_as_the_original(misc, draw):
    scale, y, x = (float(misc[f"sq{draw}_{key}"]) for key in ("scale", "y_center", "x_center"))
    height, width = misc["aug_image"].shape[:2]
    window = square_crop_window(height, width, scale, int(y), int(x))
    crop = OriginalSquareCrop()
    pixels = crop.transform(SourcePixels.identity(height, width), window)
    kept = misc[f"sq{draw}_labels"] - 1
    for mask, expected in zip(misc["sq_masks_in"][kept], misc[f"sq{draw}_masks"], strict=True):
        assert np.array_equal(pixels.warp(mask.astype(np.uint8)).numpy(), expected)


@pytest.mark.parametrize(
    ("name", "amounts"),
    [
        ("hue_p0.015", {"hue": 0.015}),
        ("contrast_1.2", {"contrast": 1.2}),
        ("saturation_0.85", {"saturation": 0.85}),
        ("brightness_0.1", {"brightness": 0.1}),
    ],
)
def test_color__is_the_originals_and_never_rounded(misc, name, amounts):
    still = {"hue": 0.0, "contrast": 1.0, "saturation": 1.0, "brightness": 0.0}
    image = torch.from_numpy(misc["aug_image"]).permute(2, 0, 1)
    expected = torch.from_numpy(misc[name]).permute(2, 0, 1)
    assert (original_color(image, **{**still, **amounts}) - expected).abs().max() < 3e-3


def test_draws__are_those_of_the_houses_own_transform():
    image = torch.randint(0, 256, (3, 45, 60), dtype=torch.uint8)
    boxes = [[10.0, 8, 40, 30], [30, 20, 60, 45]]
    for seed in range(8):
        both = []
        for transform in (training_transform(64), original_training_transform(64)):
            torch.manual_seed(seed)
            both.append(transform(inputs(image, boxes)))
        ours, original = both
        assert torch.allclose(ours["boxes"], original["boxes"], atol=1e-4)
        assert torch.equal(ours["geometry"], original["geometry"])
        assert original["image"].dtype == torch.float32


def test_masks__move_with_the_image_through_every_step():
    """Against warping the mask itself, one step after the other."""
    mask = (torch.rand(1, 45, 60) > 0.5).to(torch.uint8)
    window = square_crop_window(45, 60, 1.1, 20, 33)
    pixels = SourcePixels.identity(45, 60)
    flipped = OriginalSquareCrop().transform(
        SourcePixels.of(pixels.rows, pixels.columns.flip(0)), window
    )
    ours = OriginalLetterbox(64).transform(flipped, {"scaled": (64, 64)})
    cropped = square_crop(tv_tensors.Mask(mask.flip(-1)), **window)
    expected = legacy_resize_nearest(cropped.numpy(), 64, 64)
    assert np.array_equal(ours.warp(mask[0].numpy())[None].numpy(), expected)


def rle(mask):
    flat = np.concatenate([[0], mask.T.reshape(-1), [2]])
    counts = np.diff(np.flatnonzero(np.diff(flat)), prepend=0).tolist()
    return {"size": list(mask.shape), "counts": counts if not flat[1] else [0, *counts]}


def make_index(folder, boxes, crowd=()):
    """One picture of 48 x 64 with an object a box, whose mask is the left half of it."""
    Image.fromarray(np.full((48, 64, 3), 77, np.uint8)).save(folder / "one.png")
    instances = []
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        mask = np.zeros((48, 64), np.uint8)
        mask[y0:y1, x0 : (x0 + x1) // 2] = 1
        box = (float(x0), float(y0), float(x1), float(y1))
        instances.append(Instance(number + 1, 1, box, rle(mask), number in crowd, 10.0))
    record = ImageRecord(5, "one.png", folder / "one.png", 64, 48, tuple(instances))
    return CocoIndex(folder / "x.json", folder, (Category(1, "one"),), (record,))


def make_dataset(index, **changes):
    arguments = {
        "label_of": index.label_of,
        "masked_category_ids": frozenset({1}),
        "transform": original_training_transform(64, flip=0, color=False, crop_scale=None),
        "targets": TargetSpec(mask_size=8),
        "training": True,
    }
    return OriginalInstances(index, **{**arguments, **changes})


BOXES = ((4, 4, 36, 40), (40, 10, 60, 30), (20, 20, 44, 44))


def test_targets__are_soft_crops_of_the_moved_mask(tmp_path):
    index = make_index(tmp_path, BOXES)
    sample = make_dataset(index)[0]
    mask = np.zeros((1, 64, 64), np.float32)
    mask[0, 4:40, 4:20] = 1
    expected = original_mask_targets(torch.from_numpy(mask)[None], sample["boxes"][None, :1], 8)
    assert torch.equal(sample["mask_targets"][:1], expected[0])
    targets = sample["mask_targets"]
    assert ((targets > 0) & (targets < 1)).any() and targets.max() == 1

    whole = make_dataset(index, targets=TargetSpec(full_resolution=True))[0]["mask_targets"]
    assert whole.dtype == torch.uint8 and whole.shape == (3, 64, 64)
    assert torch.equal(whole[0].float(), torch.from_numpy(mask[0]))


def test_targets__of_no_instance_that_supervises_are_zero(tmp_path):
    sample = make_dataset(make_index(tmp_path, BOXES), masked_category_ids=frozenset())[0]
    assert not sample["mask_valid"].any() and not sample["mask_targets"].any()


def test_crowds__are_objects_like_others_in_training_alone(tmp_path):
    index = make_index(tmp_path, BOXES, crowd=(1,))
    sample = make_dataset(index)[0]
    assert sample["annotation_ids"].tolist() == [1, 2, 3]
    assert sample["mask_valid"].all() and not sample["ignore"].any()
    assert sample["mask_targets"][1].any()
    transform = original_evaluation_transform(64)
    evaluated = make_dataset(index, training=False, transform=transform)[0]
    assert evaluated["annotation_ids"].tolist() == [1, 3]
    assert evaluated["ignore"].any()


def test_slivers__stay_however_small(tmp_path):
    index = make_index(tmp_path, ((0, 0, 8, 8), (30, 20, 64, 44)))
    window = square_crop_window(48, 64, 0.8, 30, 32)
    assert (window["top"], window["left"]) == (5, 7)

    class Fixed(OriginalSquareCrop):
        def make_params(self, flat_inputs):
            return window

    class Both(torch.nn.Sequential):
        def forward(self, sample):
            return self[1](self[0](sample))

    sample = make_dataset(index, transform=Both(Fixed(), OriginalLetterbox(51)))[0]
    assert sample["boxes"][0].tolist() == [0.0, 0.0, 1.0, 3.0]
    beyond = make_dataset(
        make_index(tmp_path, ((0, 0, 7, 48), (30, 20, 64, 44))),
        transform=Both(Fixed(), OriginalLetterbox(51)),
    )[0]
    assert beyond["annotation_ids"].tolist() == [2], "outside altogether"


def test_jitter__is_a_share_of_half_the_side(tmp_path):
    index = make_index(tmp_path, BOXES)
    jitter = {"max_roi_jitter_ratio": 0.2, "roi_jitter_mode": "expand"}
    sample = make_dataset(index, **jitter)[0]
    assert make_dataset(index, **jitter).max_roi_jitter_ratio == 0.1
    growth = (sample["mask_boxes"] - sample["boxes"])[2].abs()
    assert 0 < growth.max() <= 0.1 * 24


def test_collate__keeps_the_first_boxes_where_there_are_too_many(tmp_path):
    sample = make_dataset(make_index(tmp_path, BOXES))[0]
    batch = collate([sample], max_boxes=2, choice=OriginalInstances.choice)
    assert batch["annotation_ids"].tolist() == [[1, 2]]
    assert batch["dropped_boxes"].tolist() == [1]
    assert batch["images"].dtype == torch.float32


def test_original_targets__of_one_instance_at_a_time_equal_those_of_all(tmp_path):
    index = make_index(tmp_path, BOXES)
    items = list(index.images[0].instances)
    boxes = torch.tensor([item.box for item in items])
    pixels = SourcePixels.identity(48, 64)
    together = original_targets(items, boxes, pixels, (48, 64), 8)
    for row, item in enumerate(items):
        alone = original_targets([item], boxes[row : row + 1], pixels, (48, 64), 8)
        assert torch.equal(alone[0], together[row])
