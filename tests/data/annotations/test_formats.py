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


SAMPLE = ("images", "boxes", "valid", "mask_targets", "mask_valid")


def samples(root: Path) -> dict[str, dict[str, torch.Tensor]]:
    """What a training takes of each picture that has objects, undisturbed, by the file's stem.

    Objects in the order of their places, labels in that of the classes' names.
    """
    module = CocoDataModule(
        root=str(root), masked_classes="all", batch_size=1, num_workers=0, image_size=64,
        flip=0.0, color=False, crop_scale=None,
    )  # fmt: skip
    module.setup("fit")
    assert module.train_index is not None
    stems = {image.id: Path(image.file_name).stem for image in module.train_index.images}
    names = {c.id: c.name for c in module.train_index.categories}
    classes = sorted(names, key=lambda n: names[n])
    found = {}
    for batch in module.train_dataloader():
        if not batch["valid"].any():  # some formats have no place for such pictures
            continue
        order = batch["boxes"][0, :, 0].argsort()
        one = {key: batch[key][0] for key in SAMPLE}
        for key in set(SAMPLE) - {"images"}:
            one[key] = one[key][order]
        known = torch.tensor([classes.index(n) for n in sorted(names)])
        one["labels"] = known[batch["labels"][0][order]]
        found[stems[int(batch["image_ids"][0])]] = one
    return found


@pytest.mark.parametrize("name", exports.ALL)
def test_the_same_pictures__give_the_batches_that_they_give_as_coco(
    tmp_path: Path, name: str
) -> None:
    exports.ALL[name](tmp_path / "this")
    one_set = name in exports.ONE_SET  # which holds out some pictures by itself
    exports.ALL["label_studio" if one_set else "coco_own"](tmp_path / "coco")
    ours, coco = samples(tmp_path / "this"), samples(tmp_path / "coco")
    both = ours.keys() & coco.keys()
    assert len(both) >= 3 if one_set else ours.keys() == coco.keys()
    for stem in sorted(both):
        found, wanted = ours[stem], coco[stem]
        for key in ("images", "labels", "valid"):
            assert torch.equal(found[key], wanted[key]), (stem, key)
        if name == "yolo_obb":  # turned: their upright boxes are others
            continue
        torch.testing.assert_close(found["boxes"], wanted["boxes"], atol=1.0, rtol=0)
        if name in exports.WITHOUT_MASKS:
            assert not found["mask_valid"].any()
            continue
        assert torch.equal(found["mask_valid"], wanted["mask_valid"])
        apart = (found["mask_targets"] - wanted["mask_targets"]).abs().mean()
        assert apart < 0.1, (stem, float(apart))  # half a pixel around an object of 24


def test_one_order_of_objects__gives_equal_batches_with_every_augmentation(tmp_path: Path) -> None:
    batches = {}
    for name in ("coco_own", "labelme"):
        exports.ALL[name](tmp_path / name)
        module = CocoDataModule(
            root=str(tmp_path / name), masked_classes="all", batch_size=4, num_workers=0,
            image_size=64,
        )  # fmt: skip
        module.setup("fit")
        batches[name] = next(iter(module.train_dataloader()))
    ours, theirs = batches["labelme"], batches["coco_own"]
    for key in ("images", "boxes", "labels", "mask_targets", "mask_valid", "valid"):
        assert torch.equal(ours[key], theirs[key]), key
