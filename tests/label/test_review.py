"""The review sheet in a real browser: lowest score first, a class filter, all by keyboard."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deepmac.cli import main

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


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
    return SimpleNamespace(
        path=folder / "review.html", content=json.loads((folder / "out.json").read_text())
    )


@pytest.fixture(scope="module")
def page(sheet: SimpleNamespace) -> Iterator[Any]:
    """The sheet in headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("dialog", lambda dialog: page.problems.append(dialog.message))
        page.on("request", lambda request: page.problems.append(request.url)
                if not request.url.startswith(("file:", "data:", "blob:")) else None)  # fmt: skip
        page.goto(sheet.path.as_uri())
        yield page
        browser.close()


def scores(page: Any) -> list[float]:
    return [float(text) for text in page.locator("figure:visible b").all_inner_texts()]


def test_sheet__is_one_file_with_the_worst_masks(sheet: SimpleNamespace) -> None:
    text = sheet.path.read_text()
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", text)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    worst = sorted(a["mask_score"] for a in sheet.content["annotations"])[:12]
    overall = [mask for mask in data["masks"] if mask["overall"]]
    assert [mask["score"] for mask in overall] == worst
    by_class: dict[str, list[float]] = {}
    for mask in data["masks"]:
        by_class.setdefault(mask["category"], []).append(mask["score"])
    assert all(values == sorted(values) for values in by_class.values())
    assert len(by_class) == 10
    assert all(mask["picture"].startswith("data:image/jpeg;base64,") for mask in data["masks"])


def test_browser__shows_them_in_order_and_asks_for_nothing_else(page: Any) -> None:
    shown = scores(page)
    assert len(shown) == 12 and shown == sorted(shown)
    broken = "[...document.images].filter(i => !i.hidden && i.complete && !i.naturalWidth && i.src)"
    assert page.evaluate(f"{broken}.length") == 0
    assert page.problems == []


def test_class_filter__shows_one_class(page: Any, sheet: SimpleNamespace) -> None:
    name = sheet.content["categories"][3]["name"]
    page.select_option("#class", name)
    captions = page.locator("figure:visible figcaption").all_inner_texts()
    assert captions and all(f" {name}" in caption for caption in captions)
    assert scores(page) == sorted(scores(page))
    page.select_option("#class", sheet.content["categories"][0]["name"])
    assert page.locator("figure:visible").count() > 0
    page.select_option("#class", "")
    assert len(scores(page)) == 12 and page.problems == []


def test_keyboard__moves_enlarges_marks_and_saves(page: Any, sheet: SimpleNamespace) -> None:
    page.locator("body").press("ArrowRight")
    page.keyboard.press("ArrowRight")
    focused = "document.activeElement.querySelector('img').alt"
    third = page.evaluate("[...document.querySelectorAll('figure')].filter(f => !f.hidden)[1]"
                          ".querySelector('img').alt")  # fmt: skip
    assert page.evaluate(focused) == third
    page.keyboard.press("x")
    assert page.locator("figure.wrong").count() == 1
    page.keyboard.press("Enter")
    assert page.locator("dialog[open] img").get_attribute("alt") == third
    page.keyboard.press("ArrowDown")
    assert page.locator("dialog[open] img").get_attribute("alt") != third
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("c")
    assert page.locator("#class").input_value() != ""
    page.select_option("#class", "")
    with page.expect_download() as waiting:
        page.click("#save")
    saved = json.loads(Path(waiting.value.path()).read_text())
    assert len(saved["annotation_ids"]) == 1
    assert saved["annotation_ids"][0] in {a["id"] for a in sheet.content["annotations"]}
    assert page.problems == []


def test_screenshot__holds_a_picture(page: Any, tmp_path: Path) -> None:
    from PIL import Image

    page.screenshot(path=tmp_path / "sheet.png")
    picture = Image.open(tmp_path / "sheet.png")
    assert picture.size == (1000, 700)
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 500
