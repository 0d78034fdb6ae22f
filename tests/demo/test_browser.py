"""The page in a real Chromium: drawing by mouse, keyboard and finger; zoom; undo; refusals."""
# ruff: noqa: RUF001 - the page writes sizes with a multiplication sign

import numpy as np
import pytest

from deepmac.demo.app import make_app
from deepmac.demo.pictures import Limits
from hands import DESK, PHONE, boxes, click, drag, load, masked, spot, touch, view


@pytest.fixture(scope="module")
def app(model):
    limits = Limits(upload_megabytes=0.2, megapixels=0.35, kept=2)
    return make_app(model, name="tiny", limits=limits)


@pytest.fixture(scope="module")
def address(app, serve):
    return serve(app)


@pytest.fixture
def visit(visitor, address):
    return lambda **options: visitor(address, **options)


def status(page):
    return page.locator("#status").text_content()


def test_mouse__a_drawn_box_gets_its_mask_and_the_downloads_open(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(400, 300))
    for does in ("png", "overlay", "coco", "yolo", "copyOverlay", "copyCoco"):
        assert page.locator(f"#save [data-does={does}]").is_disabled()
    before = page.locator("#canvas").screenshot()
    drag(page, (80, 60), (280, 240))
    masked(page, 1)
    assert page.locator("#canvas").screenshot() != before
    drag(page, (20, 30), (60, 90))
    masked(page, 2)
    np.testing.assert_allclose(boxes(page), [[80, 60, 200, 180], [20, 30, 40, 60]], atol=1)


def test_mouse__corners_edges_and_the_name_plate(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(400, 300))
    drag(page, (80, 60), (200, 150))
    drag(page, (200, 150), (240, 210))  # a corner
    np.testing.assert_allclose(boxes(page), [[80, 60, 160, 150]], atol=1)
    drag(page, (240, 110), (260, 130))  # the right edge: it alone moves
    np.testing.assert_allclose(boxes(page), [[80, 60, 180, 150]], atol=1)
    drag(page, (150, 60), (170, 40))  # the upper edge
    np.testing.assert_allclose(boxes(page), [[80, 40, 180, 170]], atol=1)
    scale = view(page)[0]
    plate = (80 + 8 / scale, 40 - 15 / scale)
    drag(page, plate, (plate[0] + 30, plate[1] + 20))
    np.testing.assert_allclose(boxes(page), [[110, 60, 180, 170]], atol=1)
    drag(page, (200, 100), (240, 140))  # within the selected box: a new one
    masked(page, 2)
    page.keyboard.down("Control")
    drag(page, (210, 110), (220, 120))  # unless Ctrl is held: that moves it
    page.keyboard.up("Control")
    np.testing.assert_allclose(boxes(page)[1], [210, 110, 40, 40], atol=1)


def test_mouse__clicks_select_from_the_inside_out(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(400, 300))
    drag(page, (40, 40), (360, 280))
    drag(page, (150, 120), (200, 170))
    click(page, 10, 10)
    assert page.locator("#list [aria-pressed=true]").count() == 0
    for expected in ("Box 2", "Box 1", "Box 2"):
        click(page, 175, 145)
        assert status(page).startswith(expected)


def test_zoom__by_wheel_keys_and_buttons_around_the_pointer(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(400, 300))
    whole = view(page)
    x, y = (round(v) for v in spot(page, 300, 100))
    at = [(v - edge) / whole[0] for v, edge in zip((x, y), whole[1:], strict=True)]
    page.mouse.move(x, y)
    page.mouse.wheel(0, -240)
    page.mouse.wheel(0, -240)
    page.wait_for_function(
        "least => parseFloat(document.querySelector('#canvas').dataset.view) > least",
        arg=whole[0] * 3.5,
    )
    assert np.allclose(spot(page, *at), (x, y), atol=0.6)  # what is under it stays
    before = view(page)
    page.keyboard.down("Space")
    page.mouse.down()
    page.mouse.move(x - 90, y + 40, steps=4)
    page.mouse.up()
    page.keyboard.up("Space")
    after = view(page)
    assert np.allclose(np.subtract(after, before), (0, -90, 40), atol=1)
    assert page.locator("#list li").count() == 0  # no box was drawn by it
    drag(page, (300, 100), (310, 110))
    masked(page, 1)
    np.testing.assert_allclose(boxes(page), [[300, 100, 10, 10]], atol=0.5)
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")  # nothing is selected: the picture moves
    assert view(page)[1] == pytest.approx(after[1] - 60, abs=1)
    page.keyboard.press("f")
    assert view(page) == whole
    page.keyboard.press("+")
    page.click("[data-does=closer]")
    assert view(page)[0] == pytest.approx(whole[0] * 1.25**2, rel=1e-3)
    page.click("[data-does=further]")
    page.keyboard.press("-")
    page.click("[data-does=fit]")
    assert view(page) == whole


def test_zoom__lines_are_as_wide_on_the_screen_at_every_scale(visit, file_of):
    """The box's frame across a row of the screen: its pixels differ from the picture's."""
    page = visit(**DESK)
    widths = []
    for size, box in (((30, 20), (5, 5, 25, 15)), ((600, 450), (100, 100, 500, 350))):
        load(page, file_of(*size), name=f"{size[0]}.png")
        drag(page, box[:2], box[2:])
        masked(page, 1)
        page.keyboard.press("Escape")
        page.locator("#opacity").fill("0")
        page.wait_for_timeout(80)
        x, y = spot(page, box[0], (box[1] + box[3]) / 2)
        frame = page.locator("#canvas").bounding_box()
        row = page.evaluate(
            "([x, y]) => [...document.querySelector('#canvas').getContext('2d')"
            ".getImageData(Math.round(x) - 12, Math.round(y), 24, 1).data]",
            [x - frame["x"], y - frame["y"]],
        )
        pixels = np.array(row).reshape(-1, 4)[:, :3].astype(int)
        steps = np.abs(np.diff(pixels, axis=0)).max(axis=1) > 12
        widths.append(np.flatnonzero(steps).max() - np.flatnonzero(steps).min())
    assert abs(widths[0] - widths[1]) <= 1
    assert all(2 <= width <= 5 for width in widths)


def test_undo__of_everything_and_back(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(400, 300))
    states = [[]]
    drag(page, (80, 60), (200, 150))
    states.append([[80, 60, 120, 90]])
    drag(page, (200, 150), (240, 210))
    states.append([[80, 60, 160, 150]])
    page.keyboard.press("n")
    page.keyboard.press("Delete")
    page.fill("#class", "cup")
    page.keyboard.press("Enter")
    page.click("[data-does=clear]")
    assert page.locator("#list li").count() == 0
    page.click("[data-does=undo]")
    assert "cup" in page.locator("#list .name").text_content()
    for _ in range(3):  # the name, the removal, the new box
        page.keyboard.press("Control+z")
    assert page.locator("#list .name").all_text_contents() == ["Box 1"]
    np.testing.assert_allclose(boxes(page), states[2], atol=1)
    page.keyboard.press("Control+z")
    np.testing.assert_allclose(boxes(page), states[1], atol=1)
    page.keyboard.press("Control+z")
    assert page.locator("#list li").count() == 0
    assert page.locator("#tools [data-does=undo]").is_disabled()
    for _ in range(6):
        page.keyboard.press("Control+Shift+Z")
    assert page.locator("#list li").count() == 0  # up to "remove all"
    assert page.locator("#tools [data-does=redo]").is_disabled()
    page.keyboard.press("Control+z")
    masked(page, 1)
    assert "cup" in page.locator("#list .name").text_content()


def test_undo__an_arrow_that_is_held_is_one_step(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(300, 300))
    page.keyboard.press("n")
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    masked(page, 1)
    np.testing.assert_allclose(boxes(page), [[85, 100, 100, 100]])
    page.keyboard.press("Control+z")
    np.testing.assert_allclose(boxes(page), [[100, 100, 100, 100]])


def test_keyboard__does_all_that_the_mouse_does(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(300, 300))
    page.wait_for_function("() => document.activeElement.id === 'canvas'")
    page.keyboard.press("n")
    masked(page, 1)
    assert "100 × 100 at 100, 100" in status(page)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Alt+ArrowUp")
    assert "100 × 103 at 97, 99" in status(page)
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    assert "100 × 103 at 200, 99" in status(page)  # it stays in the picture
    page.keyboard.press("n")
    masked(page, 2)
    page.keyboard.press("[")
    assert "Box 1" in status(page)
    page.keyboard.press("Escape")
    page.keyboard.press("Delete")  # nothing is selected: nothing goes
    assert page.locator("#list li").count() == 2
    page.keyboard.press("]")
    page.keyboard.press("Delete")
    assert "removed, 1 left" in status(page)
    for _ in range(40):  # Tab goes on from the canvas to the buttons
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.does") == "coco":
            break
    with page.expect_download():
        page.keyboard.press("Enter")


def test_keyboard__works_wherever_the_focus_is(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(300, 300))
    page.keyboard.press("n")
    page.keyboard.press("n")
    page.click("#list .pick >> nth=0")
    assert "Box 1" in status(page)
    page.keyboard.press("]")
    assert "Box 2" in status(page)
    page.keyboard.press("Delete")
    assert page.locator("#list li").count() == 1
    page.focus("#opacity")
    page.keyboard.press("n")
    assert page.locator("#list li").count() == 2
    page.focus("#class")
    page.keyboard.type("n [ Delete")  # but there it is text
    assert page.locator("#list li").count() == 2
    assert page.input_value("#class") == "n [ Delete"
    page.keyboard.press("Escape")
    page.click("#list .drop >> nth=0")
    page.keyboard.press("n")
    masked(page, 2)


def test_new_box__is_never_laid_on_another(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(300, 200))
    for _ in range(40):
        page.keyboard.press("n")
    masked(page, 40)
    found = np.array(boxes(page))
    apart = np.abs(found[:, None] - found[None]).max(axis=2) + np.eye(40) * 99
    assert apart.min() >= 2


def test_list__scrolls_to_the_selected_box(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(300, 200))
    for _ in range(30):
        page.keyboard.press("n")
    masked(page, 30)

    def in_sight(number):
        return page.evaluate(
            "n => { const list = document.querySelector('#list').getBoundingClientRect();"
            " const row = document.querySelectorAll('#list li')[n].getBoundingClientRect();"
            " return row.top >= list.top - 1 && row.bottom <= list.bottom + 1; }",
            number,
        )

    assert in_sight(29) and not in_sight(0)
    page.keyboard.press("]")  # around to the first
    assert in_sight(0) and not in_sight(29)


def test_class__is_typed_once_and_then_picked(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(300, 200))
    page.keyboard.press("n")
    page.keyboard.press("c")
    page.keyboard.type("cup")
    page.keyboard.press("Enter")
    page.keyboard.press("n")  # the next box is of the class of the one before
    assert page.locator("#list .name").all_text_contents() == ["1 cup", "2 cup"]
    page.fill("#class", "spoon")
    page.keyboard.press("Enter")
    page.keyboard.press("1")
    assert page.locator("#list .name").all_text_contents() == ["1 cup", "2 cup"]
    page.click("#chips button >> nth=1")
    assert page.locator("#list .name").all_text_contents() == ["1 cup", "2 spoon"]
    options = "[...document.querySelectorAll('#classes option')].map(o => o.value)"
    assert page.evaluate(options) == ["cup", "spoon"]


def test_desk__tools_in_one_line_and_a_picture_that_uses_the_window(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(400, 300))
    tops = {b.bounding_box()["y"] for b in page.locator("#tools button:visible").all()}
    assert len(tops) == 1
    stage = page.locator("#stage").bounding_box()
    assert stage["width"] * stage["height"] > 0.55 * 1400 * 900
    scale = view(page)[0]
    assert 400 * scale > 0.98 * stage["width"] or 300 * scale > 0.98 * stage["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400


def test_phone__one_finger_draws_two_zoom_and_nothing_sticks_out(visit, file_of):
    page = visit(**PHONE)
    load(page, file_of(400, 300))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    one_line = {
        button.bounding_box()["y"] for button in page.locator("#tools button:visible").all()
    }
    assert len(one_line) == 1
    points = [spot(page, x, x * 0.75) for x in (120, 160, 240, 320)]
    touch(page, "touchStart", points[0])
    for point in points[1:]:
        touch(page, "touchMove", point)
    touch(page, "touchEnd")
    masked(page, 1)
    assert "200 × 150" in page.locator("#list .size").text_content()
    before = view(page)
    x, y = spot(page, 200, 150)
    touch(page, "touchStart", (x - 20, y))
    touch(page, "touchMove", (x - 40, y))  # the first finger is ahead of the second
    touch(page, "touchStart", (x - 40, y), (x + 40, y))
    for reach in (60, 80, 120):
        touch(page, "touchMove", (x - reach, y), (x + reach, y))
    touch(page, "touchEnd")
    assert view(page)[0] == pytest.approx(before[0] * 3, rel=0.02)
    assert page.locator("#list li").count() == 1  # a pinch draws nothing
    assert "200 × 150" in page.locator("#list .size").text_content()
    touch(page, "touchStart", (x - 60, y), (x + 60, y))
    touch(page, "touchMove", (x - 30, y + 50), (x + 90, y + 50))
    touch(page, "touchEnd")
    moved = view(page)
    for button in page.locator("button:visible").all():
        assert button.bounding_box()["height"] >= 44  # a finger's width
    touch(page, "touchStart", spot(page, 210, 160))  # and a finger alone draws again
    for step in (10, 20, 30):
        touch(page, "touchMove", spot(page, 210 + step, 160 + step))
    touch(page, "touchEnd")
    masked(page, 2)
    assert view(page) == moved


def swipe(page, start, end):
    """One finger from one pixel of the picture to another."""
    points = [spot(page, *(a + (b - a) * share for a, b in zip(start, end, strict=True)))
              for share in (0, 0.3, 0.6, 1)]  # fmt: skip
    touch(page, "touchStart", points[0])
    for point in points[1:]:
        touch(page, "touchMove", point)
    touch(page, "touchEnd")


def test_phone__resizes_moves_names_and_undoes_by_finger(visit, file_of):
    page = visit(**PHONE)
    load(page, file_of(400, 300))
    size = page.locator("#list .size")
    swipe(page, (100, 80), (300, 220))
    masked(page, 1)
    swipe(page, (300, 150), (340, 150))  # the right edge
    masked(page, 1)
    assert "240 × 140" in size.text_content()
    swipe(page, (340, 220), (360, 240))  # a corner
    masked(page, 1)
    assert "260 × 160" in size.text_content()
    scale = view(page)[0]
    plate = (100 + 30 / scale, 80 - 17 / scale)
    swipe(page, plate, (plate[0] - 50, plate[1] + 40))  # the name plate
    masked(page, 1)
    assert "260 × 160" in size.text_content()
    assert " at 50, 120" in status(page)
    page.fill("#class", "cup")
    page.keyboard.press("Enter")
    page.locator("#tools [data-does=new]").tap()
    masked(page, 2)
    assert page.locator("#list .name").all_text_contents() == ["1 cup", "2 cup"]
    page.locator("[data-does=clear]").tap()
    for _ in range(3):
        page.locator("#tools [data-does=undo]").tap()
    assert page.locator("#list .name").all_text_contents() == ["Box 1"]
    page.locator("#tools [data-does=redo]").tap()
    assert page.locator("#list .name").all_text_contents() == ["1 cup"]
    assert page.locator(".narrow[data-does=load]").is_visible()


def test_limits__are_said_in_a_sentence_and_lose_nothing(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(100, 80))
    page.keyboard.press("n")
    masked(page, 1)
    error = page.locator("#error")
    heic = b"\0\0\0\x18ftypheic" + bytes(200)
    for content, said in (
        (b"x" * 300_000, "This file has 0.3 MB, more than the limit of 0.2 MB."),
        (file_of(700, 600), "the limit is 0.35 million"),
        (b"no picture", "cannot be read as a picture"),
        (heic, "HEIC"),
    ):
        page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": content})
        page.locator("#error", has_text=said).wait_for()
        assert error.is_visible()
    assert page.locator("#list li").count() == 1
    page.keyboard.press("n")
    masked(page, 2)
    assert error.text_content() == ""


def test_upload__over_the_limit_is_refused_by_the_server_too(visit):
    page = visit()
    status_code, answer = page.evaluate(
        "async () => { const body = 'x'.repeat(250000);"
        " const r = await fetch('pictures', {method: 'POST', body});"
        " return [r.status, await r.json()]; }"
    )
    assert status_code == 413
    assert "limit of 0.2 MB" in answer["error"]


def test_picture__that_the_server_let_go_comes_back_by_itself(visit, file_of, app):
    page = visit(**DESK)
    load(page, file_of(120, 90))
    page.keyboard.press("n")
    masked(page, 1)
    for _ in range(2):
        app.state.gallery.add(file_of(20, 20))
    page.keyboard.press("n")
    masked(page, 2)
    assert page.locator("#error").text_content() == ""


def test_threshold__changes_the_masks(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(200, 150))
    drag(page, (20, 20), (180, 130))
    masked(page, 1)
    before = page.locator("#canvas").screenshot()
    page.focus("#threshold")
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('#canvas').ariaBusy === 'false'")
    page.wait_for_timeout(100)
    assert page.locator("#threshold-value").text_content() == "0.62"
    assert page.locator("#canvas").screenshot() != before
    assert "160 × 110" in page.locator("#list .size").text_content()  # the box is where it was


def test_refine__changes_the_masks(visit, file_of):
    page = visit(**DESK)
    load(page, file_of(200, 150))
    drag(page, (20, 20), (180, 130))
    masked(page, 1)
    before = page.locator("#canvas").screenshot()
    with page.expect_request(lambda request: '"refine":"edges"' in (request.post_data or "")):
        page.select_option("#refine", "edges")
    masked(page, 1)
    page.wait_for_timeout(100)
    assert page.locator("#canvas").screenshot() != before
