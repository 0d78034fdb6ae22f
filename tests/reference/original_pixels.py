"""What parity tests ask of the original's pixels and the product does not."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmac.data.original.resize import nearest_pixels
from deepmac.nn.conventions import PasteRule
from deepmac.predict.paste import paste_regions


def legacy_resize_nearest(mask: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """TensorFlow 1's ``resize_nearest_neighbor`` of the last two axes, (..., H, W)."""
    rows, columns = nearest_pixels(mask.shape[-2], height), nearest_pixels(mask.shape[-1], width)
    return mask[..., rows[:, None], columns]


def paste_probabilities(
    probabilities: ArrayLike,
    boxes: ArrayLike,
    height: int,
    width: int,
    rule: PasteRule = "roi_align",
) -> NDArray[np.float32]:
    """`paste_masks` before the threshold: (N, height, width) float32, zero outside the boxes."""
    regions = list(paste_regions(probabilities, boxes, height, width, rule))
    pasted = np.zeros((len(regions), height, width), dtype=np.float32)
    for image, region in zip(pasted, regions, strict=True):
        image[region.window] = region.values
    return pasted
