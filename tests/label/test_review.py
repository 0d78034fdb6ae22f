"""The review sheet in a real browser: order, filters, marks by mouse, finger and key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deepmac.cli import main
from deepmac.label.marks import Marks, read_marks
from deepmac.label.review import MANY_PARTS, _count_parts, _cut, _edge_share
from hands import DESK, PHONE


@pytest.fixture(scope="module")
def sheet(model_dir: Path, data: SimpleNamespace, tmp_path_factory) -> SimpleNamespace:
    """A sheet of 12 worst masks; one class has a hostile name."""
    folder = tmp_path_factory.mktemp("review")
    content = json.loads(data.train.read_text())
    for entry in content["annotations"]:
        entry["segmentation"] = []
    content["categories"][0]["name"] = "</script><img src=x onerror=alert(1)>"
    boxes = folder / "boxes.json"
    boxes.write_text(json.dumps(content))
    words = ["--model", str(model_dir), "--images", str(data.images), "--boxes", str(boxes)]
    words += ["--out", str(folder / "out.json"), "--review", str(folder / "review.html")]
    words += ["--review-worst", "12", "--accelerator", "cpu", "--workers", "0"]
    assert main(["label", *words]) == 0
    text = (folder / "review.html").read_text()
    return SimpleNamespace(
        path=folder / "review.html",
        text=text,
        masks=json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["masks"],
        content=json.loads((folder / "out.json").read_text()),
    )


@pytest.fixture
def visit(chromium: Any, sheet: SimpleNamespace) -> Iterator[Any]:
    """Opens the sheet; a request to anywhere else or a complaint fails the test."""
    problems: list[str] = []
    contexts = []

    def open_page(**options: Any) -> Any:
        context = chromium.new_context(**{**DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda request: problems.append(request.url)
                if not request.url.startswith(("file:", "data:", "blob:")) else None)  # fmt: skip
        page.goto(sheet.path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def scores(page: Any) -> list[float]:
    return [float(text) for text in page.locator("figure:visible b").all_inner_texts()]


def counts(page: Any) -> str:
    return page.locator("#counts").inner_text()


def saved(page: Any) -> Marks:
    with page.expect_download() as waiting:
        page.click("#save")
    assert waiting.value.suggested_filename == "wrong_masks.json"
    return read_marks(Path(waiting.value.path()))


def test_sheet__is_one_file_with_the_worst_masks(sheet: SimpleNamespace) -> None:
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", sheet.text)
    worst = sorted(a["mask_score"] for a in sheet.content["annotations"])[:12]
    overall = [mask for mask in sheet.masks if mask["overall"]]
    assert [mask["score"] for mask in overall] == worst
    by_class: dict[str, list[float]] = {}
    for mask in sheet.masks:
        by_class.setdefault(mask["category"], []).append(mask["score"])
    assert all(values == sorted(values) for values in by_class.values())
    assert len(by_class) == 10
    assert all(mask["picture"].startswith("data:image/jpeg;base64,") for mask in sheet.masks)


def test_crop__has_the_pictures_own_pixels_and_the_masks_own_outline() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    mask = np.zeros((90, 120), dtype=np.uint8)
    mask[30:60, 40:80] = 1
    mask[40:50, 50:60] = 0  # a hole
    rle = coco_mask.encode(np.asfortranarray(mask))
    cut = _cut(pixels, np.array([40.0, 30, 80, 60]), rle, 1024)
    assert cut["window"] == [26, 16, 69, 59] and cut["size"] == [120, 90]
    assert cut["outline"].count("M") == 2
    numbers = np.array(re.findall(r"[\d.]+", cut["outline"]), dtype=float).reshape(-1, 2)
    assert numbers.min(0).tolist() == [40, 30] and numbers.max(0).tolist() == [80, 60]
    assert cut["edge"] == 1.0 and cut["parts"] == 1


def test_crop__of_a_box_far_beyond_the_picture_is_cut_at_its_edge() -> None:
    rle = coco_mask.encode(np.asfortranarray(np.ones((20, 30), dtype=np.uint8)))
    for far in (1e9, 1e19):
        cut = _cut(np.zeros((20, 30, 3), dtype=np.uint8), np.array([0, 0, 50, far]), rle, 64)
        assert cut["box"] == [0, 0, 30, 20] and cut["window"] == [0, 0, 30, 20]


def test_measures__of_what_the_filters_ask_for() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:30, 10:30] = True
    assert _edge_share(mask, (10, 10, 30, 30)) == 1.0
    assert _edge_share(mask, (5, 5, 35, 35)) == 0.0
    assert _count_parts(mask) == 1
    mask[2:4, 2:9], mask[35:38, 30:38] = True, True
    mask[0, 39] = True  # a single pixel is no part
    assert _count_parts(mask) == MANY_PARTS


def test_order__is_lowest_score_first_and_every_picture_shows(visit: Any) -> None:
    page = visit()
    shown = scores(page)
    assert len(shown) == 12 and shown == sorted(shown)
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth && i.src)"
    assert page.evaluate(f"{broken}.length") == 0


def test_filters__class_score_size_edge_parts_and_marks(visit: Any, sheet: SimpleNamespace) -> None:
    page = visit()

    def expect(wanted) -> None:
        assert scores(page) == [round(m["score"], 2) for m in sheet.masks if wanted(m)]

    name = sheet.content["categories"][3]["name"]
    page.select_option("#class", name)
    expect(lambda mask: mask["category"] == name)
    page.select_option("#class", sheet.content["categories"][0]["name"])
    assert page.locator("figure:visible").count() > 0
    page.select_option("#class", "")
    middle = sheet.masks[5]["score"]
    page.fill("#score", str(middle))
    expect(lambda mask: mask["overall"] and mask["score"] <= middle)
    page.fill("#score", "1")
    page.check("#edge")
    expect(lambda mask: mask["overall"] and mask["edge"] >= 0.3)
    page.uncheck("#edge")
    page.check("#parts")
    expect(lambda mask: mask["overall"] and mask["parts"] >= MANY_PARTS)
    page.uncheck("#parts")
    page.select_option("#size", "small")

    def area(mask) -> float:
        return (mask["box"][2] - mask["box"][0]) * (mask["box"][3] - mask["box"][1])

    expect(lambda mask: mask["overall"] and area(mask) < 32**2)
    page.select_option("#size", "")
    page.keyboard.press("Escape")
    page.click("figure:visible >> nth=2 >> [data-mark=wrong]")
    page.select_option("#marked", "open")
    assert len(scores(page)) == 11
    page.select_option("#marked", "wrong")
    assert scores(page) == [round(sheet.masks[2]["score"], 2)]


def test_mouse__marks_are_counted_saved_and_survive_a_reload(
    visit: Any, sheet: SimpleNamespace
) -> None:
    page = visit()
    assert page.locator("#after").is_hidden()
    for number, mark in enumerate(("accepted", "wrong", "redraw", "wrong", "wrong")):
        page.click(f"figure >> nth={number} >> [data-mark={mark}]")
    page.click("figure >> nth=4 >> [data-mark=wrong]")  # again: no mark
    ids = [mask["id"] for mask in sheet.masks]
    expected = Marks((ids[1], ids[3]), (ids[2],), (ids[0],))
    assert saved(page) == expected
    assert "1 accepted, 2 wrong, 1 to redraw" in counts(page)
    assert page.locator("#after").is_visible()
    page.reload()
    assert "1 accepted, 2 wrong, 1 to redraw" in counts(page)
    assert page.locator("figure.wrong").count() == 2
    assert saved(page) == expected


def test_keyboard__needs_no_focused_card(visit: Any, sheet: SimpleNamespace) -> None:
    page = visit()
    ids = [mask["id"] for mask in sheet.masks]
    page.keyboard.press("x")  # the first one is the current one
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    alt = "() => document.querySelector('dialog[open] img').alt"
    third = page.evaluate(alt)
    page.keyboard.press("ArrowRight")
    assert page.evaluate(alt) != third or sheet.masks[2]["score"] == sheet.masks[3]["score"]
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert saved(page) == Marks((ids[0],), (ids[2],), (ids[3],))
    page.keyboard.press("c")
    assert page.locator("#class").input_value() != ""
    page.select_option("#class", "")
    page.keyboard.press("h")
    assert page.locator("figure svg >> nth=0").is_hidden()


def test_picture__is_shown_whole_on_request(visit: Any, sheet: SimpleNamespace) -> None:
    page = visit()
    page.click("figure .frame >> nth=1")
    page.locator("dialog[open]").wait_for()
    page.click("#whole")
    page.wait_for_function(
        "size => { const i = document.querySelector('dialog img');"
        " return i.naturalWidth === size[0] && i.naturalHeight === size[1]; }",
        arg=sheet.masks[1]["size"],
    )
    assert page.locator("dialog svg").get_attribute("viewBox") == "0 0 96 96"
    page.keyboard.press("w")
    assert page.locator("dialog img").get_attribute("src").startswith("data:")
    page.click("#close")


def test_phone__marks_by_finger(visit: Any, sheet: SimpleNamespace) -> None:
    page = visit(**PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("figure >> nth=0 >> [data-mark=redraw]").tap()
    page.locator("figure >> nth=1 >> .frame").tap()
    page.locator("dialog[open] [data-mark=wrong]").tap()
    page.locator("#close").tap()
    for button in page.locator("figure >> nth=0 >> button").all():
        assert button.bounding_box()["height"] >= 44
    ids = [mask["id"] for mask in sheet.masks]
    assert saved(page) == Marks((ids[1],), (ids[0],), ())


@pytest.mark.parametrize("look", [{}, {"color_scheme": "dark"}, PHONE], ids=["", "dark", "phone"])
def test_sheet__has_no_serious_fault_for_those_who_use_it_otherwise(visit: Any, look: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(bypass_csp=True, **look)
    page.click("figure >> nth=0 >> [data-mark=wrong]")
    page.click("figure >> nth=1 >> [data-mark=accepted]")
    for step in ("sheet", "larger"):
        if step == "larger":
            page.click("figure .frame >> nth=2")
        found = axe.Axe().run(page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert not serious, [(one["id"], one["nodes"][0]["html"]) for one in serious]


def test_screenshot__holds_a_picture(visit: Any, tmp_path: Path) -> None:
    from PIL import Image

    visit().screenshot(path=tmp_path / "sheet.png")
    picture = Image.open(tmp_path / "sheet.png")
    assert picture.size == (1400, 900)
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 500
