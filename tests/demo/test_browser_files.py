"""Files in and out of the page in a real Chromium: several pictures, boxes, downloads, reloads."""
# ruff: noqa: RUF001 - the page writes sizes with a multiplication sign

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from deepmac.demo.app import make_app
from deepmac.demo.pictures import Limits
from deepmac.label.masks.calibration import Calibration
from hands import DESK, PHONE, boxes, download, drag, load, masked


@pytest.fixture(scope="module")
def address(model, serve):
    limits = Limits(upload_megabytes=2, megapixels=1, kept=3)
    calibration = Calibration((0.0, 1.0), (0.5, 0.7))
    return serve(make_app(model, name="tiny", limits=limits, calibration=calibration))


@pytest.fixture
def visit(visitor, address):
    return lambda **options: visitor(address, **{**DESK, **options})


def file(name, content, kind="image/png"):
    return {"name": name, "mimeType": kind, "buffer": content}


def status(page):
    return page.locator("#status").text_content()


def opened(page, name):
    page.wait_for_function(
        "name => document.querySelector('#file-name').textContent === name", arg=name
    )


def test_downloads__hold_what_is_on_the_screen(visit, file_of, tmp_path):
    page = visit()
    load(page, file_of(400, 300), name="two blobs.png")
    drag(page, (80, 60), (280, 240))
    page.fill("#class", "cup")
    page.keyboard.press("Enter")
    drag(page, (20, 30), (60, 90))
    masked(page, 2)
    assert re.search(r"IoU 0\.[56]\d expected", status(page))  # the calibrated one, in words
    name, content = download(page, "coco")
    assert name == "two blobs_coco.json"
    (tmp_path / name).write_bytes(content)
    coco = COCO(tmp_path / name)
    assert coco.imgs[1] == {"id": 1, "file_name": "two blobs.png", "width": 400, "height": 300}
    first, second = coco.anns.values()
    assert coco.cats[first["category_id"]]["name"] == "cup"
    assert 0.5 < first["mask_score"] < 0.7  # the calibrated one
    mask = coco.annToMask(first)
    assert mask.sum() == first["area"] > 0

    name, content = download(page, "png")
    indices = np.asarray(Image.open(io.BytesIO(content)))
    assert name == "two blobs_masks.png"
    np.testing.assert_array_equal(indices == 1, (mask > 0) & (coco.annToMask(second) == 0))

    name, content = download(page, "overlay")
    drawn = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    original = np.asarray(Image.open(io.BytesIO(file_of(400, 300)))).astype(int)
    assert name == "two blobs_overlay.png" and drawn.shape == original.shape
    changed = np.abs(drawn - original).max(axis=2) > 8
    assert changed[mask > 0].mean() > 0.9  # as the browser decodes the same run lengths
    far = np.asarray(Image.fromarray(indices > 0).reduce(1))
    assert changed[~far].mean() < 0.05  # but for half an outline

    name, content = download(page, "yolo")
    assert name == "two blobs_yolo.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["data.yaml", "labels/two blobs.txt"]
        assert "cup" in archive.read("data.yaml").decode()
        outline = archive.read("labels/two blobs.txt").decode().split("\n")[0].split()[1:]
    points = np.array(outline, dtype=float).reshape(-1, 2) * (400, 300)
    ys, xs = np.nonzero(mask)
    np.testing.assert_allclose(points.min(0), (xs.min(), ys.min()), atol=2)
    np.testing.assert_allclose(points.max(0), (xs.max() + 1, ys.max() + 1), atol=2)


def test_overlay__of_a_jpeg_is_a_jpeg(visit, file_of):
    """A PNG of a large photograph takes a browser seconds, all of it compression."""
    page = visit()
    load(page, file_of(300, 200, "JPEG"), name="a.jpg", kind="image/jpeg")
    page.keyboard.press("n")
    masked(page, 1)
    name, content = download(page, "overlay")
    assert name == "a_overlay.jpg"
    assert Image.open(io.BytesIO(content)).format == "JPEG"


def test_copy__overlay_and_coco_go_to_the_clipboard(visit, file_of):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    load(page, file_of(300, 200))
    page.keyboard.press("n")
    masked(page, 1)
    page.click("[data-does=copyCoco]")
    page.locator("#status", has_text="copied").wait_for()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["annotations"][0]["bbox"] == [100, 66.67, 100, 66.66]
    page.click("[data-does=copyOverlay]")
    page.locator("#status", has_text="Overlay copied").wait_for()
    kinds = page.evaluate("navigator.clipboard.read().then(all => all.flatMap(i => i.types))")
    assert kinds == ["image/png"]


def test_pictures__several_with_next_and_previous(visit, file_of):
    page = visit()
    page.set_input_files("#file", [file(f"{n}.png", file_of(100 + n, 80)) for n in range(3)])
    opened(page, "0.png")
    page.keyboard.press("n")
    masked(page, 1)
    assert page.locator("#place").text_content() == "1 / 3"
    page.click("[data-does=on]")
    opened(page, "1.png")
    assert page.locator("#list li").count() == 0
    page.keyboard.press("PageDown")
    opened(page, "2.png")
    assert page.locator("#tools [data-does=on]").is_disabled()
    page.keyboard.press("n")
    masked(page, 1)
    page.keyboard.press("PageUp")
    opened(page, "1.png")
    page.keyboard.press("PageUp")
    opened(page, "0.png")
    masked(page, 1)  # as it was left
    name, content = download(page, "coco")
    coco = json.loads(content)
    assert name == "pictures_coco.json"
    assert [image["file_name"] for image in coco["images"]] == ["0.png", "2.png"]
    assert [one["image_id"] for one in coco["annotations"]] == [1, 2]
    name, content = download(page, "png")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["0.png", "2.png"]
    load(page, file_of(90, 80), name="another.png")  # opening another keeps all that was done
    assert page.locator("#place").text_content() == "4 / 4"
    page.click("#tools [data-does=close]")
    opened(page, "2.png")
    masked(page, 1)


def test_pictures__one_that_is_open_is_not_opened_twice(visit, file_of):
    page = visit()
    for _ in range(2):
        load(page, file_of(100, 80), name="a.png")
        page.keyboard.press("n")
    masked(page, 2)
    load(page, file_of(100, 80), name="b.png")  # a copy under another name is a picture of its own
    page.locator("#place", has_text="2 / 2").wait_for()


def test_folder__opens_its_pictures(visit, file_of, tmp_path):
    folder = tmp_path / "set"
    (folder / "inner").mkdir(parents=True)
    for name in ("a.png", "inner/b.png"):
        (folder / name).write_bytes(file_of(60 + len(name), 50))
    (folder / "readme.md").write_text("no picture")
    page = visit()
    page.set_input_files("#folder", str(folder))
    page.locator("#place", has_text="1 / 2").wait_for()
    names = {page.locator("#file-name").text_content()}
    page.keyboard.press(".")
    page.locator("#place", has_text="2 / 2").wait_for()
    names.add(page.locator("#file-name").text_content())
    assert names == {"a.png", "inner/b.png"}


def test_reload__brings_pictures_boxes_and_history_back(visit, file_of):
    page = visit()
    page.set_input_files("#file", [file(f"{n}.png", file_of(120 + n, 80)) for n in range(2)])
    opened(page, "0.png")
    page.keyboard.press("n")
    page.keyboard.press("c")
    page.keyboard.type("cup")
    page.keyboard.press("Enter")
    page.keyboard.press("PageDown")
    opened(page, "1.png")
    drag(page, (10, 10), (60, 50))
    masked(page, 1)
    page.click("[data-does=clear]")
    page.keyboard.press("Control+z")
    masked(page, 1)
    page.reload()
    opened(page, "1.png")
    masked(page, 1)
    np.testing.assert_allclose(boxes(page)[-1], [10, 10, 50, 40], atol=1)
    page.keyboard.press("Control+z")
    assert page.locator("#list li").count() == 0
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("PageUp")
    opened(page, "0.png")
    masked(page, 1)
    assert page.locator("#list .name").text_content() == "1 cup"
    assert page.locator("#chips button").count() == 1
    page.click("#tools [data-does=close]")
    opened(page, "1.png")
    page.click("#tools [data-does=close]")
    page.locator("#empty").wait_for()
    page.reload()
    page.locator("#limits", has_text="JPEG").wait_for()
    assert page.locator("#empty").is_visible()
    load(page, file_of(120, 80), name="renamed.png")  # the same picture under another name
    masked(page, 1)
    assert page.locator("#list .name").text_content() == "1 cup"


def test_boxes__are_loaded_from_coco_json_with_their_masks(visit, file_of):
    page = visit()
    page.set_input_files("#file", [file(f"{n}.png", file_of(100 + n, 80)) for n in range(2)])
    opened(page, "0.png")
    square = [[20.0, 20.0, 60.0, 20.0, 60.0, 50.0, 20.0, 50.0]]
    content = {
        "images": [{"id": 7, "file_name": "0.png", "width": 100, "height": 80},
                   {"id": 8, "file_name": "sub/1.png", "width": 101, "height": 80},
                   {"id": 9, "file_name": "2.png", "width": 101, "height": 80}],
        "categories": [{"id": 3, "name": "cup"}, {"id": 5, "name": "spoon"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [20, 20, 40, 30],
             "segmentation": square},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [5, 5, 20, 20]},
            {"id": 3, "image_id": 8, "category_id": 3, "bbox": [1, 2, 30, 40]},
            {"id": 4, "image_id": 7, "category_id": 3, "bbox": [5, 5, -20, 20]},
        ],
    }  # fmt: skip
    boxes_file = file("boxes.json", json.dumps(content).encode(), "application/json")
    page.set_input_files("#boxes", boxes_file)
    page.locator("#status", has_text="3 boxes loaded for 2 pictures").wait_for()
    masked(page, 2)
    assert page.locator("#list .name").all_text_contents() == ["1 spoon", "2 cup"]
    assert page.locator("#list .size").first.text_content().endswith("mask of the file")
    saved = json.loads(download(page, "coco")[1])
    assert saved["annotations"][0]["area"] == 1200  # as it was, not the model's
    assert len(saved["annotations"]) == 3  # the other picture's too, which was not looked at yet
    page.keyboard.press("PageDown")
    opened(page, "1.png")
    masked(page, 1)
    page.set_input_files("#boxes", boxes_file)  # once more: no box is laid on itself
    page.locator("#status", has_text="loaded").wait_for()
    page.wait_for_timeout(100)
    assert page.locator("#list li").count() == 1
    page.set_input_files("#boxes", file("x.json", b"{}", "application/json"))
    page.locator("#error", has_text="x.json is no COCO json").wait_for()


def test_boxes__are_loaded_from_yolo_text(visit, file_of):
    page = visit()
    load(page, file_of(200, 100), name="shot.png")
    lines = b"1 0.5 0.5 0.2 0.4\n0 0.1 0.1 0.2 0.1 0.2 0.3\n"
    names = b"path: x\nnames:\n  0: 'cup'\n  1: spoon\n"
    files = [file("shot.txt", lines, "text/plain"), file("data.yaml", names, "text/yaml")]
    page.set_input_files("#boxes", files)
    masked(page, 2)
    np.testing.assert_allclose(boxes(page), [[80, 30, 40, 40], [20, 10, 20, 20]])
    assert page.locator("#list .name").all_text_contents() == ["1 spoon", "2 cup"]
    page.keyboard.press("Control+z")  # loading is a step like any other
    assert page.locator("#list li").count() == 0
    page.set_input_files("#boxes", file("shot.txt", b"1 0.5 0.5 x 0.4\n", "text/plain"))
    page.locator("#error", has_text="shot.txt, line 1 is no YOLO box").wait_for()
    page.set_input_files("#boxes", file("other.txt", b"1 0.5 0.5 0.1 0.4\n", "text/plain"))
    page.locator("#error", has_text="No open picture").wait_for()


def test_boxes__more_than_two_hundred(visit, file_of):
    page = visit()
    load(page, file_of(400, 300), name="many.png")
    lines = [f"0 {0.02 + 0.048 * (n % 20)} {0.03 + 0.06 * (n // 20)} 0.03 0.04" for n in range(300)]
    page.set_input_files("#boxes", file("many.txt", "\n".join(lines).encode(), "text/plain"))
    masked(page, 300)
    content = download(page, "png")[1]
    numbers = np.asarray(Image.open(io.BytesIO(content)))
    assert numbers.max() == 300  # beyond what a palette holds
    colors = page.evaluate(
        "new Set([...document.querySelectorAll('.dot')].map(e => e.style.background)).size"
    )
    assert colors >= 20


def test_example__is_a_photograph_with_two_boxes(visit):
    page = visit()
    page.click("#empty [data-does=example]")
    masked(page, 2)
    assert page.locator("#list .name").all_text_contents() == ["1 cup", "2 spoon"]
    assert page.locator("#file-name").text_content() == "coffee.jpg"


def test_tiff__is_shown_though_the_browser_cannot(visit, file_of):
    page = visit()
    deep = np.linspace(0, 65535, 60 * 90).reshape(60, 90).astype(np.uint16)
    content = io.BytesIO()
    Image.fromarray(deep).save(content, "TIFF")
    load(page, content.getvalue(), name="deep.tif", kind="image/tiff")
    page.keyboard.press("n")
    masked(page, 1)
    _, content = download(page, "overlay")
    assert Image.open(io.BytesIO(content)).size == (90, 60)


def test_drop__a_file_on_the_page_opens_it(visit, file_of):
    page = visit()
    page.evaluate(
        "bytes => { const data = new DataTransfer();"
        " data.items.add(new File([new Uint8Array(bytes)], 'dropped.png', {type: 'image/png'}));"
        " const drop = new DragEvent('drop', {dataTransfer: data, bubbles: true});"
        " document.body.dispatchEvent(drop); }",
        list(file_of(60, 40)),
    )
    page.locator("#status", has_text="dropped.png, 60 × 40").wait_for()


@pytest.mark.parametrize("look", [{}, {"color_scheme": "dark"}, PHONE], ids=["", "dark", "phone"])
def test_page__has_no_serious_fault_for_those_who_use_it_otherwise(visit, file_of, look):
    """Names, contrast, roles: what axe-core finds."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(bypass_csp=True, **look)
    for step in ("empty", "at work"):
        if step == "at work":
            load(page, file_of(200, 100))
            page.keyboard.press("n")
            page.keyboard.press("n")
            masked(page, 2)
            page.fill("#class", "cup")
            page.keyboard.press("Enter")
            page.click("#keys summary")
        found = axe.Axe().run(page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert not serious, [(one["id"], one["nodes"][0]["html"]) for one in serious]


def test_pictures_of_the_documentation__are_taken_of_the_page(
    chromium, address, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from screenshot import take

    for look in ({}, {"dark": True}, {"phone": True}):
        take(chromium, address, tmp_path / "demo.png", **look)
        pixels = np.asarray(Image.open(tmp_path / "demo.png").convert("L"))
        assert pixels.std() > 30
        assert (pixels[:30].mean() < 60) == ("dark" in look)
