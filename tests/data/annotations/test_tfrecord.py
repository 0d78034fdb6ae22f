"""The Object Detection API's TFRecords: as its json says, read where they lie, damage told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.annotations import exports
from deepmac.check_data.check import check_data
from deepmac.data.annotations.coco import CocoIndex
from deepmac.data.annotations.read_boxes import read_boxes
from deepmac.data.annotations.records import decode_mask
from deepmac.data.file_parts import own_name, part_of
from deepmac.data.images import ImageFileError, image_size, read_image
from deepmac.data.settings import read_annotations
from deepmac.errors import DataError
from deepmac.label.plan import make_plan
from deepmac.lightning.datamodule import CocoDataModule

SHARD = "coco_train.record-00000-of-00003"


def read(root: Path, split: str = "train", **settings: Any) -> CocoIndex:
    return read_annotations({"root": root, **settings}, split)  # type: ignore[arg-type]


def one(root: Path, **changed: Any) -> Path:
    """A set of one picture; features given as None are left out."""
    stems = ("a",)
    exports.pictures(root / "made", stems)
    features = exports.coco_features(root / "made", "a", 7)
    (root / "made/a.jpg").unlink()
    (root / "made").rmdir()
    features |= {f"image/{name.replace('__', '/')}": v for name, v in changed.items()}
    exports.record(root / "train.tfrecord", [exports.example(
        {name: v for name, v in features.items() if v is not None}
    )])  # fmt: skip
    return root


def test_records__are_the_table_and_the_batches_of_the_same_json(tmp_path: Path) -> None:
    batches = {}
    for name in ("tfrecord", "coco_own"):
        exports.ALL[name](tmp_path / name)
        module = CocoDataModule(
            root=str(tmp_path / name), masked_classes="all", batch_size=4, num_workers=0,
            image_size=64,
        )  # fmt: skip
        module.setup("fit")
        batches[name] = next(iter(module.train_dataloader()))
    ours, theirs = read(tmp_path / "tfrecord"), read(tmp_path / "coco_own")
    assert ours.category_ids == theirs.category_ids
    for mine, image in zip(ours.images, theirs.images, strict=True):
        assert (mine.id, mine.file_name, mine.width) == (image.id, image.file_name, image.width)
        for item, other in zip(mine.instances, image.instances, strict=True):
            assert item.box == other.box and item.category_id == other.category_id
            assert (decode_mask(item, 60, 80) == decode_mask(other, 60, 80)).mean() > 0.98
    for key in ("images", "boxes", "labels", "mask_valid", "valid", "image_ids"):
        assert torch.equal(batches["tfrecord"][key], batches["coco_own"][key]), key


def test_pictures__are_read_where_they_lie(tmp_path: Path) -> None:
    exports.tfrecord(tmp_path)
    image = read(tmp_path).images[1]
    part = part_of(image.path)
    assert part is not None and part.file.parent == tmp_path
    assert image.path.name == image.file_name == own_name(str(image.path)) == "b.jpg"
    exports.pictures(tmp_path / "plain", ("b",))
    assert np.array_equal(read_image(image.path), read_image(tmp_path / "plain/b.jpg"))
    assert image_size(image.path) == exports.SIZE
    beyond = image.path.parent.with_name("@999999999+10") / "b.jpg"
    with pytest.raises(ImageFileError, match="cannot be decoded"):
        read_image(beyond)
    with pytest.raises(ImageFileError, match="does not exist"):
        read_image(tmp_path / "none.tfrecord/@0+10/b.jpg")


def test_boxes__are_labelled_from_one_shard_of_the_set_and_train_afterwards(
    tmp_path: Path,
) -> None:
    exports.tfrecord(tmp_path)
    boxes = read_boxes(tmp_path / "coco_train.record-00001-of-00003", tmp_path)
    assert boxes.format == "tfrecord" and len(boxes.content["images"]) == 4
    for entry in boxes.content["annotations"]:
        entry["segmentation"] = []
    plan = make_plan(boxes, tmp_path)
    assert sum(len(task.rows) for part in plan.parts.values() for task in part) == 6
    (tmp_path / "labelled.json").write_text(json.dumps(boxes.content))
    index = read(tmp_path, train_json="labelled.json", image_dir=".", val_share=0.0)
    assert [image.file_name for image in index.images] == ["a.jpg", "b.jpg", "c d.jpg", "é.jpg"]
    assert index.images[0].path.is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d[:-7], "is cut off in record 2; copy it again"),
        (lambda d: d[:60] + bytes([d[60] ^ 1]) + d[61:], r"1 records do not agree .* \(number 1\)"),
        (lambda d: b"not a record at all", r"is no TFRecord file \(byte 0\); copy it again"),
        (lambda d: gzip.compress(d), r"is compressed with gzip, unpack it \(gunzip\)"),
        (lambda d: d + b"\0" * 40, r"is damaged after record 2 \(byte [\d,]+\)"),
    ],
)
def test_damage__is_a_sentence_and_the_rest_is_read(
    tmp_path: Path, damage: Any, words: str
) -> None:
    exports.tfrecord(tmp_path)
    path = tmp_path / SHARD
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"{SHARD}.*{words}"):
        read(tmp_path)
    left = read(tmp_path, on_error="drop")
    assert 2 <= len(left.images) <= 4 and len(left.images[0].instances) == 2
    assert any(SHARD in p.message for p in left.problems)
    assert any(SHARD in p.message for p in check_data({"root": tmp_path}, tmp_path / "o").problems)


def test_shards_that_lack__are_noted(tmp_path: Path) -> None:
    exports.tfrecord(tmp_path)
    (tmp_path / SHARD).unlink()
    notes = [p.message for p in read(tmp_path).problems]
    assert len(notes) == 1 and f"{SHARD} is not there" in notes[0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"encoded": None}, "record 1: it has no picture image/encoded"),
        ({"object__bbox__xmax": [0.5]}, "its boxes have sides of different number"),
        ({"object__class__text": [b"cat"]}, "it has 2 boxes, but 1 names"),
        ({"width": [1 << 40]}, "which no picture has"),
        ({"object__mask": [b"no png", b""]}, "has a mask that cannot be used, number 1"),
        ({"object__mask": [b""]}, "has 1 masks for 2 boxes"),
        ({"object__bbox__xmin": [float("nan"), 0.1]}, "NaN or infinite"),
        ({"object__bbox__xmin": [float("inf"), 0.1]}, "NaN or infinite"),
        ({"width": [90]}, "is 80 x 60 pixels .* but its annotations say 90 x 60"),
        ({"encoded": [b"\xff\xd8\xff not a picture"]}, "cannot be decoded"),
    ],
)
def test_records_that_cannot_be_meant__are_told(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    one(tmp_path, **({"object__mask": None} if "width" in changed else {}), **changed)
    with pytest.raises(DataError, match=words):
        read(tmp_path)


def test_class_ids__come_from_the_label_map_the_record_or_coco(tmp_path: Path) -> None:
    def ids(name: str, **changed: Any) -> list[tuple[int, str]]:
        index = read(one(tmp_path / name, **changed))
        return [(c.id, c.name) for c in index.categories]

    coco = ids("coco")  # cat and dog are COCO's, and so are their ids
    assert len(coco) == 80 and (17, "cat") in coco and (18, "dog") in coco
    assert ids("own", object__class__label=[5, 3]) == [(3, "dog"), (5, "cat")]
    assert ids("numbers", object__class__label=[5, 3], object__class__text=None) == [
        (3, "3"), (5, "5")
    ]  # fmt: skip
    other = [b"yak", b"elk"]
    assert ids("names", object__class__text=other) == [(1, "elk"), (2, "yak")]
    assert "class ids numbered" in {p.kind for p in read(tmp_path / "names").problems}
    (tmp_path / "mapped").mkdir()
    (tmp_path / "mapped/label_map.txt").write_text("item { id: 9 name: 'yak' }")
    with pytest.raises(DataError, match=r"'elk'.*label map does not have"):
        ids("mapped", object__class__text=other)
    (tmp_path / "mapped/label_map.txt").write_text(
        "item { id: 9 name: 'yak' } item {id: 1 name: 'elk'}"
    )
    assert ids("mapped", object__class__text=other) == [(1, "elk"), (9, "yak")]
    (tmp_path / "mapped/x.pbtxt").write_text("item { id: 8 name: 'yak' } item {id: 1 name: 'elk'}")
    with pytest.raises(DataError, match="label maps that give classes other ids"):
        ids("mapped", object__class__text=other)


def test_crowds_areas_weights_and_numbers_as_masks__are_read(tmp_path: Path) -> None:
    crowd = read(one(tmp_path / "crowd", object__is_crowd=None, object__group_of=[0, 1]))
    assert [item.iscrowd for item in crowd.images[0].instances] == [False, True]
    weighed = read(one(tmp_path / "weighed", object__mask__weight=[0.0, 1.0]))
    masked = [item.segmentation is not None for item in weighed.images[0].instances]
    assert masked == [False, True]
    flat = np.stack([exports.mask(f) for _, f in exports.objects("a")]).astype(float)
    numbers = read(one(tmp_path / "numbers", object__mask=flat.ravel().tolist()))
    first = numbers.images[0].instances[0]
    assert np.array_equal(decode_mask(first, 60, 80), flat[0])
    bare = read(one(tmp_path / "bare", object__mask=None, object__area=None, width=None))
    assert bare.images[0].width == 80 and bare.images[0].instances[0].segmentation is None


def test_image_ids__are_the_source_ids_or_numbers(tmp_path: Path) -> None:
    assert read(one(tmp_path / "own")).images[0].id == 7
    text = read(one(tmp_path / "text", source_id=[b"a/007"]))
    assert text.images[0].id == 1 and text.text_ids == {1: "a/007"}
    none = read(one(tmp_path / "none", source_id=None))
    assert none.images[0].id == 1
    assert "image ids numbered" in {p.kind for p in none.problems}
