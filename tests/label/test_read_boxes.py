"""Four formats, one content."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmac.data.annotations.read_boxes import read_boxes
from deepmac.errors import DataError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """b/two.png of 40 x 30 pixels, and one.jpg of 60 x 80 that its EXIF turns to 80 x 60."""
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = rng.integers(0, 256, (80, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "one.jpg", exif=exif)
    Image.fromarray(pixels[:30, :40]).save(folder / "b/two.png")
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_yolo__boxes_scores_outlines_and_names(images: Path, tmp_path: Path) -> None:
    write(tmp_path / "labels/one.txt", "2 0.5 0.5 0.25 0.5\n\n0 0.25 0.5 0.1 0.1 0.9\n")
    write(tmp_path / "labels/b/two.txt", "1 0 0 0.5 0 0.5 1 0 1\n")
    write(tmp_path / "data.yaml", "names: {0: ant, 1: bee, 2: cat}\n")
    read = read_boxes(tmp_path / "labels", images)
    assert read.format == "yolo" and not read.problems
    two, one = read.content["images"]
    assert (two["file_name"], two["width"], two["height"]) == ("b/two.png", 40, 30)
    assert (one["file_name"], one["width"], one["height"]) == ("one.jpg", 80, 60)
    outline, box, scored = read.content["annotations"]
    assert outline["segmentation"] == [[0, 0, 20, 0, 20, 30, 0, 30]]
    assert outline["bbox"] == [0, 0, 20, 30]
    assert box["bbox"] == pytest.approx([30, 15, 20, 30]) and "segmentation" not in box
    assert (box["category_id"], scored["score"]) == (2, 0.9)
    assert [c["name"] for c in read.content["categories"]] == ["ant", "bee", "cat"]


def test_yolo__bad_lines_are_told_with_file_and_line(images: Path, tmp_path: Path) -> None:
    text = "0 0.5 0.5 0.2 0.2\n0 0.5 nan 0.2 0.2\nant 1 2 3 4\n0 1 2 3\n"
    path = write(tmp_path / "labels/one.txt", text)
    write(tmp_path / "labels/ghost.txt", "0 0.5 0.5 0.2 0.2\n")
    read = read_boxes(tmp_path / "labels", images)
    assert len(read.content["annotations"]) == 1
    messages = [problem.message for problem in read.problems if not problem.is_note]
    assert "ghost" in messages[0]
    assert all(f"{path}, line {n}" in text for n, text in zip((2, 3, 4), messages[1:], strict=True))


def test_voc__counts_pixels_from_one_and_keeps_flags(images: Path, tmp_path: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>3</ymin><xmax>10</xmax><ymax>20</ymax></bndbox>"
    item = f"<object><name>cat</name><difficult>1</difficult>{box}</object>"
    other = item.replace("cat", "ant")
    head = "<annotation><filename>one.jpg</filename>"
    write(tmp_path / "xml/anything.xml", f"{head}{item}{other}</annotation>")
    read = read_boxes(tmp_path / "xml", images)
    assert read.format == "voc"
    cat, ant = read.content["annotations"]
    assert cat["bbox"] == [0, 2, 10, 18] and cat["difficult"] == "1"
    assert read.content["categories"] == [{"id": 1, "name": "ant"}, {"id": 2, "name": "cat"}]
    assert (cat["category_id"], ant["category_id"]) == (2, 1)
    assert read.content["images"] == [{"id": 1, "file_name": "one.jpg", "width": 80, "height": 60}]


def test_voc__entities_and_broken_files_are_problems(images: Path, tmp_path: Path) -> None:
    write(tmp_path / "xml/one.xml", "<annotation></annotation>")
    bomb = '<!DOCTYPE a [<!ENTITY b "b">]><annotation>&b;</annotation>'
    write(tmp_path / "xml/bomb.xml", bomb)
    write(tmp_path / "xml/cut.xml", "<annotation><obj")
    kinds = [problem.kind for problem in read_boxes(tmp_path / "xml", images).problems]
    assert kinds == ["malformed xml"] * 2


def test_megadetector__keeps_what_it_knows(images: Path, tmp_path: Path) -> None:
    content = {
        "info": {"detector": "md_v5a"},
        "detection_categories": {"1": "animal", "2": "person"},
        "images": [
            {"file": "one.jpg", "detections": [
                {"category": "2", "conf": 0.8, "bbox": [0.25, 0.5, 0.5, 0.25],
                 "classifications": [["3", 0.5]]}]},
            {"file": "b/two.png", "detections": None, "failure": "Failure image access"},
            {"file": "gone.jpg", "detections": [
                {"category": "1", "conf": 0.8, "bbox": [0, 0, 1, 1]}]},
        ],
    }  # fmt: skip
    path = write(tmp_path / "md.json", json.dumps(content))
    read = read_boxes(path, images)
    assert read.format == "megadetector"
    assert read.content["info"] == content["info"]
    (found,) = read.content["annotations"]
    assert found["bbox"] == [20, 30, 40, 15]
    assert (found["category_id"], found["conf"]) == (2, 0.8)
    assert found["classifications"] == [["3", 0.5]]
    assert read.content["images"][1]["failure"] == "Failure image access"
    assert [problem.kind for problem in read.problems] == ["missing image"]


def test_camera_traps__string_ids_and_missing_sizes_and_boxes(images: Path, tmp_path: Path) -> None:
    from deepmac.label.plan import make_plan

    content = {
        "info": {"version": "1"},
        "images": [
            {"id": "a-1", "file_name": "one.jpg", "seq_id": "s"},
            {"id": "a-2", "file_name": "b/two.png", "width": 40, "height": 30},
        ],
        "annotations": [
            {"id": "x", "image_id": "a-1", "category_id": 1, "bbox": [70, 50, 10, 10]},
            {"id": "y", "image_id": "a-2", "category_id": 0},
        ],
        "categories": [{"id": 0, "name": "empty"}, {"id": 1, "name": "deer"}],
    }
    read = read_boxes(write(tmp_path / "cct.json", json.dumps(content)), images)
    assert read.content == content
    plan = make_plan(read, images)
    ((task,),) = plan.parts.values()
    assert task.size == (80, 60) and task.rows.tolist() == [0]
    assert plan.left_alone == {"annotation without a box": 1}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[]", 'no list "images"'),
        ("a.json", '{"images": []}', 'no list "annotations"'),
        ("a/b.md", "x", "holds no annotations that are known"),
        ("a/b.txt", "0 1 1 1 1", "belongs to a picture"),
    ],
)
def test_other_files__are_refused_in_a_sentence(
    images: Path, tmp_path: Path, name: str, text: str, said: str
) -> None:
    write(tmp_path / "in" / name, text)
    with pytest.raises(DataError, match=said):
        read_boxes(tmp_path / "in" / Path(name).parts[0], images)
    with pytest.raises(DataError, match="do not exist"):
        read_boxes(tmp_path / "nothing", images)
