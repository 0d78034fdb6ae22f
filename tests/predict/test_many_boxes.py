"""Memory of a thousand boxes in a picture of 24 megapixels, each door in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEIGHT, WIDTH, BOUND_MB = 4000, 6000, 2500
PEAK = "import resource; print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
PREDICTOR = """
import sys
import numpy as np
from deepmac import Predictor, load_model

predictor = Predictor(load_model("deepmac-lite"))
predictor.set_image(sys.argv[1])
masks, scores = predictor.predict(np.load(sys.argv[2]))
assert len(masks) == len(scores) == 1000
assert all(mask.shape == (4000, 6000) for mask in masks)
"""
LABEL = "import sys; from deepmac.cli import main; assert main(sys.argv[1:]) == 0\n"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:] = np.arange(WIDTH, dtype=np.uint8)[:, None]
    path = tmp_path_factory.mktemp("large") / "large.jpg"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def boxes() -> np.ndarray:
    draw = np.random.default_rng(0)
    corner = draw.uniform(0, (WIDTH - 800, HEIGHT - 800), (1000, 2))
    return np.concatenate([corner, corner + draw.uniform(20, 800, (1000, 2))], 1)


def peak_mb(code: str, *words: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", code + PEAK, *words],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split("peak")[1])


@pytest.mark.slow
def test_predictor__takes_a_thousand_boxes_within_2_5_gb(picture, boxes, tmp_path):
    np.save(tmp_path / "boxes.npy", boxes)
    peak = peak_mb(PREDICTOR, str(picture), str(tmp_path / "boxes.npy"))
    print(f"{peak} MB")
    assert peak < BOUND_MB


@pytest.mark.slow
def test_label__takes_a_thousand_boxes_within_2_5_gb(picture, boxes, tmp_path):
    content = {
        "images": [{"id": 1, "file_name": picture.name, "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for n, (x0, y0, x1, y1) in enumerate(boxes.tolist(), 1)
        ],
    }
    given, out = tmp_path / "boxes.json", tmp_path / "masks.json"
    given.write_text(json.dumps(content))
    words = ["--images", str(picture.parent), "--boxes", str(given), "--out", str(out)]
    peak = peak_mb(LABEL, "label", *words, "--accelerator", "cpu", "--workers", "0")
    print(f"{peak} MB")
    assert peak < BOUND_MB
    assert len(json.loads(out.read_text())["annotations"]) == 1000
