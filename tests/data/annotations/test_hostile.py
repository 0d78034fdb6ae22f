"""Small files that would hang or fill the memory are refused in a sentence."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from data.annotations import exports
from deepmac.data.annotations.coco import read_coco
from deepmac.data.annotations.read_boxes import read_boxes
from deepmac.data.images import ImageFileError, image_size, read_image
from deepmac.data.settings import read_annotations
from deepmac.errors import DataError


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", b"x\x9c")
        + chunk(b"IEND", b"")
    )


def test_a_picture_too_short_for_its_size__is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png(89_478_485, 1))
    with pytest.raises(ImageFileError, match="too short to hold them"):
        read_image(tmp_path / "a.png")


def test_pipes_folders_and_long_names__are_no_pictures(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").mkdir()
    for name in ("a.jpg", "b.jpg", "x" * 300 + ".jpg", "\0.jpg"):
        with pytest.raises(ImageFileError):
            image_size(tmp_path / name)
    os.mkfifo(tmp_path / "set.json")
    with pytest.raises(DataError, match="no regular file"):
        read_coco(tmp_path / "set.json", tmp_path)


def test_formats_that_start_programs__are_no_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(ImageFileError, match="not an image format"):
        read_image(tmp_path / "a.jpg")


def test_names_of_nested_anchors__are_refused_at_once(tmp_path: Path) -> None:
    exports.pictures(tmp_path / "images", ("a",))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 .5 .5 .2 .2\n")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "data.yaml").write_text("\n".join([*lines, "names: *a11"]))
    with pytest.raises(DataError, match='no list of class "names"'):
        read_boxes(tmp_path / "labels", tmp_path / "images")


@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "bbox", "area", "iscrowd"])
def test_numbers_of_five_thousand_digits__are_told(tmp_path: Path, key: str) -> None:
    exports.pictures(tmp_path, ("a",))
    content = exports.coco(("a",))
    for entry in content["annotations"]:
        entry["area"] = 5
    text = json.dumps(content)
    start = text.index(f'"{key}": ', text.index('"annotations"')) + len(key) + 4
    path = tmp_path / "set.json"
    path.write_text(text[:start] + "9" * 5000 + text[text.index(",", start) :])
    try:
        read_coco(path, tmp_path, on_error="drop")
    except DataError as error:
        assert len(str(error)) < 1000


def test_far_polygons_and_huge_sizes__cost_nothing(tmp_path: Path) -> None:
    exports.pictures(tmp_path, ("a",))
    content = exports.coco(("a",))
    content["annotations"][0]["segmentation"] = [[0, 0, 1e18, 0, 1e18, 1e18]]
    content["annotations"][1]["bbox"] = [0, 0, 50, 1e19]
    path = tmp_path / "set.json"
    path.write_text(json.dumps(content))
    index = read_coco(path, tmp_path, on_error="drop")
    assert index.images[0].instances[1].box[3] == 60
    content["images"][0] |= {"width": 2**31 - 1, "height": 2**31 - 1}
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="2147483647 x 2147483647 pixels, more than"):
        read_coco(path, tmp_path)


@pytest.mark.parametrize("section", ["images", "categories", "annotations"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_panoptic_json_whose_list_is_none__is_told(section, split, tmp_path):
    exports.ALL["panoptic"](tmp_path)
    path = tmp_path / f"annotations/panoptic_{split}.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, section: 0.5}))
    try:
        index = read_annotations({"root": tmp_path, "on_error": "drop"}, split)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert any(str(path) in problem.message for problem in index.problems)
