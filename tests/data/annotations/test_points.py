"""Points on objects: read, checked, moved along, padded."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torchvision.transforms import v2

from deepmac.check_data.check import check_data, print_report
from deepmac.data.annotations.coco import read_coco
from deepmac.data.collate import collate
from deepmac.data.dataset import CocoInstances
from deepmac.data.statistics import count
from deepmac.data.transforms.compose import Letterbox
from deepmac.errors import DataError


def write(folder, *points):
    """Two objects on a picture of 40 x 20, with the points given."""
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(folder / "one.png")
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 20, 10], **entry}
        for i, entry in enumerate(points)
    ]
    content = {
        "images": [{"id": 1, "file_name": "one.png", "width": 40, "height": 20}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": annotations,
    }
    (folder / "x.json").write_text(json.dumps(content))
    return folder / "x.json", folder


def sample_of(index, transform):
    return CocoInstances(
        index,
        label_of=index.label_of,
        masked_category_ids=frozenset(),
        transform=transform,
        training=True,
    )[0]


def test_points__are_read_and_counted(tmp_path):
    index = read_coco(*write(tmp_path, {"points": [[5, 6.5, 1], [30, 3, 0]]}, {}))
    first, second = index.images[0].instances
    assert first.points == ((5.0, 6.5, 1), (30.0, 3.0, 0))
    assert second.points == ()
    assert count(index).points == 1


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ({"x": 1}, "not a list of"),
        ([[1, 2]], "three numbers"),
        ([["1", 2, 1]], "three numbers"),
        ([7], "three numbers"),
        ([[1, 2, 2]], "label is 1"),
        ([[41, 2, 1]], "outside the image of 40 x 20"),
        ([[float("nan"), 2, 1]], "outside the image"),
    ],
)
def test_unusable_points__stop_with_a_sentence_or_are_left_out_and_counted(tmp_path, points, words):
    place = write(tmp_path, {"points": points}, {"points": [[1, 1, 1]]})
    with pytest.raises(DataError, match=words) as caught:
        read_coco(*place)
    assert "annotation 1" in str(caught.value)
    index = read_coco(*place, on_error="drop")
    assert index.dropped["points"] == 1
    assert [len(item.points) for item in index.images[0].instances] == [0, 1]


def test_points__move_with_the_image_and_leave_it(tmp_path):
    index = read_coco(
        *write(tmp_path, {"points": [[5, 6, 1], [38, 3, 0]]}, {"points": [[9, 9, 1]]})
    )
    sample = sample_of(index, v2.Compose([v2.RandomHorizontalFlip(1.0), Letterbox(80)]))
    assert sample["points"][0].tolist() == [[70.0, 12.0], [4.0, 6.0]]
    assert sample["points"][1, 0].tolist() == [62.0, 18.0]
    assert sample["points"][1, 1].isnan().all()
    assert sample["point_labels"].tolist() == [[1, 0], [1, 0]]
    cropped = sample_of(index, v2.Lambda(lambda x: v2.functional.crop(x, 0, 0, 20, 30)))
    assert cropped["points"][0, 0].tolist() == [5.0, 6.0]
    assert cropped["points"][0, 1].isnan().all()


def test_batches__have_points_only_where_the_set_has_some(tmp_path):
    index = read_coco(*write(tmp_path, {"points": [[5, 6, 1], [9, 9, 0]]}, {}))
    batch = collate([sample_of(index, Letterbox(64))], max_boxes=4)
    assert batch["points"].shape == (1, 4, 2, 2) and batch["point_labels"].shape == (1, 4, 2)
    assert batch["points"][0, 1:].isnan().all()
    (tmp_path / "none").mkdir()
    bare = read_coco(*write(tmp_path / "none", {}, {}))
    assert not torch.is_tensor(collate([sample_of(bare, Letterbox(64))]).get("points"))


def test_check_data__counts_points_and_lists_the_unusable(tmp_path):
    path, folder = write(tmp_path, {"points": [[5, 6, 1]]}, {"points": [[99, 0, 1]]})
    every = {"masked_classes": "all"}  # there are no masks here
    settings = {**every, "train_json": str(path), "val_json": str(path), "image_dir": str(folder)}
    report = check_data(settings, tmp_path / "out")
    assert [problem.kind for problem in report.problems] == ["malformed points"] * 2
    console = Console(record=True, width=120, file=io.StringIO())
    print_report(report, console)
    assert "objects with points" in console.export_text()
