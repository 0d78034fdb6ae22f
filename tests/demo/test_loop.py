"""From boxes to a data set put right: label, look, mark, redraw in the browser, label the rest."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from deepmac.cli import main
from deepmac.data.shapes.data_set import write_shapes
from deepmac.demo.app import make_app
from deepmac.demo.corrections import Corrections
from deepmac.label.marks import read_marks
from deepmac.models.files import load_model
from deepmac.models.hub import save_pretrained
from hands import DESK, drag, masked


@pytest.fixture
def label(model, tmp_path):
    """Runs the command on 60 boxes of 12 pictures."""
    save_pretrained(model, tmp_path / "model")
    write_shapes(tmp_path / "set", num_train=40, num_val=1, size=96)
    content = json.loads((tmp_path / "set/annotations/instances_train.json").read_text())
    for entry in content["annotations"]:
        entry["segmentation"] = []
    content["annotations"] = content["annotations"][:60]
    (tmp_path / "boxes.json").write_text(json.dumps(content))

    def run(boxes, out, *words):
        common = ["--model", str(tmp_path / "model"), "--images", str(tmp_path / "set/images")]
        paths = ["--boxes", str(tmp_path / boxes), "--out", str(tmp_path / out)]
        machine = ["--accelerator", "cpu", "--workers", "0"]
        assert main(["label", *common, *paths, *machine, *words]) == 0
        return json.loads((tmp_path / out).read_text())

    return run


def by_id(content):
    return {entry["id"]: entry for entry in content["annotations"]}


def test_loop__closes(label, visitor, serve, tmp_path):
    first = label("boxes.json", "masks.json", "--review", str(tmp_path / "review.html"))
    assert len(first["annotations"]) == 60

    # Mark on the sheet: five wrong, two to be redrawn.
    page = visitor((tmp_path / "review.html").as_uri(), **DESK)
    for number in range(5):
        page.click(f"figure >> nth={number} >> [data-mark=wrong]")
    for number in (5, 6):
        page.click(f"figure >> nth={number} >> [data-mark=redraw]")
    with page.expect_download() as waiting:
        page.click("#save")
    waiting.value.save_as(tmp_path / "wrong_masks.json")
    marks = read_marks(tmp_path / "wrong_masks.json")
    assert (len(marks.wrong), len(marks.redraw)) == (5, 2)

    # Redraw them in the demo: each gets a box of its own.
    work = Corrections(tmp_path / "masks.json", tmp_path / "set/images", marks)
    address = serve(make_app(load_model(tmp_path / "model"), corrections=work))
    page = visitor(address, **DESK)
    drawn = {}
    for number, picture in enumerate(work.overview()["pictures"]):
        page.locator("#status", has_text=picture["file_name"]).wait_for()
        masked(page, len(work.boxes(number)["boxes"]))
        for identity in picture["marked"]:
            row = next(n for n, box in enumerate(work.boxes(number)["boxes"])
                       if box["id"] == identity)  # fmt: skip
            page.click(f"#list .pick >> nth={row}")
            assert "redraw" in page.locator(f"#list .name >> nth={row}").text_content()
            x0, y0, x1, y1 = work.boxes(number)["boxes"][row]["xyxy"]
            drag(page, (x1, y1), (x1 - (x1 - x0) / 4, y1 - (y1 - y0) / 4))
            page.locator("#status", has_text="Saved in masks.json").wait_for()
            drawn[identity] = [x0, y0, (x1 - x0) * 0.75, (y1 - y0) * 0.75]
        page.keyboard.press("PageDown")
    assert set(drawn) == set(marks.redraw)
    human = by_id(json.loads((tmp_path / "masks.json").read_text()))
    for identity, box in drawn.items():
        assert human[identity]["mask_source"] == "human"
        np.testing.assert_allclose(human[identity]["bbox"], box, atol=1)
    assert all(human[i] == entry for i, entry in by_id(first).items() if i not in drawn)

    # The rest anew, with other settings; even if a human's mask is on the list, it stays.
    listed = {"format": "deepmac-review-1", "wrong": [*marks.wrong, marks.redraw[0]]}
    (tmp_path / "wrong_masks.json").write_text(json.dumps(listed))
    words = ["--redo", str(tmp_path / "wrong_masks.json"), "--box-margin", "0.2"]
    last = by_id(label("masks.json", "better.json", *words))
    coco = COCO(str(tmp_path / "better.json"))
    assert len(coco.anns) == 60
    for annotation in coco.anns.values():
        assert coco.annToMask(annotation).sum() == annotation["area"]
    changed = {i for i, entry in last.items() if entry != human[i]}
    assert changed and changed <= set(marks.wrong)
    assert all(last[i] == human[i] for i in drawn)
