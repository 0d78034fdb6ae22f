"""Finding annotation files and image folders in the usual layouts."""

from pathlib import Path

import pytest

from deepmac.data.annotations.locate import locate_coco
from deepmac.errors import DataError


def _layout(root: Path, json: str, images: str) -> Path:
    (root / json).parent.mkdir(parents=True, exist_ok=True)
    (root / json).write_text("{}")
    (root / images).mkdir(parents=True, exist_ok=True)
    return root


@pytest.mark.parametrize("year", ["", "2017"])
@pytest.mark.parametrize("images", ["images", "train2017", "train", "images/train2017"])
def test_locate_coco__knows_the_usual_layouts(tmp_path: Path, year: str, images: str) -> None:
    json = f"annotations/instances_train{year}.json"
    root = _layout(tmp_path, json, images)
    assert locate_coco(root, "train") == (root / json, root / images)


def test_locate_coco__prefers_the_folder_of_the_split(tmp_path: Path) -> None:
    root = _layout(tmp_path, "annotations/instances_val.json", "images")
    (root / "val2017").mkdir()
    assert locate_coco(root, "val")[1] == root / "val2017"


def test_locate_coco__takes_paths_given_relative_to_root_or_absolute(tmp_path: Path) -> None:
    root = _layout(tmp_path / "root", "my.json", "photos")
    expected = (root / "my.json", root / "photos")
    assert locate_coco(root, "train", json="my.json", image_dir="photos") == expected
    assert locate_coco(None, "train", json=expected[0], image_dir=expected[1]) == expected


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("root", "data set folder .*nowhere does not exist"),
        ("json", "no annotation file of the val set: looked for .*val.json or .*val2017.json"),
        ("images", "no image folder of the val set: looked for .*val2017 or .*images"),
        ("override", "no annotation file of the val set: looked for .*my.json"),
        ("all", "no place to look for the val set"),
    ],
)
def test_locate_coco__says_what_it_looked_for(tmp_path: Path, missing: str, sentence: str) -> None:
    root: Path | None = tmp_path
    json = None
    if missing == "root":
        root = tmp_path / "nowhere"
    elif missing == "images":
        (tmp_path / "annotations").mkdir()
        (tmp_path / "annotations" / "instances_val.json").write_text("{}")
    elif missing == "override":
        json = "my.json"
    elif missing == "all":
        root = None
    with pytest.raises(DataError, match=sentence):
        locate_coco(root, "val", json=json)
