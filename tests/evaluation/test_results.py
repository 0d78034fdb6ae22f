"""The COCO results file."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from deepmac.errors import UserError
from deepmac.evaluation.mask_quality import filled_box
from deepmac.evaluation.results import ImageResult, image_result, write_results_json


def results() -> list[ImageResult]:
    boxes = np.array([[1.25, 2.0, 11.5, 9.75], [0.0, 0.0, 20.0, 10.0]])
    return [
        image_result(
            7,
            boxes=boxes,
            scores=np.array([0.9, 0.3], np.float32),
            category_ids=np.array([3, 5]),
            masks=[filled_box(box, 10, 20) for box in boxes.tolist()],
        ),
        image_result(8, boxes=[], scores=[], category_ids=[], masks=[]),
    ]


def data_set() -> COCO:
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i, "height": 10, "width": 20} for i in (7, 8)],
        "categories": [{"id": 3}, {"id": 5}],
        "annotations": [],
    }
    coco.createIndex()
    return coco


def test_write_results_json__is_read_back_by_load_res(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    assert write_results_json(path, results()) == 2
    loaded = data_set().loadRes(str(path))
    first, second = loaded.loadAnns([1, 2])
    assert first["bbox"] == [1.25, 2.0, 10.25, 7.75]
    assert (first["image_id"], first["category_id"], second["category_id"]) == (7, 3, 5)
    assert first["score"] == pytest.approx(0.9, abs=1e-7)
    for annotation, rle in zip((first, second), results()[0]["masks"] or [], strict=True):
        np.testing.assert_array_equal(loaded.annToMask(annotation), mask_utils.decode(rle))


def test_write_results_json__leaves_out_masks_that_were_not_made(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    write_results_json(path, [image_result(7, boxes=[[0, 0, 2, 3]], scores=[1], category_ids=[3])])
    expected = {"image_id": 7, "category_id": 3, "bbox": [0.0, 0.0, 2.0, 3.0], "score": 1.0}
    assert json.loads(path.read_text()) == [expected]


def test_write_results_json__writes_an_empty_list_for_no_detections(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    assert write_results_json(path, []) == 0
    assert json.loads(path.read_text()) == []


def test_write_results_json__keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")

    def broken() -> Iterator[ImageResult]:
        yield results()[0]
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_results_json(path, broken())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_results_json__says_which_path_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        write_results_json(tmp_path / "file" / "results.json", [])


def test_image_result__refuses_lengths_that_disagree() -> None:
    with pytest.raises(ValueError, match="1 boxes, but 2 scores"):
        image_result(7, boxes=[[0, 0, 1, 1]], scores=[1, 1], category_ids=[3])


def test_image_result__refuses_numbers_that_are_not_finite() -> None:
    with pytest.raises(UserError, match="image 7"):
        image_result(7, boxes=[[0, 0, 1, float("nan")]], scores=[1], category_ids=[3])
