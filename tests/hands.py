"""What a person does with the page: mouse, fingers, files."""

import json

DESK = {"viewport": {"width": 1400, "height": 900}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}


def load(page, content, name="blobs.png", kind="image/png"):
    """Open a picture."""
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})
    page.locator("#canvas").wait_for()
    page.locator("#status", has_text=f"{name}").wait_for()


def view(page):
    """(scale, left, top) of the picture on the screen."""
    scale, left, top = map(float, page.locator("#canvas").get_attribute("data-view").split())
    frame = page.locator("#canvas").bounding_box()
    return scale, frame["x"] + left, frame["y"] + top


def spot(page, x, y):
    """A picture pixel on the screen."""
    scale, left, top = view(page)
    return left + x * scale, top + y * scale


def drag(page, start, end, steps=5):
    """From one pixel of the picture to another."""
    at = [spot(page, *start), spot(page, *end)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=steps)
    page.mouse.up()


def click(page, x, y):
    page.mouse.click(*spot(page, x, y))


def masked(page, count):
    """Waits until ``count`` boxes have their mask."""
    page.wait_for_function(
        "count => document.querySelectorAll('#list li').length === count && "
        "[...document.querySelectorAll('#list .size')].every(e => /%|IoU|file/.test(e.textContent))"
        " && document.querySelector('#canvas').getAttribute('aria-busy') === 'false'",
        arg=count,
    )


def touch(page, kind, *points):
    """Fingers on the screen; ``kind`` is touchStart, touchMove or touchEnd."""
    if not hasattr(page, "fingers"):
        page.fingers = page.context.new_cdp_session(page)
    at = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    page.fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})


def download(page, does):
    """The name and content of a file that the page saves."""
    with page.expect_download() as waiting:
        page.click(f"#save [data-does={does}]")
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def boxes(page):
    """[x0, y0, width, height] of all boxes, as the page would save them."""
    content = json.loads(download(page, "coco")[1])
    return [one["bbox"] for one in content["annotations"]]
