"""The demo's picture in the documentation.

    python tests/demo/screenshot.py --model MODEL --out docs/pictures/demo.png

The photograph comes with matplotlib and is in the public domain (US Navy, 1984).
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

# Shares of the photograph's sides: the whole person, her cap.
BOXES = ((0.04, 0.02, 0.99, 0.995), (0.26, 0.035, 0.735, 0.26))


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as api:
        opened = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def take(
    chromium: Any, address: str, out: Path, *, dark: bool = False, phone: bool = False
) -> None:
    """Open the photograph, draw the boxes, and write the page as a PNG."""
    import matplotlib.cbook

    photograph = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    size = {"width": 400, "height": 900} if phone else {"width": 1120, "height": 760}
    context = chromium.new_context(viewport=size, color_scheme="dark" if dark else "light")
    page = context.new_page()
    page.goto(address)
    page.set_input_files("#file", photograph)
    page.locator("#status", has_text="Drag a box").wait_for()
    frame = page.locator("#canvas").bounding_box()
    for x0, y0, x1, y1 in BOXES:
        page.mouse.move(frame["x"] + x0 * frame["width"], frame["y"] + y0 * frame["height"])
        page.mouse.down()
        at = (frame["x"] + x1 * frame["width"], frame["y"] + y1 * frame["height"])
        page.mouse.move(*at, steps=4)
        page.mouse.up()
        page.locator("#canvas[aria-busy=false]").wait_for()
    page.screenshot(path=out, animations="disabled")
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--phone", action="store_true")
    options = parser.parse_args()
    command = [sys.executable, "-m", "deepmac", "demo", "--port", "0", "--model", options.model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[0]
            with browser() as chromium:
                take(chromium, address, options.out, dark=options.dark, phone=options.phone)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
