"""The page in a real Chromium: mouse, keyboard, a phone, downloads, refusals."""
# ruff: noqa: RUF001 - the page writes sizes with a multiplication sign

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from deepmac.demo.app import make_app
from deepmac.demo.pictures import Limits

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PHONE = {
    "viewport": {"width": 390, "height": 780},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}


@pytest.fixture(scope="module")
def app(model):
    return make_app(
        model, name="tiny", limits=Limits(upload_megabytes=0.2, megapixels=0.35, kept=2)
    )


@pytest.fixture(scope="module")
def address(app, serve):
    return serve(app)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """Opens the page; whatever the browser's console complains about fails the test."""
    contexts, complaints = [], []

    def open_page(**options):
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
        page.on("request", lambda r: r.url.startswith((address, "blob:", "data:")) or
                complaints.append(r.url))  # fmt: skip
        page.goto(address)
        page.set_default_timeout(20_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [c for c in complaints if "status of 4" not in c] == []


def load(page, content, name="blobs.png"):
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})
    page.locator("#canvas").wait_for()
    page.locator("#status", has_text="Drag a box").wait_for()


def drag(page, start, end, steps=5):
    """From one point of the picture to another, both as shares of its sides."""
    frame = page.locator("#canvas").bounding_box()
    at = [
        (frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in (start, end)
    ]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=steps)
    page.mouse.up()


def masked(page, count):
    """Waits until ``count`` boxes have their mask."""
    page.locator("#list li").nth(count - 1).wait_for()
    page.locator("#canvas[aria-busy=false]").wait_for()
    sizes = page.locator("#list .size").all_text_contents()
    assert len(sizes) == count
    assert all("%" in size for size in sizes)


def download(page, does):
    with page.expect_download() as waiting:
        page.click(f"[data-does={does}]")
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def test_mouse__a_drawn_box_gets_its_mask_and_the_downloads_parse(visit, file_of, tmp_path):
    page = visit(viewport={"width": 1200, "height": 800})
    load(page, file_of(400, 300), name="two blobs.png")
    for does in ("png", "overlay", "coco"):
        assert page.locator(f"[data-does={does}]").is_disabled()
    before = page.locator("#canvas").screenshot()
    drag(page, (0.2, 0.2), (0.7, 0.8))
    masked(page, 1)
    assert page.locator("#canvas").screenshot() != before
    drag(page, (0.05, 0.1), (0.15, 0.3))
    masked(page, 2)

    name, content = download(page, "coco")
    assert name == "two blobs_coco.json"
    (tmp_path / name).write_bytes(content)
    coco = COCO(tmp_path / name)
    assert coco.imgs[1] == {"id": 1, "file_name": "two blobs.png", "width": 400, "height": 300}
    first, second = coco.anns.values()
    np.testing.assert_allclose(first["bbox"], [80, 60, 200, 180], atol=2)
    np.testing.assert_allclose(second["bbox"], [20, 30, 40, 60], atol=2)
    mask = coco.annToMask(first)

    name, content = download(page, "png")
    indices = np.asarray(Image.open(io.BytesIO(content)))
    assert name == "two blobs_masks.png"
    np.testing.assert_array_equal(indices == 1, (mask > 0) & (coco.annToMask(second) == 0))

    name, content = download(page, "overlay")
    drawn = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    original = np.asarray(Image.open(io.BytesIO(file_of(400, 300)))).astype(int)
    assert drawn.shape == original.shape
    changed = np.abs(drawn - original).max(axis=2) > 8
    assert changed[mask > 0].mean() > 0.9  # as the browser decodes the same run lengths
    assert changed[(mask == 0) & (indices == 0)].mean() < 0.01


def test_mouse__boxes_are_selected_moved_and_resized(visit, file_of):
    page = visit(viewport={"width": 1200, "height": 800})
    load(page, file_of(400, 300))
    drag(page, (0.2, 0.2), (0.5, 0.5))
    masked(page, 1)
    drag(page, (0.5, 0.5), (0.6, 0.7))  # a corner
    page.locator("#list .size", has_text="160 × 150").wait_for()
    drag(page, (0.4, 0.2), (0.5, 0.3))  # an edge
    masked(page, 1)
    assert "160 × 150 at 120, 90" in page.locator("#status").text_content()
    drag(page, (0.05, 0.05), (0.05, 0.05))  # a click beside it
    assert page.locator("[aria-pressed=true]").count() == 0
    drag(page, (0.5, 0.5), (0.5, 0.5))
    assert page.locator("[aria-pressed=true]").count() == 1
    page.click("[aria-label='Remove box 1']")
    assert page.locator("#list li").count() == 0
    assert page.locator("#hint").is_visible()


def test_keyboard__does_all_that_the_mouse_does(visit, file_of, tmp_path):
    page = visit(viewport={"width": 1200, "height": 800})
    load(page, file_of(300, 300))
    assert page.evaluate("document.activeElement.id") == "canvas"
    page.keyboard.press("n")
    masked(page, 1)
    status = page.locator("#status")
    assert "100 × 100 at 100, 100" in status.text_content()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Alt+ArrowUp")
    assert "100 × 103 at 97, 99" in status.text_content()
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    assert "100 × 103 at 200, 99" in status.text_content()  # it stays in the picture
    page.keyboard.press("n")
    masked(page, 2)
    page.keyboard.press("[")
    assert "Box 1" in status.text_content()
    page.keyboard.press("Escape")
    page.keyboard.press("Delete")  # nothing is selected: nothing goes
    assert page.locator("#list li").count() == 2
    page.keyboard.press("]")
    page.keyboard.press("Delete")
    assert "removed, 1 left" in status.text_content()
    for _ in range(12):  # the canvas lets Tab go on to the buttons
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.does") == "coco":
            break
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    (one,) = json.loads(waiting.value.path().read_text())["annotations"]
    assert one["bbox"] == [100, 100, 100, 100]


def test_page__names_everything_for_screen_readers(visit, file_of):
    page = visit()
    load(page, file_of(200, 100))
    page.keyboard.press("n")
    masked(page, 1)
    canvas = page.locator("#canvas")
    assert canvas.get_attribute("aria-label")
    assert page.locator(f"#{canvas.get_attribute('aria-describedby')}").count() == 1
    for control in page.locator("button:visible, input:visible").all():
        named = control.evaluate("e => e.ariaLabel || e.textContent || e.labels?.[0]?.textContent")
        assert named.strip(), control
    assert page.locator("html").get_attribute("lang") == "en"


def test_phone__touch_draws_and_nothing_sticks_out(visit, file_of):
    page = visit(**PHONE)
    load(page, file_of(400, 300))
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= PHONE["viewport"]["width"]
    frame = page.locator("#canvas").bounding_box()
    assert frame["width"] > 300
    session = page.context.new_cdp_session(page)

    def touch(kind, *points):
        at = [{"x": frame["x"] + x * frame["width"], "y": frame["y"] + y * frame["height"]}
              for x, y in points]  # fmt: skip
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    touch("touchStart", (0.3, 0.3))
    for share in (0.4, 0.6, 0.8):
        touch("touchMove", (share, share))
    touch("touchEnd")
    masked(page, 1)
    size = page.locator("#list .size").text_content()
    width, height = (int(v) for v in size.partition(",")[0].split(" × "))
    assert abs(width - 200) <= 3 and abs(height - 150) <= 3
    for button in page.locator("button:visible").all():
        assert button.bounding_box()["height"] >= 44  # a finger's width


def test_limits__are_said_in_a_sentence_and_lose_nothing(visit, file_of):
    page = visit()
    load(page, file_of(100, 80))
    page.keyboard.press("n")
    masked(page, 1)
    error = page.locator("#error")
    for content, said in (
        (b"x" * 300_000, "This file has 0.3 MB, more than the limit of 0.2 MB."),
        (file_of(700, 600), "the limit is 0.35 million"),
        (b"no picture", "cannot be read as a picture"),
    ):
        page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": content})
        page.locator("#error", has_text=said).wait_for()
        assert error.is_visible()
    assert page.locator("#list li").count() == 1
    page.locator("#canvas").focus()
    page.keyboard.press("n")
    masked(page, 2)
    assert error.text_content() == ""


def test_upload__over_the_limit_is_refused_by_the_server_too(visit):
    page = visit()
    status, answer = page.evaluate(
        "async () => { const body = 'x'.repeat(250000);"
        " const r = await fetch('pictures', {method: 'POST', body});"
        " return [r.status, await r.json()]; }"
    )
    assert status == 413
    assert "limit of 0.2 MB" in answer["error"]


def test_picture__that_the_server_let_go_comes_back_by_itself(visit, file_of, app):
    page = visit()
    load(page, file_of(120, 90))
    page.keyboard.press("n")
    masked(page, 1)
    for _ in range(2):
        app.state.gallery.add(file_of(20, 20))
    page.keyboard.press("n")
    masked(page, 2)
    assert page.locator("#error").text_content() == ""


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours__of_text_stand_out(visit, scheme):
    """WCAG's contrast of text, at least 4.5."""
    page = visit(color_scheme=scheme)
    ratios = page.evaluate(
        """() => {
          const parse = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
          const linear = (v) => v <= 10 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4;
          const light = (rgb) => {
            const [r, g, b] = rgb.map(linear);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = (e) => {
            for (; e; e = e.parentElement) {
              const colour = getComputedStyle(e).backgroundColor;
              if (!/rgba\\(.*, 0\\)/.test(colour)) return parse(colour);
            }
            return [255, 255, 255];
          };
          const shown = [...document.querySelectorAll("h1, p, button, summary")]
            .filter((e) => e.offsetParent && e.textContent.trim());
          return shown.map((e) => {
            const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
            return [e.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
          });
        }"""
    )
    assert len(ratios) >= 6
    assert [r for r in ratios if r[1] < 4.5] == []


def test_picture_of_the_documentation__is_taken_of_the_page(
    chromium, address, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from screenshot import take

    for look in ({}, {"dark": True}, {"phone": True}):
        take(chromium, address, tmp_path / "demo.png", **look)
        pixels = np.asarray(Image.open(tmp_path / "demo.png").convert("L"))
        assert pixels.std() > 30
        assert (pixels[:40].mean() < 60) == ("dark" in look)
