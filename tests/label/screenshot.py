"""The review sheet's picture in the documentation: masks of generated shapes by the shipped model.

python tests/label/screenshot.py --out docs/pictures/review.jpg
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from deepmac.cli import main as deepmac
from deepmac.data.shapes.data_set import write_shapes

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def make(folder: Path) -> Path:
    """A sheet of 48 masks."""
    write_shapes(folder / "shapes", num_train=24, num_val=2, size=256)
    content = json.loads((folder / "shapes/annotations/instances_train.json").read_text())
    for entry in content["annotations"]:
        entry["segmentation"] = []
    (folder / "boxes.json").write_text(json.dumps(content))
    words = ["--model", "deepmac-lite", "--images", str(folder / "shapes/images")]
    words += ["--boxes", str(folder / "boxes.json"), "--out", str(folder / "masks.json")]
    words += ["--review", str(folder / "review.html"), "--workers", "0", "--accelerator", "cpu"]
    assert deepmac(["label", *words]) == 0
    return folder / "review.html"


def take(page: Any, sheet: Path, out: Path) -> None:
    """Mark three masks and write what is seen."""
    page.goto(sheet.as_uri())
    for number, mark in enumerate(("wrong", "redraw", "accepted")):
        page.click(f"figure >> nth={number} >> [data-mark={mark}]")
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=out, type="jpeg", quality=85, animations="disabled")


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        take(page, make(Path(folder)), options.out)
        browser.close()


if __name__ == "__main__":
    main()
