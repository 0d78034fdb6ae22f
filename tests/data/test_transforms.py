"""Geometry, color and crop: what moves where, and parity with the TensorFlow original."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from deepmac.data.mask_targets import area_average
from deepmac.data.transforms.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    distort_color,
)
from deepmac.data.transforms.compose import (
    AtOnce,
    Letterbox,
    RandomColor,
    RandomSquareCrop,
    crop_border,
    evaluation_transform,
    square_crop,
    square_crop_window,
    training_transform,
)
from deepmac.data.transforms.geometry import Geometry
from deepmac.errors import ConfigError

AXIS_ALIGNED = {
    "horizontal flip": v2.RandomHorizontalFlip(1.0),
    "vertical flip": v2.RandomVerticalFlip(1.0),
    "square crop": RandomSquareCrop(max_border=8),
    "letterbox": Letterbox(80),
    "zoom out": v2.RandomZoomOut(p=1.0, side_range=(1.0, 2.0)),
    "resized crop": v2.RandomResizedCrop((70, 50), scale=(0.4, 1.0)),
    "scale jitter": v2.ScaleJitter((64, 64), scale_range=(0.7, 1.6)),
    "scale jitter, crop": training_transform(
        64, flip=0.0, color=False, crop_scale=None, scale_jitter=(0.3, 2.0)
    ),
    "pad": v2.Pad([3, 5, 7, 2]),
    "center crop": v2.CenterCrop((90, 40)),
    "shorter side": v2.Resize(48, max_size=90),
}


def ramps(height: int, width: int) -> tv_tensors.Image:
    """Original position + 1 (0 is filling): channel 0 = x, 1 = y of each pixel's centre."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return tv_tensors.Image(torch.stack([x + 1.5, y + 1.5, torch.ones_like(x)]).float())


def sample(height: int, width: int, boxes: list[list[float]]) -> dict:
    return {
        "image": ramps(height, width),
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes), format="XYXY", canvas_size=(height, width)
        ),
        "geometry": Geometry.identity(height, width),
    }


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(AXIS_ALIGNED)), max_size=4),
    height=st.integers(30, 70),
    width=st.integers(30, 70),
    seed=st.integers(0, 1000),
)
def test_geometry__follows_every_axis_parallel_transform(names, height, width, seed):
    torch.manual_seed(seed)
    out = v2.Compose([v2.Identity(), *(AXIS_ALIGNED[name] for name in names)])(
        sample(height, width, [[10.0, 12.0, 20.0, 25.0]])
    )
    image, geometry = out["image"], out["geometry"]
    assert geometry.canvas_size == tuple(image.shape[-2:]) == out["boxes"].canvas_size

    ys, xs = torch.meshgrid(*(torch.arange(side) for side in image.shape[-2:]), indexing="ij")
    centers = torch.stack([xs, ys, xs, ys], dim=-1).reshape(-1, 4) + 0.5
    origin = geometry.to_original(centers)[:, :2].T.reshape(2, *image.shape[-2:])
    # The third channel is 1 only where no filling was mixed in. Near edges that a scaling has
    # clamped the ramps are bent (and antialiasing bends them a little), hence the median.
    inside = image[2] > 1 - 1e-5
    if inside.sum() > 50:
        errors = ((image[:2] - 1) - origin).abs()[:, inside]
        assert errors.median() < 0.15


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(st.sampled_from(["horizontal flip", "vertical flip", "letterbox", "pad"])),
    seed=st.integers(0, 1000),
)
def test_geometry__maps_boxes_as_torchvision_does(names, seed):
    torch.manual_seed(seed)
    box = [10.25, 12.0, 20.5, 25.0]
    out = v2.Compose([v2.Identity(), *(AXIS_ALIGNED[name] for name in names)])(
        sample(40, 56, [box])
    )
    back = out["geometry"].to_original(out["boxes"])[0]
    assert torch.allclose(back.reshape(2, 2).sort(dim=0).values.flatten().float(),
                          torch.tensor(box), atol=1e-3)  # fmt: skip
    corners = torch.tensor([[box[0], box[1], 1.0], [box[2], box[3], 1.0]])
    moved = (out["geometry"].affine @ corners.T).T.sort(dim=0).values.flatten()
    assert torch.allclose(moved, out["boxes"].as_subclass(torch.Tensor)[0], atol=1e-3)


def test_geometry__true_size_leaves_out_padding_at_the_bottom_and_right():
    both = Letterbox(80)({"image": ramps(20, 40), "geometry": Geometry.identity(20, 40)})
    assert both["geometry"].canvas_size == (80, 80)
    assert both["geometry"].true_size == (40, 80)
    flipped = F.horizontal_flip(both["geometry"])
    assert flipped.true_size == (80, 80), "the padding is no longer at the right"


@pytest.mark.parametrize(
    "transform", [v2.RandomRotation(5), v2.RandomAffine(0, scale=(0.5, 2)), v2.ElasticTransform()]
)
def test_geometry__refuses_transforms_that_masks_cannot_follow(transform):
    with pytest.raises(ConfigError, match="mask targets are cut from the original masks"):
        transform(sample(30, 30, [[1.0, 1.0, 9.0, 9.0]]))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    box=st.tuples(*[st.floats(-6, 40)] * 2, *[st.floats(0.5, 30)] * 2),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_area_average__equals_dense_sampling(seed, box, grid):
    mask = (np.random.default_rng(seed).random((24, 37)) < 0.5).astype(np.uint8)
    x, y, width, height = box
    result = area_average(
        coco_mask.encode(np.asfortranarray(mask)), (x, y, x + width, y + height), grid
    )
    fine = 64
    rows = y + height * (np.arange(grid[0] * fine) + 0.5) / (grid[0] * fine)
    columns = x + width * (np.arange(grid[1] * fine) + 0.5) / (grid[1] * fine)
    padded = np.pad(mask, 60)
    dense = padded[np.ix_(np.floor(rows).astype(int) + 60, np.floor(columns).astype(int) + 60)]
    expected = dense.reshape(grid[0], fine, grid[1], fine).mean(axis=(1, 3))
    assert np.abs(result.numpy() - expected).max() < 0.06


@pytest.mark.parametrize("value", [0, 1])
def test_area_average__of_a_constant_mask_is_that_constant(value):
    rle = coco_mask.encode(np.full((9, 7), value, dtype=np.uint8, order="F"))
    assert (area_average(rle, (0.3, 1.1, 6.9, 8.2), (32, 32)) - value).abs().max() < 1e-5


def test_letterbox__keeps_the_aspect_and_pads_bottom_and_right_with_zero():
    image = tv_tensors.Image(torch.full((3, 60, 100), 200, dtype=torch.uint8))
    out = Letterbox(64)(image)
    assert out.shape == (3, 64, 64) and out.dtype == torch.uint8
    assert (out[:, :38] == 200).all() and (out[:, 38:] == 0).all()
    assert Letterbox(64)(tv_tensors.Image(torch.zeros(3, 1, 300))).shape == (3, 64, 64)


def test_evaluation_transform__draws_nothing_and_training_transform_repeats_with_the_seed():
    boxes = [[1.0, 2.0, 30.0, 30.0]]
    start = sample(48, 64, boxes)
    start["image"] = tv_tensors.Image((start["image"] * 3).to(torch.uint8))
    state = torch.get_rng_state()
    evaluation_transform(64)(start)
    assert torch.equal(state, torch.get_rng_state())
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(training_transform(64)(start))
    assert torch.equal(results[0]["image"], results[1]["image"])
    assert not torch.equal(results[0]["image"], results[2]["image"])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    hue=st.floats(-0.1, 0.1),
    contrast=st.floats(0.5, 2.0),
    saturation=st.floats(0.0, 3.0),
    brightness=st.floats(-0.5, 0.5),
)
def test_distort_color__equals_the_four_changes_rounded_once(
    seed, hue, contrast, saturation, brightness
):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, 7, 400), dtype=torch.uint8, generator=generator)
    image[:, :, :100] = image[:1, :, :100]  # greys
    steps = adjust_contrast(adjust_hue(image.float() / 255, hue), contrast)
    steps = adjust_brightness(adjust_saturation(steps, saturation), brightness)
    fused = distort_color(
        image, hue=hue, contrast=contrast, saturation=saturation, brightness=brightness
    )
    assert fused.dtype == torch.uint8
    assert (fused - 255 * steps).abs().max() < 0.502


@pytest.mark.parametrize("delta", [-0.16, -0.02, 0.02, 0.16])
def test_adjust_hue__equals_the_way_through_hsv(delta):
    image = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(adjust_hue(image, delta), F.adjust_hue(image, delta), atol=1e-4)


def test_random_color__leaves_masks_and_boxes_alone():
    image = tv_tensors.Image(torch.randint(0, 256, (3, 9, 9), dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.ones(1, 9, 9, dtype=torch.uint8))
    out_image, out_mask = RandomColor()(image, mask)
    assert isinstance(out_image, tv_tensors.Image) and not torch.equal(out_image, image)
    assert out_mask is mask


def test_crop_border__is_halved_until_it_fits_twice():
    assert [crop_border(128, side) for side in (1000, 256, 255, 128, 40, 2, 1)] == [
        128, 128, 64, 64, 16, 1, 0,
    ]  # fmt: skip


def test_square_crop__draws_one_of_eight_sides_and_a_centre_within_the_border():
    torch.manual_seed(0)
    crop = RandomSquareCrop()
    draws = [crop.make_params([torch.zeros(3, 300, 500)]) for _ in range(400)]
    # 549, 599: the original's 1.1 and 1.2 are 1.0999999 and 1.1999999 in float32.
    assert {draw["side"] for draw in draws} == {300, 350, 400, 450, 500, 549, 599, 650}
    rows = [draw["top"] + draw["side"] // 2 for draw in draws]
    columns = [draw["left"] + draw["side"] // 2 for draw in draws]
    assert 128 <= min(rows) < 135 and 165 < max(rows) <= 172
    assert 128 <= min(columns) < 140 and 360 < max(columns) <= 372
    assert square_crop_window(10, 10, 1.3, 5, 5)["side"] == 13, "float32, as the original"
    with pytest.raises(ConfigError, match="no range above 0"):
        RandomSquareCrop(min_scale=1.3, max_scale=0.6)


def test_square_crop__draws_the_originals_scales_however_many_threads_there_are():
    scales = np.array(RandomSquareCrop().scales, dtype=np.float32)
    assert [int(scale * np.float32(190)) for scale in scales] == [
        114, 133, 152, 171, 190, 208, 227, 246
    ]  # fmt: skip


@pytest.fixture(scope="module")
def reference(reference_file):
    return np.load(reference_file("misc.npz"))


@pytest.mark.parametrize(
    ("name", "change", "amount"),
    [
        ("hue_p0.015", adjust_hue, 0.015),
        ("contrast_1.2", adjust_contrast, 1.2),
        ("saturation_0.85", adjust_saturation, 0.85),
        ("brightness_0.1", adjust_brightness, 0.1),
    ],
)
def test_color_change__equals_the_original(reference, name, change, amount):
    image = torch.from_numpy(reference["aug_image"]).permute(2, 0, 1) / 255
    expected = torch.from_numpy(reference[name]).permute(2, 0, 1) / 255
    assert (change(image, amount) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("draw", range(6))
def test_square_crop__equals_the_original(reference, draw):
    image = tv_tensors.Image(torch.from_numpy(reference["aug_image"]).permute(2, 0, 1))
    height, width = image.shape[-2:]
    size = torch.tensor([width, height, width, height], dtype=torch.float32)
    boxes = torch.from_numpy(reference["sq_boxes_in"])[:, [1, 0, 3, 2]] * size
    inputs = {
        "image": image,
        "mask": tv_tensors.Mask(torch.from_numpy(reference["sq_masks_in"])),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
    }
    scale, y, x = (float(reference[f"sq{draw}_{key}"]) for key in ("scale", "y_center", "x_center"))
    window = square_crop_window(height, width, scale, int(y), int(x))
    out = {key: square_crop(value, **window) for key, value in inputs.items()}

    expected = torch.from_numpy(reference[f"sq{draw}_image"]).permute(2, 0, 1)
    assert out["image"].shape == expected.shape
    assert (out["image"] - expected).abs().max() < 1e-4 * 255
    sides = out["boxes"][:, 2:] - out["boxes"][:, :2]
    kept = (sides > 0).all(dim=1)
    assert (kept.nonzero().flatten() + 1).tolist() == reference[f"sq{draw}_labels"].tolist()
    relative = out["boxes"][kept][:, [1, 0, 3, 2]] / window["side"]
    assert np.abs(relative.numpy() - reference[f"sq{draw}_boxes"]).max() < 1e-5
    masks = torch.from_numpy(reference[f"sq{draw}_masks"])
    assert torch.equal(out["mask"][kept].to(torch.uint8), masks)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**31), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_training_transform__at_once_is_its_steps_one_by_one(
    height: int, width: int, seed: int, interleaved: bool, coarse: bool
) -> None:
    at_once = training_transform(64)
    assert isinstance(at_once, AtOnce)
    seeded = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=seeded)
    pixels = pixels // 64 * 64 if coarse else pixels  # equal channels, too
    image = pixels.permute(2, 0, 1)
    given_sample = sample(height, width, [[0, 0, width, height], [0, 0, 1, 1]])
    given_sample["image"] = tv_tensors.Image(image if interleaved else image.contiguous())
    results, draws = [], []
    for transform in (at_once, v2.Compose(at_once.transforms)):
        torch.manual_seed(seed)
        results.append(transform(given_sample))
        draws.append(torch.rand(()))
    quick, slow = results
    assert draws[0] == draws[1]
    assert list(quick) == list(slow)
    for name, value in slow.items():
        assert type(quick[name]) is type(value)
        assert torch.equal(quick[name].as_subclass(Tensor), value.as_subclass(Tensor)), name
    assert quick["boxes"].canvas_size == slow["boxes"].canvas_size
    assert quick["image"].is_contiguous()


def test_training_transform__leaves_what_it_does_not_know_to_its_steps() -> None:
    at_once = training_transform(32)
    for more in ({"mask": tv_tensors.Mask(torch.ones(1, 20, 30))}, {"name": "a"}):
        whole = {**sample(20, 30, [[0, 0, 9, 9]]), **more}
        whole["image"] = tv_tensors.Image(torch.full((3, 20, 30), 99, dtype=torch.uint8))
        out = at_once(whole)
        assert out["image"].shape == (3, 32, 32) and list(out) == list(whole)
