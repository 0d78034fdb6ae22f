"""Boxes with points: their masks are corrected, all others are what they were, to the byte."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmac.cli import main
from deepmac.label.plan import ImageTask
from deepmac.label.views import put_upright, views_of
from deepmac.models.files import write_model
from networks import tiny_card, tiny_model


@pytest.fixture
def job(model_dir: Path, data: SimpleNamespace, tmp_path: Path, capsys):
    """Labels the boxes of three pictures; gives the annotations by id, and what was said."""
    content = json.loads(data.train.read_text())
    content["images"] = content["images"][:3]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    for entry in content["annotations"]:
        entry["segmentation"] = []

    def run(name: str, *words: str, model: Path = model_dir, points=None) -> SimpleNamespace:
        for number, entry in enumerate(content["annotations"]):
            entry.pop("points", None)
            if points and number in points:
                entry["points"] = points[number](entry["bbox"])
        (tmp_path / "boxes.json").write_text(json.dumps(content))
        place = ["--boxes", str(tmp_path / "boxes.json"), "--out", str(tmp_path / name)]
        given = ["--model", str(model), "--images", str(data.images), *place]
        code = main(["label", *given, "--accelerator", "cpu", "--workers", "0", *words])
        said = capsys.readouterr()
        masks = []
        if code == 0:
            made = json.loads((tmp_path / name).read_text())["annotations"]
            masks = [entry["segmentation"] for entry in made]
        return SimpleNamespace(code=code, masks=masks, out=said.out, err=said.err.strip())

    return run


def middle(label):
    return lambda box: [[box[0] + box[2] / 2, box[1] + box[3] / 2, label]]


@pytest.mark.parametrize("words", [(), ("--refine", "full"), ("--tiles",)])
def test_only_boxes_with_points__get_other_masks(job, words) -> None:
    before = job("a.json", *words)
    after = job("b.json", *words, points={1: middle(1), 4: middle(0)})
    differ = [
        n
        for n, pair in enumerate(zip(before.masks, after.masks, strict=True))
        if pair[0] != pair[1]
    ]
    assert differ == [1, 4]
    assert "2 annotations with points" in after.out and "with points" not in before.out


def test_points_of_other_tools__are_left_alone(job) -> None:
    before = job("a.json")
    after = job("b.json", points={1: lambda box: "5,6", 2: lambda box: [[1, 2], [3, 4]]})
    assert after.masks == before.masks


def test_a_model_without_a_click_head__says_so_and_takes_the_boxes(job, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    card = tiny_card()
    write_model(folder, tiny_model(card).state_dict(), card)
    before = job("a.json", model=folder)
    after = job("b.json", model=folder, points={1: middle(1)})
    assert after.masks == before.masks
    assert "1 annotation with points, which this model does not take" in after.out


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (lambda box: [[box[0], box[1], 2], [1, 1, 1]], "its label is 1"),
        (lambda box: [[box[0] + 1, box[1] + 1, 1], [1e9, 2, 0]], "outside the image"),
        (lambda box: [[box[0] + 1.2 * box[2], box[1], 1]], "lies outside its box"),
        (lambda box: [[float("nan"), 2, 1]], "outside the image"),
    ],
)
def test_malformed_points__are_one_sentence(job, points, sentence) -> None:
    stopped = job("a.json", points={2: points})
    assert stopped.code == 1 and sentence in stopped.err
    assert len(stopped.err.splitlines()) == 1 and "annotation " in stopped.err


def test_half_done_jobs__do_not_go_on_with_other_points(job) -> None:
    first = job("a.json", points={1: middle(1)})
    assert first.code == 0
    other = job("a.json", points={1: middle(0)})
    assert other.code == 1 and "exists already" in other.err


@given(
    degrees=st.floats(-180, 180).filter(lambda d: abs(d) > 1e-3),
    across=st.floats(-0.5, 0.5),
    down=st.floats(-0.5, 0.5),
)
def test_clicks_on_turned_boxes__are_turned_with_them(degrees, across, down) -> None:
    box, turn = np.array([150.0, 140.0, 350.0, 220.0]), np.radians(degrees)
    u, v = across * 200, down * 80  # along the sides of the box, from its centre
    x = 250 + u * np.cos(turn) - v * np.sin(turn)
    y = 180 + u * np.sin(turn) + v * np.cos(turn)
    task = ImageTask(
        0, Path("a.png"), (500, 400), np.arange(1), box[None],
        np.array([degrees]), np.array([[[x, y, 1.0], [np.nan] * 3]]),
    )  # fmt: skip
    (view,) = views_of(task, 128)
    _, within, clicks = put_upright(view, np.zeros((400, 500, 3), np.uint8), task.boxes, 128)
    x0, y0, x1, y1 = within[0]
    expected = [(x0 + x1) / 2 + across * (x1 - x0), (y0 + y1) / 2 + down * (y1 - y0), 1]
    np.testing.assert_allclose(clicks[0, 0], expected, atol=1e-6)
    assert np.isnan(clicks[0, 1, :2]).all()
