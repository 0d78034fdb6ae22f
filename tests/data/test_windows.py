"""Windows around objects: the scale of the whole picture, objects that fit, targets in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from deepmac.data.annotations.coco import Category, CocoIndex, ImageRecord, Instance
from deepmac.data.collate import collate
from deepmac.data.dataset import CocoInstances
from deepmac.data.mask_targets import TargetSpec
from deepmac.data.transforms.geometry import Geometry
from deepmac.data.transforms.windows import ObjectWindow, window_transform
from deepmac.errors import ConfigError
from deepmac.nn.roi_crop import grow_boxes, roi_crop

HEIGHT, WIDTH = 120, 200


def sample(boxes: list[list[float]]) -> dict:
    size = (HEIGHT, WIDTH)
    return {
        "image": tv_tensors.Image(torch.zeros(3, *size, dtype=torch.uint8)),
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes).reshape(-1, 4), format="XYXY", canvas_size=size
        ),
        "geometry": Geometry.identity(*size),
    }


@pytest.mark.parametrize("seed", range(8))
def test_the_object_is_whole_and_at_the_scale_of_the_input(seed):
    torch.manual_seed(seed)
    cut = ObjectWindow(64, image_size=100, scale=(1.0, 1.0))(sample([[150.0, 70, 190, 110]]))
    assert cut["image"].shape == (3, 64, 64)
    box = cut["boxes"].as_subclass(torch.Tensor)[0]
    assert torch.allclose(box[2:] - box[:2], torch.tensor([20.0, 20.0]), atol=0.1)  # half size
    assert (box >= 0).all()
    assert (box <= 64).all()


def test_a_large_object_is_shrunk_until_it_fits():
    torch.manual_seed(0)
    cut = ObjectWindow(64, image_size=400, scale=(0.8, 1.25))(sample([[5.0, 5, 195, 115]]))
    box = cut["boxes"].as_subclass(torch.Tensor)[0]
    assert 50 < float(box[2] - box[0]) <= 64


def test_every_object_and_scale_is_drawn():
    torch.manual_seed(0)
    window = ObjectWindow(40, image_size=200, scale=(0.5, 1.0))
    params = [
        window.make_params([*sample([[5.0, 5, 15, 15], [180, 90, 190, 100]]).values()])
        for _ in range(60)
    ]
    assert {p["left"] < 80 for p in params} == {True, False}
    cuts = [p["cut"] for p in params]
    assert min(cuts) >= 40
    assert max(cuts) <= 80
    assert len(set(cuts)) > 10


def test_a_picture_without_objects_and_a_small_one_give_windows_too():
    torch.manual_seed(0)
    window = ObjectWindow(64, image_size=50, scale=(1.0, 1.0))
    cut = window(sample([]))
    assert cut["image"].shape == (3, 64, 64)
    assert cut["boxes"].shape == (0, 4)


def test_bad_numbers_are_refused():
    with pytest.raises(ConfigError, match="a range above 0"):
        ObjectWindow(64, image_size=100, scale=(2.0, 1.0))


def index(folder, count: int = 3) -> CocoIndex:
    """Red discs on black, so that the picture shows the masks."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    instances = []
    for number in range(count):
        cx, radius = 30 + 60 * number, 20
        pixels[(x - cx) ** 2 + (y - 60) ** 2 < radius**2, 0] = 255
        angles = np.linspace(0, 2 * np.pi, 80, endpoint=False)
        ring = np.stack([cx + radius * np.cos(angles), 60 + radius * np.sin(angles)], 1)
        box = (cx - 20.0, 40.0, cx + 20.0, 80.0)
        instances.append(Instance(number, 1, box, [ring.ravel().tolist()], False, 1256.0))
    Image.fromarray(pixels).save(folder / "one.png")
    record = ImageRecord(5, "one.png", folder / "one.png", WIDTH, HEIGHT, tuple(instances))
    return CocoIndex(folder / "x.json", folder, (Category(1, "disc"),), (record,))


def dataset(folder, **changes) -> CocoInstances:
    arguments = {
        "label_of": {1: 0},
        "masked_category_ids": frozenset({1}),
        "transform": [
            window_transform(side, image_size=200, scale=(0.7, 1.3), flip=0.5, color=False)
            for side in (64, 96)
        ],
        "training": True,
        "min_visible": 0.4,
        "max_roi_jitter_ratio": 0.1,
        "roi_jitter_share": 0.5,
        "targets": TargetSpec(box_margin=0.15),
    }
    return CocoInstances(index(folder), **{**arguments, **changes})


def test_targets_are_what_the_picture_shows_in_the_box_and_its_margin(tmp_path):
    data = dataset(tmp_path)
    seen = 0
    for epoch in range(12):
        one = data[(epoch, 0, epoch)]
        boxes = one["mask_boxes"]
        shown = roi_crop(
            one["images"][None, :1].float() / 255, grow_boxes(boxes, 1.3)[None], 32, impl="auto"
        )[0, :, 0]
        inside = one["mask_targets"]
        seen += len(boxes)
        assert (shown - inside).abs().mean() < 0.03
    assert seen > 12


def test_a_batch_has_windows_of_one_size_and_batches_differ(tmp_path):
    data = dataset(tmp_path)
    sides = set()
    for batch in range(12):
        made = collate([data[(0, 0, batch)], data[(0, 0, batch)]])
        sides.add(made["images"].shape[-1])
    assert sides == {64, 96}


def test_few_objects_are_drawn_and_slivers_left_out(tmp_path):
    data = dataset(tmp_path, max_objects=1, transform=data_transform())
    ids = {int(one) for epoch in range(20) for one in data[(epoch, 0)]["annotation_ids"]}
    assert all(len(data[(epoch, 0)]["boxes"]) == 1 for epoch in range(20))
    assert ids == {0, 1, 2}
    for epoch in range(20):
        one = dataset(tmp_path, max_roi_jitter_ratio=0.0)[(epoch, 0)]
        sides = one["boxes"][:, 2:] - one["boxes"][:, :2]
        assert (sides.amin(1) / sides.amax(1) > 0.39).all()


def data_transform():
    return window_transform(128, image_size=128, scale=(0.9, 1.0), flip=0.0, color=False)
