"""examples/ for annotation tools, called as each tool's own package calls them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tiny import REPOSITORY

BOXES = np.array([[60.0, 50.0, 180.0, 170.0], [210.0, 90.0, 300.0, 200.0]])


def example(name: str) -> ModuleType:
    path = REPOSITORY / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = Image.new("RGB", (320, 240), (70, 120, 60))
    pen = ImageDraw.Draw(image)
    for box, colour in zip(BOXES.tolist(), ("crimson", "gold"), strict=True):
        pen.ellipse(box, fill=colour)
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    image.save(path)
    return path


@pytest.fixture(scope="module")
def expected(picture: Path) -> tuple[np.ndarray, np.ndarray]:
    from deepmac import Predictor, load_model

    predictor = Predictor(load_model("deepmac-lite"))
    predictor.set_image(picture)
    masks, scores = predictor.predict(BOXES)
    return np.asarray(masks), np.asarray(scores)


def test_cvat__interaction_gives_the_mask_of_a_drawn_box(picture: Path, expected) -> None:
    pytest.importorskip("cvat_sdk.auto_annotation", reason="cvat-sdk is not installed")
    from cvat_sdk.masks import decode_mask

    function = example("cvat_function").create()
    assert function.spec.min_bounding_boxes == 1
    with Image.open(picture) as image:
        prepared = function.preprocess_image(None, image)
    for box, mask in zip(BOXES.tolist(), expected[0], strict=True):
        prompts = SimpleNamespace(bounding_box=((box[0], box[1]), (box[2], box[3])))
        (shape,) = function.detect(None, prepared, prompts)
        made = decode_mask(shape.points, image_width=320, image_height=240)
        assert shape.type == "mask" and (made == mask).all()


def test_cvat__detection_gives_masks_or_polygons_of_a_files_boxes(
    picture: Path, expected, tmp_path: Path
) -> None:
    pytest.importorskip("cvat_sdk.auto_annotation", reason="cvat-sdk is not installed")
    from cvat_sdk.masks import decode_mask

    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 7, "name": "thing"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 7, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for n, (x0, y0, x1, y1) in enumerate(BOXES.tolist())
        ],
    }
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(content))
    function = example("cvat_function").create(boxes=str(boxes))
    assert [(label.name, label.id) for label in function.spec.labels] == [("thing", 7)]
    context = SimpleNamespace(frame_name="a.png", conf_threshold=None, conv_mask_to_poly=False)
    with Image.open(picture) as image:
        shapes = function.detect(context, image)
        for shape, mask in zip(shapes, expected[0], strict=True):
            made = decode_mask(shape.points, image_width=320, image_height=240)
            assert shape.label_id == 7 and (made == mask).all()
        context.conv_mask_to_poly = True
        assert {shape.type.value for shape in function.detect(context, image)} == {"polygon"}
        context.conf_threshold = 1.0
        assert not function.detect(context, image)
        context.frame_name = "unknown.png"
        assert not function.detect(context, image)


def test_label_studio__gives_polygons_of_rectangles(picture: Path, expected, monkeypatch) -> None:
    pytest.importorskip("label_studio_ml.model", reason="label-studio-ml is not installed")
    from pycocotools import mask as coco_mask

    rectangles = [
        {"id": f"r{n}", "type": "rectanglelabels", "from_name": "box", "to_name": "image",
         "value": {"x": x0 / 3.2, "y": y0 / 2.4, "width": (x1 - x0) / 3.2,
                   "height": (y1 - y0) / 2.4, "rectanglelabels": ["thing"]}}
        for n, (x0, y0, x1, y1) in enumerate(BOXES.tolist())
    ]  # fmt: skip
    monkeypatch.setenv("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", str(picture.parent))
    task = {"data": {"image": "/data/local-files/?d=a.png"}}
    backend = example("label_studio_backend").DeepMACBackend()
    drawn = backend.predict([task], context={"result": rectangles})
    given = backend.predict([{**task, "annotations": [{"result": rectangles}]}])
    assert drawn == given
    for n, mask in enumerate(expected[0]):
        mine = [r for r in drawn[0]["result"] if r["meta"]["annotation_id"] == f"r{n}"]
        rings = [(np.array(r["value"]["points"]) * (3.2, 2.4)).ravel().tolist() for r in mine]
        made = coco_mask.merge(coco_mask.frPyObjects(rings, 240, 320))
        truth = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        assert coco_mask.iou([made], [truth], [0])[0, 0] > 0.97
    assert backend.predict([task])[0]["result"] == []


def test_fiftyone__detections_get_masks_within_their_boxes(picture: Path, expected) -> None:
    fo = pytest.importorskip("fiftyone", reason="fiftyone is not installed")
    detections = [
        fo.Detection(label="thing", bounding_box=[x0 / 320, y0 / 240, w / 320, h / 240])
        for x0, y0, w, h in ((b[0], b[1], b[2] - b[0], b[3] - b[1]) for b in BOXES.tolist())
    ]
    sample = fo.Sample(filepath=str(picture), truth=fo.Detections(detections=detections))
    add_masks = example("fiftyone_masks").add_masks
    assert add_masks([sample], "truth") == 2 and add_masks([sample], "truth") == 0
    for detection, mask, box in zip(
        sample["truth"].detections, expected[0], BOXES.astype(int), strict=True
    ):
        assert (detection.mask == mask[box[1] : box[3], box[0] : box[2]]).all()
        assert 0 < detection["mask_score"] <= 1
