"""Which classes have masks in training, from words, names and ids."""

from pathlib import Path

import pytest

from deepmac.data.annotations.coco import Category, CocoIndex, ImageRecord, Instance, read_coco
from deepmac.data.splits import NONVOC_NAMES, VOC_NAMES, make_split, masked_category_ids
from deepmac.errors import ConfigError

POLYGONS = [[0.0, 0.0, 4.0, 0.0, 4.0, 4.0]]


def _index(names: list[str], instances: tuple[Instance, ...] = ()) -> CocoIndex:
    """Categories with the ids 10, 20, ... and one image."""
    categories = tuple(Category(10 * (i + 1), name) for i, name in enumerate(names))
    image = ImageRecord(1, "a.jpg", Path("a.jpg"), 8, 8, instances)
    return CocoIndex(Path("a.json"), Path("."), categories, (image,))


def _instance(category_id: int, *, mask: bool, crowd: bool = False) -> Instance:
    return Instance(1, category_id, (0, 0, 4, 4), POLYGONS if mask else None, crowd, 8.0)


def test_names__are_the_20_and_60_coco_classes() -> None:
    assert len(set(VOC_NAMES)) == 20
    assert len(set(NONVOC_NAMES)) == 60
    assert not set(VOC_NAMES) & set(NONVOC_NAMES)


def test_names__cover_the_real_coco_categories(shared: Path) -> None:
    root = shared / "coco_mini"
    index = read_coco(
        root / "annotations" / "instances_val.json", root / "images", check_images="none"
    )
    assert len(masked_category_ids("voc", index)) == 20
    assert len(masked_category_ids("nonvoc", index)) == 60
    split = make_split("voc", index)
    assert split.unseen == masked_category_ids("nonvoc", index)
    assert {1, 2, 3} <= split.seen


def test_voc_and_nonvoc__take_the_classes_that_the_set_has_whatever_the_case() -> None:
    index = _index(["Person", "truck", "my own", "CAT"])
    assert masked_category_ids("voc", index) == {10, 40}
    assert masked_category_ids("nonvoc", index) == {20}


def test_all__is_every_category() -> None:
    assert masked_category_ids("all", _index(["a", "b"])) == {10, 20}


def test_annotated__is_every_class_with_a_mask_of_an_object() -> None:
    index = _index(
        ["a", "b", "c"],
        (_instance(10, mask=True), _instance(20, mask=False), _instance(30, mask=True, crowd=True)),
    )
    assert masked_category_ids("annotated", index) == {10}


def test_list__mixes_names_and_ids() -> None:
    assert masked_category_ids(["B", 30], _index(["a", "b", "c"])) == {20, 30}


def test_split__groups_seen_unseen_and_all() -> None:
    groups = make_split(["a"], _index(["a", "b"])).groups()
    assert groups == {"seen": {10}, "unseen": {20}, "all": {10, 20}}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("voc", "a.json has none of the 20 voc classes"),
        ("nonvoc", "a.json has none of the 60 nonvoc classes"),
        ("annotated", "no object with a mask"),
        ("vok", "'vok'; it is one of voc, nonvoc, all, annotated"),
        ([], "empty list"),
        (["gaer"], "names 'gaer'.*did you mean Gear"),
        (["zzz"], "its classes are Gear, bolt"),
        ([3], r"category id 3.*its ids are 10, 20"),
        ([True], "names 'True'"),
    ],
)
def test_bad_spec__is_one_sentence_with_the_way_out(spec: object, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        masked_category_ids(spec, _index(["Gear", "bolt"]))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
