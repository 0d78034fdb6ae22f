"""What each format's own readers find in the output: the masks, within rounding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.cli import main
from deepmac.data.annotations.read_boxes import read_boxes
from deepmac.data.annotations.segmentation import segmentation_rle

Run = Callable[..., Path]


@pytest.fixture
def run(model_dir: Path, data: SimpleNamespace, tmp_path: Path, capsys) -> Run:
    def label(form: str, *words: str, boxes: Path = data.train, images: Path = data.images) -> Path:
        out = tmp_path / f"{form}-{len(list(tmp_path.iterdir()))}"
        given = ["--model", str(model_dir), "--images", str(images), "--boxes", str(boxes)]
        given += ["--out", str(out), "--format", form, "--accelerator", "cpu", "--workers", "0"]
        assert main(["label", *given, *words]) in (0, 3), capsys.readouterr()
        return out

    return label


@pytest.fixture
def made(run: Run) -> dict[str, Any]:
    """The same masks as COCO has them: by image, in order."""
    return json.loads(run("coco").read_text())


def by_image(made: dict[str, Any]):
    for image in made["images"]:
        yield image, [a for a in made["annotations"] if a["image_id"] == image["id"]]


def overlap(rings: list[np.ndarray], entry: dict[str, Any], image: dict[str, Any]) -> float:
    height, width = image["height"], image["width"]
    flat = [ring.ravel().tolist() for ring in rings]
    drawn = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
    whole = segmentation_rle(entry["segmentation"], height, width)
    return float(coco_mask.iou([drawn], [whole], [0])[0, 0])


def test_yolo_seg__is_read_back_as_the_same_masks(run: Run, made) -> None:
    folder = run("yolo-seg")
    described = yaml.safe_load((folder / "data.yaml").read_text())
    assert described["train"] == described["val"] == "images"
    assert list(described["names"]) == list(range(len(made["categories"])))
    content = read_boxes(folder / "labels", folder / "images", "yolo").content
    found = dict(zip((i["file_name"] for i in content["images"]), range(10**6), strict=False))
    order = sorted(category["id"] for category in made["categories"])
    for image, entries in by_image(made):
        number = content["images"][found[image["file_name"]]]["id"]
        mine = [a for a in content["annotations"] if a["image_id"] == number]
        for entry, read in zip(entries, mine, strict=True):
            assert order[read["category_id"]] == entry["category_id"]
            rings = [np.array(ring).reshape(-1, 2) for ring in read["segmentation"]]
            assert overlap(rings, entry, image) >= 0.97 or entry["area"] < 32**2


def test_yolo__is_the_boxes_of_the_masks(run: Run, made) -> None:
    folder = run("yolo")
    content = read_boxes(folder / "labels", folder / "images", "yolo").content
    number = {image["file_name"]: image["id"] for image in content["images"]}
    for image, entries in by_image(made):
        mine = [a for a in content["annotations"] if a["image_id"] == number[image["file_name"]]]
        for entry, read in zip(entries, mine, strict=True):
            rle = segmentation_rle(entry["segmentation"], image["height"], image["width"])
            assert read["bbox"] == pytest.approx(coco_mask.toBbox(rle).tolist(), abs=1e-3)


def test_yolo_numbers__stay_what_they_were(run: Run, data: SimpleNamespace, tmp_path: Path) -> None:
    labels = tmp_path / "given"
    labels.mkdir()
    (labels / "classes.txt").write_text("ant\nbee\ncat\n")
    name = sorted(path.name for path in data.images.iterdir())[0]
    (labels / f"{Path(name).stem}.txt").write_text("2 .5 .5 .4 .4\n0 .3 .3 .2 .2\n")
    folder = run("yolo-seg", boxes=labels)
    lines = (folder / "labels" / f"{Path(name).stem}.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["2", "0"]
    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    assert names == {0: "ant", 1: "bee", 2: "cat"}
    assert (folder / "images" / name).read_bytes() == (data.images / name).read_bytes()


@pytest.mark.parametrize("form", ["yolo-seg", "yolo", "labelme"])
def test_pictures_of_folders__are_copies_unless_links_are_asked_for(
    run: Run, data: SimpleNamespace, form: str
) -> None:
    name = sorted(path.name for path in data.images.iterdir())[0]
    inner = Path(name) if form == "labelme" else Path("images", name)
    given = (data.images / name).read_bytes()
    copied = run(form) / inner
    assert copied.read_bytes() == given and not copied.samefile(data.images / name)
    with copied.open("r+b") as file:  # as a tool that edits in place
        file.write(b"edited")
    assert (data.images / name).read_bytes() == given
    assert (run(form, "--link") / inner).samefile(data.images / name)


def test_labelme__holds_polygons_beside_each_picture(run: Run, made) -> None:
    folder = run("labelme")
    names = {category["id"]: category["name"] for category in made["categories"]}
    for image, entries in by_image(made):
        content = json.loads((folder / image["file_name"]).with_suffix(".json").read_text())
        with Image.open(folder / content["imagePath"]) as picture:
            assert picture.size == (content["imageWidth"], content["imageHeight"])
        for group, entry in enumerate(entries, start=1):
            shapes = [s for s in content["shapes"] if s["group_id"] == group]
            assert {s["label"] for s in shapes} == {names[entry["category_id"]]}
            rings = [np.array(s["points"]) for s in shapes]
            assert overlap(rings, entry, image) >= 0.97 or entry["area"] < 32**2


def test_labelstudio__tells_our_masks_from_those_of_people(run: Run, made) -> None:
    tasks = json.loads(run("labelstudio").read_text())
    for task, (image, entries) in zip(tasks, by_image(made), strict=True):
        assert task["data"]["image"].endswith(f"?d={image['file_name']}")
        for kind, ours in (("predictions", True), ("annotations", False)):
            regions = task[kind][0]["result"] if kind in task else []
            for entry in entries:
                mine = [r for r in regions if r["meta"]["annotation_id"] == entry["id"]]
                assert bool(mine) == (ours == ("mask_score" in entry))
                if mine:
                    sides = (image["width"] / 100, image["height"] / 100)
                    rings = [np.array(r["value"]["points"]) * sides for r in mine]
                    assert overlap(rings, entry, image) >= 0.97 or entry["area"] < 32**2
                    assert mine[0].get("score") == entry.get("mask_score")


@pytest.mark.parametrize("form", ["yolo-seg", "yolo"])
def test_ultralytics__loads_the_folder_as_it_is(
    run: Run, made, tmp_path, monkeypatch, form
) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    pytest.importorskip("ultralytics.data.dataset", reason="ultralytics is not installed")
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    described = check_det_dataset(str(run(form) / "data.yaml"), autodownload=False)
    assert described["nc"] == len(made["categories"])
    task = "segment" if form == "yolo-seg" else "detect"
    data = YOLODataset(img_path=described["train"], data=described, task=task, augment=False)
    loaded = {Path(entry["im_file"]).name: entry for entry in data.labels}
    order = sorted(category["id"] for category in made["categories"])
    for image, entries in by_image(made):
        if not entries:
            continue
        found = loaded[image["file_name"]]
        numbers = [order.index(entry["category_id"]) for entry in entries]
        assert found["cls"].ravel().tolist() == numbers
        for n, entry in enumerate(entries):
            rle = segmentation_rle(entry["segmentation"], image["height"], image["width"])
            x, y, w, h = coco_mask.toBbox(rle).tolist()
            sides = np.array([image["width"], image["height"]] * 2)
            box = np.array([x + w / 2, y + h / 2, w, h]) / sides
            assert found["bboxes"][n] == pytest.approx(box, abs=1.1 / min(sides))
            if form == "yolo-seg":
                ring = found["segments"][n] * sides[:2]
                assert overlap([ring], entry, image) >= 0.97 or entry["area"] < 32**2


def test_label_studio__takes_the_tasks_and_exports_the_same_masks(run: Run, made, tmp_path) -> None:
    """By the checks of its own labeling interface, and by its converter to COCO."""
    reason = "label-studio-sdk is not installed"
    interfaces = pytest.importorskip("label_studio_sdk.label_interface", reason=reason)
    from label_studio_sdk.converter import Converter

    names = "".join(f'<Label value="{one["name"]}"/>' for one in made["categories"])
    config = (
        '<View><Image name="image" value="$image"/><PolygonLabels name="label" toName="image">'
        f"{names}</PolygonLabels></View>"
    )
    interface = interfaces.LabelInterface(config)
    tasks = json.loads(run("labelstudio").read_text())
    owners: list[list[Any]] = []  # of each region
    for number, task in enumerate(tasks, start=1):
        for one in task.get("annotations", []):
            assert interface.validate_annotation(one)
        for one in task.get("predictions", []):
            assert interface.validate_prediction(one, return_errors=True) == []
        # What a person who accepts every prediction exports.
        regions = [
            region
            for kind in ("annotations", "predictions")
            for one in task.pop(kind, [])
            for region in one["result"]
        ]
        owners.append([region["meta"]["annotation_id"] for region in regions])
        task |= {"id": number, "annotations": [{"id": number, "result": regions}]}
    export = tmp_path / "export.json"
    export.write_text(json.dumps(tasks))
    converter = Converter(config, str(tmp_path), download_resources=False)
    converter.convert_to_coco(str(export), str(tmp_path / "back"), is_dir=False)
    back = json.loads((tmp_path / "back" / "result.json").read_text())
    classes = {one["id"]: one["name"] for one in back["categories"]}
    given = {one["id"]: one["name"] for one in made["categories"]}
    read = 0
    for number, (image, entries) in enumerate(by_image(made)):
        found = [a for a in back["annotations"] if a["image_id"] == number]
        for entry in entries:
            mine = [
                a for owner, a in zip(owners[number], found, strict=True) if owner == entry["id"]
            ]
            assert {classes[a["category_id"]] for a in mine} == {given[entry["category_id"]]}
            rings = [np.array(a["segmentation"][0]).reshape(-1, 2) for a in mine]
            assert overlap(rings, entry, image) >= 0.97 or entry["area"] < 32**2
            read += 1
    assert read == len(made["annotations"])


def test_labelme__reads_its_files(run: Run, made, monkeypatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    reader = pytest.importorskip(
        "labelme._label_file", reason="labelme is not installed", exc_type=ImportError
    )
    folder = run("labelme")
    read = 0
    for image, entries in by_image(made):
        path = (folder / image["file_name"]).with_suffix(".json")
        found = reader.read_label_file(str(path))
        groups = {shape["group_id"] for shape in found.shapes}
        assert groups == set(range(1, len(entries) + 1))
        for group, entry in enumerate(entries, start=1):
            rings = [np.array(s["points"]) for s in found.shapes if s["group_id"] == group]
            assert overlap(rings, entry, image) >= 0.97 or entry["area"] < 32**2
            read += 1
    assert read == len(made["annotations"])


def strange(content: dict[str, Any]) -> None:
    """What the readers of a job let through: text of any kind, ids of text."""
    content["categories"][0]["name"] = "\ud800 é"
    content["images"][0]["note"] = "\udfff"
    for entry in content["annotations"][:3]:
        entry["id"] = f"x{entry['id']}"


def not_finite(content: dict[str, Any]) -> None:
    content["annotations"][0]["attributes"] = [float("nan"), {"a": float("inf")}]


def odd_categories(content: dict[str, Any]) -> None:
    content["categories"] += [5, {"id": [1]}, {"id": "text"}]


def unlisted(content: dict[str, Any]) -> None:
    entry = next(a for a in content["annotations"] if a.get("segmentation"))
    entry["category_id"] = 77


def nameless(content: dict[str, Any]) -> None:
    del content["images"][0]["file_name"]


def huge(content: dict[str, Any]) -> None:
    content["images"][0]["width"] = 10**30


def declared_larger(content: dict[str, Any]) -> None:
    """A picture with a human mask only, said to be of another size."""
    image = content["images"][0]
    image["width"], image["height"] = 9000, 9000
    content["annotations"] = [
        a for a in content["annotations"] if a["image_id"] != image["id"] or a.get("segmentation")
    ]


ODD = (strange, not_finite, odd_categories, unlisted, nameless, huge, declared_larger)
FORMATS = ("coco", "coco-polygons", "coco-results", "labelstudio", "yolo-seg", "labelme", "png")


@pytest.mark.parametrize("change", ODD, ids=lambda change: change.__name__)
def test_odd_input__stops_in_a_sentence_or_gives_what_every_reader_takes(
    run: Run, data: SimpleNamespace, tmp_path: Path, capsys, change
) -> None:
    content = json.loads(data.train.read_text())
    change(content)
    boxes = tmp_path / "in.json"
    boxes.write_text(json.dumps(content))
    for form in FORMATS:
        words = ["--review", str(tmp_path / "review.html")] if form == "png" else []
        out = run(form, "--on-error", "skip", *words, boxes=boxes)
        files = [out] if out.is_file() else [p for p in out.rglob("*") if p.is_file()]
        for path in files:
            if path.suffix in (".json", "") and path.name != "data":
                json.loads(path.read_text("utf-8"), parse_constant=refuse)
            if path.suffix == ".png" and form == "png":
                with Image.open(path) as picture:
                    assert max(picture.size) < 1000
        if form in ("coco", "coco-polygons"):
            assert read_boxes(out, data.images).format == "coco"
    if change is not strange:
        given = ["--images", str(data.images), "--boxes", str(boxes), "--format", "png"]
        assert main(["label", *given, "--out", str(tmp_path / "stopped")]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert not (tmp_path / "stopped").exists()


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")
