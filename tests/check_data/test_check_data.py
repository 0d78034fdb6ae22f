"""check-data: one report with everything that is in a data set and everything wrong with it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from deepmac.check_data.check import PRINTED_PROBLEMS, Report, check_data, print_report
from deepmac.errors import ConfigError

SIZE = 64


def _annotation(identity: int, image_id: int, **changes: Any) -> dict[str, Any]:
    entry = {"id": identity, "image_id": image_id, "category_id": 1, "bbox": [4, 4, 40, 40]}
    x, y, w, h = changes.get("bbox", entry["bbox"])
    polygons = [[x, y, x + w, y, x + w, y + h, x + w / 2, y + h, x, y + h / 2]]
    return {**entry, "area": 1600, "segmentation": polygons, "iscrowd": 0, **changes}


def _annotations(split: str) -> list[dict[str, Any]]:
    first = 1 if split == "train" else 4
    return [
        _annotation(1, first),
        _annotation(2, first, category_id=2, segmentation=[], area=10_000),
        _annotation(3, first + 1, iscrowd=1),
        _annotation(4, first + 1, bbox=[1, 1, 5, 5], area=25),
    ]


def _data_set(root: Path, **annotations: list[dict[str, Any]]) -> Path:
    """Images 1 to 3 in train and 4 to 6 in val; the last of each has no object."""
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    for split, ids in (("train", (1, 2, 3)), ("val", (4, 5, 6))):
        for i in ids:
            Image.new("RGB", (SIZE, SIZE), (40 * i, 90, 60)).save(root / "images" / f"{i}.png")
        content = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "width": SIZE, "height": SIZE} for i in ids
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "gear[x]"}],
            "annotations": annotations.get(split, _annotations(split)),
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def _printed(report: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_report(report, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_check_data__counts_what_is_there(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set")
    report = check_data({"root": root, "masked_classes": ["cat"]}, tmp_path / "out")
    assert report.problems == ()
    assert report.notes == ()
    assert report.problems_file is None
    assert report.split is not None
    assert report.split.groups() == {"seen": {1}, "unseen": {2}, "all": {1, 2}}
    train = report.statistics["train"]
    assert (train.images, train.empty_images, train.crowds) == (3, 1, 1)
    assert (train.objects, train.masks) == (3, 2)
    assert train.sizes == {"small": 1, "medium": 1, "large": 1}
    assert train.class_boxes == {1: 2, 2: 1}
    assert train.class_masks == {1: 2, 2: 0}
    assert train.boxes_per_image["max"] == 2
    assert train.boxes_per_image["median"] == 1


def test_check_data__counts_the_real_images(shared: Path, tmp_path: Path) -> None:
    report = check_data({"root": shared / "coco_mini", "masked_classes": "voc"}, tmp_path)
    assert report.problems == ()
    assert report.notes == ()
    assert report.split is not None
    assert (len(report.split.seen), len(report.split.unseen)) == (20, 60)
    numbers = {
        name: (s.images, s.objects, s.masks, s.crowds, s.empty_images)
        for name, s in report.statistics.items()
    }
    assert numbers == {"train": (257, 2117, 2117, 20, 2), "val": (239, 1860, 1860, 19, 2)}
    assert report.picture is not None
    assert Image.open(report.picture).width > 1900


def test_print_report__shows_counts_classes_and_the_split(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set")
    text = _printed(check_data({"root": root, "masked_classes": ["cat"]}, tmp_path / "out"))
    for words in ("images without objects", "crowd regions", "large objects", "an image, 99%"):
        assert words in text
    assert "gear[x]" in text
    assert "unseen" in text
    assert "No problems found." in text
    assert "check_data.png" in text


def test_check_data__draws_the_same_picture_every_time(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set")
    pictures = []
    for name in ("a", "b"):
        picture = check_data({"root": root}, tmp_path / name).picture
        assert picture == tmp_path / name / "check_data.png"
        pictures.append(np.array(Image.open(picture)))
    np.testing.assert_array_equal(*pictures)


def test_check_data__lists_every_problem_and_prints_the_first_ones(tmp_path: Path) -> None:
    bad = [_annotation(10 + i, 1, bbox=[1, 1, 0, 3]) for i in range(70)]
    clipped = _annotation(5, 1, bbox=[-4, 4, 40, 40])
    root = _data_set(tmp_path / "set", train=[*_annotations("train"), *bad, clipped])
    (root / "images" / "5.png").unlink()
    report = check_data({"root": root}, tmp_path / "out")
    assert len(report.problems) == 71
    assert [note.kind for note in report.notes] == ["box clipped"]
    assert report.statistics["val"].images == 2

    assert report.problems_file is not None
    rows = [line.split("\t") for line in report.problems_file.read_text().splitlines()]
    assert rows[0] == ["severity", "kind", "file", "image_id", "annotation_id", "message"]
    assert len(rows) == 1 + 72
    assert {tuple(row[:2]) for row in rows[1:]} == {
        ("problem", "zero-area box"),
        ("problem", "missing image"),
        ("note", "box clipped"),
    }
    assert rows[1][2:5] == [str(root / "annotations" / "instances_train.json"), "1", "10"]

    text = _printed(report)
    assert text.count("problem: ") == PRINTED_PROBLEMS
    assert "... and 22 more, all in" in text
    assert "Problems: 71 (zero-area box: 70, missing image: 1)" in text
    assert "[1, 1, 0, 3]" in text
    assert "No problems found" not in text


def test_check_data__removes_the_problem_list_of_an_earlier_check(tmp_path: Path) -> None:
    (tmp_path / "problems.tsv").write_text("old")
    check_data({"root": _data_set(tmp_path / "set")}, tmp_path)
    assert not (tmp_path / "problems.tsv").exists()


def test_check_data__reports_a_set_that_cannot_be_read_and_shows_the_other(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set")
    (root / "annotations" / "instances_val.json").write_text("{")
    report = check_data({"root": root}, tmp_path / "out")
    assert [problem.kind for problem in report.problems] == ["unusable set"]
    assert "is not valid JSON" in report.problems[0].message
    assert list(report.statistics) == ["train"]
    assert report.picture is not None


def test_check_data__of_an_empty_folder_says_so_once(tmp_path: Path) -> None:
    for settings in ({"root": tmp_path / "nowhere"}, {"root": tmp_path}):
        report = check_data(settings, tmp_path / "out")
        assert [problem.kind for problem in report.problems] == ["unusable set"]
        assert report.picture is None
        assert "unusable set: 1" in _printed(report)


def test_check_data__takes_files_in_other_places(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set")
    settings = {
        "root": None,
        "train_json": root / "annotations" / "instances_train.json",
        "val_json": root / "annotations" / "instances_val.json",
        "image_dir": root / "images",
    }
    assert check_data(settings, tmp_path / "out").problems == ()


def test_check_data__decodes_every_image_on_request(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set")
    path = root / "images" / "3.png"
    content = bytearray(path.read_bytes())
    content[41:50] = bytes(9)  # the compressed pixels; header and end of file stay as they were
    path.write_bytes(content)
    report = check_data({"root": root, "check_images": "full"}, tmp_path / "out")
    assert [problem.kind for problem in report.problems] == ["unreadable image"]


def test_check_data__reports_images_that_only_fail_when_drawn(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set")
    path = root / "images" / "3.png"
    content = bytearray(path.read_bytes())
    content[41:50] = bytes(9)
    path.write_bytes(content)
    report = check_data({"root": root, "check_images": "header"}, tmp_path / "out")
    assert [problem.kind for problem in report.problems] == ["unreadable image"]
    assert report.picture is not None


def test_check_data__notes_images_in_both_sets(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set")
    train = root / "annotations" / "instances_train.json"
    report = check_data({"root": root, "val_json": train}, tmp_path / "out")
    assert [note.kind for note in report.notes] == ["image in train and val"] * 3
    assert report.problems == ()


def test_check_data__reports_classes_that_differ_between_the_sets(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set")
    path = root / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "gear[x]"}]
    path.write_text(json.dumps(content))
    report = check_data({"root": root}, tmp_path / "out")
    assert [problem.kind for problem in report.problems] == ["classes differ"]
    assert "has objects of 1 classes" in report.problems[0].message
    assert '("dog")' in report.problems[0].message


def test_check_data__with_classes_that_do_not_exist_is_a_config_error(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set")
    with pytest.raises(ConfigError, match="did you mean cat"):
        check_data({"root": root, "masked_classes": ["cats"]}, tmp_path / "out")
