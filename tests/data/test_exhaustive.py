"""Which classes may be there unmarked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from deepmac.data.annotations.coco import read_coco
from deepmac.data.annotations.reading import Reading
from deepmac.data.collate import collate
from deepmac.data.dataset import CocoInstances
from deepmac.data.exhaustive import open_classes
from deepmac.data.transforms.compose import evaluation_transform

MARKS = {
    "plain": ({}, [False, False, False]),
    "marked": ({"exhaustive": False}, [True, True, True]),
    "absent": ({"neg_category_ids": [7]}, [False, True, False]),
    "partly": (
        {"neg_category_ids": [7], "not_exhaustive_category_ids": [3]},
        [True, True, False],
    ),
}


def index_of(folder: Path, marks: dict, reading: Reading | None = None):
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48, **marks}],
        "categories": [{"id": n, "name": f"c{n}"} for n in (3, 5, 7)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [5, 5, 20, 20]}],
    }
    path = folder / "a.json"
    path.write_text(json.dumps(content))
    return read_coco(path, folder, reading=reading)


@pytest.mark.parametrize("case", MARKS)
def test_open_classes__are_those_that_nobody_looked_for(tmp_path: Path, case: str) -> None:
    marks, expected = MARKS[case]
    index = index_of(tmp_path, marks)
    assert open_classes(index.images[0], index.label_of).tolist() == expected


def test_a_whole_set__can_be_marked(tmp_path: Path) -> None:
    index = index_of(tmp_path, {}, Reading(exhaustive=False))
    assert open_classes(index.images[0], index.label_of).all()


@pytest.mark.parametrize("case", MARKS)
def test_a_whole_set__can_be_taken_for_exhaustive_whatever_its_file_says(
    tmp_path: Path, case: str
) -> None:
    index = index_of(tmp_path, MARKS[case][0], Reading(exhaustive=True))
    assert not open_classes(index.images[0], index.label_of).any()


@pytest.mark.parametrize("exhaustive", [True, False])
def test_batches__say_so_only_where_the_set_has_such_images(
    tmp_path: Path, exhaustive: bool
) -> None:
    index = index_of(tmp_path, {"exhaustive": exhaustive})
    data = CocoInstances(
        index, label_of=index.label_of, masked_category_ids=frozenset(),
        transform=evaluation_transform(64), training=True,
    )  # fmt: skip
    batch = collate([data[0], data[0]])
    assert ("open_classes" in batch) != exhaustive
    if not exhaustive:
        assert torch.equal(batch["open_classes"], torch.ones(2, 3, dtype=torch.bool))
