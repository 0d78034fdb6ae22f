"""The evaluation against plain pycocotools and known numbers, on invented and on real objects."""

import pickle
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deepmac.data.annotations.coco import (
    Category,
    CocoIndex,
    ImageRecord,
    Instance,
    instance_rle,
    read_coco,
)
from deepmac.evaluation import Evaluation, flatten_metrics
from deepmac.evaluation.mask_quality import mask_quality

VOC = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 18, 19, 20, 21, 44, 62, 63, 64, 67, 72))
AP_NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
HEIGHT, WIDTH = 240, 320


@dataclass(frozen=True)
class Case:
    """A data set, the same for pycocotools, and imperfect predictions with their scores."""

    index: CocoIndex
    truth: COCO
    predictions: list[dict[str, Any]]
    metrics: dict[str, Any]


@pytest.fixture(scope="module", params=["invented", "coco_mini"])
def case(request: pytest.FixtureRequest) -> Case:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", StringIO())
        if request.param == "invented":
            index = invented_index()
            truth = plain_data_set(index)
        else:
            shared = request.getfixturevalue("shared")
            index = read_coco_mini(shared)
            truth = COCO(str(index.json_path))
    predictions = perturbed(index, 60)
    return Case(index, truth, predictions, evaluate(index, predictions))


def read_coco_mini(shared: Path) -> CocoIndex:
    folder = shared / "coco_mini"
    return read_coco(
        folder / "annotations" / "instances_val.json", folder / "images", check_images="none"
    )


def invented_index() -> CocoIndex:
    """Twenty images of diamonds of all sizes, in eight classes; one object in ten is a crowd."""
    generator = np.random.default_rng(1)
    images, number = [], 0
    for image_id in range(1, 21):
        instances = []
        for _ in range(generator.integers(0, 9)):
            number += 1
            size = np.exp(generator.uniform(2.3, 5.3, 2))
            corner = generator.uniform(0, np.maximum([WIDTH, HEIGHT] - size, 1))
            x0, y0, x1, y1 = (
                float(value) for value in np.r_[corner, np.minimum(corner + size, [WIDTH, HEIGHT])]
            )
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            instances.append(
                Instance(
                    id=number,
                    category_id=int(generator.integers(1, 9)),
                    box=(x0, y0, x1, y1),
                    segmentation=[[x, y0, x1, y, x, y1, x0, y]],
                    iscrowd=bool(generator.random() < 0.1),
                    area=(x1 - x0) * (y1 - y0) / 2,
                )
            )
        name = f"{image_id}.jpg"
        images.append(ImageRecord(image_id, name, Path(name), WIDTH, HEIGHT, tuple(instances)))
    categories = tuple(Category(number, f"class {number}") for number in range(1, 9))
    return CocoIndex(Path("invented.json"), Path(), categories, tuple(images))


def plain_data_set(index: CocoIndex) -> COCO:
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i.id, "height": i.height, "width": i.width} for i in index.images],
        "categories": [{"id": number} for number in index.category_ids],
        "annotations": [
            {
                "id": one.id,
                "image_id": image.id,
                "category_id": one.category_id,
                "bbox": [*one.box[:2], one.box[2] - one.box[0], one.box[3] - one.box[1]],
                "segmentation": one.segmentation,
                "area": one.area,
                "iscrowd": int(one.iscrowd),
            }
            for image in index.images
            for one in image.instances
        ],
    }
    coco.createIndex()
    return coco


def perturbed(index: CocoIndex, count: int) -> list[dict[str, Any]]:
    """Moved boxes and masks, some missing, doubled or of a wrong class, with random scores."""
    generator = np.random.default_rng(0)
    predictions = []
    for image in index.images[:count]:
        boxes, scores, labels, masks, box_masks = [], [], [], [], {}
        for one in image.instances:
            mask = mask_utils.decode(instance_rle(one, image.height, image.width))
            for _ in range(generator.integers(0, 3)):
                size = np.subtract(one.box[2:], one.box[:2])
                move = generator.normal(0, 0.08, 4) * np.tile(size, 2)
                boxes.append(np.add(one.box, move))
                shift = [int(step) for step in np.rint(move[1::-1])]
                masks.append(encode(np.roll(mask, shift, axis=(0, 1))))
                scores.append(generator.random())
                wrong = generator.random() < 0.1
                labels.append(generator.choice(index.category_ids) if wrong else one.category_id)
            if not one.iscrowd and generator.random() < 0.9:
                thicker = mask | np.roll(mask, generator.integers(1, 6), axis=1)
                box_masks[one.id] = encode(thicker)
        predictions.append(
            {
                "image_id": image.id,
                "boxes": np.reshape(boxes, (-1, 4)),
                "scores": np.array(scores),
                "category_ids": np.array(labels, int),
                "masks": masks,
                "gt_box_masks": box_masks,
            }
        )
    return predictions


def encode(mask: np.ndarray) -> dict[str, Any]:
    rle: dict[str, Any] = mask_utils.encode(np.asfortranarray(mask))
    return rle


def evaluate(
    index: CocoIndex, predictions: Iterable[dict[str, Any]], **options: Any
) -> dict[str, Any]:
    evaluation = Evaluation(index, seen_category_ids=seen_classes(index), **options)
    for prediction in predictions:
        evaluation.add(**prediction)
    return evaluation.compute()


def seen_classes(index: CocoIndex) -> frozenset[int]:
    return VOC & set(index.category_ids)


def plain_pycocotools(
    truth: COCO, results: list[dict[str, Any]], kind: str, image_ids: list[int], classes: list[int]
) -> dict[str, float]:
    """What pycocotools itself reports for these classes alone."""
    evaluator = COCOeval(truth, truth.loadRes([dict(result) for result in results]), kind)
    evaluator.params.imgIds, evaluator.params.catIds = image_ids, classes
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return dict(zip(AP_NAMES, evaluator.stats[:6].tolist(), strict=True))


def as_results(case: Case) -> dict[str, list[dict[str, Any]]]:
    """The predictions as COCO results, by section."""
    results: dict[str, list[dict[str, Any]]] = {"box": [], "mask": [], "mask_gt_box": []}
    for prediction in case.predictions:
        common = {"image_id": prediction["image_id"]}
        columns = (prediction[key] for key in ("boxes", "scores", "category_ids", "masks"))
        for box, score, label, mask in zip(*columns, strict=True):
            entry = {**common, "category_id": int(label), "score": float(score)}
            results["box"].append({**entry, "bbox": [*box[:2], *(box[2:] - box[:2])]})
            results["mask"].append({**entry, "segmentation": mask})
        for number, mask in prediction["gt_box_masks"].items():
            label = case.truth.anns[number]["category_id"]
            entry = {**common, "category_id": label, "score": 1.0}
            results["mask_gt_box"].append({**entry, "segmentation": mask})
    return results


@pytest.mark.parametrize("section", ["box", "mask", "mask_gt_box"])
def test_evaluation__equals_pycocotools_run_on_each_group_alone(
    case: Case, section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", StringIO())
    image_ids = [prediction["image_id"] for prediction in case.predictions]
    results = as_results(case)[section]
    every, seen = set(case.index.category_ids), seen_classes(case.index)
    metrics = case.metrics[section]
    for group, classes in {"all": every, "seen": seen, "unseen": every - seen}.items():
        kind = "bbox" if section == "box" else "segm"
        expected = plain_pycocotools(case.truth, results, kind, image_ids, sorted(classes))
        actual = {name: metrics[name][group] for name in AP_NAMES if name in metrics}
        assert actual == pytest.approx({name: expected[name] for name in actual}, abs=1e-12)
        assert 0.05 < actual["AP"] < 0.95


def test_evaluation__mean_iou_is_the_mean_over_instances_with_a_missing_mask_as_zero(
    case: Case,
) -> None:
    ious, boundary_ious, missing = [], [], 0
    for image, prediction in zip(case.index.images, case.predictions, strict=False):
        for one in (one for one in image.instances if not one.iscrowd):
            mask = prediction["gt_box_masks"].get(one.id)
            missing += mask is None
            if one.category_id in VOC:
                continue
            truth = instance_rle(one, image.height, image.width)
            quality = mask_quality(mask, truth) if mask else None
            ious.append(quality.iou if quality else 0.0)
            boundary_ious.append(quality.boundary_iou if quality else 0.0)
    metrics = case.metrics["mask_gt_box"]
    assert metrics["mIoU"]["unseen"] == pytest.approx(np.mean(ious), abs=1e-12)
    assert metrics["boundary_IoU"]["unseen"] == pytest.approx(np.mean(boundary_ious), abs=1e-12)
    assert case.metrics["instances"]["missing_gt_box_masks"] == missing > 0


@pytest.mark.parametrize(("backend", "apart"), [("vernier", 0), ("faster_coco_eval", 1e-12)])
def test_evaluation__every_backend_gives_the_same_numbers(
    case: Case, backend: str, apart: float
) -> None:
    """Those of ``case`` are held against plain pycocotools by the other tests."""
    pytest.importorskip(backend, reason="the extra deepmac[fast] is not installed")
    plain = flatten_metrics(evaluate(case.index, case.predictions, backend="pycocotools"))
    fast = flatten_metrics(evaluate(case.index, case.predictions, backend=backend))
    assert fast == (pytest.approx(plain, abs=apart) if apart else plain)


def test_merge__of_shards_with_repeated_images_equals_one_process(case: Case) -> None:
    shards = []
    for part in (
        case.predictions[::2],
        [*case.predictions[1::2], case.predictions[0], case.predictions[3]],
    ):
        shard = Evaluation(case.index, seen_category_ids=seen_classes(case.index))
        for prediction in part:
            shard.add(**prediction)
        shards.append(shard)
    states = [pickle.loads(pickle.dumps(shard.state())) for shard in shards]
    shards[1].merge(states)
    assert shards[1].compute() == case.metrics


def test_evaluation__knows_the_perfect_score_and_the_floor_of_coco_mini(shared: Path) -> None:
    index = read_coco_mini(shared)
    evaluation = Evaluation(index, seen_category_ids=VOC)
    for image in index.images:
        objects = [one for one in image.instances if not one.iscrowd]
        masks = {one.id: instance_rle(one, image.height, image.width) for one in objects}
        evaluation.add(
            image.id,
            boxes=[one.box for one in objects],
            scores=[1.0] * len(objects),
            category_ids=[one.category_id for one in objects],
            masks=list(masks.values()),
            gt_box_masks=masks,
        )
    metrics = evaluation.compute()
    perfect = {k: v for k, v in flatten_metrics(metrics).items() if not k.startswith("filled_box/")}
    assert len(perfect) > 50
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0), abs=1e-12)
    assert metrics["instances"]["box"] == {"all": 1860, "seen": 987, "unseen": 873}
    assert metrics["instances"]["crowd"] == 19
    assert (metrics["images"], metrics["restricted"]) == (239, False)
    assert metrics["filled_box"]["mIoU"]["all"] == pytest.approx(0.594, abs=0.003)
    assert metrics["filled_box"]["AP"]["all"] == pytest.approx(0.229, abs=0.003)
