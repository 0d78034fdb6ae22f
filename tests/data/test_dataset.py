"""A sample is aligned, repeatable, and holds the masks that supervise, no others."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from deepmac.data import mask_targets
from deepmac.data.annotations.coco import Category, CocoIndex, ImageRecord, Instance, read_coco
from deepmac.data.collate import collate
from deepmac.data.dataset import CocoInstances, SampleError
from deepmac.data.mask_targets import TargetSpec
from deepmac.data.transforms.compose import Letterbox, evaluation_transform, training_transform
from deepmac.data.transforms.jitter import jitter_boxes
from deepmac.errors import ConfigError, DataError

HEIGHT, WIDTH = 48, 64
DISC, SLAB, BARE = 3, 7, 9  # category ids; the last one's objects are boxes only


def rle(mask: np.ndarray) -> dict:
    """Uncompressed COCO RLE."""
    flat = np.concatenate([[0], mask.T.reshape(-1), [2]])
    counts = np.diff(np.flatnonzero(np.diff(flat)), prepend=0).tolist()
    return {"size": list(mask.shape), "counts": counts if not flat[1] else [0, *counts]}


def disc_mask() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (np.hypot(x - 20, y - 24) < 12).astype(np.uint8)


def make_index(folder, extra: tuple[Instance, ...] = ()) -> CocoIndex:
    """The disc is painted red and the slab green, so images show where the masks are."""
    disc = disc_mask()
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[disc == 1, 0] = 255
    pixels[10:40, 45:60, 1] = 255
    Image.fromarray(pixels).save(folder / "one.png")
    slab = [[45.0, 10.0, 60.0, 10.0, 60.0, 40.0, 45.0, 40.0]]
    instances = (
        Instance(11, DISC, (8.0, 12.0, 32.0, 36.0), rle(disc), False, float(disc.sum())),
        Instance(12, SLAB, (45.0, 10.0, 60.0, 40.0), slab, False, 450.0),
        Instance(13, BARE, (1.0, 1.0, 7.0, 9.0), None, False, 48.0),
        *extra,
    )
    categories = tuple(Category(i, str(i)) for i in (DISC, SLAB, BARE))
    record = ImageRecord(5, "one.png", folder / "one.png", WIDTH, HEIGHT, instances)
    return CocoIndex(folder / "x.json", folder, categories, (record,))


SMALL, WHOLE = TargetSpec(mask_size=12), TargetSpec(full_resolution=True)


def make_dataset(index: CocoIndex, **changes) -> CocoInstances:
    arguments = {
        "label_of": index.label_of,
        "masked_category_ids": frozenset({DISC, BARE}),
        "transform": training_transform(64, color=False),
        "training": True,
    }
    return CocoInstances(index, **{**arguments, **changes})


def test_sample__has_every_field_with_its_shape_and_type(tmp_path):
    sample = make_dataset(make_index(tmp_path))[0]
    count = len(sample["boxes"])
    expected = {
        "images": ((3, 64, 64), torch.uint8),
        "true_sizes": ((2,), torch.int64),
        "boxes": ((count, 4), torch.float32),
        "labels": ((count,), torch.int64),
        "valid": ((count,), torch.bool),
        "mask_valid": ((count,), torch.bool),
        "mask_weights": ((count,), torch.float32),
        "mask_boxes": ((count, 4), torch.float32),
        "mask_targets": ((count, 32, 32), torch.float32),
        "ignore": ((16, 16), torch.bool),
        "image_ids": ((), torch.int64),
        "annotation_ids": ((count,), torch.int64),
        "geometry": ((2, 3), torch.float32),
        "original_sizes": ((2,), torch.int64),
    }
    assert {k: (tuple(v.shape), v.dtype) for k, v in sample.items()} == expected
    assert all(type(value) is torch.Tensor for value in sample.values())


def test_mask_target__covers_what_the_augmented_image_shows_in_the_box(tmp_path):
    dataset = make_dataset(make_index(tmp_path), masked_category_ids=frozenset({DISC, SLAB}))
    compared = 0
    for epoch in range(30):
        sample = dataset[(epoch, 0)]
        for label, box, target in zip(
            sample["labels"], sample["boxes"], sample["mask_targets"], strict=True
        ):
            if label == 2:
                continue
            x0, y0, x1, y1 = (int(edge) for edge in box.round())
            if min(x1 - x0, y1 - y0) < 8:
                continue
            shown = sample["images"][label, y0:y1, x0:x1].float()[None, None] / 255
            shown = torch.nn.functional.interpolate(shown, (32, 32), mode="bilinear")[0, 0]
            # Edges are blurred by the image's scaling, and its last row and column may be lost.
            assert (shown - target).abs().mean() < 0.09
            compared += 1
    assert compared > 25


def test_supervision__needs_a_masked_class_and_a_segmentation(tmp_path, monkeypatch):
    read = []
    original = mask_targets.instance_rle

    def spy(instance, *size):
        read.append(instance.id)
        return original(instance, *size)

    monkeypatch.setattr(mask_targets, "instance_rle", spy)
    sample = make_dataset(make_index(tmp_path), transform=evaluation_transform(64), training=False)[
        0
    ]
    assert sample["annotation_ids"].tolist() == [11, 12, 13]
    assert sample["labels"].tolist() == [0, 1, 2]
    assert sample["mask_valid"].tolist() == [True, False, False]
    assert sample["mask_targets"][1:].eq(0).all()
    assert read == [11], "a mask that does not supervise was decoded"


def test_a_models_mask__is_weighted_by_its_score_whatever_the_class(tmp_path):
    disc = rle(disc_mask())
    box = (8.0, 12.0, 32.0, 36.0)
    made = {"mask_source": "model", "mask_score": 0.7}
    extra = (
        Instance(21, SLAB, box, disc, False, 400.0, **made),
        Instance(22, DISC, box, disc, False, 400.0, mask_source="model"),  # no score: no trust
    )
    index = make_index(tmp_path, extra)
    plain = {"transform": v2.Compose([Letterbox(64)])}
    sample = make_dataset(index, **plain)[0]
    assert sample["annotation_ids"].tolist() == [11, 12, 13, 21, 22]
    assert sample["mask_weights"].tolist() == pytest.approx([1, 0, 0, 0.7, 0])
    assert sample["mask_valid"].tolist() == [True, False, False, True, False]
    assert torch.equal(sample["mask_targets"][3], sample["mask_targets"][0])
    for changes in ({"model_masks": "ignore"}, {"training": False}):
        sample = make_dataset(index, **plain, **changes)[0]
        assert sample["mask_valid"].tolist() == [True, False, False, False, False]


def test_target__is_the_area_average_within_the_box(tmp_path):
    sample = make_dataset(
        make_index(tmp_path),
        transform=Letterbox(64),
        training=False,
        targets=SMALL,
    )[0]
    expected = disc_mask()[12:36, 8:32].reshape(12, 2, 12, 2).mean(axis=(1, 3))
    assert torch.allclose(sample["mask_targets"][0].double(), torch.from_numpy(expected), atol=1e-5)
    flipped = make_dataset(
        make_index(tmp_path),
        transform=v2.RandomHorizontalFlip(1.0),
        targets=SMALL,
    )[0]
    assert torch.allclose(flipped["mask_targets"][0], sample["mask_targets"][0].flip(1), atol=1e-5)


def test_map_targets__cover_the_whole_canvas_in_cells_of_the_stride(tmp_path):
    sample = make_dataset(
        make_index(tmp_path),
        transform=Letterbox(64),
        training=False,
        targets=WHOLE,
    )[0]
    expected = np.zeros((16, 16))
    expected[:12] = disc_mask().reshape(12, 4, 16, 4).mean(axis=(1, 3))
    assert torch.allclose(sample["mask_targets"][0].double(), torch.from_numpy(expected), atol=1e-5)


def test_sample__depends_on_seed_epoch_and_image_only(tmp_path):
    index = make_index(tmp_path)
    dataset = make_dataset(index, transform=training_transform(64))
    torch.manual_seed(1)
    first = dataset[(3, 0)]["images"]
    follower = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), follower), "reading a sample moved the global generator"
    assert torch.equal(dataset[(3, 0)]["images"], first)
    assert not torch.equal(dataset[(4, 0)]["images"], first)
    other = make_dataset(index, transform=training_transform(64), seed=1)
    assert not torch.equal(other[(3, 0)]["images"], first)


def test_training__leaves_out_objects_that_the_crop_removes_and_evaluation_keeps_all(tmp_path):
    index = make_index(tmp_path)
    left_part = v2.Lambda(lambda x: v2.functional.crop(x, 0, 0, 48, 40))
    assert make_dataset(index, transform=left_part)[0]["annotation_ids"].tolist() == [11, 13]
    sliver = v2.Lambda(lambda x: v2.functional.crop(x, 0, 6, 48, 40))
    kept = make_dataset(index, transform=sliver, min_box_size=2)[0]["annotation_ids"]
    assert kept.tolist() == [11], "one pixel of the last object is left"
    assert len(make_dataset(index, transform=left_part, training=False)[0]["boxes"]) == 3


def test_crowds__mark_cells_and_are_never_objects(tmp_path):
    region = np.zeros((HEIGHT, WIDTH), np.uint8)
    region[8:16, 40:60] = 1
    crowds = (
        Instance(21, DISC, (40.0, 8.0, 60.0, 16.0), rle(region), True, 160.0),
        Instance(22, SLAB, (0.0, 40.0, 8.0, 48.0), None, True, 64.0),
    )
    index = make_index(tmp_path, crowds)
    sample = make_dataset(index, transform=Letterbox(64), training=False)[0]
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[2:4, 10:15] = True
    expected[10:12, 0:2] = True
    assert torch.equal(sample["ignore"], expected)
    assert sample["annotation_ids"].tolist() == [11, 12, 13]
    flipped = make_dataset(index, transform=v2.RandomHorizontalFlip(1.0))[0]
    assert torch.equal(flipped["ignore"], expected[:12].flip(1))


def test_an_image_without_objects_gives_empty_rows(tmp_path):
    record = make_index(tmp_path).images[0]
    bare = ImageRecord(6, record.file_name, record.path, WIDTH, HEIGHT, ())
    index = CocoIndex(tmp_path, tmp_path, (Category(DISC, "disc"),), (bare,))
    sample = make_dataset(index)[0]
    assert sample["boxes"].shape == (0, 4) and sample["mask_targets"].shape == (0, 32, 32)


@pytest.mark.parametrize("mode", ["default", "expand", "shrink"])
def test_jitter__moves_edges_within_its_share_and_direction(mode):
    boxes = torch.tensor([[20.0, 30.0, 40.0, 70.0]]).repeat(500, 1)
    moved = jitter_boxes(boxes, 0.1, mode, (100, 100)) - boxes
    assert (moved.abs() <= torch.tensor([2.0, 4.0, 2.0, 4.0]) + 1e-4).all()
    outwards = moved * torch.tensor([-1.0, -1.0, 1.0, 1.0])
    assert (outwards.max() > 1) == (mode != "shrink")
    assert (outwards.min() < -1) == (mode != "expand")
    assert (jitter_boxes(boxes, 0.4, "expand", (71, 41)) <= torch.tensor([41.0, 71, 41, 71])).all()


def test_jitter__cuts_features_and_target_by_the_same_box_in_training_only(tmp_path):
    index = make_index(tmp_path)
    changes = {
        "transform": Letterbox(64),
        "max_roi_jitter_ratio": 0.2,
        "targets": TargetSpec(24),
    }
    sample = make_dataset(index, **changes)[0]
    assert not torch.equal(sample["mask_boxes"], sample["boxes"])
    x0, y0, x1, y1 = sample["mask_boxes"][0].tolist()
    rows = (y0 + (np.arange(24) + 0.5) * (y1 - y0) / 24).astype(int)
    columns = (x0 + (np.arange(24) + 0.5) * (x1 - x0) / 24).astype(int)
    sampled = disc_mask()[np.ix_(rows, columns)]
    assert np.abs(sample["mask_targets"][0].numpy() - sampled).mean() < 0.05
    steady = make_dataset(index, training=False, **changes)[0]
    assert torch.equal(steady["mask_boxes"], steady["boxes"])
    with pytest.raises(ConfigError, match="could turn inside out"):
        make_dataset(index, max_roi_jitter_ratio=0.5)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_image__is_one_sentence_also_out_of_a_worker(tmp_path, num_workers):
    index = make_index(tmp_path)
    (tmp_path / "one.png").write_bytes(b"no picture")
    loader = DataLoader(make_dataset(index), num_workers=num_workers, collate_fn=collate)
    with pytest.raises(DataError) as caught:
        next(iter(loader))
    message = str(caught.value)
    assert "one.png" in message and message.endswith(".")
    assert "Traceback" not in message and "\n" not in message


def test_sample_error__keeps_a_plain_message():
    assert str(SampleError("image x.jpg is bad.")) == "image x.jpg is bad."


def test_workers__give_the_same_batches_as_none(tmp_path):
    dataset = make_dataset(make_index(tmp_path), transform=training_transform(64))
    keys = [[(epoch, 0), (epoch + 1, 0)] for epoch in (0, 2)]
    one, two = (
        list(DataLoader(dataset, batch_sampler=keys, num_workers=workers, collate_fn=collate))
        for workers in (0, 2)
    )
    for first, second in zip(one, two, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_real_images__boxes_stay_tight_around_their_targets(shared):
    folder = shared / "coco_mini"
    index = read_coco(
        folder / "annotations" / "instances_val.json", folder / "images", check_images="none"
    )
    dataset = CocoInstances(
        index,
        label_of=index.label_of,
        masked_category_ids=frozenset(index.category_ids),
        transform=evaluation_transform(256),
        training=False,
    )
    filled, touched = [], []
    for position in range(0, len(dataset), 12):
        sample = dataset[position]
        sides = sample["boxes"][:, 2:] - sample["boxes"][:, :2]
        targets = sample["mask_targets"][(sides > 16).all(dim=1)]
        filled.append(targets.mean(dim=(1, 2)))
        touched.append(
            torch.stack([targets[:, 0], targets[:, -1], targets[..., 0], targets[..., -1]])
            .amax(dim=-1)
            .flatten()
        )
    assert 0.5 < torch.cat(filled).mean() < 0.7
    assert (torch.cat(touched) > 0).float().mean() > 0.97
