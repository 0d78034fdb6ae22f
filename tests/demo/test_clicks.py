"""Clicks on the page, in a real Chromium: a mask is corrected, and all of it can be undone."""

import json

import pytest
import torch
from starlette.testclient import TestClient

from deepmac.class_map import ClassMap
from deepmac.demo.app import make_app
from hands import DESK, PHONE, click, download, drag, load, masked, spot
from networks import tiny_card, tiny_model


@pytest.fixture(scope="module")
def app():
    card = tiny_card(
        classes=ClassMap((1,), ("thing",), frozenset()),
        click_head="hourglass10",
        click_channels=4,
    )
    model = tiny_model(card)
    with torch.no_grad():  # fresh logits are enormous
        model.mask_head.project_out.weight.mul_(0.01)
        model.click_head.head.project_out.weight.normal_(std=0.5)
    return make_app(model, name="tiny")


@pytest.fixture(scope="module")
def address(app, serve):
    return serve(app)


@pytest.fixture
def page(visitor, address, file_of):
    page = visitor(address, **DESK)
    load(page, file_of(400, 300))
    drag(page, (80, 60), (280, 240))
    masked(page, 1)
    return page


def mask(page):
    """The first box's, as the page saves it."""
    masked(page, page.locator("#list li").count())
    return json.loads(download(page, "coco")[1])["annotations"][0]["segmentation"]


def asked(page, job):
    """The points that the page asks the server about when ``job`` is done."""
    with page.expect_request("**/masks") as request:
        job()
    return request.value.post_data_json.get("points")


def test_clicks__correct_the_selected_mask_and_are_undone_step_by_step(page):
    first = mask(page)
    points = asked(page, lambda: click(page, 150, 120))
    assert points == [[[pytest.approx(150, abs=0.6), pytest.approx(120, abs=0.6), 1]]]
    masked(page, 1)  # the answer adds to what is told
    assert "Point on it, 1 in all" in page.locator("#status").text_content()
    one = mask(page)
    assert one != first
    points = asked(page, lambda: page.mouse.click(*spot(page, 200, 200), button="right"))
    assert [point[2] for point in points[0]] == [1, 0]
    two = mask(page)
    page.keyboard.press("Control+z")
    assert mask(page) == one
    page.keyboard.press("Control+z")
    assert mask(page) == first
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Control+Shift+z")
    assert mask(page) == two


def test_shift__says_that_a_place_is_beside_it_and_a_click_on_a_point_turns_it(page):
    page.keyboard.down("Shift")
    points = asked(page, lambda: click(page, 150, 120))
    page.keyboard.up("Shift")
    assert [point[2] for point in points[0]] == [0]
    click(page, 150, 120)  # it said "beside it": now it is gone
    assert "Point removed, 0 in all" in page.locator("#status").text_content()
    asked(page, lambda: click(page, 100, 100))
    points = asked(page, lambda: click(page, 100, 100))
    assert [point[2] for point in points[0]] == [0]


def test_clicks_elsewhere__select_as_ever_and_moved_boxes_lose_their_points(page):
    drag(page, (300, 20), (380, 80))
    masked(page, 2)
    click(page, 150, 120)  # in the other box: it is selected, nothing more
    assert page.locator("#status").text_content().startswith("Box 1")
    asked(page, lambda: click(page, 100, 200))
    page.keyboard.press("[")
    page.keyboard.press("]")
    drag(page, (280, 240), (260, 180))  # leaves the point out
    masked(page, 2)
    points = asked(page, lambda: click(page, 150, 120))
    assert [point[:2] for point in points[0]] == [pytest.approx([150, 120], abs=0.6)]
    click(page, 20, 280)
    assert page.locator("#list [aria-pressed=true]").count() == 0


@pytest.mark.slow
def test_a_reload__brings_the_points_back(page):
    asked(page, lambda: click(page, 150, 120))
    before = mask(page)
    page.reload()
    masked(page, 1)
    assert mask(page) == before


@pytest.mark.slow
def test_a_finger__sets_points_too(visitor, address, file_of):
    page = visitor(address, **PHONE)
    load(page, file_of(200, 150))
    page.click("[data-does=new]")
    masked(page, 1)
    points = asked(page, lambda: page.touchscreen.tap(*spot(page, 100, 75)))
    assert len(points[0]) == 1


def test_other_models__have_no_clicks(visitor, serve, model, file_of):
    page = visitor(serve(make_app(model, name="tiny")), **DESK)
    load(page, file_of(400, 300))
    assert not page.locator(".points").first.is_visible()
    drag(page, (80, 60), (280, 240))
    masked(page, 1)
    first = mask(page)
    click(page, 150, 120)
    assert page.locator("#status").text_content().startswith("Box 1")
    assert mask(page) == first


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (5, "Points are a list"),
        ([[]], "points must be a list of (x, y, label) for each of the 2 boxes"),
        ([[[1, 2, 3]], []], "neither 1 (on the object) nor 0"),
        ([[[1, 2]], []], "three numbers"),
        ([[], [[1e9, 20, 1]]], "lies outside the picture"),
        ([[[20, 20, 1]] * 201, []], "at most 200 points"),
    ],
)
def test_points_that_are_none__are_a_sentence(app, file_of, points, sentence):
    client = TestClient(app, base_url="http://127.0.0.1:7860")
    picture = client.post("/pictures", content=file_of(100, 80)).json()["id"]
    wanted = {"boxes": [[0, 0, 50, 50], [10, 10, 90, 70]], "points": points}
    answer = client.post(f"/pictures/{picture}/masks", json=wanted)
    assert answer.status_code == 400 and sentence in answer.json()["error"]
