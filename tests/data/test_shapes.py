"""The embedded data set: deterministic, valid COCO, masks for half of the classes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from deepmac.data.settings import data_folder
from deepmac.data.shapes.coats import COATS, paint_coat
from deepmac.data.shapes.data_set import (
    SEEN_SHAPES,
    SHAPES_VERSION,
    UNSEEN_SHAPES,
    ensure_shapes,
    write_shapes,
)
from deepmac.data.shapes.outlines import SHAPES, random_rings, rasterize
from deepmac.data.shapes.picture import (
    MIN_VISIBLE_AREA,
    MIN_VISIBLE_FRACTION,
    PlacedObject,
    draw_picture,
)
from deepmac.errors import ConfigError, DataError

COUNTS = {"num_train": 40, "num_val": 30}
DIFFICULTIES = ("default", "hard", "coats")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_shapes(tmp_path_factory.mktemp("shapes"), **COUNTS)


def annotations_of(folder: Path, split: str) -> dict[str, Any]:
    return json.loads((folder / f"annotations/instances_{split}.json").read_text())


def visible_fraction(placed: PlacedObject) -> float:
    """Share of the outline's area that is in the picture and not hidden."""
    return float(placed.visible.sum()) / placed.full_area


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_settings__give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "again", **COUNTS)
    assert files_of(tmp_path / "again") == files_of(folder)


def test_a_picture__does_not_depend_on_the_counts(folder: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "few", num_train=5, num_val=3)
    for split, count in (("train", 5), ("val", 3)):
        few, many = (annotations_of(f, split) for f in (tmp_path / "few", folder))
        assert few["images"] == many["images"][:count]
        assert few["annotations"] == many["annotations"][: len(few["annotations"])]
        for image in few["images"]:
            name = f"images/{image['file_name']}"
            assert (tmp_path / "few" / name).read_bytes() == (folder / name).read_bytes()


def test_seed_split_and_difficulty__change_the_pictures() -> None:
    def pixels(seed: list[int], difficulty: Any) -> bytes:
        picture, _ = draw_picture(np.random.default_rng(seed), size=64, difficulty=difficulty)
        return picture.tobytes()

    variants = {
        pixels([0, 0, 3], "default"),
        pixels([1, 0, 3], "default"),
        pixels([0, 1, 3], "default"),
        pixels([0, 0, 3], "hard"),
        pixels([0, 0, 3], "coats"),
    }
    assert len(variants) == 5


def test_coats__tell_the_kinds_apart_by_paint() -> None:
    assert set(COATS) == {shape.name for shape in SHAPES}
    whole = np.ones((64, 64), np.float32)

    def colours(kind: str) -> NDArray[np.float32]:
        """Mean colour of every one of some objects."""
        return np.array(
            [
                paint_coat(np.random.default_rng(i), kind, whole, 64).mean(axis=(0, 1))
                for i in range(20)
            ]
        )

    means = {kind: colours(kind).mean(axis=0) for kind in COATS}
    right = 0
    for kind in COATS:
        for colour in colours(kind):
            nearest = min(means, key=lambda other: float(np.linalg.norm(means[other] - colour)))
            right += nearest == kind
    assert right > 0.6 * 20 * len(COATS)  # by chance: 0.1


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_files__are_valid_coco(
    folder: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = COCO(str(folder / f"annotations/instances_{split}.json"))
    assert len(coco.imgs) == COUNTS[f"num_{split}"]
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == [s.name for s in SHAPES]
    for image in coco.imgs.values():
        with Image.open(folder / "images" / image["file_name"]) as picture:
            assert picture.format == "JPEG" and picture.mode == "RGB"
            assert picture.size == (image["width"], image["height"]) == (128, 128)
    for annotation in coco.anns.values():
        x, y, width, height = annotation["bbox"]
        assert x >= 0 and y >= 0 and width > 0 and height > 0
        assert x + width <= 128 and y + height <= 128
        if "segmentation" in annotation:
            assert coco.annToMask(annotation).sum() == annotation["area"]


def test_ten_classes__five_of_them_without_training_masks() -> None:
    assert len(SEEN_SHAPES) == len(UNSEEN_SHAPES) == 5
    assert not set(SEEN_SHAPES) & set(UNSEEN_SHAPES)
    assert {shape.supercategory for shape in SHAPES} == {"round", "pointed", "bent"}


def test_training_masks__exist_for_the_seen_classes_alone(folder: Path) -> None:
    content = annotations_of(folder, "train")
    names = {c["id"]: c["name"] for c in content["categories"]}
    with_mask = {names[a["category_id"]] for a in content["annotations"] if "segmentation" in a}
    without = {names[a["category_id"]] for a in content["annotations"] if "segmentation" not in a}
    assert with_mask == set(SEEN_SHAPES)
    assert without == set(UNSEEN_SHAPES)


def test_a_training_box_without_mask__does_not_tell_its_mask_area(folder: Path) -> None:
    for annotation in annotations_of(folder, "train")["annotations"]:
        if "segmentation" not in annotation:
            assert annotation["area"] == annotation["bbox"][2] * annotation["bbox"][3]


def test_every_validation_instance__has_a_mask_that_spans_its_box(folder: Path) -> None:
    for annotation in annotations_of(folder, "val")["annotations"]:
        mask = coco_mask.decode(annotation["segmentation"])
        rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
        x, y = int(columns[0]), int(rows[0])
        assert annotation["bbox"] == [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def test_a_filled_box__is_a_poor_mask(folder: Path) -> None:
    annotations = annotations_of(folder, "val")["annotations"]
    shares = [a["area"] / (a["bbox"][2] * a["bbox"][3]) for a in annotations]
    assert 0.35 < np.mean(shares) < 0.65


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_objects__stay_visible_and_never_share_a_pixel(difficulty: Any) -> None:
    for index in range(25):
        rng = np.random.default_rng([7, index])
        _, objects = draw_picture(rng, size=128, difficulty=difficulty)
        assert 1 <= len(objects) <= 6
        assert np.sum([placed.visible for placed in objects], axis=0).max() == 1
        for number, placed in enumerate(objects):
            assert MIN_VISIBLE_FRACTION <= visible_fraction(placed) <= 1
            assert placed.visible.sum() >= MIN_VISIBLE_AREA
            hidden = np.any([o.alpha >= 0.5 for o in objects[number + 1 :]] or [False], axis=0)
            assert np.array_equal(placed.visible, (placed.alpha >= 0.5) & ~hidden)


def test_objects__often_hide_parts_of_each_other() -> None:
    fractions = []
    for index in range(40):
        _, objects = draw_picture(np.random.default_rng([8, index]), size=64, difficulty="default")
        fractions += [visible_fraction(placed) for placed in objects]
    assert 0.15 < np.mean(np.array(fractions) < 0.95) < 0.6


@settings(max_examples=30, deadline=None)
@given(
    index=st.integers(0, len(SHAPES) - 1),
    seed=st.integers(0, 2**32 - 1),
    extent=st.floats(15, 70),
    shift=st.floats(-50, 150),
)
def test_a_rasterized_outline__has_the_asked_extent_and_place(
    index: int, seed: int, extent: float, shift: float
) -> None:
    rings = random_rings(SHAPES[index], np.random.default_rng(seed), extent=extent)
    assert np.ptp(rings[0], axis=0).max() == pytest.approx(extent)
    whole, area = rasterize(rings, center=(100.0, 100.0), size=200)
    assert (whole >= 0.5).sum() == area > 0
    rows, columns = np.nonzero(whole > 0)
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(100, abs=1.1)
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(100, abs=1.1)
    # Sticking out of a smaller picture changes neither the pixels inside nor the whole area.
    moved, same_area = rasterize(rings, center=(round(shift), 40), size=80)
    big, _ = rasterize(rings, center=(round(shift) + 200, 240), size=480)
    assert np.array_equal(moved, big[200:280, 200:280])
    assert same_area == area


@pytest.mark.parametrize("name", ["ring", "gear"])
def test_classes_with_a_hole__are_empty_in_the_middle(name: str) -> None:
    shape = next(shape for shape in SHAPES if shape.name == name)
    rings = random_rings(shape, np.random.default_rng(0), extent=60)
    alpha, _ = rasterize(rings, center=(40, 40), size=80)
    assert alpha[40, 40] == 0 and alpha[40].max() == 1


def test_processes_that_start_together__end_with_one_complete_set(tmp_path: Path) -> None:
    write_shapes(tmp_path / "alone", num_train=12, num_val=4, size=64)
    call = "from deepmac.data.shapes.data_set import *; {}({!r}, num_train=12, num_val=4, size=64)"
    ensured, written = tmp_path / "ensured", tmp_path / "written"
    programs = 2 * [call.format("ensure_shapes", str(ensured))]
    programs += 2 * [call.format("write_shapes", str(written))]
    processes = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    (only,) = (path for path in ensured.iterdir() if path.is_dir())
    assert files_of(only) == files_of(written) == files_of(tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "ensured", "written"]


def test_other_settings__go_into_another_folder(folder: Path) -> None:
    other = ensure_shapes(folder.parent, num_train=2, num_val=1, size=64, difficulty="hard")
    assert other != folder and other.parent == folder.parent
    assert f"v{SHAPES_VERSION}" in folder.name
    assert annotations_of(other, "val")["images"][0]["width"] == 64


def test_a_second_call__writes_nothing(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert ensure_shapes(folder.parent, **COUNTS) == folder
    write_shapes(folder, **COUNTS)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_default_root__is_the_cache_folder_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPMAC_CACHE", str(tmp_path / "cache"))
    assert ensure_shapes(num_train=1, num_val=1, size=32).parent == tmp_path / "cache"


def test_a_folder_with_other_content__is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="choose another folder"):
        write_shapes(tmp_path, num_train=1, num_val=1)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_interrupted_write__leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deepmac.data.shapes.data_set.draw_picture", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "set", num_train=1, num_val=1)
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_written__is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        ensure_shapes(tmp_path / "file" / "below", num_train=1, num_val=1)


@pytest.mark.parametrize(
    "bad", [{"num_train": 0}, {"num_val": 0}, {"size": 16}, {"seed": -1}, {"difficulty": "easy"}]
)
def test_settings_out_of_range__are_refused(tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="shapes data set"):
        ensure_shapes(tmp_path, **bad)


def test_a_root_of_ones_own__is_drawn_into_once_and_opened_again(tmp_path: Path) -> None:
    sizes = {"shapes_train": 1, "shapes_val": 1, "shapes_size": 32, "difficulty": "default"}
    settings = {"source": "shapes", "root": str(tmp_path / "drawn"), **sizes}
    first = data_folder(settings)
    assert data_folder(settings) == first, "the drawing's own lock is nobody's data"
    (tmp_path / "drawn" / "mine.txt").write_text("")
    with pytest.raises(ConfigError, match="holds other files"):
        data_folder(settings)
