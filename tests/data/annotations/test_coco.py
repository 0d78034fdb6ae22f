"""Reading COCO files: what is accepted, what stops, what is dropped and counted."""

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.data.annotations.coco import CocoIndex, Instance, decode_mask, instance_rle, read_coco
from deepmac.data.annotations.reading import Reading
from deepmac.data.annotations.segmentation import find_fault, is_empty
from deepmac.errors import ConfigError, DataError

WIDTH, HEIGHT = 20, 16
TRIANGLE = [[2, 2, 12, 2, 2, 12]]
UNCOMPRESSED = {"size": [HEIGHT, WIDTH], "counts": [16, 32, 272]}  # columns 1 and 2
NOTHING = {"size": [HEIGHT, WIDTH], "counts": [320]}


def _annotation(identity: int, image_id: int = 1, **changes: Any) -> dict[str, Any]:
    entry = {
        "id": identity,
        "image_id": image_id,
        "category_id": 7,
        "bbox": [2, 2, 10, 10],
        "area": 50,
        "segmentation": TRIANGLE,
        "iscrowd": 0,
    }
    return {key: value for key, value in {**entry, **changes}.items() if value != "absent"}


def _content(*extra: dict[str, Any]) -> dict[str, Any]:
    """Two images; the first has annotation 100 and the given ones, the second annotation 101."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in (2, 1)]
    return {
        "images": images,
        "categories": [{"id": 9, "name": "dog"}, {"id": 7, "name": "cat", "supercategory": "pet"}],
        "annotations": [_annotation(100), _annotation(101, 2), *extra],
    }


def _write(root: Path, content: Any) -> Path:
    for name in ("1.jpg", "2.jpg"):
        Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 30)).save(root / name)
    path = root / "set.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def _read(root: Path, content: Any, **options: Any) -> CocoIndex:
    return read_coco(_write(root, content), root, **options)


def _only(index: CocoIndex, annotation_id: int) -> Instance:
    found = [item for image in index.images for item in image.instances if item.id == annotation_id]
    assert len(found) == 1
    return found[0]


# What is accepted


@pytest.mark.parametrize(
    ("split", "images", "voc", "nonvoc", "crowds", "empty"),
    [("train", 257, 1036, 1081, 20, 2), ("val", 239, 987, 873, 19, 2)],
)
def test_read_coco__counts_the_real_images_as_their_readme_does(
    shared: Path, split: str, images: int, voc: int, nonvoc: int, crowds: int, empty: int
) -> None:
    from deepmac.data.splits import masked_category_ids

    root = shared / "coco_mini"
    index = read_coco(root / "annotations" / f"instances_{split}.json", root / "images")
    instances = [item for image in index.images for item in image.instances]
    objects = [item for item in instances if not item.iscrowd]
    voc_ids = masked_category_ids("voc", index)
    assert len(index.images) == images
    assert sum(item.category_id in voc_ids for item in objects) == voc
    assert sum(item.category_id not in voc_ids for item in objects) == nonvoc
    assert len(instances) - len(objects) == crowds
    assert sum(not image.instances for image in index.images) == empty
    assert len(index.categories) == 80
    assert index.problems == ()


def test_read_coco__sorts_by_id_and_maps_arbitrary_category_ids(tmp_path: Path) -> None:
    index = _read(tmp_path, _content(_annotation(3)))
    assert [image.id for image in index.images] == [1, 2]
    assert [item.id for item in index.images[0].instances] == [3, 100]
    assert index.category_ids == (7, 9)
    assert index.label_of == {7: 0, 9: 1}
    assert index.categories[0].supercategory == "pet"
    assert index.categories[1].supercategory == ""
    assert index.images[0].path == tmp_path / "1.jpg"
    assert index.dropped_summary() == []


def test_read_coco__turns_bbox_into_xyxy_and_keeps_area_and_crowd(tmp_path: Path) -> None:
    crowd = _annotation(1, iscrowd=1, segmentation=UNCOMPRESSED, bbox=[1, 0, 2.5, 16])
    item = _only(_read(tmp_path, _content(crowd)), 1)
    assert item.box == (1, 0, 3.5, 16)
    assert all(isinstance(value, float) for value in (*item.box, item.area))
    assert item.area == 50
    assert item.iscrowd


def test_read_coco__takes_the_area_of_the_box_where_none_is_given(tmp_path: Path) -> None:
    index = _read(tmp_path, _content(_annotation(1, area="absent")))
    assert _only(index, 1).area == 100


@pytest.mark.parametrize("segmentation", [[], None, "absent", [[]], {}])
def test_read_coco__without_segmentation_is_a_box_without_mask(
    tmp_path: Path, segmentation: Any
) -> None:
    index = _read(tmp_path, _content(_annotation(1, segmentation=segmentation)))
    assert _only(index, 1).segmentation is None
    assert index.problems == ()
    with pytest.raises(ValueError, match="annotation 1 is a box without a mask"):
        instance_rle(_only(index, 1), HEIGHT, WIDTH)


def test_decode_mask__reads_polygons_and_both_run_length_forms(tmp_path: Path) -> None:
    stripe = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    stripe[:, 1:3] = 1
    compressed = coco_mask.encode(np.asfortranarray(stripe))
    compressed["counts"] = compressed["counts"].decode()
    entries = (
        _annotation(1, segmentation=UNCOMPRESSED),
        _annotation(2, segmentation=compressed),
        _annotation(3, segmentation=[[1, 0, 3, 0, 3, 16, 1, 16]]),
        _annotation(4, segmentation=[[1, 0, 2, 0, 2, 16, 1, 16], [2, 0, 3, 0, 3, 16, 2, 16]]),
    )
    entries = tuple({**entry, "bbox": [1, 0, 2, 16]} for entry in entries)
    reading = Reading(rectangle_masks="mask")
    index = _read(tmp_path, _content(*entries), check_images="full", reading=reading)
    assert index.problems == ()
    for identity in (1, 2, 3, 4):
        mask = decode_mask(_only(index, identity), HEIGHT, WIDTH)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, stripe)
        rle = instance_rle(_only(index, identity), HEIGHT, WIDTH)
        assert isinstance(rle["counts"], bytes)
        assert list(rle["size"]) == [HEIGHT, WIDTH]


def test_read_coco__reads_image_info_without_annotations(tmp_path: Path) -> None:
    content = _content()
    del content["annotations"]
    index = _read(tmp_path, content, require_annotations=False)
    assert [len(image.instances) for image in index.images] == [0, 0]
    with pytest.raises(DataError, match='no list "annotations"'):
        _read(tmp_path, content)


def test_restricted_to__keeps_the_chosen_images_and_names_unknown_ids(tmp_path: Path) -> None:
    index = _read(tmp_path, _content())
    assert [image.id for image in index.restricted_to([2]).images] == [2]
    with pytest.raises(ConfigError, match=r"1 of the 2 chosen image ids .*set.json \(5\)"):
        index.restricted_to([2, 5])


# What is mended, with a note


@pytest.mark.parametrize(
    ("bbox", "box", "noted"),
    [
        ([-0.5, -0.9, 21, 17.5], (0, 0, 20, 16), False),
        ([-3, 2, 10, 4], (0, 2, 7, 6), True),
        ([15, 12, 10, 4], (15, 12, 20, 16), True),
    ],
)
def test_read_coco__clips_boxes_and_notes_more_than_a_pixel(
    tmp_path: Path, bbox: list[float], box: tuple[float, ...], noted: bool
) -> None:
    index = _read(tmp_path, _content(_annotation(1, bbox=bbox, segmentation=[])))
    assert _only(index, 1).box == pytest.approx(box)
    assert [problem.kind for problem in index.problems] == ["box clipped"] * noted
    assert len(index.dropped_summary()) == noted


@pytest.mark.parametrize(
    "empty",
    [NOTHING, [[3, 3, 3, 3, 3, 3]], [[2, 2, 12, 2, 7, 2.01]], [[-9, -9, -5, -9, -5, -5]]],
)
@pytest.mark.parametrize("check_images", ["none", "header", "full"])
def test_read_coco__empty_masks_become_boxes_without_mask(
    tmp_path: Path, empty: Any, check_images: str
) -> None:
    content = _content(_annotation(1, segmentation=empty))
    index = _read(tmp_path, content, check_images=check_images)
    assert _only(index, 1).segmentation is None
    assert [(p.kind, p.annotation_id, p.is_note) for p in index.problems] == [
        ("empty mask", 1, True)
    ]


@pytest.mark.parametrize("area", [0, -4, math.nan, math.inf, "big"])
def test_read_coco__replaces_an_impossible_area(tmp_path: Path, area: Any) -> None:
    index = _read(tmp_path, _content(_annotation(1, area=area)))
    assert _only(index, 1).area == 100
    assert [problem.kind for problem in index.problems] == ["area replaced"]


# What is a fault of one annotation: it stops, or it is dropped and counted

ANNOTATION_FAULTS = [
    ("zero-area box", {"bbox": [2, 2, 0, 5]}, "of no area"),
    ("negative box", {"bbox": [2, 2, -3, 5]}, "of no area"),
    ("malformed box", {"bbox": [2, math.nan, 3, 5]}, "NaN or infinite"),
    ("malformed box", {"bbox": [2, 2, math.inf, 5]}, "NaN or infinite"),
    ("malformed box", {"bbox": [2, 2, 3]}, "four numbers"),
    ("malformed box", {"bbox": "absent", "segmentation": []}, "four numbers"),
    ("malformed box", {"bbox": ["1", "2", "3", "4"]}, "four numbers"),
    ("box outside image", {"bbox": [30, 2, 3, 5]}, "outside the image of 20 x 16"),
    ("unknown category id", {"category_id": 8}, "category 8 that the file does not list"),
    ("unknown category id", {"category_id": "7"}, "category '7'"),
    ("unknown image id", {"image_id": 5}, "belongs to no image"),
    ("unknown image id", {"image_id": "1"}, "belongs to no image"),
    ("duplicate annotation id", {"id": 100}, "id used before"),
    ("malformed annotation", {"id": "1"}, "ids are integers"),
    ("malformed annotation", {"iscrowd": 2}, "it is 0 or 1"),
]
MASK_FAULTS = [
    ("malformed polygon", [[2, 2, 12, 2, 2]], "polygon of 5 numbers"),
    ("malformed polygon", [[2, 2, 12, 2]], "polygon of 4 numbers"),
    ("malformed polygon", [[2, 2, 12, 2, 2, math.nan]], "NaN or infinite"),
    ("malformed polygon", [[2, 2, 12, 2, 2, "x"]], "something else than numbers"),
    ("malformed polygon", [2, 2, 12, 2, 2, 12], "not a list of numbers"),
    ("malformed polygon", [[2, 2, 1e9, 2, 2, 12]], "reaches from 2 to 1e\\+09"),
    ("malformed segmentation", "file.png", "of type str"),
    ("RLE of another size", {"size": [20, 16], "counts": [320]}, r"size \[20, 16\]"),
    ("malformed RLE", {"size": [16, 20]}, "without size and counts"),
    ("malformed RLE", {"size": [16, 20], "counts": [10, 5]}, "cover 15 pixels of an image of 320"),
    ("malformed RLE", {"size": [16, 20], "counts": [330, -10]}, "RLE counts that cover"),
    ("malformed RLE", {"size": [16, 20], "counts": [319.5, 0.5]}, "not integers"),
    ("malformed RLE", {"size": [16, 20], "counts": "P"}, "cannot be decoded"),
    ("malformed RLE", {"size": [16, 20], "counts": "\u00e4\u00f6"}, "cannot be decoded"),
    ("malformed RLE", {"size": [16, 20], "counts": 5}, "of type int"),
]


@pytest.mark.parametrize(("kind", "changes", "sentence"), ANNOTATION_FAULTS)
def test_read_coco__faulty_annotation_stops_or_is_dropped(
    tmp_path: Path, kind: str, changes: dict[str, Any], sentence: str
) -> None:
    content = _content(_annotation(1, **changes))
    with pytest.raises(DataError, match=sentence) as caught:
        _read(tmp_path, content)
    assert str(tmp_path / "set.json") in str(caught.value)
    index = _read(tmp_path, content, on_error="drop")
    assert [problem.kind for problem in index.problems] == [kind]
    assert index.dropped == {"images": 0, "annotations": 1, "masks": 0}
    assert sum(len(image.instances) for image in index.images) == 2
    assert index.dropped_summary() == [
        f"{tmp_path / 'set.json'}: left out 0 images, 1 annotations, 0 masks (1 {kind})."
    ]


@pytest.mark.parametrize(("kind", "segmentation", "sentence"), MASK_FAULTS)
def test_read_coco__faulty_mask_stops_or_leaves_the_box(
    tmp_path: Path, kind: str, segmentation: Any, sentence: str
) -> None:
    content = _content(_annotation(1, segmentation=segmentation))
    with pytest.raises(DataError, match=f"annotation 1 \\(image 1\\) has .*{sentence}"):
        _read(tmp_path, content)
    index = _read(tmp_path, content, on_error="drop")
    assert _only(index, 1).segmentation is None
    assert [(p.kind, p.image_id, p.annotation_id) for p in index.problems] == [(kind, 1, 1)]
    assert index.dropped == {"images": 0, "annotations": 0, "masks": 1}


def test_read_coco__names_the_first_fault_and_counts_the_others_by_kind(tmp_path: Path) -> None:
    faults = [_annotation(i, bbox=[0, 0, 0, 4]) for i in (1, 2, 3)]
    with pytest.raises(DataError) as caught:
        _read(tmp_path, _content(*faults, _annotation(4, category_id=5)))
    text = str(caught.value)
    assert "annotation 1 (image 1) has the bbox [0, 0, 0, 4]" in text
    assert "and 3 more (2 zero-area box, 1 unknown category id)" in text
    assert "`deepmac check-data` lists them all" in text


# What is a fault of one image


def _without_file(root: Path, content: dict[str, Any]) -> None:
    (root / "1.jpg").unlink()


def _truncated(root: Path, content: dict[str, Any]) -> None:
    (root / "1.jpg").write_bytes((root / "1.jpg").read_bytes()[:-40])


def _not_an_image(root: Path, content: dict[str, Any]) -> None:
    (root / "1.jpg").write_text("<html>")


def _other_size(root: Path, content: dict[str, Any]) -> None:
    Image.new("RGB", (HEIGHT, WIDTH)).save(root / "1.jpg")


def _no_name(root: Path, content: dict[str, Any]) -> None:
    del content["images"][1]["file_name"]


def _bad_width(root: Path, content: dict[str, Any]) -> None:
    content["images"][1]["width"] = "wide"


IMAGE_FAULTS = [
    (_without_file, "missing image", "1.jpg does not exist.*\\(image 1 of .*set.json\\)"),
    (_truncated, "unreadable image", "1.jpg cannot be decoded"),
    (_not_an_image, "unreadable image", "not an image format"),
    (_other_size, "wrong image size", "is 16 x 20 pixels .* say 20 x 16"),
    (_no_name, "malformed image entry", "image 1 has no file_name"),
    (_bad_width, "malformed image entry", "image 1 has width 'wide' and height 16"),
]


@pytest.mark.parametrize("check_images", ["header", "full"])
@pytest.mark.parametrize(("spoil", "kind", "sentence"), IMAGE_FAULTS)
def test_read_coco__faulty_image_stops_or_is_dropped_with_its_annotations(
    tmp_path: Path, spoil: Any, kind: str, sentence: str, check_images: str
) -> None:
    content = _content()
    json_path = _write(tmp_path, content)
    spoil(tmp_path, content)
    json_path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=sentence):
        read_coco(json_path, tmp_path, check_images=check_images)
    for option in (check_images, "none"):  # dropping always looks at the files
        index = read_coco(json_path, tmp_path, on_error="drop", check_images=option)
        assert [(problem.kind, problem.image_id) for problem in index.problems] == [(kind, 1)]
        assert [image.id for image in index.images] == [2]
        assert index.dropped == {"images": 1, "annotations": 1, "masks": 0}


def test_read_coco__duplicate_and_malformed_image_ids_are_faults(tmp_path: Path) -> None:
    content = _content()
    content["images"] += [{**content["images"][0], "id": 1}, {**content["images"][0], "id": "3"}]
    with pytest.raises(DataError, match="image id 1 occurs more than once"):
        _read(tmp_path, content)
    index = _read(tmp_path, content, on_error="drop")
    assert [p.kind for p in index.problems] == ["duplicate image id", "malformed image entry"]
    assert index.images[0].file_name == "1.jpg"


def test_read_coco__none_skips_the_files(tmp_path: Path) -> None:
    json_path = _write(tmp_path, _content())
    (tmp_path / "1.jpg").unlink()
    assert len(read_coco(json_path, tmp_path, check_images="none").images) == 2


def test_read_coco__in_the_wrong_image_folder_says_so_once(tmp_path: Path) -> None:
    json_path = _write(tmp_path, _content())
    (tmp_path / "other").mkdir()
    for on_error in ("stop", "drop"):
        with pytest.raises(DataError, match=r"none of the 2 images .*other .*check the image"):
            read_coco(json_path, tmp_path / "other", on_error=on_error)


# What is a fault of the whole file: it always stops


def _change(**lists: Any) -> dict[str, Any]:
    return {**deepcopy(_content()), **lists}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("not json", "is not valid JSON"),
        ('{"images": [', "is not valid JSON"),
        ("[1, 2]", 'not a COCO annotation file: it has no list "images"'),
        ({"images": []}, 'no list "categories"'),
        (_change(annotations={}), 'no list "annotations"'),
        (_change(categories=[]), "has no categories"),
        (_change(categories=[{"id": "a", "name": "cat"}]), "needs an integer id and a name"),
        (_change(categories=[5]), "needs an integer id and a name"),
        (
            _change(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
            '"a" and "b" share the id 1',
        ),
        (
            _change(
                categories=[{"id": 7, "name": "a"}, {"id": 9, "name": "a"}],
                annotations=[_annotation(1), _annotation(2, category_id=9)],
            ),
            'categories 7 and 9 share the name "a"',
        ),
        (_change(images=[], annotations=[]), "has no images"),
        (_change(annotations=[]), "has no annotated objects"),
        (_change(annotations=[_annotation(1, iscrowd=1)]), "has no annotated objects"),
    ],
)
@pytest.mark.parametrize("on_error", ["stop", "drop"])
def test_read_coco__unusable_file_always_stops(
    tmp_path: Path, content: Any, sentence: str, on_error: str
) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        _read(tmp_path, content, on_error=on_error)
    assert "set.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_coco__dropping_everything_stops_and_says_why(tmp_path: Path) -> None:
    content = _change(annotations=[_annotation(1, bbox=[0, 0, 0, 1])])
    with pytest.raises(DataError, match=r"no annotated objects after .*\(1 zero-area box\)"):
        _read(tmp_path, content, on_error="drop")


def test_read_coco__missing_json_or_folder_says_so(tmp_path: Path) -> None:
    json_path = _write(tmp_path, _content())
    with pytest.raises(DataError, match=r"annotation file .*no\.json does not exist"):
        read_coco(tmp_path / "no.json", tmp_path)
    with pytest.raises(DataError, match=r"image folder .*nowhere .*does not exist"):
        read_coco(json_path, tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read"):
        read_coco(tmp_path, tmp_path)


def test_read_coco__accepts_a_byte_order_mark(tmp_path: Path) -> None:
    json_path = _write(tmp_path, _content())
    json_path.write_text(json.dumps(_content()), encoding="utf-8-sig")
    assert len(read_coco(json_path, tmp_path).images) == 2


# Properties

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(["id", "image_id", "category_id", "bbox", "area", "segmentation", "iscrowd"])


@given(st.dictionaries(KEYS, VALUES, min_size=1), VALUES)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_read_coco__whatever_an_annotation_holds_is_read_or_a_data_error(
    tmp_path: Path, changes: dict[str, Any], other: Any
) -> None:
    content = _content({**_annotation(1), **changes}, other)
    index = _read(tmp_path, content, on_error="drop", check_images="header")
    kept = sum(len(image.instances) for image in index.images)
    assert kept + index.dropped["annotations"] == 4


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_segmentation__accepts_every_compressed_mask_and_no_shortened_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 60, 2)
    mask = rng.random((height, width)) < rng.choice([0.01, 0.5, 0.99])
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = rle["counts"].decode()
    size = [int(height), int(width)]
    assert find_fault({"size": size, "counts": text}, *size) is None
    assert is_empty({"size": size, "counts": text}, *size, exact=False) == (not mask.any())
    assert find_fault({"size": size, "counts": text[:-1]}, *size) is not None


@given(
    st.lists(st.floats(-30, 60, width=16), min_size=6, max_size=14).filter(
        lambda p: len(p) % 2 == 0
    )
)
@settings(max_examples=150, deadline=None)
def test_is_empty__shortcut_agrees_with_rasterising(polygon: list[float]) -> None:
    exact = is_empty([polygon], 40, 50, exact=True)
    assert is_empty([polygon], 40, 50, exact=False) == exact
