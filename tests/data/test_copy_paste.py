"""Objects of other pictures on a picture: what is seen is what is annotated."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.data.annotations.coco import Category, CocoIndex, ImageRecord, Instance, decode_mask
from deepmac.data.copy_paste import CopyPaste, uncovered
from deepmac.data.dataset import CocoInstances
from deepmac.data.transforms.compose import training_transform

HEIGHT, WIDTH = 40, 76
DRAWN, MADE, BARE = 3, 7, 9  # category ids: masks by a person, by a model, none


def rle_of(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {**rle, "counts": rle["counts"].decode("ascii")}


def ellipse(box):
    x0, y0, x1, y1 = box
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    radii = (x1 - x0) / 2, (y1 - y0) / 2
    return ((x - (x0 + x1) / 2) / radii[0]) ** 2 + ((y - (y0 + y1) / 2) / radii[1]) ** 2 < 1


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Four pictures; each has two drawn objects, one by a model, and a box without a mask."""
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    records = []
    for number in range(1, 5):
        pixels = np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8)
        instances = []
        for place, category in enumerate((DRAWN, MADE, BARE, DRAWN)):
            x0, y0 = rng.integers(0, 8) + 18 * place, rng.integers(0, 14)
            box = tuple(float(v) for v in (x0, y0, x0 + rng.integers(8, 12), y0 + 20))
            mask = ellipse(box)
            pixels[mask] = (200, 40 * number, 60 * place)
            segmentation = None if category == BARE else rle_of(mask)
            source = "model" if category == MADE else "human"
            instances.append(
                Instance(10 * number + place, category, box, segmentation, False,
                         float(mask.sum()), (), source, 0.9 if category == MADE else None)
            )  # fmt: skip
        Image.fromarray(pixels).save(folder / f"{number}.png")
        path = folder / f"{number}.png"
        records.append(ImageRecord(number, path.name, path, WIDTH, HEIGHT, tuple(instances)))
    categories = tuple(Category(i, str(i)) for i in (DRAWN, MADE, BARE))
    return CocoIndex(folder / "x.json", folder, categories, tuple(records))


def pixels_of(record):
    return np.asarray(Image.open(record.path))


def pasted(index, seed, position=0, share=1.0):
    torch.manual_seed(seed)
    record = index.images[position]
    paste = CopyPaste(index, frozenset({DRAWN, MADE, BARE}), share)
    return record, *paste(record, list(record.instances), pixels_of(record))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), position=st.integers(0, 3))
def test_pasted__pixels_change_under_the_new_masks_and_nowhere_else(index, seed, position):
    record, items, pixels = pasted(index, seed, position)
    own = {item.id for item in record.instances}
    kept = [item for item in items if item.id in own]
    new = [item for item in items if item.id not in own]
    changed = (pixels != pixels_of(record)).any(axis=2)
    masks = [decode_mask(item, HEIGHT, WIDTH).astype(bool) for item in items if item.segmentation]
    assert sum(mask.astype(int) for mask in masks).max() <= 1, "every pixel is of one object"
    if len({item.id for item in items}) < len(items) or not new:
        return  # objects of the picture itself
    union = np.zeros((HEIGHT, WIDTH), bool)
    for item in new:
        assert item.category_id == DRAWN and item.mask_source == "human"
        mask = decode_mask(item, HEIGHT, WIDTH).astype(bool)
        ys, xs = np.nonzero(mask)
        assert item.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert item.area == mask.sum()
        union |= mask
    assert (changed & ~union).sum() < 45, "but for what is left of objects that go"
    for item in kept:
        assert item.box[0] < item.box[2] and item.box[1] < item.box[3]


@settings(max_examples=100, deadline=None)
@given(
    box=st.tuples(*[st.floats(0, 1)] * 4),
    hole=st.tuples(*[st.floats(0, 1)] * 4),
    with_mask=st.booleans(),
)
def test_uncovered__is_what_is_left_of_mask_and_box(box, hole, with_mask):
    x0, x1 = sorted((box[0] * (WIDTH - 8), box[2] * (WIDTH - 8)))
    y0, y1 = sorted((box[1] * (HEIGHT - 8), box[3] * (HEIGHT - 8)))
    edges = (x0, y0, x1 + 6, y1 + 6)
    mask = ellipse(edges)
    above = np.zeros((HEIGHT, WIDTH), bool)
    (hx0, hx1), (hy0, hy1) = sorted((hole[0], hole[2])), sorted((hole[1], hole[3]))
    above[int(hy0 * HEIGHT) : int(hy1 * HEIGHT), int(hx0 * WIDTH) : int(hx1 * WIDTH)] = True
    item = Instance(1, DRAWN, edges, rle_of(mask) if with_mask else None, False, 5.0)
    left = uncovered(item, above)
    if with_mask:
        visible = mask & ~above
        if not (mask & above).any():
            assert left is item
        elif visible.sum() < 0.1 * mask.sum():
            assert left is None
        else:
            np.testing.assert_array_equal(decode_mask(left, HEIGHT, WIDTH), visible)
            ys, xs = np.nonzero(visible)
            tight = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert all(abs(a - b) <= 1 for a, b in zip(left.box, tight, strict=True))
            assert left.area == visible.sum()
    elif left is not None:
        assert left.segmentation is None
        # Smaller only by rows and columns that are covered from side to side.
        inside = np.ones((HEIGHT, WIDTH), bool)
        inside[int(left.box[1]) : int(np.ceil(left.box[3])),
               int(left.box[0]) : int(np.ceil(left.box[2]))] = False  # fmt: skip
        gone = inside & ellipse_box(edges)
        assert above[gone].all()


def ellipse_box(box):
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[int(box[1]) : int(np.ceil(box[3])), int(box[0]) : int(np.ceil(box[2]))] = True
    return whole


def test_points__of_what_is_covered_go():
    item = Instance(1, DRAWN, (2.0, 2.0, 30.0, 30.0), None, False, 1.0,
                    ((5.0, 5.0, 1), (25.0, 25.0, 1), (6.0, 6.0, 0)))  # fmt: skip
    above = np.zeros((HEIGHT, WIDTH), bool)
    above[:10, :10] = True
    assert uncovered(item, above).points == ((25.0, 25.0, 1), (6.0, 6.0, 0))


def samples(index, share, masked=frozenset({DRAWN, MADE, BARE}), **changes):
    return CocoInstances(
        index,
        label_of=index.label_of,
        masked_category_ids=masked,
        transform=training_transform(64, color=False),
        training=True,
        copy_paste=share,
        **changes,
    )


def test_sample__is_drawn_by_seed_epoch_and_image(index):
    one, again = samples(index, 0.7), samples(index, 0.7)
    differing = 0
    for epoch in range(6):
        for position in range(4):
            first, second = one[(epoch, position)], again[(epoch, position)]
            assert all(torch.equal(first[k], second[k]) for k in first)
            later = one[(epoch, position, 0, 1)]  # once more in the same epoch
            differing += not torch.equal(first["images"], later["images"])
    assert differing > 18
    counts = [len(one[(epoch, 0)]["boxes"]) for epoch in range(30)]
    plain = samples(index, 0.0)
    assert sum(counts) > sum(len(plain[(epoch, 0)]["boxes"]) for epoch in range(30))


def test_sample__without_pasting_is_what_it_was(index):
    plain = samples(index, 0.0)
    assert plain.copy_paste is None
    evaluated = CocoInstances(
        index, label_of=index.label_of, masked_category_ids=frozenset({DRAWN}),
        transform=training_transform(64), training=False, copy_paste=0.5,
    )  # fmt: skip
    assert evaluated.copy_paste is None


def test_nothing_to_paste__pastes_nothing(index):
    paste = CopyPaste(index, frozenset({BARE, MADE}), 1.0)
    assert not len(paste.givers)
    record = index.images[0]
    items, _ = paste(record, list(record.instances), pixels_of(record))
    assert items == list(record.instances)


def test_targets__of_pasted_objects_are_what_the_picture_shows(index):
    """Every drawn object is red 200, no background is: the target says where."""
    data, compared = samples(index, 1.0, frozenset({DRAWN})), 0
    for epoch in range(20):
        sample = data[(epoch, 1)]
        for number in sample["mask_valid"].nonzero()[:, 0].tolist():
            x0, y0, x1, y1 = (int(v) for v in sample["boxes"][number].round())
            if min(x1 - x0, y1 - y0) < 10:
                continue
            shown = (sample["images"][0, y0:y1, x0:x1] > 100).float()[None, None]
            shown = torch.nn.functional.interpolate(shown, (32, 32), mode="bilinear")[0, 0]
            target = sample["mask_targets"][number]
            assert (shown[target > 0.9]).mean() > 0.85
            compared += 1
    assert compared > 15
