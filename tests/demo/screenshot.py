"""The demo's pictures in the documentation.

    python tests/demo/screenshot.py --model MODEL --out docs/pictures/demo.jpg

The photograph is the demo's own example, in the public domain.
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
    """Open the example and write the page as a PNG."""
    size = {"width": 390, "height": 844} if phone else {"width": 1400, "height": 900}
    touch = {"is_mobile": True, "has_touch": True, "device_scale_factor": 2} if phone else {}
    context = chromium.new_context(viewport=size, color_scheme="dark" if dark else "light", **touch)
    page = context.new_page()
    page.goto(address)
    page.click("#empty [data-does=example]")
    page.locator("#list .size", has_text=",").nth(1).wait_for()
    page.locator("#canvas[aria-busy=false]").wait_for()
    kind = {"type": "jpeg", "quality": 85} if out.suffix == ".jpg" else {}
    page.screenshot(path=out, animations="disabled", **kind)
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
