"""COCO AP by class group, masks from ground-truth boxes, the filled-box floor."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from deepmac.data.annotations.coco import (
    Category,
    CocoIndex,
    ImageRecord,
    Instance,
    instance_rle,
)
from deepmac.errors import ConfigError, DataError
from deepmac.evaluation import Evaluation, flatten_metrics, format_table, format_text
from deepmac.evaluation.average_precision import Backend, load_backend
from deepmac.evaluation.mask_quality import filled_box

SEEN = (1, 2)  # of the synthetic set


# ---- data -----------------------------------------------------------------------------------


def polygon(box: tuple[float, float, float, float]) -> list[list[float]]:
    """A diamond in a box."""
    x0, y0, x1, y1 = box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return [[x, y0, x1, y, x, y1, x0, y]]


def instance(
    number: int,
    category_id: int,
    box: tuple[float, float, float, float],
    *,
    mask: bool = True,
    crowd: bool = False,
) -> Instance:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return Instance(
        id=number,
        category_id=category_id,
        box=box,
        segmentation=polygon(box) if mask else None,
        iscrowd=crowd,
        area=area / 2 if mask else area,
    )


def make_index(*images: Iterable[Instance]) -> CocoIndex:
    names = ("cat", "dog", "cup", "fork", "owl")
    categories = tuple(
        Category(id=number, name=name, supercategory="kitchen" if number in (3, 4) else "animal")
        for number, name in enumerate(names, start=1)
    )
    records = tuple(
        ImageRecord(
            id=number,
            file_name=f"{number}.jpg",
            path=Path(f"images/{number}.jpg"),
            width=160,
            height=120,
            instances=tuple(instances),
        )
        for number, instances in enumerate(images, start=1)
    )
    return CocoIndex(
        json_path=Path("synthetic.json"),
        image_dir=Path("images"),
        categories=categories,
        images=records,
        problems=(),
        dropped={},
    )


@pytest.fixture()
def small() -> CocoIndex:
    """Three images, four classes of five with objects; a crowd, a box without a mask."""
    return make_index(
        [
            instance(1, 1, (5, 5, 45, 60)),
            instance(2, 3, (60, 10, 90, 30)),
            instance(3, 1, (70, 40, 150, 110), crowd=True),
        ],
        [
            instance(4, 2, (10, 10, 120, 110)),
            instance(5, 4, (30, 20, 50, 44)),
            instance(6, 4, (90, 80, 140, 110), mask=False),
        ],
        [],
    )


def add_truth(evaluation: Evaluation, images: Iterable[ImageRecord]) -> None:
    """The ground truth as predictions."""
    for image in images:
        objects = [one for one in image.instances if not one.iscrowd]
        masks = {
            one.id: instance_rle(one, image.height, image.width)
            for one in objects
            if one.segmentation
        }
        evaluation.add(
            image.id,
            boxes=[one.box for one in objects],
            scores=[1.0] * len(objects),
            category_ids=[one.category_id for one in objects],
            masks=[
                masks.get(one.id) or filled_box(one.box, image.height, image.width)
                for one in objects
            ],
            gt_box_masks=masks,
        )


# ---- the numbers ----------------------------------------------------------------------------


def assert_perfect(metrics: dict[str, Any]) -> None:
    for section in ("box", "mask", "mask_gt_box"):
        values = {k: v for k, v in flatten_metrics(metrics).items() if k.startswith(f"{section}/")}
        assert values
        assert values == pytest.approx(dict.fromkeys(values, 1.0), abs=1e-12)


def test_evaluation__gives_one_everywhere_for_the_ground_truth(small: CocoIndex) -> None:
    evaluation = Evaluation(small, seen_category_ids=SEEN)
    add_truth(evaluation, small.images)
    metrics = evaluation.compute()
    assert_perfect(metrics)
    for section in ("box", "mask", "mask_gt_box"):
        assert set(metrics[section]["AP"]) == {
            "all",
            "seen",
            "unseen",
            "supercategory/animal",
            "supercategory/kitchen",
        }
        assert None not in metrics[section]["AP"].values()


def test_evaluation__class_mean_of_iou_weighs_classes_alike() -> None:
    index = make_index([instance(1, 1, (0, 0, 40, 40)), instance(2, 1, (50, 0, 90, 40))])
    index = replace(
        index,
        images=(
            replace(
                index.images[0],
                instances=(*index.images[0].instances, instance(3, 2, (0, 50, 40, 90))),
            ),
        ),
    )
    evaluation = Evaluation(index, seen_category_ids=())
    image = index.images[0]
    truth = instance_rle(image.instances[2], image.height, image.width)
    evaluation.add(1, boxes=[], scores=[], category_ids=[], gt_box_masks={3: truth})
    metrics = evaluation.compute()["mask_gt_box"]
    assert metrics["mIoU"]["all"] == pytest.approx(1 / 3)
    assert metrics["mIoU_class_mean"]["all"] == pytest.approx(1 / 2)


@pytest.mark.parametrize("backend", ["vernier", "faster_coco_eval"])
def test_evaluation__every_backend_gives_zero_without_detections(
    small: CocoIndex, backend: Backend
) -> None:
    pytest.importorskip(backend, reason="the extra deepmac[fast] is not installed")
    evaluation = Evaluation(small, seen_category_ids=SEEN, backend=backend)
    evaluation.add(1, boxes=[], scores=[], category_ids=[], masks=[])
    assert evaluation.compute()["box"]["AP"]["all"] == 0.0


# ---- what counts ----------------------------------------------------------------------------


def test_evaluation__no_detections_give_zero_and_not_none(small: CocoIndex) -> None:
    evaluation = Evaluation(small, seen_category_ids=SEEN)
    for image in small.images:
        evaluation.add(image.id, boxes=[], scores=[], category_ids=[], masks=[], gt_box_masks={})
    metrics = evaluation.compute()
    for section in ("box", "mask", "mask_gt_box"):
        assert metrics[section]["AP"]["all"] == metrics[section]["AP"]["unseen"] == 0.0
    assert metrics["mask_gt_box"]["mIoU"]["all"] == 0.0


def test_evaluation__without_a_detector_says_so_where_its_boxes_would_stand(
    small: CocoIndex,
) -> None:
    evaluation = Evaluation(small, seen_category_ids=SEEN, detector=False)
    for image in small.images:
        evaluation.add(image.id, boxes=[], scores=[], category_ids=[], masks=[], gt_box_masks={})
    metrics = evaluation.compute()
    assert metrics["detector"] is False
    for section in ("box", "mask"):
        assert set(metrics[section]["AP"].values()) == {None}
    assert metrics["mask_gt_box"]["mIoU"]["all"] == 0.0
    assert not any(name.startswith(("box/", "mask/")) for name in flatten_metrics(metrics))
    lines = format_text(metrics).splitlines()
    for title in ("Boxes", "Masks"):
        assert lines[lines.index(title) + 1].split()[:3] == ["AP", "no", "detector"]


def test_evaluation__leaves_out_classes_without_ground_truth(small: CocoIndex) -> None:
    evaluation = Evaluation(small, seen_category_ids=SEEN)
    add_truth(evaluation, small.images[:2])
    evaluation.add(  # an owl, of which the data set has none
        3,
        boxes=[[0, 0, 50, 50]],
        scores=[1.0],
        category_ids=[5],
        masks=[filled_box((0, 0, 50, 50), 120, 160)],
        gt_box_masks={},
    )
    metrics = evaluation.compute()
    assert metrics["box"]["AP"]["all"] == pytest.approx(1.0)
    assert "owl" not in metrics["per_class"]


def test_evaluation__groups_without_ground_truth_are_none(small: CocoIndex) -> None:
    evaluation = Evaluation(small, seen_category_ids=(1, 2, 3, 4, 5))
    add_truth(evaluation, small.images)
    metrics = evaluation.compute()
    for section in ("box", "mask", "mask_gt_box", "filled_box"):
        assert metrics[section]["AP"]["unseen"] is None
    assert json.loads(json.dumps(metrics)) == metrics
    assert "box/AP/unseen" not in flatten_metrics(metrics)


def test_evaluation__a_mask_for_an_object_without_true_mask_is_neither_right_nor_wrong() -> None:
    index = make_index(
        [instance(1, 1, (5, 5, 45, 60)), instance(2, 1, (60, 10, 120, 90), mask=False)]
    )
    image = index.images[0]
    inside = instance_rle(instance(9, 1, (60, 10, 120, 90)), image.height, image.width)
    truth = instance_rle(image.instances[0], image.height, image.width)

    def mask_ap(masks: list[Any]) -> float:
        evaluation = Evaluation(index, seen_category_ids=())
        boxes = [one.box for one in image.instances]
        scores = [0.9, 0.95]  # the mask that nothing can be said about comes first
        evaluation.add(1, boxes=boxes, scores=scores, category_ids=[1, 1], masks=masks)
        metrics = evaluation.compute()
        assert metrics["instances"]["box"]["all"] == 2
        assert metrics["instances"]["mask"]["all"] == 1
        assert metrics["box"]["AP"]["all"] == pytest.approx(1.0)
        return metrics["mask"]["AP"]["all"]

    assert mask_ap([truth, inside]) == pytest.approx(1.0)
    elsewhere = filled_box((100, 0, 160, 120), image.height, image.width)
    assert mask_ap([truth, elsewhere]) == pytest.approx(0.5)


def test_evaluation__detections_in_crowd_regions_are_not_wrong(small: CocoIndex) -> None:
    evaluation = Evaluation(small, seen_category_ids=SEEN)
    add_truth(evaluation, small.images)
    before = evaluation.compute()
    state = evaluation.state()
    in_crowd = filled_box((105, 70, 115, 80), 120, 160)
    state[0] = {
        **state[0],
        "boxes": [*state[0]["boxes"], [105.0, 70.0, 115.0, 80.0]],
        "scores": [*state[0]["scores"], 2.0],
        "category_ids": [*state[0]["category_ids"], 1],
        "masks": [*(state[0]["masks"] or []), in_crowd],
    }
    evaluation.reset()
    evaluation.merge([state])
    after = evaluation.compute()
    assert flatten_metrics(after) == pytest.approx(flatten_metrics(before))


def test_evaluation__sections_that_were_not_predicted_are_none(small: CocoIndex) -> None:
    evaluation = Evaluation(small, seen_category_ids=SEEN)
    evaluation.add(1, boxes=[[5, 5, 45, 60]], scores=[1], category_ids=[1])
    metrics = evaluation.compute()
    assert metrics["box"]["AP"]["seen"] == pytest.approx(1.0)
    assert set(metrics["mask"]["AP"].values()) == {None}
    assert set(metrics["mask_gt_box"]["mIoU"].values()) == {None}
    assert metrics["filled_box"]["mIoU"]["seen"] is not None


def test_evaluation__max_detections_limits_each_image_and_class() -> None:
    index = make_index([instance(1, 1, (5, 5, 45, 60))])

    def box_ap(limit: int) -> float:
        evaluation = Evaluation(index, seen_category_ids=(), max_detections=limit)
        boxes = [[60, 60, 90, 90], [5, 5, 45, 60]]
        evaluation.add(1, boxes=boxes, scores=[0.9, 0.8], category_ids=[1, 1])
        return evaluation.compute()["box"]["AP"]["all"]

    assert (box_ap(1), box_ap(2)) == pytest.approx((0.0, 0.5))


# ---- parts of the data set, processes -------------------------------------------------------


def test_compute__restricts_the_ground_truth_to_the_images_seen_and_says_so(
    small: CocoIndex,
) -> None:
    evaluation = Evaluation(small, seen_category_ids=SEEN)
    add_truth(evaluation, small.images[:2])
    metrics = evaluation.compute()
    assert_perfect(metrics)
    assert (metrics["images"], metrics["restricted"]) == (2, True)
    chosen = evaluation.compute(image_ids=[1, 3])
    assert (chosen["images"], chosen["instances"]["box"]["all"]) == (1, 2)
    assert set(chosen["per_class"]) == {"cat", "cup"}
    assert "restricted" not in flatten_metrics(metrics)


def test_compute__works_before_any_image_was_added(small: CocoIndex) -> None:
    metrics = Evaluation(small, seen_category_ids=SEEN).compute()
    assert metrics["images"] == 0
    assert flatten_metrics(metrics) == {}
    assert "0 of 3 images" in format_text(metrics)


def test_merge__keeps_the_same_result_of_an_image_in_any_order(small: CocoIndex) -> None:
    states = []
    for score in (0.4, 0.6):
        evaluation = Evaluation(small, seen_category_ids=SEEN)
        evaluation.add(1, boxes=[[0, 0, 9, 9]], scores=[score], category_ids=[1])
        states.append(evaluation.state())
    merged = []
    for order in (states, states[::-1]):
        evaluation = Evaluation(small, seen_category_ids=SEEN)
        evaluation.merge(order)
        merged.append(evaluation.state())
    assert merged[0] == merged[1]


# ---- bad input ------------------------------------------------------------------------------

ONE: dict[str, Any] = {"boxes": [[0, 0, 9, 9]], "scores": [1.0], "category_ids": [1]}


@pytest.mark.parametrize(
    ("prediction", "words"),
    [
        ({"image_id": 99, **ONE}, "no image 99"),
        ({"image_id": 1, **ONE, "category_ids": [77]}, "category 77"),
        ({"image_id": 1, **ONE, "gt_box_masks": {4: filled_box((0, 0, 9, 9), 120, 160)}}, "4"),
        ({"image_id": 1, **ONE, "masks": [filled_box((0, 0, 9, 9), 160, 120)]}, r"\(160, 120\)"),
    ],
)
def test_add__refuses_what_the_data_set_does_not_hold(
    small: CocoIndex, prediction: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        Evaluation(small, seen_category_ids=SEEN).add(**prediction)


def test_evaluation__refuses_seen_classes_that_do_not_exist(small: CocoIndex) -> None:
    with pytest.raises(DataError, match="no category 77"):
        Evaluation(small, seen_category_ids=(1, 77))


def test_compute__refuses_unknown_images_and_masks_for_some_images_only(small: CocoIndex) -> None:
    evaluation = Evaluation(small, seen_category_ids=SEEN)
    with pytest.raises(DataError, match="no image 99"):
        evaluation.compute(image_ids=[99])
    evaluation.add(1, **ONE)
    evaluation.add(2, **ONE, masks=[filled_box((0, 0, 9, 9), 120, 160)])
    with pytest.raises(ValueError, match="1 of 2 images came with masks"):
        evaluation.compute()


def test_evaluation__says_what_to_install_for_the_fast_backend(
    small: CocoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ConfigError, match=r"pip install 'deepmac\[fast\]'"):
        Evaluation(small, seen_category_ids=SEEN, backend="faster_coco_eval")
    monkeypatch.setitem(sys.modules, "vernier", None)
    assert load_backend("auto") == load_backend("pycocotools")


# ---- for people -----------------------------------------------------------------------------


def test_compute__prints_nothing(small: CocoIndex, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = Evaluation(small, seen_category_ids=SEEN)
    add_truth(evaluation, small.images)
    evaluation.compute()
    assert capsys.readouterr() == ("", "")


def rich_text(metrics: dict[str, Any]) -> str:
    from rich.console import Console

    output = StringIO()
    Console(file=output, width=120).print(format_table(metrics))
    return output.getvalue()


@pytest.mark.parametrize("render", [rich_text, format_text])
def test_format__shows_the_floor_beside_masks_from_ground_truth_boxes(
    small: CocoIndex, render: Callable[[dict[str, Any]], str]
) -> None:
    evaluation = Evaluation(small, seen_category_ids=SEEN)
    add_truth(evaluation, small.images[:2])
    metrics = evaluation.compute()
    text = render(metrics)
    floor = 100 * metrics["filled_box"]["mIoU"]["unseen"]
    assert f"100.0 ({floor:.1f})" in text
    assert "2 of 3 images, 5 objects" in text
    for word in ("Boxes", "Masks", "all", "seen", "unseen", "boundary IoU"):
        assert word in text


def test_per_class__tells_for_each_class_whether_it_was_seen(small: CocoIndex) -> None:
    evaluation = Evaluation(small, seen_category_ids=SEEN)
    add_truth(evaluation, small.images)
    table = evaluation.compute()["per_class"]
    assert list(table) == ["cat", "dog", "cup", "fork"]
    assert (table["dog"]["seen"], table["fork"]["seen"]) == (True, False)
    assert (table["fork"]["instances"], table["fork"]["instances_with_mask"]) == (2, 1)
    assert table["fork"]["mask_gt_box/mIoU"] == pytest.approx(1.0)
    assert 0 < table["fork"]["filled_box/mIoU"] < 0.7
