"""How quickly the page answers on a picture of 24 megapixels, with the shipped model.

    python -m pytest tests/demo/test_speed.py -s      # prints the figures

The bounds are far above what quiet cores need (0.15 s to the mask, 30 frames a second): a machine
that does other work too must not fail them.
"""

import io
import time

import numpy as np
import pytest
import skimage.data
from PIL import Image

from deepmac.demo.app import make_app
from deepmac.demo.pictures import Limits
from deepmac.models.files import load_model
from hands import DESK, download, drag, load, masked

WATCH_MOUSE_UP = """() => {
  window.waits = [];
  let up = null;
  const canvas = document.querySelector('#canvas');
  canvas.addEventListener('pointerup', () => { up = performance.now(); });
  const look = () => {
    const row = document.querySelector('#list li:last-child .size');
    const ready = row && row.textContent.includes('%') && canvas.ariaBusy === 'false';
    if (up !== null && ready) {
      const since = up;
      requestAnimationFrame(() => window.waits.push(performance.now() - since));
      up = null;
    }
    requestAnimationFrame(look);
  };
  look();
}"""
ZOOM = """() => new Promise((done) => {
  const canvas = document.querySelector('#canvas'), frame = canvas.getBoundingClientRect();
  const times = [];
  const step = (time) => {
    times.push(time);
    if (times.length > 90) {
      const gaps = times.slice(1).map((t, i) => t - times[i]).sort((a, b) => a - b);
      done(gaps);
      return;
    }
    const inwards = times.length % 60 < 30;
    canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: inwards ? -40 : 40, cancelable: true,
      clientX: frame.left + frame.width / 3, clientY: frame.top + frame.height / 3}));
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""


@pytest.fixture(scope="module")
def photograph():
    """24 megapixels with the noise of a camera."""
    image = Image.fromarray(skimage.data.coffee()).resize((6000, 4000), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 6, (4000, 6000, 1))
    file = io.BytesIO()
    noisy = (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.mark.slow
def test_page__keeps_up_with_24_megapixels(visitor, serve, photograph):
    app = make_app(load_model("deepmac-lite"), limits=Limits(upload_megabytes=50))
    page = visitor(serve(app), **DESK)
    load(page, photograph, "large.jpg", "image/jpeg")
    page.evaluate(WATCH_MOUSE_UP)
    for number in range(8):
        x, y = 300 + 500 * number, 300 + 120 * number
        drag(page, (x, y), (x + 1500, y + 2600), steps=12)
        masked(page, number + 1)
        page.wait_for_function("count => window.waits.length === count", arg=number + 1)
    waits = np.sort(page.evaluate("window.waits")) / 1000
    page.keyboard.press("Escape")
    page.evaluate(ZOOM)  # outlines of every scale are made once
    gaps = np.array(page.evaluate(ZOOM)) / 1000
    rates = f"median {1 / np.median(gaps):.0f}, slowest tenth {1 / np.quantile(gaps, 0.9):.0f}"
    print(
        f"\n24 megapixels, 8 masks: mouse-up to mask median {np.median(waits):.3f} s, "
        f"longest {waits[-1]:.3f} s; zoom {rates} frames a second"
    )
    started = time.monotonic()
    name, _ = download(page, "overlay")
    overlay = time.monotonic() - started
    print(f"the first overlay, {name}: {overlay:.2f} s")
    assert np.median(waits) < 1.5 and overlay < 6
    assert 1 / np.median(gaps) > 8
