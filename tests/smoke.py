"""What must hold on any Python: the package as installed gives a mask. Run by ``make smoke``."""

import sys

import numpy as np

import deepmac

image = np.full((120, 160, 3), 200, dtype=np.uint8)
image[30:90, 40:120] = (180, 30, 30)
predictor = deepmac.Predictor(deepmac.load_model("deepmac-lite"))
predictor.set_image(image)
masks, scores = predictor.predict(np.array([[38.0, 28.0, 122.0, 92.0]]))
assert masks.shape == (1, 120, 160) and masks[0, 45:75, 60:100].mean() > 0.9
assert not masks[0, :20].any() and 0 <= scores[0] <= 1
print(f"deepmac {deepmac.__version__} on Python {sys.version.split()[0]}: one mask, as expected")
