"""deepmac-lite beside an older version of itself: a picture and 20 boxes, with everything.

``python -m benchmarks.before CHECKOUT``, an older working copy of the repository: each side is a
``Predictor`` of its own code and its own shipped weights, in processes of their own by turns, on
one thread. Figures are processor time, from the picture to masks at its size; the picture
comes with scikit-image, 640 x 480, the boxes have sides of 40 to 260 pixels.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent.parent
SETTINGS = (
    "",
    "precision='auto'",
    "image_size=512",
    "image_size=512, precision='auto'",
    "image_size=512, refine='none'",
)
"""Of the predictor here; the older one is as it was shipped (249d993: squares of 512, float32, no
refinement)."""
_SIDE = """
import time, numpy as np, torch
from PIL import Image
from skimage import data
from deepmac import Predictor, load_model
torch.set_num_threads(1)
picture = np.array(Image.fromarray(data.astronaut()).resize((640, 480)))
random = np.random.default_rng(0)
side, place = random.uniform(40, 260, (20, 1)), random.uniform(0, 1, (20, 2))
corner = place * ((640, 480) - side)
boxes = np.concatenate([corner, corner + side], 1)
predictor = Predictor(load_model("deepmac-lite"), SETTINGS)
spent = []
for _ in range(REPEATS + 2):
    began = time.process_time()
    predictor.set_image(picture)
    masks, _ = predictor.predict(boxes)
    for mask in masks:  # older versions make them all at once, today's when they are asked for
        mask.any()
    spent.append(time.process_time() - began)
print(sorted(spent[2:])[REPEATS // 2])
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both sides in milliseconds, and their ratio for each of the settings."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before", description=__doc__)
    parser.add_argument("before", type=Path, help="an older working copy of the repository")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args(arguments)
    before = given.before.resolve()
    sides = [(before, ""), *((HERE, words) for words in SETTINGS)]
    spent: dict[tuple[Path, str], list[float]] = {side: [] for side in sides}
    for _ in range(given.rounds):
        for checkout, words in sides:
            spent[checkout, words].append(_seconds(checkout, words, given.repeats))
    old = 1e3 * median(spent[before, ""])
    print(f"{before.name}: {old:.0f} ms (medians of {given.rounds} processes a side, in turns)")
    for words in SETTINGS:
        now = 1e3 * median(spent[HERE, words])
        print(f"  {words or 'as shipped':32s} {now:6.0f} ms  {old / now:5.2f} x")


def _seconds(checkout: Path, words: str, repeats: int) -> float:
    """Processor time of one picture with its boxes, in a process of its own."""
    code = _SIDE.replace("SETTINGS", words).replace("REPEATS", str(repeats))
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    if ended.returncode:
        last = (ended.stderr.strip() or "no word").splitlines()[-1]
        raise SystemExit(f"this failed with the code of {checkout}: {last}")
    return float(ended.stdout)


if __name__ == "__main__":
    main()
