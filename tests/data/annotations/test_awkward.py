"""Files as people have them: read as they are meant, or named with what to do."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from rich.console import Console

from data.annotations import exports
from deepmac.check_data.check import check_data, print_report
from deepmac.data.annotations.coco import CocoIndex, read_coco
from deepmac.data.annotations.layout import find
from deepmac.data.annotations.read_boxes import read_boxes
from deepmac.data.annotations.reading import Reading
from deepmac.data.images import image_size, read_image
from deepmac.data.settings import read_annotations
from deepmac.errors import DataError
from deepmac.evaluation.results import image_result, write_results_json

PENTAGON = exports.polygon(0, 0)


def coco(root: Path, change: Any = None, **settings: Any) -> CocoIndex:
    """COCO's own layout, its training content changed in place by ``change``."""
    exports.coco_own(root)
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    if change is not None:
        change(content)
    path.write_text(json.dumps(content))
    return read_annotations({"root": root, "on_error": "drop", **settings}, "train")


def checked(root: Path) -> tuple[Any, str]:
    """What check-data finds, and what it prints."""
    report = check_data({"root": root}, root / "out")
    console = Console(file=io.StringIO(), width=300)
    print_report(report, console)
    return report, console.file.getvalue()  # type: ignore[attr-defined]


def every(key: str, value: Any, which: str = "annotations") -> Any:
    def change(content: dict[str, Any]) -> None:
        for entry in content[which]:
            if value is KeyError:
                del entry[key]
            else:
                entry[key] = value(entry) if callable(value) else value

    return change


# What every entry has is said, not hidden


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (every("bbox", None), None),
        (every("segmentation", lambda e: [[1, 2, 3, 4]]), "polygon of 4 numbers"),
        (every("category_id", 77), "category 77 that the file does not list"),
        (every("image_id", 99), "belongs to no image"),
        (every("file_name", 5, "images"), "has no file_name"),
        (every("width", "wide", "images"), "has width 'wide'"),
        (every("id", None, "images"), "has the id None"),
    ],
)
def test_check_data__shows_the_fault_that_all_entries_have(
    tmp_path: Path, change: Any, said: str | None
) -> None:
    coco_root = tmp_path / "set"
    try:
        coco(coco_root, change)
    except DataError as error:
        assert said and said in str(error)
    report, printed = checked(coco_root)
    assert "Read: " in printed and "objects (boxes)" in printed
    if said:
        assert any(said in problem.message for problem in report.problems)
        assert said in printed
    else:
        assert {note.kind for note in report.notes} == {"box from mask"}


def test_check_data__shows_a_set_without_masks(tmp_path: Path) -> None:
    root = tmp_path / "set"
    exports.yolo_detect(root)
    report, printed = checked(root)
    assert report.problems == () and "no object with a mask" in printed
    assert "objects with masks" in printed


# What cannot be meant is counted


def _from_below(entry: dict[str, Any]) -> list[float]:
    x, y, w, h = entry["bbox"]
    return [x, 60 - y - h, w, h]


def _corners(entry: dict[str, Any]) -> list[list[float]]:
    x, y, w, h = entry["bbox"]
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


@pytest.mark.parametrize(
    ("change", "kind", "mend"),
    [
        (every("segmentation", _corners), "mask is only its box", "rectangle_masks=mask"),
        (every("bbox", _from_below), "box and mask disagree", "mismatched_masks=drop"),
        (
            every("segmentation", lambda e: [[v / 2 for v in e["segmentation"][0]]]),
            "box and mask disagree",
            "mismatched_masks=drop",
        ),
        (every("iscrowd", 1), "class of crowd regions only", "crowds=objects"),
    ],
)
def test_doubts__are_counted_and_have_a_remedy(
    tmp_path: Path, change: Any, kind: str, mend: str
) -> None:
    root = tmp_path / "set"
    if kind == "class of crowd regions only":
        with pytest.raises(DataError, match="no annotated objects"):
            coco(root, change)
    else:
        index = coco(root, change)
        assert kind in {problem.kind for problem in index.problems}
    report, printed = checked(root)
    assert kind in {note.kind for note in report.notes}
    assert kind in printed and mend in printed
    assert "No problems found." not in printed
    name, _, value = mend.partition("=")
    again = read_annotations({"root": root, name: value}, "train")
    if name != "mismatched_masks":
        assert kind not in {problem.kind for problem in again.problems}
    masks = sum(o.segmentation is not None for image in again.images for o in image.instances)
    assert (masks > 0) == (name != "mismatched_masks")


def test_ignored_objects__are_regions(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["ignore"] = 1

    index = coco(tmp_path, change)
    assert index.images[0].instances[0].iscrowd
    assert "ignored object" in {problem.kind for problem in index.problems}


# Ids, names and values that other tools write


def test_ids_of_text__are_numbered_and_kept(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        every("id", lambda e: f"img-{e['id']}", "images")(content)
        every("image_id", lambda e: f"img-{e['image_id']}")(content)
        every("id", lambda e: f"x{e['id']}")(content)

    index = coco(tmp_path, change)
    assert [image.id for image in index.images] == [1, 2, 3, 4]
    assert index.text_ids[1] == "img-1"
    result = image_result(1, boxes=[[1, 2, 3, 4]], scores=[0.5], category_ids=[1])
    write_results_json(tmp_path / "out.json", [result], index.text_ids)
    assert json.loads((tmp_path / "out.json").read_text())[0]["image_id"] == "img-1"
    assert index.table.objects_per_image().sum() == 6


@pytest.mark.parametrize("offset", [2**63, 10**30])
def test_huge_ids__are_numbered(tmp_path: Path, offset: int) -> None:
    def change(content: dict[str, Any]) -> None:
        every("id", lambda e: e["id"] + offset, "images")(content)
        every("image_id", lambda e: e["image_id"] + offset)(content)

    index = coco(tmp_path, change)
    assert index.table.objects_per_image().sum() == 6
    assert index.text_ids[1] == offset + 1


def test_whole_floats_and_numbers_as_names__are_read(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for which in ("images", "annotations"):
            every("id", lambda e: float(e["id"]), which)(content)
        every("width", 80.0, "images")(content)
        every("image_id", lambda e: float(e["image_id"]))(content)
        content["categories"][0]["name"] = 1
        every("height", KeyError, "images")(content)
        every("width", KeyError, "images")(content)

    index = coco(tmp_path, change)
    assert not [problem for problem in index.problems if not problem.is_note]
    assert index.categories[0].name == "1"
    assert (index.images[0].width, index.images[0].height) == (80, 60)


def test_foreign_points__do_not_stop_a_run(tmp_path: Path) -> None:
    index = coco(tmp_path, every("points", lambda e: [[1, 2], [3, 4]]), on_error="stop")
    assert {problem.kind for problem in index.problems} == {"points of another kind"}


def test_a_bad_part__leaves_the_good_outline(tmp_path: Path) -> None:
    index = coco(tmp_path, every("segmentation", lambda e: [*e["segmentation"], [1, 2, 3, 4]]))
    assert all(len(o.segmentation or ()) == 1 for i in index.images for o in i.instances)
    assert {problem.kind for problem in index.problems} == {"outline left out"}


# Classes are matched by name


def test_classes__are_matched_by_name_and_may_be_fewer(tmp_path: Path) -> None:
    train = coco(tmp_path)
    path = tmp_path / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    for entry in (*content["categories"], *content["annotations"]):
        key = "id" if "name" in entry else "category_id"
        entry[key] = 3 - entry[key]
    path.write_text(json.dumps(content))
    val = read_annotations({"root": tmp_path}, "val")
    aligned = val.aligned_with(train.categories, "training")
    assert aligned.categories == train.categories
    assert aligned.problems[-1].kind == "class ids differ"
    assert [o.category_id for o in aligned.images[0].instances] == [1, 2]
    content["categories"] = [c for c in content["categories"] if c["name"] == "cat"]
    content["annotations"] = [
        a for a in content["annotations"] if a["category_id"] == content["categories"][0]["id"]
    ]
    path.write_text(json.dumps(content))
    fewer = read_annotations({"root": tmp_path}, "val").aligned_with(train.categories, "training")
    assert len(fewer.categories) == 2 and fewer.images[0].instances[0].category_id == 1
    content["categories"][0]["name"] = "cow"
    path.write_text(json.dumps(content))
    other = read_annotations({"root": tmp_path}, "val")
    with pytest.raises(DataError, match=r'1 classes that training does not have \("cow"\)'):
        other.aligned_with(train.categories, "training")


# File names of other systems


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        ("cam1/0.jpg", "cam1\\0.jpg"),
        ("my photo.jpg", "my%20photo.jpg"),
        ("0.jpg", "/data/upload/7/0.jpg"),
        ("0.jpg", "images/0.jpg"),
        ("0.JPG", "0.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("100%.jpg", "100%.jpg"),
        ("a%20b.jpg", "a%20b.jpg"),
    ],
)
@pytest.mark.parametrize("check_images", ["none", "header"])
def test_names__are_found_in_another_spelling(
    tmp_path: Path, on_disk: str, written: str, check_images: Any
) -> None:
    content = exports.coco(("a",))
    content["images"][0]["file_name"] = written
    place = tmp_path / "images" / on_disk
    place.parent.mkdir(parents=True)
    exports.pictures(tmp_path, ("a",))
    (tmp_path / "a.jpg").rename(place)
    path = tmp_path / "set.json"
    path.write_text(json.dumps(content))
    index = read_coco(path, tmp_path / "images", check_images=check_images)
    if check_images == "header" or "%" in written or "\\" in written or written[0] == "/":
        assert index.images[0].path == place


# What systems leave behind, YOLO and VOC


def test_hidden_files_and_loops__are_passed_over(tmp_path: Path) -> None:
    exports.yolo_seg(tmp_path)
    (tmp_path / "images/train/._a.jpg").write_bytes(b"Mac OS X")
    (tmp_path / "labels/train/._a.txt").write_bytes(b"\0\5\26\7")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX/b.jpg").write_bytes(b"x")
    (tmp_path / "train.txt").write_text("images/train/a.jpg\n")
    (tmp_path / "images/again").symlink_to(tmp_path / "images")
    assert not [p for p in read_boxes(tmp_path, tmp_path).problems if not p.is_note]


def test_two_pictures_of_one_name__are_told(tmp_path: Path) -> None:
    exports.yolo_seg(tmp_path)
    Image.open(tmp_path / "images/train/a.jpg").save(tmp_path / "images/train/a.png")
    boxes = read_boxes(tmp_path, tmp_path)
    assert [p.kind for p in boxes.problems] == ["picture claimed twice"]
    assert "a.jpg" in boxes.problems[0].message and "a.png" in boxes.problems[0].message


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [yes, no, off]\n", ["yes", "no", "off"]),
        ("names: {0: 1.0, 1: 007, 2: null}\n", ["1.0", "007", "null"]),
        ("names:\n  - a\n  - ~\n  - 2024-01-01\n", ["a", "~", "2024-01-01"]),
    ],
)
def test_yolo_names__are_words(tmp_path: Path, text: str, names: list[str]) -> None:
    exports.pictures(tmp_path / "images", ("a",))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 .5 .5 .2 .2\n2.0e+00 .5 .5 .2 .2\n")
    (tmp_path / "data.yaml").write_text(text)
    boxes = read_boxes(tmp_path / "labels", tmp_path / "images")
    assert [category["name"] for category in boxes.content["categories"]] == names
    assert [entry["category_id"] for entry in boxes.content["annotations"]] == [0, 2]


def test_a_blank_line_in_a_list_of_names__shifts_none(tmp_path: Path) -> None:
    exports.pictures(tmp_path / "images", ("a",))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("2 .5 .5 .2 .2\n1 .5 .5 .1 .1 1.5\n")
    (tmp_path / "classes.txt").write_text("cat\n\ncow\n\n")
    boxes = read_boxes(tmp_path / "labels", tmp_path / "images")
    assert {c["id"]: c["name"] for c in boxes.content["categories"]} == {0: "cat", 2: "cow"}
    assert "no score from 0 to 1" in boxes.problems[0].message


def _xml(folder: Path, name: str, inner: str) -> None:
    corners = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>"
    item = f"<object><name>cat</name>{corners}</object>"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"<annotation>{inner}{item}</annotation>")


def test_voc__uses_folder_path_and_missing_endings(tmp_path: Path) -> None:
    for part in ("day", "night"):
        exports.pictures(tmp_path / "images" / part, ("a",))
    exports.pictures(tmp_path / "images", ("b_1",))
    _xml(tmp_path / "xml", "1.xml", "<folder>day</folder><filename>a.jpg</filename>")
    _xml(tmp_path / "xml", "2.xml", "<filename>night\\a.jpg</filename>")
    _xml(tmp_path / "xml", "3.xml", "<filename>b_1</filename>")
    boxes = read_boxes(tmp_path / "xml", tmp_path / "images")
    names = [image["file_name"] for image in boxes.content["images"]]
    assert names == ["day/a.jpg", "night/a.jpg", "b_1.jpg"] and not boxes.problems


def test_voc__refuses_what_would_lie_elsewhere(tmp_path: Path) -> None:
    exports.pictures(tmp_path / "images", ("a", "b"))
    size = "<size><width>160</width><height>120</height></size>"
    _xml(tmp_path / "xml", "a.xml", size)
    _xml(tmp_path / "xml", "x.xml", "<filename>b.jpg</filename>")
    _xml(tmp_path / "xml", "y.xml", "<filename>b.jpg</filename>")
    exports.pictures(tmp_path / "images", ("c d",))
    _xml(tmp_path / "xml", "c d.xml", "")
    data = "<!DOCTYPE a [<!ENTITY b 'b'>]><annotation>&b;</annotation>".encode("utf-16")
    (tmp_path / "xml/z.xml").write_bytes(data)
    boxes = read_boxes(tmp_path / "xml", tmp_path / "images")
    kinds = sorted(problem.kind for problem in boxes.problems)
    assert kinds == ["malformed xml", "picture claimed twice", "wrong image size"]
    assert len(boxes.content["annotations"]) == 1


def test_voc__of_the_stored_pixels_is_not_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "images/a.jpg", exif=exif)
    _xml(tmp_path / "xml", "a.xml", "<size><width>80</width><height>60</height></size>")
    (image,) = read_boxes(tmp_path / "xml", tmp_path / "images").content["images"]
    assert (image["width"], image["height"]) == (80, 60)
    assert read_image(tmp_path / "images/a.jpg", (80, 60)).shape == (60, 80, 3)


# MegaDetector


def test_megadetector__reads_its_own_format_document(tmp_path: Path) -> None:
    exports.pictures(tmp_path / "images/cam", ("a",))
    detections = [
        {"category": "1", "conf": 0.9, "bbox": [0.1, 0.1, 0.2, 0.2]},
        {"category": "1", "conf": 0.03, "bbox": [0.1, 0.1, 0.2, 0.2]},
        {"category": "9", "conf": 0.5, "bbox": [0.1, 0.1, 0.2, 0.2]},
        {"category": "1", "conf": 10**400, "bbox": [0.1, 0.1, 0.2, 0.2]},
    ]
    content = {
        "images": [
            {"file": "cam\\a.jpg", "detections": detections},
            {"file": "b.MP4", "detections": detections, "frames_processed": [0]},
        ],
        "detection_categories": {"1": "animal"},
        "info": {"format_version": "1.5"},
    }
    path = tmp_path / "md.json"
    path.write_text(json.dumps(content))
    boxes = read_boxes(path, tmp_path / "images")
    assert [entry["category_id"] for entry in boxes.content["annotations"]] == [1, 9]
    notes = {p.kind for p in boxes.problems if p.is_note}
    assert notes == {"video", "weak detection", "unlisted category"}
    assert [p.kind for p in boxes.problems if not p.is_note] == ["malformed box"]


# What a file is instead


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.json", "{}")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (_zip(), "a zip archive; unpack it"),
        (b"ImageID,Source,LabelName\n", "a table of Open Images"),
        (b"<?xml version='1.0'?><annotations><version>1.1", "xml of CVAT"),
        (b"names:\n  0: cat\n", "yaml of YOLO"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"", "empty"),
        (b'{"a": 1}\n{"a": 2}\n', "one JSON value a line"),
        (b'{"images": [', "cut off"),
        (b'[{"image_id": 1, "bbox": [1,2,3,4], "score": 0.5}]', "a list of COCO results"),
        (b'[{"id": 1, "annotations": [], "data": {"image": "x"}}]', "Label Studio's own export"),
        (b'{"shapes": [], "imagePath": "a.jpg"}', "a LabelMe file"),
        (b'{"a.jpg1": {"filename": "a.jpg", "regions": []}}', "VIA"),
    ],
)
def test_other_files__are_named(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "set.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        read_coco(path, tmp_path)


def test_utf_16__is_read(tmp_path: Path) -> None:
    exports.pictures(tmp_path, ("a",))
    path = tmp_path / "set.json"
    path.write_bytes(json.dumps(exports.coco(("a",))).encode("utf-16"))
    assert len(read_coco(path, tmp_path).images) == 1


# Pictures


def test_pictures__with_large_profiles_and_turned_tiffs_are_read(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).bytes(3_000_000)
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png", icc_profile=profile + noise)
    assert read_image(tmp_path / "a.png").shape == (10, 20, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.tif", exif=exif)
    assert image_size(tmp_path / "a.tif") == (10, 20)
    assert read_image(tmp_path / "a.tif").shape == (20, 10, 3)
    assert PngImagePlugin.MAX_TEXT_CHUNK >= 1 << 26


def test_reading__is_part_of_the_cache_key(tmp_path: Path) -> None:
    exports.coco_own(tmp_path)
    path = tmp_path / "annotations/instances_train2017.json"
    kept = read_coco(path, tmp_path / "train2017", reading=Reading(exhaustive=False))
    assert not kept.images[0].exhaustive
    assert read_coco(path, tmp_path / "train2017").images[0].exhaustive


def test_found__says_what_and_why(tmp_path: Path) -> None:
    exports.roboflow(tmp_path)
    assert "Roboflow's layout" in str(find(tmp_path)) and "train, val" in str(find(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="looked for COCO json, YOLO"):
        find(tmp_path / "empty")
