"""A data set that is put right: what the page gets of a COCO json, and what is saved in it."""

import json
from copy import deepcopy

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from starlette.testclient import TestClient

from deepmac.cli import main
from deepmac.demo.app import make_app
from deepmac.demo.corrections import Corrections
from deepmac.errors import DataError, UserError
from deepmac.label.marks import Marks

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]]


def rle(x0, y0, x1, y1, size=(40, 30)):
    mask = np.zeros(size[::-1], dtype=np.uint8)
    mask[y0:y1, x0:x1] = 1
    found = coco_mask.encode(np.asfortranarray(mask))
    return {"size": found["size"], "counts": found["counts"].decode()}


@pytest.fixture
def data_set(tmp_path):
    """Two pictures, one of them with a crowd, a box that is none, and keys of the user's own."""
    for number in (1, 2):
        Image.new("RGB", (40, 30), (number * 90, 40, 40)).save(tmp_path / f"{number}.png")
    content = {
        "info": {"description": "mine"},
        "images": [{"id": "a", "file_name": "1.png", "width": 40, "height": 30},
                   {"id": 2, "file_name": "2.png", "width": 40, "height": 30}],
        "categories": [{"id": 4, "name": "cup"}],
        "annotations": [
            {"id": 1, "image_id": "a", "category_id": 4, "bbox": [10, 10, 20, 10],
             "segmentation": rle(10, 10, 30, 20), "area": 200, "iscrowd": 0, "mask_score": 0.31,
             "mine": [1, {"x": "ü"}]},
            {"id": "two", "image_id": 2, "category_id": 4, "bbox": [1, 1, 20, 10]},
            {"id": 3, "image_id": "a", "category_id": 4, "bbox": [0, 0, 40, 30], "iscrowd": 1,
             "segmentation": {"size": [30, 40], "counts": [0, 1200]}},
            {"id": 4, "image_id": "a", "category_id": 4, "bbox": [5, 5, -2, 3]},
            {"id": 5, "image_id": "a", "category_id": 4, "bbox": [2.5, 2, 6, 6],
             "segmentation": rle(2, 2, 8, 8), "area": 36, "mask_score": 0.9},
        ],
    }  # fmt: skip
    path = tmp_path / "masks.json"
    path.write_text(json.dumps(content))
    return path, tmp_path, content


def sent(box, **changes):
    """A box as the page sends it back, nothing changed."""
    keys = ("id", "xyxy", "label", "segmentation")
    return {key: box[key] for key in keys} | {"kept": True} | changes


def saved(path):
    COCO(str(path))
    return json.loads(path.read_text())


def test_boxes__of_a_picture_as_the_page_draws_them(data_set):
    path, images, _ = data_set
    work = Corrections(path, images, Marks(wrong=(3,), redraw=(5,)))
    assert work.overview() == {
        "file": "masks.json",
        "pictures": [{"file_name": "1.png", "marked": [5]}],
        "classes": ["cup"],
    }
    first, second = work.boxes(0)["boxes"]
    assert first["xyxy"] == [10, 10, 30, 20] and first["label"] == "cup"
    assert first["segmentation"] == rle(10, 10, 30, 20) and first["iou"] == 0.31
    assert (first["marked"], second["marked"]) == (False, True)
    assert len(Corrections(path, images).overview()["pictures"]) == 2


def test_save__leaves_what_nobody_touched_as_it_was(data_set):
    path, images, content = data_set
    work = Corrections(path, images)
    boxes = [sent(box) for box in work.boxes(0)["boxes"]]
    work.save(0, {"boxes": boxes})
    work.save(1, {"boxes": [sent(box) for box in work.boxes(1)["boxes"]]})
    assert saved(path) == content


def test_save__a_redrawn_mask_is_a_persons(data_set):
    path, images, content = data_set
    work = Corrections(path, images)
    first, second = (sent(box) for box in work.boxes(0)["boxes"])
    changed = second | {"xyxy": [2, 2, 12, 9], "segmentation": rle(3, 3, 11, 8), "kept": False}
    new = {"id": None, "xyxy": [20, 20, 30, 28], "label": "spoon", "kept": False,
           "segmentation": rle(21, 21, 29, 27)}  # fmt: skip
    answer = work.save(0, {"boxes": [first, changed, new]})
    assert answer == {"file": "masks.json", "ids": [1, 5, 6]}
    after = saved(path)
    expected = deepcopy(content)
    expected["categories"].append({"id": 5, "name": "spoon"})
    expected["annotations"][4] = {
        "id": 5, "image_id": "a", "category_id": 4, "bbox": [2, 2, 10, 7], "area": 40,
        "segmentation": rle(3, 3, 11, 8), "iscrowd": 0, "mask_source": "human",
    }  # fmt: skip
    expected["annotations"].append({
        "id": 6, "image_id": "a", "category_id": 5, "bbox": [20, 20, 10, 8], "area": 48,
        "segmentation": rle(21, 21, 29, 27), "iscrowd": 0, "mask_source": "human",
    })  # fmt: skip
    assert after == expected
    # Saved again with another new box, the first one keeps its id; undone, all is as it was.
    more = work.save(0, {"boxes": [first, changed, new | {"id": 6}, new]})
    assert more["ids"] == [1, 5, 6, 7]
    work.save(0, {"boxes": [first, second]})
    assert saved(path)["annotations"] == content["annotations"]
    work.save(0, {"boxes": [second]})
    ids = [entry["id"] for entry in saved(path)["annotations"]]
    assert ids == ["two", 3, 4, 5]  # the crowd and the box that is none stay


def test_save__writes_polygons_where_the_file_has_polygons(data_set):
    path, images, content = data_set
    content["annotations"][0]["segmentation"] = SQUARE
    path.write_text(json.dumps(content))
    work = Corrections(path, images)
    first, second = (sent(box) for box in work.boxes(0)["boxes"])
    assert first["segmentation"] == rle(10, 10, 30, 20)
    changed = second | {"segmentation": rle(3, 3, 11, 8), "kept": False}
    work.save(0, {"boxes": [first, changed]})
    after = {entry["id"]: entry for entry in saved(path)["annotations"]}
    assert after[1]["segmentation"] == SQUARE
    assert isinstance(after[5]["segmentation"], list)
    assert COCO(str(path)).annToMask(after[5]).sum() == 40


def test_save__refuses_what_would_harm_the_file(data_set):
    path, images, _ = data_set
    work = Corrections(path, images)
    box = sent(work.boxes(0)["boxes"][0])
    before = path.read_bytes()
    for wrong in (
        {"boxes": 3},
        {"boxes": [3]},
        {"boxes": [box | {"xyxy": [1, 2, 3]}]},
        {"boxes": [box | {"xyxy": [1, 2, float("nan"), 4]}]},
        {"boxes": [box | {"xyxy": [50, 2, 60, 4]}]},
        {"boxes": [box | {"segmentation": {"size": [3, 3], "counts": "x"}}]},
    ):
        with pytest.raises(UserError):
            work.save(0, wrong)
    with pytest.raises(UserError, match="no such picture"):
        work.save(7, {"boxes": []})
    assert path.read_bytes() == before
    path.write_bytes(before + b"\n")
    with pytest.raises(UserError, match="changed by another program"):
        work.save(0, {"boxes": [box]})
    assert path.read_bytes() == before + b"\n"


def test_path__stays_in_the_image_folder(data_set, tmp_path):
    path, _, content = data_set
    inner = tmp_path / "inner"
    inner.mkdir()
    content["images"][0]["file_name"] = "../1.png"
    content["images"][1]["file_name"] = str(tmp_path / "2.png")
    path.write_text(json.dumps(content))
    work = Corrections(path, inner)
    for number in (0, 1):
        with pytest.raises(UserError, match="not in the image folder"):
            work.path(number)


def test_page__gets_and_saves_over_http(data_set, model):
    path, images, _ = data_set
    app = make_app(model, corrections=Corrections(path, images, Marks(redraw=(5,))))
    client = TestClient(app, base_url="http://127.0.0.1:7860")
    assert client.get("/about").json()["job"] is True
    assert client.get("/job").json()["pictures"][0]["marked"] == [5]
    assert client.get("/job/0/picture").content == (images / "1.png").read_bytes()
    boxes = client.get("/job/0").json()["boxes"]
    changed = sent(boxes[1], kept=False, segmentation=rle(3, 3, 11, 8))
    response = client.post("/job/0", json={"boxes": [sent(boxes[0]), changed]})
    assert response.json()["ids"] == [1, 5]
    assert [a.get("mask_source") for a in saved(path)["annotations"]] == [None] * 4 + ["human"]
    assert client.get("/job/9").status_code == 400
    assert client.get("/job/-1").status_code == 404
    foreign = {"origin": "https://evil.example"}
    assert client.post("/job/0", json={"boxes": []}, headers=foreign).status_code == 403
    plain = TestClient(make_app(model), base_url="http://127.0.0.1:7860")
    assert plain.get("/job").status_code == 404


def test_command__checks_its_paths_before_anything_is_loaded(data_set, capsys):
    path, images, content = data_set
    marks = images / "wrong_masks.json"
    marks.write_text("[99]")
    for words, said in (
        (["--boxes", str(path)], "go together"),
        (["--only", str(marks)], "give --boxes and --images"),
        (["--boxes", str(path), "--images", str(images / "none")], "does not exist"),
        (["--boxes", str(images / "x.json"), "--images", str(images)], "x.json"),
        (["--boxes", str(path), "--images", str(images), "--only", str(marks)], "marked"),
    ):
        assert main(["demo", "--model", "no such model", *words]) != 0
        error = capsys.readouterr().err
        assert said in error and len(error.splitlines()) == 1
    content["images"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no pictures"):
        Corrections(path, images)
