"""One page of a run, and of several: curves to read values from, classes to sort, telling masks."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.class_map import ClassMap
from deepmac.cli import main
from deepmac.data.annotations.records import ImageRecord, Instance
from deepmac.lightning.callbacks.cases import Cases
from deepmac.report import read_run
from hands import DESK, PHONE


def run_folder(folder, *, better=0.0):
    """What a training of 40 steps leaves."""
    folder.mkdir()
    with (folder / "metrics.csv").open("w", newline="") as file:
        names = ["step", "train/loss", "val/loss", "mask_gt_box/mIoU/seen",
                 "mask_gt_box/mIoU/unseen", "filled_box/mIoU/seen", "lr-Adam"]  # fmt: skip
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for step in range(1, 41):
            writer.writerow({"step": step, "train/loss": 10 / step, "lr-Adam": 1e-4})
        for step in (20, 40):
            iou = 0.5 + step / 200 + better
            writer.writerow({"step": step, "val/loss": 12 / step, "mask_gt_box/mIoU/seen": iou,
                             "mask_gt_box/mIoU/unseen": iou - 0.1,
                             "filled_box/mIoU/seen": 0.4})  # fmt: skip
    groups = {"all": 0.5, "seen": 0.6, "unseen": 0.4}
    per_class = {
        name: {"seen": seen, "instances": count, "box/AP": 0.1, "mask/AP": None,
               "mask_gt_box/mIoU": iou + better, "filled_box/mIoU": 0.5}
        for name, seen, count, iou in (("ant", True, 9, 0.7), ("bee", False, 30, 0.5),
                                       ("</script><b>", False, 2, 0.6))
    }  # fmt: skip
    metrics = {
        "step": 40, "box": {"AP": groups}, "mask": {"AP": groups},
        "mask_gt_box": {"mIoU": groups}, "filled_box": {"mIoU": groups}, "per_class": per_class,
        "instances": {}, "images": 5, "images_in_data_set": 9, "restricted": True,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    lines = {"experiment": "shapes", "command": "deepmac fit <b>", "duration": "1 min 2 s"}
    (folder / "about.json").write_text(json.dumps({"title": "shapes: it", "lines": lines}))
    (folder / "pictures").mkdir()
    Image.new("RGB", (40, 20), (200, 30, 30)).save(folder / "pictures/step_0000040.png")
    return folder


@pytest.fixture
def visit(chromium):
    """Opens a page; any request or complaint fails the test."""
    problems, contexts = [], []

    def open_page(path, **options):
        contexts.append(chromium.new_context(**{**DESK, **options}))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url)
                if not request.url.startswith(("file:", "data:")) else None)  # fmt: skip
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def test_page__says_what_was_run_and_shows_values_on_hover(visit, tmp_path, capsys):
    folder = run_folder(tmp_path / "first")
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    page = visit(folder / "report.html")
    assert page.locator("h1").inner_text() == page.title() == "shapes: it"
    assert page.locator("dd").all_inner_texts() == ["shapes", "deepmac fit <b>", "1 min 2 s", "40"]
    titles = page.locator(".panel h3").all_inner_texts()
    assert titles == ["Loss", "Mask IoU in true boxes", "Learning rate"]
    loss = page.locator(".panel >> nth=0")
    assert loss.locator(".legend b").all_inner_texts() == ["0.25", "0.3"]  # beside each other
    assert {"0", "5", "step"} <= set(loss.locator("svg text").all_text_contents())  # axes
    frame = loss.locator("svg").bounding_box()
    page.mouse.move(frame["x"] + frame["width"] * 0.5, frame["y"] + 40)
    shown = loss.locator(".legend b").all_inner_texts()
    step = int(re.search(r"step (\d+)", loss.inner_text())[1])
    assert 14 <= step <= 24
    assert float(shown[0]) == pytest.approx(10 / step, rel=0.06) and shown[1] == "0.6"
    assert "on 5 of 9 validation images" in page.locator("body").inner_text()
    assert page.locator(".wide img").evaluate("image => image.naturalWidth") == 40


def test_classes__are_sorted_by_what_one_clicks(visit, tmp_path):
    folder = run_folder(tmp_path / "first")
    main(["report", str(folder)])
    page = visit(folder / "report.html")
    table = page.locator("table").last

    def names():
        return table.locator("tbody td:first-child").all_inner_texts()

    assert names() == ["</script><b>", "ant", "bee"]
    table.locator("button", has_text="objects").click()
    assert names() == ["bee", "ant", "</script><b>"]
    table.locator("button", has_text="objects").click()
    assert names() == ["</script><b>", "ant", "bee"]
    table.locator("button", has_text="mask IoU").click()
    assert names() == ["ant", "</script><b>", "bee"]
    assert table.locator("th[aria-sort=descending]").count() == 1
    assert table.locator("tbody tr >> nth=0 >> td").all_inner_texts() == [
        "ant", "seen", "9", "10.0", "-", "70.0", "50.0",
    ]  # fmt: skip


def test_runs__are_compared_on_one_page(visit, tmp_path):
    runs = [run_folder(tmp_path / "first"), run_folder(tmp_path / "second", better=0.05)]
    out = tmp_path / "both.html"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    page = visit(out)
    labels = page.locator(".panel >> nth=0 >> .legend").inner_text()
    assert "first, training" in labels and "second, validation" in labels
    table = page.locator("table").last
    table.locator("button", has_text="change of mask IoU").click()
    assert table.locator("tbody tr >> nth=0 >> td").last.inner_text() == "5.0"


@pytest.mark.parametrize("look", [{}, {"color_scheme": "dark"}, PHONE], ids=["", "dark", "phone"])
def test_page__has_no_serious_fault_for_those_who_use_it_otherwise(visit, tmp_path, look):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    folder = run_folder(tmp_path / "first")
    main(["report", str(folder)])
    page = visit(folder / "report.html", bypass_csp=True, **look)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    found = axe.Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], one["nodes"][0]["html"]) for one in serious]


def test_folder__that_is_no_run_gets_a_sentence(tmp_path, capsys):
    for folder in (tmp_path / "none", tmp_path):
        assert main(["report", str(folder)]) == 1
        assert str(folder) in capsys.readouterr().err
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("about.json", "cases.json", "metrics.json"):
        (broken / name).write_text("[1")
    (broken / "metrics.csv").write_text("step,train/loss\n1,nan\nx,2,3,4\n3,0.5\n")
    assert read_run(broken)["panels"] == [
        {"title": "Loss", "curves": [{"label": "training", "points": [[3.0, 0.5]]}]}
    ]


def test_cases__are_the_worst_and_the_best_masks(tmp_path):
    Image.new("RGB", (100, 80), (90, 120, 30)).save(tmp_path / "a.png")

    def square(side):
        mask = np.zeros((80, 100), dtype=np.uint8)
        mask[10 : 10 + side, 10 : 10 + side] = 1
        return coco_mask.encode(np.asfortranarray(mask))

    corners = [10.0, 10.0, 50.0, 10.0, 50.0, 50.0, 10.0, 50.0]
    objects = tuple(
        Instance(n, 1, (10.0, 10.0, 50.0, 50.0), [corners], False, 1600.0) for n in range(20)
    )
    image = ImageRecord(1, "a.png", tmp_path / "a.png", 100, 80, objects)
    cases = Cases()
    cases.add(image, {n: square(2 * n + 1) for n in range(20)})
    drawn = cases.draw(ClassMap((1,), ("thing",), frozenset()))
    worst = [one["iou"] for one in drawn if one["kind"] == "worst"]
    best = [one["iou"] for one in drawn if one["kind"] == "best"]
    assert worst == pytest.approx([(2 * n + 1) ** 2 / 1600 for n in range(8)], abs=1e-3)
    assert best == pytest.approx([(2 * n + 1) ** 2 / 1600 for n in range(19, 11, -1)], abs=1e-3)
    assert drawn[0]["label"] == "thing (unseen)" and drawn[0]["picture"].startswith("data:image")
