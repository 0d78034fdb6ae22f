"""Every tool's export, as it lies there, is the same table; and training takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data.annotations import exports
from deepmac.check_data.check import check_data
from deepmac.data.annotations.layout import find
from deepmac.data.annotations.read_boxes import read_boxes
from deepmac.data.annotations.records import decode_mask
from deepmac.data.settings import read_annotations
from deepmac.errors import DataError
from deepmac.label.plan import make_plan
from deepmac.lightning.datamodule import CocoDataModule


def table(root: Path, split: str, **settings: object) -> dict[tuple[str, str], list[float]]:
    """(picture, class) -> box, and the mask's share of it or 0."""
    index = read_annotations({"root": root, **settings}, split)  # type: ignore[arg-type]
    names = {c.id: c.name for c in index.categories}
    found = {}
    for image in index.images:
        for item in image.instances:
            pixels = 0 if item.segmentation is None else int(decode_mask(item, 60, 80).sum())
            x0, y0, x1, y1 = item.box
            key = Path(image.file_name).stem, names[item.category_id]
            found[key] = [*item.box, pixels / ((x1 - x0) * (y1 - y0))]
    return found


def expected(split: str) -> dict[tuple[str, str], list[float]]:
    stems = sum(exports.SPLITS.values(), ()) if split == "all" else exports.SPLITS[split]
    found = {}
    for stem in stems:
        for category, flat in exports.objects(stem):
            x, y, w, h = exports.box(flat)
            share = float(exports.mask(flat).sum()) / (w * h)
            found[stem, exports.NAMES[category]] = [x, y, x + w, y + h, share]
    return found


@pytest.mark.parametrize("name", exports.ALL)
def test_every_export__gives_the_table_of_coco(tmp_path: Path, name: str) -> None:
    exports.ALL[name](tmp_path)
    found = find(tmp_path)
    assert found.format == exports.FORMAT.get(name, name)
    assert str(tmp_path) in str(found) and found.why
    splits = ("train", "val")
    if name in exports.ONE_SET:
        assert list(found.sets) == ["all"]
        held_out = table(tmp_path, "val")
        rest = table(tmp_path, "train")
        assert not held_out.keys() & rest.keys()
        splits = ("all",)
    for split in splits:
        wanted = expected(split)
        share = {"val_share": 0.0} if split == "all" else {}
        read = table(tmp_path, "train" if split == "all" else split, **share)
        assert read.keys() == wanted.keys()
        for key, values in wanted.items():
            if name == "yolo_obb":
                continue
            assert read[key][:4] == pytest.approx(values[:4], abs=1.01), key
            masked = 0.0 if name in exports.WITHOUT_MASKS else values[4]
            assert read[key][4] == pytest.approx(masked, abs=0.12), key


@pytest.mark.parametrize("name", exports.ALL)
def test_every_export__makes_batches_and_checks_clean(tmp_path: Path, name: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    exports.ALL[name](root)
    report = check_data({"root": root}, tmp_path / "out")
    assert [p.message for p in report.problems] == []
    assert all(index.source for index in report.sets.values())
    module = CocoDataModule(
        root=str(root), masked_classes="all", batch_size=2, num_workers=0, image_size=64
    )
    module.setup("fit")
    batches = list(module.train_dataloader())
    assert sum(int(batch["valid"].sum()) for batch in batches) > 0
    if name not in exports.WITHOUT_MASKS:
        assert any(bool(batch["mask_valid"].any()) for batch in batches)
    assert all(torch.isfinite(batch["boxes"]).all() for batch in batches)
    assert len(list(module.val_dataloader())) > 0


@pytest.mark.parametrize("name", [n for n in exports.ALL if n not in ("coco_own", "lvis")])
def test_every_export__is_labelled(tmp_path: Path, name: str) -> None:
    exports.ALL[name](tmp_path)
    found = find(tmp_path)
    if len(found.sets) > 1 and found.format in ("coco", "panoptic", "open_images", "tfrecord"):
        with pytest.raises(DataError, match="several sets"):
            read_boxes(tmp_path, tmp_path)
        return
    place = next(iter(found.sets.values()))
    boxes = read_boxes(tmp_path, place.image_dir)
    plan = make_plan(boxes, place.image_dir)
    asked = sum(len(task.rows) for part in plan.parts.values() for task in part)
    kept = plan.left_alone.get("human mask kept", 0)
    assert asked + kept == 2 * 5 and not plan.problems
    assert bool(asked) == (name in exports.WITHOUT_MASKS)


def test_two_formats_in_one_folder__are_asked_about(tmp_path: Path) -> None:
    exports.cvat(tmp_path)
    exports.labelme(tmp_path)
    with pytest.raises(DataError, match=r"holds coco .* and labelme .*data.format=coco or"):
        find(tmp_path)
    assert find(tmp_path, "labelme").format == "labelme"
    with pytest.raises(DataError, match="nothing of the format voc"):
        find(tmp_path, "voc")


def test_turned_boxes__keep_their_corners_and_outlines_are_doubted(tmp_path: Path) -> None:
    exports.yolo_obb(tmp_path)
    index = read_annotations({"root": tmp_path}, "train")
    assert "turned boxes" in {p.kind for p in index.problems}
    first = index.images[0].instances[0]
    assert first.corners is not None and len(first.corners) == 8 and first.segmentation is None
    outlines = read_annotations({"root": tmp_path, "format": "yolo-seg"}, "train")
    assert outlines.images[0].instances[0].segmentation is not None


def test_the_same_pictures__give_the_same_batches_from_yolo_and_labelme_as_from_coco(
    tmp_path: Path,
) -> None:
    batches = {}
    for name in ("coco_own", "labelme", "several_jsons"):
        exports.ALL[name](tmp_path / name)
        module = CocoDataModule(
            root=str(tmp_path / name), masked_classes="all", batch_size=4, num_workers=0,
            image_size=64, val_share=0.0 if name == "several_jsons" else 0.1,
        )  # fmt: skip
        if name == "several_jsons":
            continue
        module.setup("fit")
        batches[name] = next(iter(module.train_dataloader()))
    ours, theirs = batches["labelme"], batches["coco_own"]
    for key in ("images", "boxes", "labels", "mask_targets", "mask_valid", "valid"):
        assert torch.equal(ours[key], theirs[key]), key
